"""matplotlib without traces: it keeps a list of fonts in the user's home folder, where a run has no business."""

from __future__ import annotations

import os
import sys
import tempfile

FOLDER = "MPLCONFIGDIR"  # where matplotlib looks first, read once


def load_matplotlib() -> None:
    """Nothing; matplotlib is loaded, and its list of fonts was made in a folder that is gone again (0.15 s).

    To be called before whatever imports it. A folder that the user has chosen by `FOLDER` is left to matplotlib.
    """
    if "matplotlib" in sys.modules or FOLDER in os.environ:
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ[FOLDER] = folder
        try:
            import matplotlib.font_manager  # noqa: F401  the one import that writes
        finally:
            del os.environ[FOLDER]
