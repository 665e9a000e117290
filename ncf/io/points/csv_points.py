"""CSV with a point a line, with or without a header."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ncf.core.errors import PairError
from ncf.core.files import unreadable, write_whole
from ncf.core.names import IMAGES
from ncf.io.points.base import SPACES, PointFile, PointFormat, checked_points, number_text, text_of

HALVES = {"fixed": (0, 1, 2), "moving": (3, 4, 5)}  # the columns of landmark pairs
LANDMARK_COLUMNS = 6


def read(path: Path, space: str | None) -> PointFile:
    """Read the points of a CSV: the columns x, y, z of its header, or else the first three.

    A file of landmark pairs holds points of both sides: its columns 1 to 3 are in fixed, 4 to 6 in moving.

    Args:
        path: of the file.
        space: of its numbers, one of `ncf.io.points.base.SPACES`.

    Raises:
        PairError: the file cannot be read, or holds no points.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(text_of(path))) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise unreadable(path, error) from error
    header = rows[0] if rows and not _is_number(rows[0][0]) else None
    body = rows[1:] if header else rows
    if not body:
        raise PairError(f"{path} holds no points; write lines of x,y,z")
    if not _is_of_pairs(header, body):
        return _points(path, space, header=header, body=body, columns=_columns(header))

    def of_side(side: str) -> PointFile:
        """Return the points of one side."""
        return _points(path, space, header=header, body=body, columns=HALVES[side])

    return replace(of_side("fixed"), of_side=of_side)


def _points(
    path: Path, space: str | None, *, header: list[str] | None, body: list[list[str]], columns: Sequence[int]
) -> PointFile:
    """Return the points in three columns of a table."""
    if header is not None and len(header) <= max(columns):
        raise PairError(f"{path}: its first line, {header[0]!r:.40}, is no header of x,y,z; correct or remove it")
    try:
        points = checked_points([[float(row[c]) for c in columns] for row in body], path)
    except (IndexError, ValueError) as error:
        what = "expected three numbers in every line, in the columns x, y, z or else the first three"
        raise PairError(f"{path}: {what} ({error}); correct it") from error

    def save(target: Path, found: np.ndarray, known: np.ndarray) -> None:
        """Write the same table with other points and a last column ``valid``; unknown points have empty cells."""
        lines = [] if header is None else [[*_carried_names(header, columns), "valid"]]
        for row, point, valid in zip(body, found, known, strict=True):
            filled = list(row)
            for c, value in zip(columns, point, strict=True):
                filled[c] = number_text(value) if valid else ""
            lines.append([*filled, str(int(valid))])
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(lines)
        write_whole(target, lambda temporary: temporary.write_bytes(out.getvalue().encode()))

    return PointFile(points, str(space), save)


def _is_of_pairs(header: list[str] | None, body: list[list[str]]) -> bool:
    """Tell whether a table holds landmark pairs: three columns named after fixed, then three after moving.

    Without a header, six numbers in every line.
    """
    if header is None:
        return all(len(row) == LANDMARK_COLUMNS and all(map(_is_number, row)) for row in body)
    names = [cell.lower() for cell in header]
    return all(side in names[c] for side in IMAGES for c in HALVES[side] if c < len(names)) and (
        len(names) >= LANDMARK_COLUMNS
    )


def _columns(header: list[str] | None) -> list[int]:
    names = [cell.strip().lower() for cell in header or []]
    return [names.index(axis) for axis in "xyz"] if set("xyz") <= set(names) else [0, 1, 2]


def _carried_names(header: list[str], columns: Sequence[int]) -> list[str]:
    """Return the header, with "carried" before names of moved columns that say on which side they were (fixed_i)."""
    moved = {c for c in columns if any(side in header[c].lower() for side in IMAGES)}
    return [f"carried_{name}" if c in moved else name for c, name in enumerate(header)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


FORMATS = (
    PointFormat(
        name="CSV",
        suffixes=(".csv",),
        sentence="x, y, z in columns of these names or in the first three; other columns are kept",
        read=read,
        spaces=SPACES,
    ),
)
