"""Tables that are made of the modules of a folder: each module says in ``FORMATS`` what it adds."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType
from typing import Protocol, TypeVar


class Named(Protocol):
    """Whatever has a name."""

    @property
    def name(self) -> str:
        """Return the name, unique in its table."""


Entry = TypeVar("Entry", bound=Named)


def entries(folder: ModuleType, kind: type[Entry]) -> dict[str, Entry]:
    """Return the ``FORMATS`` of every module in a folder, by name.

    Args:
        folder: a package; modules without ``FORMATS`` add nothing.
        kind: of the entries.

    Raises:
        TypeError: an entry is of another kind.
        ValueError: two entries have one name.
    """
    found: dict[str, Entry] = {}
    for module in sorted(module.name for module in pkgutil.iter_modules(folder.__path__)):
        for entry in getattr(import_module(f"{folder.__name__}.{module}"), "FORMATS", ()):
            if not isinstance(entry, kind):
                raise TypeError(f"{folder.__name__}.{module}: FORMATS holds {entry!r}, expected {kind.__name__}")
            if entry.name in found:
                raise ValueError(f"{folder.__name__}: two formats are called {entry.name}")
            found[entry.name] = entry
    return found
