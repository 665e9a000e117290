"""The table of field formats, made from the modules of this folder, and how a map is read by it."""

from __future__ import annotations

import pkgutil
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ncf.core.errors import PairError
from ncf.io import fields
from ncf.io.fields.base import FieldFormat

if TYPE_CHECKING:
    from ncf.space.mapping import SpatialMap


@lru_cache(maxsize=1)
def field_formats() -> dict[str, FieldFormat]:
    """Return all formats by name: the ``FORMATS`` of every module in this folder."""
    found: dict[str, FieldFormat] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(fields.__path__)):
        for entry in getattr(import_module(f"{fields.__name__}.{module}"), "FORMATS", ()):
            if entry.name in found:
                raise ValueError(f"two formats of fields are called {entry.name}")
            found[entry.name] = entry
    return found


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
