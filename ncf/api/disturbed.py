"""A pair disturbed a little: noise on both scans, and a fixed scan cut so that all lattices shift."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ncf.core.names import GRID_OF, IMAGES
from ncf.pair.keys import affine_of
from ncf.space.geometry import spacing_mm

NOISE = 0.02  # standard deviation, as a share of the range of intensities
PERCENTILES = (0.5, 99.5)  # of that range
CUT_MM, MOST_CUT = (4.0, 6.0, 9.0, 7.0), 0.06  # from the low end of every axis, and of its voxels: all lattices shift
GUIDES = "guide_points"


def disturbed(pair: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return a pair with noise on both scans, and a fixed scan without its first few millimetres along every axis.

    Args:
        pair: scans, masks, labels and guide points.
        number: another one is another disturbance; the same one is the same.
    """
    fixed = pair["fixed"]
    spacing = spacing_mm(affine_of(fixed))
    cut_mm = CUT_MM[number % len(CUT_MM)]
    cut = [min(math.ceil(cut_mm / mm), int(MOST_CUT * n)) for mm, n in zip(spacing, fixed.shape[1:], strict=True)]
    found = dict(pair)
    for key in ("fixed", *(key for key, side in GRID_OF.items() if side == "fixed" and key in pair)):
        found[key] = _without(pair[key], cut)
    if GUIDES in pair:
        found[GUIDES] = np.asarray(pair[GUIDES]) - np.array([*cut, 0, 0, 0])
    random = torch.Generator().manual_seed(number)
    for key in IMAGES:
        found[key] = _noisy(found[key], random)
    return found


def _without(image: MetaTensor, cut: list[int]) -> MetaTensor:
    """Return an image without its first voxels along each axis."""
    affine = affine_of(image).copy()
    affine[:3, 3] += affine[:3, :3] @ np.array(cut)
    values = image.as_tensor()[:, cut[0] :, cut[1] :, cut[2] :].contiguous()
    return _like(image, values, affine)


def _noisy(image: MetaTensor, random: torch.Generator) -> MetaTensor:
    """Return a scan with noise; its smallest value, which may mean that there are no data, stays."""
    values = image.as_tensor()
    sample = values.flatten()[:: max(1, values.numel() // 2**20)].double().numpy()
    low, high = np.percentile(sample, PERCENTILES)
    noise = torch.randn(values.shape, generator=random) * (NOISE * float(high - low))
    found = torch.where(values == values.min(), values, values + noise)
    return _like(image, found, affine_of(image))


def _like(image: MetaTensor, values: torch.Tensor, affine: np.ndarray) -> MetaTensor:
    """Return other values with all that is known of an image, on the grid of an affine."""
    meta = {key: value for key, value in image.meta.items() if key != "affine"}
    return MetaTensor(values, affine=torch.as_tensor(affine), meta=meta)
