"""Labels of a map: their numbers, their names, and which of them meet in a voxel.

A label map in memory holds one small whole number a voxel, its code. Mostly the code is the label. It is not where
structures overlap, so that several labels meet in a voxel, and where labels are larger than float32 can tell apart.
This module knows numbers and names. It must not know files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ncf.core.errors import PairError

if TYPE_CHECKING:
    import numpy as np

ALIKE = re.compile(r"[\s_]+")  # blanks and underscores make no other name
LABELS = "labels"  # in a label map's meta: its `Labels`
TOLD = 8  # names in a message
Wanted = str | int


@dataclass(frozen=True)
class Labels:
    """What the codes of a label map stand for.

    Attributes:
        members: the labels of each code, the one on top first; empty where every code is the label itself.
        names: of labels, by number; a label may have none.
    """

    members: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    names: Mapping[int, str] = field(default_factory=dict)

    def of(self, codes: Iterable[int]) -> set[int]:
        """Return the labels that stand behind codes, without the background."""
        found = set(map(int, codes)) - {0}
        return {label for code in found for label in self.members.get(code, ())} if self.members else found

    def codes(self, label: int) -> tuple[int, ...]:
        """Return the codes of all voxels that belong to a label."""
        return tuple(code for code, labels in self.members.items() if label in labels) if self.members else (label,)

    def mask(self, codes: Any, label: int) -> Any:
        """Return where a label is, bool, of an array or tensor of codes."""
        wanted = self.codes(label)
        found = codes == (wanted[0] if wanted else -1)
        for code in wanted[1:]:
            found = found | (codes == code)
        return found

    def shown(self, codes: np.ndarray) -> np.ndarray:
        """Return the label on top in each voxel, in the smallest unsigned type that holds them all.

        Args:
            codes: whole numbers in any type.
        """
        import numpy as np  # help and refusals need none of it

        found = np.asarray(codes)
        if not self.members:
            return found.astype(np.min_scalar_type(int(found.max(initial=0))))
        tops = {code: labels[0] for code, labels in self.members.items()}
        table = np.zeros(max(tops) + 1, dtype=np.min_scalar_type(max(tops.values())))
        table[list(tops)] = list(tops.values())
        return table[found.astype(np.intp)]

    def called(self, label: int) -> str:
        """Return the name of a label, or else its number."""
        return self.names.get(label) or str(label)

    def numbered(self, numbers: Mapping[int, int]) -> Labels:
        """Return the same labels under other numbers; a label that is not named keeps its own."""
        members = {code: tuple(numbers.get(n, n) for n in labels) for code, labels in self.members.items()}
        return Labels(members, {numbers.get(n, n): name for n, name in self.names.items()})


def alike(name: str) -> str:
    """Return a name without what does not tell names apart: case, blanks and underscores."""
    return ALIKE.sub("", name).casefold()


def number_of(wanted: Wanted, labels: Collection[int], names: Mapping[int, str]) -> int | None:
    """Return the label that is meant by a name or a number; None where there is none.

    Args:
        wanted: a number, or a name; a number may be text where no label has that name.
        labels: all numbers.
        names: by number.

    Raises:
        PairError: two labels have that name.
    """
    if not isinstance(wanted, str):
        return wanted if wanted in labels else None
    exact = [number for number, name in names.items() if name == wanted]
    found = exact or [number for number, name in names.items() if alike(name) == alike(wanted)]
    if len(found) > 1:
        raise PairError(f"{len(found)} labels are called {wanted!r}, numbers {listed(found)}; name one by its number")
    if found:
        return found[0]
    return int(wanted) if wanted.isdecimal() and int(wanted) in labels else None


def sides_of(wanted: str | Sequence[Wanted] | None) -> tuple[tuple[Wanted, Wanted], ...]:
    """Return the labels that are chosen, each as it is called on the fixed and on the moving side.

    Args:
        wanted: names or numbers; in one text they stand between commas. ``Heart=Herz`` is called Heart on the fixed
            and Herz on the moving side, and both are one label.

    Raises:
        PairError: one is empty.
    """
    parts = wanted.split(",") if isinstance(wanted, str) else list(wanted or ())
    found: list[tuple[Wanted, Wanted]] = []
    for part in parts:
        if not isinstance(part, str):
            found.append((int(part), int(part)))
            continue
        first, equal, second = (text.strip() for text in part.partition("="))
        if not first or (equal and not second):
            raise PairError(f"labels are names with commas between them, or fixed=moving, got {part!r}")
        found.append((first, second if equal else first))
    return tuple(found)


def partners(
    fixed: Labels, moving: Labels, *, fixed_labels: Collection[int], moving_labels: Collection[int]
) -> dict[int, int]:
    """Return the numbers that bring the labels of a moving map to those of a fixed one, by name.

    Numbers of structures differ between two files, so a number says nothing where both have names. Names that differ
    by case, blanks or underscores are the same. A label without a partner gets a number that the fixed map has not.

    Args:
        fixed: of the fixed map.
        moving: of the moving map; both have names.
        fixed_labels: numbers of the fixed map.
        moving_labels: numbers of the moving map.

    Returns:
        The new number of each moving label.

    Raises:
        PairError: a name that both have belongs to two labels of one map.
    """
    shared = {alike(name) for name in fixed.names.values()} & {alike(name) for name in moving.names.values()}
    for side, names in (("fixed", fixed.names), ("moving", moving.names)):
        double = [name for name, count in Counter(map(alike, names.values())).items() if count > 1 and name in shared]
        if double:
            told = listed(name for name in names.values() if alike(name) == double[0])
            raise PairError(f"labels of the {side} map are called alike ({told}); choose one by its number, or rename")
    by_name = {alike(name): number for number, name in fixed.names.items()}
    taken = {*fixed_labels, *fixed.names, *moving_labels}
    found: dict[int, int] = {}
    for number in sorted(moving_labels):
        named = number in moving.names
        partner = by_name.get(alike(moving.names[number])) if named else None
        if partner is None and (number in fixed.names or (named and number in fixed_labels)):
            partner = max(taken) + 1
            taken.add(partner)
        found[number] = number if partner is None else partner
    return found


def alone(
    fixed: Labels, moving: Labels, *, fixed_labels: Collection[int], moving_labels: Collection[int]
) -> Iterator[str]:
    """Yield which labels have no partner on the other side, in words.

    Args:
        fixed: of the fixed map.
        moving: of the moving map, in the numbers of the fixed one.
        fixed_labels: numbers of the fixed map.
        moving_labels: numbers of the moving map.
    """
    for table, own, other, side in (
        (fixed, fixed_labels, moving_labels, "moving"),
        (moving, moving_labels, fixed_labels, "fixed"),
    ):
        names = [table.called(number) for number in sorted(set(own) - set(other))]
        if names:
            yield f"without a partner of that name on the {side} side: {listed(names)}"
    if not set(fixed_labels) & set(moving_labels):
        yield "no name is on both sides, so nothing is compared; --labels=FIXED=MOVING makes two names one label"


def listed(values: Iterable[object]) -> str:
    """Return values with commas between them, the first few of many."""
    told = list(map(str, values))
    return ", ".join(told[:TOLD]) + (f" and {len(told) - TOLD} more" if len(told) > TOLD else "")
