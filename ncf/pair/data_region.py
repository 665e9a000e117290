"""Where a scan holds data, and how much each voxel counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ncf.core.errors import PairError
from ncf.pair.keys import Pair

AIR_HU = -1024.0  # the lowest value that means air; scanners and converters pad below it (-2000, -2048, -3024)
PADDING_SHARE = 1e-3  # of the voxels: a value that fewer hold is a dark spot, and does no harm as data
PADDING_GAP = 0.25  # of the range of the other values: a gap that no scanner noise bridges
PADDING_REST = (10.0, 99.0)  # percentiles of that range; resampling blurs padding into a few percent of the rest
SLAB_CONTRAST = 0.25  # of the robust range: what differs by more from an empty slab belongs to the patient
SLAB_SECTION = 0.1  # of a slice: the least size of the largest cross-section, for the ends to be judged
SLAB_EDGE = 0.03  # of the axis: the depth within which a cut patient shows; natural ends widen more slowly
# of the largest cross-section, reached within that depth; measured: 0.76 to 1 at cuts, up to 0.47 at natural ends
SLAB_CUT = 0.6
SLAB_NOISE = 1e-3  # of a slice: with fewer voxels of contrast it is empty
SLAB_RANGE = (0.5, 99.5)  # percentiles of the robust range


class DataWeightd(MapTransform):
    """Adds, for each key, ``<key>_valid`` (1, W, H, D), bool, and ``<key>_weight`` (1, W, H, D), float32, 0 to 1.

    ``valid`` is False where the file has no data. Only two patterns are sure signs of that. All else is information
    (empty air beside a patient says where the skin is), and a user who knows better gives a mask:

    * *Padding* (`padding`): the image's lowest value, when it lies below air, is held by many voxels, reaches a face of
      the array, and leaves a gap below nearly all other values that scanner noise does not bridge. Zero is never
      padding: it is also the background of MR, PET, shifted CT and masked images.
    * *Slabs* (`slab`): empty slices at an end of an axis, where the patient begins at once with a full cross-section:
      the scan was cut there. A body that ends by itself begins with a small cross-section. A box that floats in an
      empty background looks like a cut. Slabs tilted by more than 1 or 2 degrees are not found; they need a mask.

    ``weight`` is ``valid`` times the user's ``<key>_mask`` if there is one (any weights, scaled to a maximum of 1).
    ``valid`` is kept as well, because intensities are scaled by all data, not by a mask that only one image has.
    """

    def __call__(self, data: Pair) -> Pair:
        """Find the data of both images.

        Returns:
            A new dictionary with the two new entries of each key.

        Raises:
            PairError: no voxel of an image has both data and weight.
        """
        pair: dict[str, Any] = dict(data)
        for key in self.keys:
            image = pair[str(key)]
            valid = data_region(image.as_tensor()[0])[None]
            weight = valid.float()
            mask = pair.get(f"{key}_mask")
            if mask is not None:
                weight = weight * (mask.as_tensor() / mask.as_tensor().max())
            if not (weight > 0).any():
                name = image.meta["filename_or_obj"]
                raise PairError(f"{key} {name}: no voxel has both data and weight; check the mask")
            pair[f"{key}_valid"] = valid
            pair[f"{key}_weight"] = MetaTensor(weight, meta=dict(image.meta))
        return cast(Pair, pair)


def data_region(volume: torch.Tensor) -> torch.Tensor:
    """Return where ``volume`` (W, H, D) holds data, bool of the same shape, by the rules of `DataWeightd`."""
    valid = ~padding(volume)
    sample = (slice(None, None, 2),) * 3  # every 8th voxel is enough to find the range
    bottom, top = np.percentile(volume[sample].numpy()[valid[sample].numpy()], SLAB_RANGE)
    contrast = SLAB_CONTRAST * float(top - bottom)

    @lru_cache(maxsize=1)  # six ends may look at the whole volume, and mostly all have the level of air
    def differs(level: float) -> torch.Tensor:
        return (volume - level).abs() > contrast

    slabs = [
        (axis, end, slab(volume, differs, axis=axis, end=end, contrast=contrast))
        for axis in range(3)
        for end in (0, -1)
    ]
    for axis, end, empty in slabs:
        along = valid.movedim(axis, 0)
        along = along[: len(empty)] if end == 0 else along[len(along) - len(empty) :]
        along &= ~empty
    return valid


def padding(volume: torch.Tensor) -> torch.Tensor:
    """Return where ``volume`` (W, H, D) holds a scanner's padding value, bool of the same shape; mostly nowhere."""
    none = torch.zeros_like(volume, dtype=torch.bool)
    lowest = float(volume.min())
    if lowest >= AIR_HU:
        return none
    held = volume == lowest
    on_a_face = any(bool(held.select(axis, end).any()) for axis in range(3) for end in (0, -1))
    if held.float().mean() < PADDING_SHARE or held.all() or not on_a_face:
        return none
    low, high = np.percentile(volume.numpy()[~held.numpy()], PADDING_REST)
    low = min(float(low), AIR_HU)  # where the scan shows no air, the gap still ends at air
    if low - lowest <= PADDING_GAP * (high - low):
        return none
    return volume < (lowest + low) / 2  # the middle of the gap also takes what resampling blurred


def slab(
    volume: torch.Tensor, differs: Callable[[float], torch.Tensor], *, axis: int, end: int, contrast: float
) -> torch.Tensor:
    """Return which voxels at one end of an axis lie beyond the cut of a scan.

    What differs by more than ``contrast`` from the outermost slice's median belongs to the patient. Columns of voxels
    are followed up to the patient, because resampling leaves the edge of a slab blurred or bent.

    Args:
        volume: (W, H, D).
        differs: takes a level, and returns which voxels of the volume differ from it by more, bool (W, H, D).
        axis: 0, 1 or 2.
        end: 0 or -1.
        contrast: in the unit of the volume.

    Returns:
        (k, H, W), bool, the axis first; k is 0 where there is no such slab.
    """
    outermost = volume.select(axis, end)
    level = outermost.median()
    if ((outermost - level).abs() > contrast).float().mean() > SLAB_NOISE:
        return torch.zeros_like(volume.movedim(axis, 0)[:0], dtype=torch.bool)
    patient = differs(float(level)).movedim(axis, 0)
    section = patient.count_nonzero((1, 2)) / patient[0].numel()
    section = section.flip(0) if end else section
    start = int((section > SLAB_NOISE).int().argmax())
    reach = start + max(1, round(SLAB_EDGE * len(section)))
    full = (section[start:reach] >= SLAB_CUT * section.max()).nonzero()
    depth = start + int(full[0]) if start and len(full) and section.max() >= SLAB_SECTION else 0
    if end:
        return (patient[len(patient) - depth :].flip(0).cumsum(0) == 0).flip(0)
    return patient[:depth].cumsum(0) == 0
