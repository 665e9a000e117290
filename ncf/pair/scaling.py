"""Intensities of both scans scaled to [0, 1], by one common range where the two have one unit."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ncf.core.errors import PairError
from ncf.pair.keys import Pair

PERCENTILE_VOXELS = 2**23  # of twice as many and more, about so many, evenly spaced, give the percentiles
HOUNSFIELD_BELOW = -50.0  # fat is -100, air -1000 HU; MR, PET and shifted CT start near 0, z-scores above -10


class RobustScaled(MapTransform):
    """Adds ``<key>_scaled``, float32 (1, W, H, D) in [0, 1], and ``intensity``: which values became 0 and 1.

    The range of an image runs between two percentiles of its voxels with data (``<key>_valid`` of `DataWeightd`), of a
    sample where there are many. So a few metal voxels do not squeeze the rest, and the unit does not matter. All images
    share one range (the union) when a value means the same in all of them: when all reach well below zero, which only
    Hounsfield units do, or when both ends of the ranges agree within ``agreement`` of the union. Then a density has the
    same value in both. Otherwise (CT against CT stored with an offset, MR against MR in other units) each image has its
    own range.

    Args:
        keys: the images to scale together.
        lower: the lower percentile, in percent. If both percentiles coincide (nearly all voxels are background), the
            lowest and the highest value with data are used instead.
        upper: the upper percentile, in percent.
        agreement: largest difference of two ranges' ends, as a fraction of the union, for ranges in one unit.

    Raises:
        ValueError: the percentiles are not in order.
    """

    def __init__(
        self, keys: KeysCollection, *, lower: float = 0.5, upper: float = 99.5, agreement: float = 0.15
    ) -> None:
        super().__init__(keys)
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"percentiles must satisfy 0 <= lower < upper <= 100, got {lower} and {upper}")
        self.percentiles = (lower, upper)
        self.agreement = agreement

    def __call__(self, data: Pair) -> Pair:
        """Scale both images.

        Returns:
            A new dictionary; ``intensity`` is {key: [low, high], ..., "shared": bool}, in each file's own unit.

        Raises:
            PairError: all voxels of an image with data are equal.
        """
        pair: dict[str, Any] = dict(data)
        names = [str(key) for key in self.keys]
        ranges = {key: self._range(key, pair[key], valid=pair[f"{key}_valid"]) for key in names}
        ends = np.array(list(ranges.values()))
        union = [float(ends[:, 0].min()), float(ends[:, 1].max())]
        hounsfield = bool((ends[:, 0] < HOUNSFIELD_BELOW).all())
        shared = hounsfield or bool((np.ptp(ends, axis=0) <= self.agreement * (union[1] - union[0])).all())
        if shared:
            ranges = {key: list(union) for key in names}
        for key, (low, high) in ranges.items():
            pair[f"{key}_scaled"] = (pair[key] - low).div_(high - low).clamp_(0, 1)
        pair["intensity"] = {**ranges, "shared": shared}
        return cast(Pair, pair)

    def _range(self, key: str, image: MetaTensor, *, valid: torch.Tensor) -> list[float]:
        values = image.as_tensor().numpy()[valid.numpy()]  # torch would make four indices of 8 bytes for every voxel
        some = values[:: len(values) // PERCENTILE_VOXELS | 1]  # an odd step meets every second slice too
        low, high = (float(v) for v in np.percentile(some, self.percentiles))
        if high <= low:
            low, high = float(values.min()), float(values.max())
        if high <= low:
            name = image.meta["filename_or_obj"]
            raise PairError(f"{key} {name}: all voxels with data are {low:g}, nothing to register; check the file")
        return [low, high]
