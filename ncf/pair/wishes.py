"""What a person wants of labelled organs, checked against the label maps of the pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from monai.transforms import Transform

from ncf.core.errors import PairError
from ncf.fit.label_guidance import LabelWishes
from ncf.pair.keys import Pair


class LabelWishesd(Transform):
    """Adds ``wishes`` (`ncf.fit.label_guidance.LabelWishes`) where something is wanted of the labels.

    Args:
        meet: True lets the labels that both maps have guide the fit.
        rigid: a label of the fixed map, or several, in which the map stays rigid.
        volume: a label of the fixed map, or several, whose volume is kept.
    """

    def __init__(
        self, meet: bool = False, rigid: int | Sequence[int] | None = None, volume: int | Sequence[int] | None = None
    ) -> None:
        self.meet, self.rigid, self.volume = meet, _numbers(rigid), _numbers(volume)

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
        fixed = data["fixed_label"].as_tensor()[None]
        there = _labels(fixed)
        for option, wanted in (("rigid_label", self.rigid), ("keep_volume_label", self.volume)):
            missing = [label for label in wanted if label not in there]
            if missing:
                has = ", ".join(map(str, sorted(there))) or "none"
                raise PairError(f"{option}: the fixed label map has no label {missing[0]}; it has {has}")
        moving = data["moving_label"].as_tensor()[None] if self.meet else None
        meet = tuple(sorted(there & _labels(moving))) if moving is not None else ()
        if self.meet and not meet:
            raise PairError("guide_labels: no label is in both maps; give equal organs equal numbers")
        found: dict[str, Any] = {**data, "wishes": LabelWishes(fixed, moving, meet, self.rigid, self.volume)}
        return cast(Pair, found)


def _numbers(given: int | Sequence[int] | None) -> tuple[int, ...]:
    """Return one label or several as a tuple."""
    if given is None:
        return ()
    return (given,) if isinstance(given, int) else tuple(int(label) for label in given)


def _labels(volume: torch.Tensor) -> set[int]:
    """Return all labels of a map but the background."""
    return {int(label) for label in volume.unique().tolist()} - {0}
