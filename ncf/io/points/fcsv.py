"""Fiducials of 3D Slicer from before version 5."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from ncf.core.errors import PairError
from ncf.core.files import write_whole
from ncf.io.points.base import PointFile, PointFormat, checked_points, marked, number_text, text_of

FCSV_FLAGS = {"vis": 8, "sel": 9, "desc": 12, "status": 14}  # columns of .fcsv; only newer files have the status
FCSV_SYSTEMS = {"LPS": "lps", "1": "lps", "RAS": "ras", "0": "ras"}


def read(path: Path, space: str | None) -> PointFile:
    """Read the points of a fiducial file, which says itself in which space they lie.

    Args:
        path: of the file.
        space: None; the file says it.

    Raises:
        PairError: the file cannot be read, holds no points, or does not say its space.
    """
    lines = text_of(path).splitlines()
    told = [line.partition("=")[2].strip().upper() for line in lines if line.startswith("# CoordinateSystem")]
    spaces = {FCSV_SYSTEMS.get(word) for word in told}
    space = spaces.pop() if len(spaces) == 1 else None
    if space is None:
        raise PairError(f"{path}: expected a line '# CoordinateSystem = LPS' or RAS, got {told}; add it")
    try:
        rows = {
            n: next(csv.reader([line])) for n, line in enumerate(lines) if line.strip() and not line.startswith("#")
        }
        points = checked_points([[float(cell) for cell in row[1:4]] for row in rows.values()], path)
    except PairError:
        raise
    except (ValueError, csv.Error) as error:
        raise PairError(f"{path}: expected id,x,y,z in every line ({error}); correct it") from error
    if not len(points):
        raise PairError(f"{path} holds no points")

    def save(target: Path, found: np.ndarray, known: np.ndarray) -> None:
        """Write the same file with other points."""
        changed = list(lines)
        for (n, row), point, valid in zip(rows.items(), found, known, strict=True):
            changed[n] = _fcsv_line(row, point, valid=bool(valid))
        write_whole(target, lambda temporary: temporary.write_bytes(("\n".join(changed) + "\n").encode()))

    return PointFile(points, space, save)


def _fcsv_line(row: list[str], point: np.ndarray, *, valid: bool) -> str:
    """Return one line with its point moved.

    A point that is not known is at 0, hidden, not selected, described and without status.
    """
    filled = row + [""] * (14 - len(row))
    filled[1:4] = [number_text(value) if valid else "0" for value in point]
    if not valid:
        filled[FCSV_FLAGS["vis"]] = filled[FCSV_FLAGS["sel"]] = "0"
        filled[FCSV_FLAGS["desc"]] = marked(filled[FCSV_FLAGS["desc"]])
        if len(filled) > FCSV_FLAGS["status"]:
            filled[FCSV_FLAGS["status"]] = "0"
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(filled)
    return out.getvalue()


FORMATS = (
    PointFormat(
        name="fcsv",
        suffixes=(".fcsv",),
        sentence="fiducials of 3D Slicer before version 5",
        read=read,
    ),
)
