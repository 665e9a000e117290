"""The table of field formats, made from the modules of this folder, and how a map is read by it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ncf.core.errors import PairError
from ncf.io import fields
from ncf.io.fields.base import FieldFormat
from ncf.io.tables import entries

if TYPE_CHECKING:
    from ncf.space.mapping import SpatialMap


@lru_cache(maxsize=1)
def field_formats() -> dict[str, FieldFormat]:
    """Return all formats by name: the ``FORMATS`` of every module in this folder."""
    return entries(fields, FieldFormat)


def field_suffixes() -> list[str]:
    """Return the suffixes of all files of fields that can be read."""
    return [suffix for entry in field_formats().values() for suffix in entry.reads]


def load_map(path: str | Path) -> SpatialMap:
    """Read the map of a field's file, in the format that its suffix names; of a composite, with its affine transforms.

    Raises:
        PairError: no format has this suffix, or the file cannot be read or holds something else.
    """
    path = Path(path)
    for entry in field_formats().values():
        if entry.load is not None and path.name.lower().endswith(entry.reads):
            return entry.load(path)
    raise PairError(f"{path}: a field's file ends in {', '.join(field_suffixes())}; convert it")
