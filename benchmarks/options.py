"""The words of a benchmark's command line as values; a mistake ends in one line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def words(text: object) -> list[str]:
    """Return the entries of a comma-separated option; Fire hands over ``0,1`` as a tuple and ``0`` as a number."""
    parts = text if isinstance(text, (tuple, list)) else str(text).split(",")
    return [str(part).strip() for part in parts if str(part).strip()]


def chosen(offered: Mapping[str, T], names: Iterable[str], *, what: str) -> list[T]:
    """Return the entries of these names, each once; exit with one line for an unknown name.

    Args:
        offered: entries by name.
        names: that are wanted.
        what: an entry is, for the line.
    """
    names = list(names)
    unknown = [name for name in names if name not in offered]
    if unknown:
        sys.exit(f"error: no {what} {', '.join(unknown)}; there are: {', '.join(offered)}")
    return [offered[name] for name in dict.fromkeys(names)]


def flag(option: str, given: bool | str) -> bool:
    """Return true or false; Fire hands over ``--resume true`` as a word.

    Args:
        option: its name, for the line.
        given: its value.
    """
    if str(given).lower() not in ("true", "false"):
        sys.exit(f"error: --{option} is true or false, got {given!r}")
    return str(given).lower() == "true"


def python(path: str | None) -> str:
    """Return the interpreter of the peers as an absolute path.

    Links are not followed, because a virtual environment is known by its link.
    """
    if path is None:
        return sys.executable
    found = shutil.which(str(Path(path).expanduser()))
    if found is None:
        sys.exit(f"error: --peers_python {path} is no program; give the python of the environment that has the peers")
    return str(Path(found).absolute())
