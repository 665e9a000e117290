"""What speaks for a map and against it: measures that no fit minimises, on a coarse lattice.

The main one asks another comparison than the losses. Places of the fixed scan are described by MIND (Heinrich et al.
2013, doi:10.1007/978-3-642-40811-3_24) and looked for around where the map leads. No loss here knows MIND; the search
before the fit does, on coarser nodes, so the limits were set on fits with that search. After a right registration most
places are found where they are expected; between scans of two different things, hardly more than by chance
(docs/decisions/0024-verdict.md).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from ncf.evaluate.metrics import normalised_mutual_information
from ncf.fit.mind import box_mean, mind_ssc
from ncf.fit.pyramid import LevelImages, PairImages, level_images
from ncf.space.geometry import placed, spacing_mm
from ncf.space.grids import lattice_over
from ncf.space.jacobian import jacobian_of_map
from ncf.space.sampling import PADDING_NOISE, sample, sample_data

NODES, LEAST_NODES = 100_000, 12  # of the lattice
AROUND = 2  # nodes, along every axis, in which a place is looked for
NEAR = 1.5  # nodes: found at one of the 19 nearest of 125 places
PATCH = 2  # radius of the cube over which descriptions are compared, in nodes
SHIFT_MM, SHIFT_SHARE = 15.0, 0.1  # the second of the fixed scan's longest side
LEAST_ABOVE = 1e-3  # of the mutual information
MOSTLY = 0.9  # share of data in a node that counts
LEAST_VARIANCE = 1e-3  # of the fixed intensities (0 to 1) in a patch: flat places are found anywhere
LEAST_PLACES = 200  # with fewer, nothing is said
LEAST_DETERMINANT = 0.02


@dataclass(frozen=True)
class Evidence:
    """Measures of a map.

    Attributes:
        overlap: share of the fixed data that meets moving data, 0 to 1.
        recognised: share of the places with contrast that are found where the map leads, 0 to 1; by chance 0.15. nan
            where there are too few places.
        shared: normalised mutual information of both scans, 1 to 2; nan where no data overlaps.
        peak: share of what ``shared`` has above 1 that is lost, on average, where the moving scan is shifted along an
            axis by `SHIFT_MM` (in a small scan by `SHIFT_SHARE`): how sharply the scans fit.
        spread: standard deviation of the logarithm of the change of volume, where both scans have data.
        folds: share of the nodes where both have data at which the map folds.
    """

    overlap: float
    recognised: float
    shared: float
    peak: float
    spread: float
    folds: float


@torch.no_grad()
def evidence_of(pair: PairImages, field_vox: torch.Tensor) -> Evidence:
    """Measure a map.

    Args:
        pair: the images as they were fitted.
        field_vox: (1, 3, W, H, D), the whole displacement on the fixed grid, in its voxels, fixed to moving.
    """
    images = level_images(replace(pair, initial=np.eye(4)), NODES, least=LEAST_NODES)
    lattice, device = images.lattice, images.fixed.device
    step = torch.tensor([float(s) for s in lattice.step_vox], device=device).view(1, 3, 1, 1, 1)
    field = sample(field_vox.to(device), lattice.points(device)[None], padding_mode="border") / step
    nodes = lattice_over(lattice.shape, lattice.shape).points(device)[None]
    warped, weight = _read(images, nodes + field)
    node_mm = spacing_mm(pair.fixed_affine) * np.array(lattice.step_vox)
    shift = min(SHIFT_MM, SHIFT_SHARE * (node_mm * (np.array(lattice.shape) - 1)).max()) / node_mm
    shared = _shared(images, warped, weight)
    aside = [
        _shared(images, *_read(images, nodes + field + sign * torch.tensor(move).to(field).view(1, 3, 1, 1, 1)))
        for move in np.diag(shift).tolist()
        for sign in (-1, 1)
    ]
    known = math.isfinite(shared) and bool(np.isfinite(aside).any())
    det = jacobian_of_map(field[0])[weight[0, 0] > MOSTLY]
    logs = torch.log(det.clamp(LEAST_DETERMINANT, 1 / LEAST_DETERMINANT))
    return Evidence(
        overlap=float(weight.sum() / images.fixed_weight.sum().clamp(min=PADDING_NOISE)),
        recognised=_recognised(images.fixed, warped, weight),
        shared=shared,
        peak=(shared - float(np.nanmean(aside))) / max(shared - 1, LEAST_ABOVE) if known else math.nan,
        spread=float(logs.std()) if len(logs) > 1 else math.nan,
        folds=float((det <= 0).double().mean()) if len(det) else math.nan,
    )


def _read(images: LevelImages, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the moving image at nodes (1, 3, W, H, D), equal to the fixed one where data is missing, and weights."""
    moving, share = sample_data(images.moving, placed(at, images.to_moving))
    weight = images.fixed_weight * share
    return torch.lerp(images.fixed, moving, weight), weight


def _shared(images: LevelImages, warped: torch.Tensor, weight: torch.Tensor) -> float:
    """Return the normalised mutual information of both images, where both have data."""
    return normalised_mutual_information(images.fixed, warped, weight * (weight > MOSTLY))


def _recognised(fixed: torch.Tensor, warped: torch.Tensor, weight: torch.Tensor) -> float:
    """Return the share of places with contrast whose best match lies near themselves."""
    inner = (slice(None), slice(None), *(slice(AROUND, -AROUND),) * 3)
    variance = (box_mean(fixed * fixed, PATCH) - box_mean(fixed, PATCH) ** 2)[inner]
    there = (variance > LEAST_VARIANCE) & (box_mean(weight, PATCH)[inner] > MOSTLY)
    if int(there.sum()) < LEAST_PLACES:
        return math.nan
    own, other = mind_ssc(fixed)[inner], mind_ssc(warped)
    best = torch.full_like(variance, math.inf)
    near = torch.zeros_like(variance, dtype=torch.bool)
    for move in itertools.product(range(-AROUND, AROUND + 1), repeat=3):
        moved = other[
            (
                slice(None),
                slice(None),
                *(slice(AROUND + m, n - AROUND + m) for m, n in zip(move, fixed.shape[2:], strict=True)),
            )
        ]
        cost = box_mean(((own - moved) ** 2).mean(dim=1, keepdim=True), PATCH)
        better = cost < best
        best = torch.where(better, cost, best)
        near = torch.where(better, torch.tensor(math.hypot(*move) < NEAR, device=near.device), near)
    return float(near[there].double().mean())
