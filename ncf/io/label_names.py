"""Names of labels beside an image file: a table as BIDS has it, ``index`` and ``name`` in columns with tabs.

The table of ``brain.nii.gz`` is ``brain.tsv`` (BIDS derivatives, https://bids-specification.readthedocs.io).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

from ncf.core.errors import PairError
from ncf.core.files import unreadable, write_whole
from ncf.core.names import IMAGE_SUFFIXES, without_suffix

SUFFIX = ".tsv"
INDEX, NAME = "index", "name"


def table_beside(path: str | os.PathLike[str]) -> Path:
    """Return where the names of a label map are, if it has any."""
    place = Path(path)
    return place.with_name(without_suffix(place.name, IMAGE_SUFFIXES) + SUFFIX)


def names_beside(path: str | os.PathLike[str]) -> dict[int, str]:
    """Read the names of labels beside an image file; empty where there is no table of index and name.

    Args:
        path: of the label map.

    Raises:
        PairError: the table cannot be read, or an index is no whole number.
    """
    table = table_beside(path)
    if Path(path).is_dir() or not table.is_file():
        return {}
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t")
            if not {INDEX, NAME} <= set(rows.fieldnames or ()):
                return {}  # a table of something else
            found = {int(row[INDEX]): " ".join(str(row[NAME]).split()) for row in rows if row[NAME]}
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise unreadable(table, error) from error
    if len(set(found)) and min(found) < 0:
        raise PairError(f"cannot read {table}: an index is below 0; labels are 0 and more")
    return {number: name for number, name in found.items() if number and name}


def save_names(path: str | os.PathLike[str], names: Mapping[int, str]) -> Path | None:
    """Write the names of a label map beside it.

    Args:
        path: of the label map.
        names: by number; without any, nothing is written.

    Returns:
        The table, None where none was written.

    Raises:
        PairError: it cannot be written.
    """
    if not names:
        return None
    lines = [f"{INDEX}\t{NAME}", *(f"{number}\t{' '.join(names[number].split())}" for number in sorted(names))]
    table = table_beside(path)
    write_whole(table, lambda temporary: temporary.write_text("\n".join(lines) + "\n", encoding="utf-8"))
    return table
