"""Names for the values of label maps, in the form that a viewer takes over.

3D Slicer imports a reply by order: the first name of the list is value 1, the second value 2, and a value without a
segment of that name is left out. So every value up to the largest has a name, whether the map holds it or not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from ncf.core.files import stamp_of
from ncf.io.image_files import read_image
from ncf.io.label_files import is_label_object, read_label, table_of

LARGEST_NAMED = 255  # viewers ask for label maps of 8 bits


def names_of(path: str, info: Mapping[str, Any], *, scan: str = "") -> dict[str, int]:
    """Return name and value of every label up to the largest of a map.

    Args:
        path: of the map, an RTSTRUCT or a SEG.
        info: what the datastore keeps about it; Slicer puts names there when it saves a label.
        scan: that the map belongs to, on whose grid an RTSTRUCT is read.
    """
    labels, own = _labels(path, scan, stamp_of(path))
    given = {number: name for number, name in own.items() if number <= LARGEST_NAMED} | _given(info)
    largest = min(max([labels, *given], default=0), LARGEST_NAMED)
    names: dict[str, int] = {}
    for value in range(1, largest + 1):
        name = given.get(value, f"label_{value}")
        names[f"{name}_{value}" if name in names else name] = value  # a repeated name would lose a place in the order
    return names


def merged(maps: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return all names of several maps; where they disagree about the value of a name, the first map counts."""
    found: dict[str, int] = {}
    for names in maps:
        found = {**names, **found}
    return dict(sorted(found.items(), key=lambda item: (item[1], item[0])))


def _given(info: Mapping[str, Any]) -> dict[int, str]:
    """Return the names that a viewer saved, ``[{"name": ..., "idx": ...}]``, by value; empty where there are none."""
    told = info.get("label_info")
    entries = [entry for entry in told if isinstance(entry, dict)] if isinstance(told, list) else []
    pairs = [(entry.get("idx"), entry.get("name")) for entry in entries]
    return {idx: str(name) for idx, name in pairs if isinstance(idx, int) and 0 < idx <= LARGEST_NAMED and name}


@lru_cache(maxsize=1024)
def _labels(path: str, scan: str, stamp: str) -> tuple[int, dict[int, str]]:
    """Return the largest value of a label map, and the names it tells; a file with another stamp is read again."""
    label = read_label("label", path, read_image("scan", scan) if is_label_object(path) else None)
    table = table_of(label)
    return max(table.of(label.as_tensor().unique().tolist()), default=0), dict(table.names)
