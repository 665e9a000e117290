"""The table of point formats, made from the modules of this folder, and how points are read by it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ncf.core.errors import PairError
from ncf.io import points
from ncf.io.points.base import PointFile, PointFormat
from ncf.io.tables import entries


@lru_cache(maxsize=1)
def point_formats() -> dict[str, PointFormat]:
    """Return all formats by name: the ``FORMATS`` of every module in this folder."""
    return entries(points, PointFormat)


def read_points_file(path: str | Path, space: str | None) -> PointFile:
    """Read the points of a file, in the format that its suffix names.

    Args:
        path: of the file.
        space: of its numbers, one of `ncf.io.points.base.SPACES`; None for a file that says it itself.

    Raises:
        PairError: no format has this suffix, the space is missing or superfluous, or the file cannot be read.
    """
    path = Path(path)
    for entry in point_formats().values():
        if path.name.lower().endswith(entry.suffixes):
            _check_space(path, entry, space)
            return entry.read(path, space)
    known = ", ".join(suffix for entry in point_formats().values() for suffix in entry.suffixes)
    raise PairError(f"{path}: points come as {known}; convert the file")


def _check_space(path: Path, entry: PointFormat, space: str | None) -> None:
    if not entry.spaces and space is not None:
        raise PairError(f"{path} names its own coordinate system; leave the space out")
    if entry.spaces and space is None:
        raise PairError(f"{path} does not say what its numbers mean; give the space: {', '.join(entry.spaces)}")
    if entry.spaces and space not in entry.spaces:
        raise PairError(f"{path}: {entry.name} is in mm; give the space {' or '.join(entry.spaces)}")
