"""A scan as a user names it: a path, or FOLDER#3, volume 3 of the DICOM files of a folder.

``ncf files FOLDER`` prints the numbers. Instead of a number, the SeriesInstanceUID of a series with one volume is
understood. A file or folder whose own name holds a # is taken as it is.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

MARK = "#"


class ScanPath(NamedTuple):
    """A path on the disk, and which volume of it is meant: a number or a UID; nothing where none is chosen."""

    path: Path
    choice: str


def scan_path(path: str | os.PathLike[str]) -> ScanPath:
    """Return what a user's path means.

    Args:
        path: of a file or folder, perhaps with # and a choice behind it.
    """
    text = os.fspath(path)
    before, mark, choice = text.rpartition(MARK)
    if not mark or not before or os.path.lexists(text) or not os.path.lexists(before):
        return ScanPath(Path(path), "")
    return ScanPath(Path(before), choice)


def is_there(path: str | os.PathLike[str]) -> bool:
    """Tell whether the file or folder of a user's path is there."""
    return scan_path(path).path.exists()
