"""What a person wants of labelled organs, checked against the label maps of the pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from monai.transforms import Transform

from ncf.core.errors import PairError
from ncf.core.labels import Labels, Wanted, number_of
from ncf.fit.label_guidance import LabelWishes
from ncf.io.label_files import table_of
from ncf.pair.keys import Pair


class LabelWishesd(Transform):
    """Adds ``wishes`` (`ncf.fit.label_guidance.LabelWishes`) where something is wanted of the labels.

    Args:
        meet: True lets the labels that both maps have guide the fit.
        rigid: a label of the fixed map, or several, by number or name, in which the map stays rigid.
        volume: a label of the fixed map, or several, by number or name, whose volume is kept.
    """

    def __init__(
        self,
        meet: bool = False,
        rigid: Wanted | Sequence[Wanted] | None = None,
        volume: Wanted | Sequence[Wanted] | None = None,
    ) -> None:
        self.meet, self.rigid, self.volume = meet, _several(rigid), _several(volume)

    def __call__(self, data: Pair) -> Pair:
        """Check that the maps have the labels of which something is wanted.

        Returns:
            A new dictionary.

        Raises:
            PairError: a label map is missing, or has no such label.
        """
        if not (self.meet or self.rigid or self.volume):
            return data
        if "fixed_label" not in data or (self.meet and "moving_label" not in data):
            if self.meet:
                raise PairError("guide_labels needs fixed_label and moving_label; name both label maps")
            option = "rigid_label" if self.rigid else "keep_volume_label"
            raise PairError(f"{option} needs fixed_label, whose labels it means; name the label map")
        fixed, table = data["fixed_label"].as_tensor()[None], table_of(data["fixed_label"])
        there = table.of(fixed.unique().tolist())
        rigid, volume = (
            tuple(_number(option, label, there, table) for label in wanted)
            for option, wanted in (("rigid_label", self.rigid), ("keep_volume_label", self.volume))
        )
        wishes = LabelWishes(fixed, rigid=rigid, volume=volume, tables=(table, Labels()))
        if self.meet:
            moving, theirs = data["moving_label"].as_tensor()[None], table_of(data["moving_label"])
            meet = tuple(sorted(there & theirs.of(moving.unique().tolist())))
            if not meet:
                raise PairError("guide_labels: no label is in both maps; give equal organs equal numbers or names")
            wishes = replace(wishes, moving=moving, meet=meet, tables=(table, theirs))
        found: dict[str, Any] = {**data, "wishes": wishes}
        return cast(Pair, found)


def _number(option: str, wanted: Wanted, there: set[int], table: Labels) -> int:
    """Return the number of a label that is wanted by number or name; raise PairError where the map has none."""
    found = number_of(wanted, there, {number: name for number, name in table.names.items() if number in there})
    if found is None:
        has = ", ".join(table.called(number) for number in sorted(there)) or "none"
        raise PairError(f"{option}: the fixed label map has no label {wanted}; it has {has}")
    return found


def _several(given: Wanted | Sequence[Wanted] | None) -> tuple[Wanted, ...]:
    """Return one label or several as a tuple."""
    if given is None:
        return ()
    return (given,) if isinstance(given, (int, str)) else tuple(given)
