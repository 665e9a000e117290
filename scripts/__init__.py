"""The programs that hosts of this bundle start; everything else is in the library ``ncf``.

Until version 0.5 the library itself was called ``scripts``. A config that still names a part of it so is told the new
name.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn


class _Moved:
    """A module of the old library that a config names."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, part: str) -> NoReturn:
        """End the process with a line that gives the new name of a part of the module."""
        if part.startswith("__"):
            raise AttributeError(part)
        from ncf.core.presets import moved

        sys.exit(f"error: the config is of an older version: {moved(f'{self._name}.{part}')}; change it there")


def __getattr__(name: str) -> Any:
    """Stand for a module of the old library, until a part of it is asked for."""
    if name.startswith("__"):
        raise AttributeError(name)
    return _Moved(f"{__name__}.{name}")
