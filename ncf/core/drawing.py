"""Matplotlib without its list of fonts in the user's home folder, where a run has no business to write."""

from __future__ import annotations

import os
import sys
import tempfile

FOLDER = "MPLCONFIGDIR"  # the environment variable that matplotlib looks at first; it is read once


def load_matplotlib() -> None:
    """Load matplotlib without leaving its list of fonts on disk.

    The list is made in a temporary folder, which is removed again (0.15 s). Call this before anything imports
    matplotlib. Where the user has chosen a folder by `FOLDER`, or matplotlib is loaded already, nothing is done here.
    """
    if "matplotlib" in sys.modules or FOLDER in os.environ:
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER] = folder
        try:
            import matplotlib.font_manager  # noqa: F401  the one import that writes to disk
        finally:
            del os.environ[FOLDER]
