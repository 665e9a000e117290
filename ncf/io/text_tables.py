"""Tables as text: with commas, semicolons or tabs between their cells, with or without a line of names."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import NamedTuple

DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(e[-+]?\d+)?", re.IGNORECASE)
AXES = ("xyz", "ras", "lps", "ijk")
SPACE_OF = {"ras": ("ras",), "lps": ("lps",), "ijk": ("voxel",)}  # what names of columns say; x, y, z say nothing
NAME = re.compile(r"(?P<before>.*?)(?P<axis>[xyzraslpijk])(?P<unit>[\s_]*[\[(]?[\s_]*[a-zµμ]*[\s_]*[\])]?)")
UNIT_WORDS = {"", "mm", "vox", "voxel", "voxels", "lps", "ras"}
FOREIGN_UNITS = {"cm", "m", "um", "µm", "μm", "nm", "inch", "in", "px", "pixel"}


class Table(NamedTuple):
    """A table.

    Attributes:
        header: the first line, where it holds no number; None where there is no such line.
        rows: the others; empty lines are left out.
        numbers: of these lines in the file, from 1.
        delimiter: between the cells.
    """

    header: list[str] | None
    rows: list[list[str]]
    numbers: list[int]
    delimiter: str


def table_of(text: str) -> Table:
    """Return the table in a text.

    Raises:
        ValueError: quotes do not match, or numbers have decimal commas.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = _delimiter(first)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ValueError(str(error)) from error
    for number, row in lines:
        odd = next((cell for cell in row if DECIMAL_COMMA.fullmatch(cell.strip())), None)
        if odd is not None:
            raise ValueError(f"line {number} holds {odd.strip()!r:.40}, a number with a decimal comma; write points")
    named = bool(lines) and not any(map(is_number, lines[0][1]))
    header = lines[0][1] if named else None
    body = lines[1:] if named else lines
    return Table(header, [row for _, row in body], [number for number, _ in body], delimiter)


def _delimiter(line: str) -> str:
    """Return what separates the cells of a line."""
    cells = line.split(";")
    if len(cells) > 2 and all(cell.count(",") <= 1 for cell in cells):
        return ";"
    return "\t" if line.count("\t") > 1 and "," not in line else ","


def is_number(text: str) -> bool:
    """Tell whether a cell holds a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def axis_columns(header: Sequence[str]) -> tuple[str, list[int]] | None:
    """Find the three columns of a header that are named after axes, as in ``label, R [mm], A [mm], S [mm]``.

    Args:
        header: the names.

    Returns:
        The axes, of `AXES`, and their columns; None where no three columns belong together, or several do.

    Raises:
        ValueError: the columns are in another unit than mm.
    """
    found: dict[tuple[str, str], dict[str, int]] = {}
    for column, name in enumerate(header):
        match = NAME.fullmatch(name.strip().lower())
        if match is None or (match["before"] and match["before"][-1].isalnum()):
            continue
        unit = match["unit"].strip(" _[]()")
        if unit in UNIT_WORDS | FOREIGN_UNITS:
            for axes in AXES:
                if match["axis"] in axes:
                    found.setdefault((match["before"], axes), {}).setdefault(match["axis"], column)
                    if unit in FOREIGN_UNITS:
                        found[match["before"], axes]["unit"] = column
    whole = [(axes, columns) for (_, axes), columns in found.items() if set(axes) <= set(columns)]
    if len(whole) != 1:
        return None
    axes, columns = whole[0]
    if "unit" in columns:
        raise ValueError(f"its column {header[columns['unit']].strip()!r:.40} is not in mm; convert it")
    return axes, [columns[axis] for axis in axes]
