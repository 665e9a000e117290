"""CSV with a point a line, with or without a header."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ncf.core.errors import PairError
from ncf.core.files import write_whole
from ncf.core.names import IMAGES
from ncf.io.points.base import SPACES, PointFile, PointFormat, checked_points, number_text, text_of
from ncf.io.text_tables import AXES, SPACE_OF, Table, axis_columns, is_number, table_of

HALVES = {"fixed": (0, 1, 2), "moving": (3, 4, 5)}  # the columns of landmark pairs
LANDMARK_COLUMNS = 6


def read(path: Path, space: str | None) -> PointFile:
    """Read the points of a table: the columns that its header names after axes, or else the only three of numbers.

    A file of landmark pairs holds points of both sides: its columns 1 to 3 are in fixed, 4 to 6 in moving.

    Args:
        path: of the file.
        space: of its numbers, one of `ncf.io.points.base.SPACES`.

    Raises:
        PairError: the file cannot be read, holds no points, says that its space is another, or does not say which of
            its columns are the points.
    """
    try:
        table = table_of(text_of(path))
        if not table.rows:
            raise PairError(f"{path} holds no points; write lines of x,y,z")
        if not _is_of_pairs(table):
            chosen = _columns(table)
            _check_space(table, chosen, space)
            return _points(path, space, table=table, columns=chosen)
        for columns in HALVES.values():
            _check_space(table, columns, space)
    except PairError:
        raise
    except ValueError as error:
        raise PairError(f"cannot read {path}: {error}") from error

    def of_side(side: str) -> PointFile:
        """Return the points of one side."""
        return _points(path, space, table=table, columns=HALVES[side])

    return replace(of_side("fixed"), of_side=of_side)


def _points(path: Path, space: str | None, *, table: Table, columns: Sequence[int]) -> PointFile:
    """Return the points in three columns of a table."""
    if table.header is not None and len(table.header) <= max(columns):
        raise PairError(f"{path}: its first line, {table.header[0]!r:.40}, is no header of x,y,z; correct or remove it")
    try:
        points = checked_points([[float(row[c]) for c in columns] for row in table.rows], path)
    except PairError:
        raise
    except (IndexError, ValueError) as error:
        what = "expected three numbers in every line, in the columns x, y, z or else the first three"
        raise PairError(f"{path}: {what} ({error}); correct it") from error

    def save(target: Path, found: np.ndarray, known: np.ndarray) -> None:
        """Write the same table with other points and a last column ``valid``; unknown points have empty cells."""
        lines = [] if table.header is None else [[*_carried_names(table.header, columns), "valid"]]
        for row, point, valid in zip(table.rows, found, known, strict=True):
            filled = list(row)
            for c, value in zip(columns, point, strict=True):
                filled[c] = number_text(value) if valid else ""
            lines.append([*filled, str(int(valid))])
        out = io.StringIO()
        csv.writer(out, delimiter=table.delimiter, lineterminator="\n").writerows(lines)
        write_whole(target, lambda temporary: temporary.write_bytes(out.getvalue().encode()))

    return PointFile(points, str(space), save)


def _is_of_pairs(table: Table) -> bool:
    """Tell whether a table holds landmark pairs: three columns named after fixed, then three after moving.

    Without a header, six numbers in every line.
    """
    if table.header is None:
        return all(len(row) == LANDMARK_COLUMNS and all(map(is_number, row)) for row in table.rows)
    names = [cell.lower() for cell in table.header]
    return all(side in names[c] for side in IMAGES for c in HALVES[side] if c < len(names)) and (
        len(names) >= LANDMARK_COLUMNS
    )


def _columns(table: Table) -> list[int]:
    """Return the three columns of the points; raise ValueError where the table does not say which they are."""
    named = None if table.header is None else axis_columns(table.header)
    if named is not None:
        return named[1]
    width = max(len(table.header or []), *(len(row) for row in table.rows))
    numbers = [c for c in range(width) if all(len(row) > c and is_number(row[c]) for row in table.rows)]
    ours = table.header is None and numbers == [0, 1, 2, 3] and all(row[3].strip() == "1" for row in table.rows)
    if ours:  # carried points without a header, each valid
        return numbers[:3]
    if len(numbers) > len(AXES[0]):
        raise ValueError(
            f"it has {len(numbers)} columns of numbers; name those of the points x, y, z in the first line"
        )
    return numbers if len(numbers) == len(AXES[0]) else list(range(len(AXES[0])))


def _check_space(table: Table, columns: Sequence[int], space: str | None) -> None:
    """Raise ValueError where the names of the columns say another space than the one that was given."""
    names = [] if table.header is None else [table.header[c] for c in columns if c < len(table.header)]
    named = axis_columns(names)
    if named is not None and space not in SPACE_OF.get(named[0], (space,)):
        told = ", ".join(map(str.strip, names))
        raise ValueError(f"its columns {told:.60} are not in {space}; give the space {SPACE_OF[named[0]][0]}")


def _carried_names(header: list[str], columns: Sequence[int]) -> list[str]:
    """Return the header; names of moved columns that say a side say the other one: fixed_i is carried_moving_i."""
    found = list(header)
    for c in columns:
        for side, other in (IMAGES, IMAGES[::-1]):
            if side in header[c].lower():
                found[c] = "carried_" + re.sub(side, other, header[c], flags=re.IGNORECASE)
                break
    return found


FORMATS = (
    PointFormat(
        name="CSV",
        suffixes=(".csv",),
        sentence="x, y, z (or r, a, s and the like) in columns of these names, or three of numbers; others are kept",
        read=read,
        spaces=SPACES,
    ),
)
