"""How far the surfaces of two structures lie apart."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.metrics.utils import get_edge_surface_distance

SURFACE_PERCENTILE = 95


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between two surfaces in mm, nan where a structure is empty.

    Attributes:
        mean: mean distance to agreement: the mean of both directed mean distances.
        p95: the larger one of both directed 95th percentiles (HD95).
    """

    mean: float
    p95: float


def surface_distances(truth: torch.Tensor, other: torch.Tensor, spacing: Sequence[float]) -> SurfaceDistances:
    """Measure how far the surfaces of two masks lie apart, by MONAI's surface voxels.

    Args:
        truth: (W, H, D), bool.
        other: the same.
        spacing: of the voxels, in mm (3,).
    """
    if not (truth.any() and other.any()):
        return SurfaceDistances(math.nan, math.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, distances, _ = get_edge_surface_distance(other, truth, spacing=list(map(float, spacing)), symmetric=True)
    means, p95s = zip(*((d.mean(), torch.quantile(d, SURFACE_PERCENTILE / 100)) for d in distances), strict=True)
    return SurfaceDistances(float(sum(means) / len(means)), float(max(p95s)))
