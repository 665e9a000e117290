"""How well the labels of two maps overlap, and which labels both of them hold.

This module knows arrays and numbers. It must not know files, configs, networks or how a field was made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice

from ncf.core.errors import PairError
from ncf.core.labels import Labels
from ncf.evaluate.metrics import pieces

PLAIN = (Labels(), Labels())  # the numbers of both maps are the labels


def dice_per_label(
    a: torch.Tensor, b: torch.Tensor, labels: Sequence[int] | None = None, *, tables: tuple[Labels, Labels] = PLAIN
) -> dict[int, float]:
    """Return the Dice coefficient of each label, 0 to 1 (Dice 1945, doi:10.2307/1932409).

    It is MONAI's `compute_dice`, one label at a time to need little memory. A label that the reference has and the
    other map lacks scores 0; one that the reference lacks scores nan (MONAI's rule).

    Args:
        a: the reference, the fixed image's label map, (W, H, D), whole numbers in any type.
        b: the other label map, (W, H, D).
        labels: which to score; by default those of the reference other than 0.
        tables: what the numbers of both maps stand for; by default they are the labels.

    Raises:
        PairError: shapes differ, or a map holds values that are not labels (an interpolated map).
    """
    if a.shape != b.shape:
        raise PairError(
            f"label maps must share a grid, got {tuple(a.shape)} and {tuple(b.shape)}: resample one of them"
        )
    for name, volume in (("fixed", a), ("other", b)):
        if not all(bool((piece == piece.round()).all()) for (piece,) in pieces(volume)):
            raise PairError(
                f"the {name} label map holds values between whole numbers: resample it by nearest neighbour"
            )
    if labels is None:
        labels = sorted(tables[0].of(_values(a)))
    own, other = tables
    return {int(label): _dice(own.mask(a, label), other.mask(b, label)) for label in labels}


def _values(volume: torch.Tensor) -> set[int]:
    """Return all numbers of a label map."""
    return {int(v) for (piece,) in pieces(volume) for v in torch.unique(piece)}


@dataclass(frozen=True)
class LabelSets:
    """The labels, other than 0, of two maps.

    Attributes:
        shared: of both maps.
        not_in_moving: of the fixed map alone.
        not_in_fixed: of the moving map alone.
    """

    shared: list[int]
    not_in_moving: list[int]
    not_in_fixed: list[int]

    @property
    def absent(self) -> dict[str, list[int]]:
        """The labels that count in no mean, by the map that lacks them."""
        return {"not_in_moving": self.not_in_moving, "not_in_fixed": self.not_in_fixed}


def label_sets(fixed: torch.Tensor, moving: torch.Tensor, tables: tuple[Labels, Labels] = PLAIN) -> LabelSets:
    """Sort the labels of two maps by which of the maps hold them.

    Args:
        fixed, moving: the label maps (W, H, D), each on its own grid.
        tables: what their numbers stand for; by default they are the labels.
    """
    own, other = (table.of(_values(m)) for table, m in zip(tables, (fixed, moving), strict=True))
    return LabelSets(sorted(own & other), sorted(own - other), sorted(other - own))


def overlap(
    fixed: torch.Tensor, carried: torch.Tensor, labels: Sequence[int], tables: tuple[Labels, Labels] = PLAIN
) -> dict[str, Any]:
    """Return the Dice coefficient of each label and their ``mean``, which is None without any.

    This is what the project calls Dice everywhere: the mean over the labels that the fixed and the moving map both hold
    (`LabelSets.shared`). A label that one of them lacks says nothing about the map, and does not count.

    Args:
        fixed, carried: label maps (W, H, D) on the fixed grid; ``carried`` is the warped one.
        labels: those that both scans' own maps hold.
        tables: what the numbers of both maps stand for; by default they are the labels.
    """
    scores = dice_per_label(fixed, carried, labels, tables=tables)
    return {"mean": float(np.mean(list(scores.values()))) if scores else None, "labels": scores}


def _dice(truth: torch.Tensor, other: torch.Tensor) -> float:
    """Return MONAI's Dice coefficient of two binary masks of one shape."""
    either = truth | other  # voxels outside both change nothing, and MONAI's sums over them take most of the time
    return float(compute_dice(other[either][None, None], truth[either][None, None]))
