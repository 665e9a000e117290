"""Which of two maps a fit begins with: the headers', or one that a search has found, judged by the loss of the fit itself.

A search compares at its own coarse measure, which a wrong size can please: a scan that is shrunk onto what looks alike
explains more of it. So what is found must beat the headers by the terms that the fit minimises, over the places where both
maps show data. This room must not know how a map was found, nor any file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from scripts.geometry import lattice_over, size_and_turn
from scripts.losses import Sampled, WeightedSum
from scripts.pyramid import LevelImages, PairImages, level_images
from scripts.sampling import PADDING_NOISE, Warp

GAIN = 0.1  # of the headers' loss that a found map must take away; right ones took 30 to 85 %, wrong ones added to it
OVERWHELMING = 0.6  # the same of an unlikely map
SIZES = (0.78, 1.28)  # 0.8 to 1.25 and what the search may be off by: sizes of two people, or of units mistaken a little
MOST_TURN_DEGREES = 45.0  # a patient lies on the back, on a side or on the belly, which headers know
LEAST_COMMON = 0.1  # of the fixed data: below, each map is judged over the data that it shows itself
LEAST_OVERLAP = 1e-3  # of the fixed data: with less the headers show nothing to compare


@dataclass(frozen=True)
class Evidence:
    """What was compared. headers, found: the loss of the fit with each. common: share of the fixed data that both show.

    size: of the found map, 1 for none. turn_degrees: its rotation. taken: whether the fit begins with it.
    """

    headers: float
    found: float
    common: float
    size: float
    turn_degrees: float
    taken: bool


@torch.no_grad()
def better_start(
    headers: PairImages, found: PairImages, *, loss: WeightedSum, warp: Warp, points: int, least: int
) -> tuple[PairImages, Evidence]:
    """Return the better of two pairs that differ in their start, and why.

    Args:
        headers, found: the same images, with the start of the headers and with one that was searched for.
        loss, warp: of the fit. points, least: nodes of the lattice to compare on, and the fewest along an axis.
    """
    levels = [level_images(pair, points, least=least) for pair in (headers, found)]
    read = [_read(images, warp) for images in levels]
    whole = levels[0].fixed_weight.sum().clamp(min=PADDING_NOISE)
    both = torch.minimum(read[0][1], read[1][1])
    common = float(both.sum() / whole)
    weights = [both, both] if common >= LEAST_COMMON else [weight for _, weight in read]
    losses = [_loss(i, moving, w, loss) for i, (moving, _), w in zip(levels, read, weights, strict=True)]
    size, turn = size_and_turn(found.start @ np.linalg.inv(headers.start))
    unlikely = not SIZES[0] <= size <= SIZES[1] or turn > MOST_TURN_DEGREES
    nothing_to_compare = float(read[0][1].sum() / whole) < LEAST_OVERLAP
    taken = nothing_to_compare or losses[1] <= losses[0] * (1 - (OVERWHELMING if unlikely else GAIN))
    return found if taken else headers, Evidence(losses[0], losses[1], common, size, turn, taken)


def _read(images: LevelImages, warp: Warp) -> tuple[torch.Tensor, torch.Tensor]:
    """The moving image where the fit would begin, and where both images have data, both (1, 1, W, H, D)."""
    read = warp(images.moving, _no_field(images), images.to_moving)
    return read[:, :1] / read[:, 1:].clamp(min=PADDING_NOISE), images.fixed_weight * read[:, 1:].clamp(0, 1)


def _no_field(images: LevelImages) -> torch.Tensor:
    return images.fixed.new_zeros(1, 3, *images.lattice.shape)


def _loss(images: LevelImages, moving: torch.Tensor, weight: torch.Tensor, loss: WeightedSum) -> float:
    nodes = lattice_over(images.lattice.shape, images.lattice.shape).points()[None].to(moving)
    nothing = _no_field(images)
    state = Sampled(
        warped=images.fixed + weight * (moving - images.fixed),
        fixed=images.fixed,
        weight=weight,
        field=nothing,
        control=nothing,
        positions=nodes + torch.tensor(images.offset, device=nodes.device).view(1, 3, 1, 1, 1),
        moving_shape=images.visited.shape,
    )
    return float(sum(value.item() for value in loss(state).values()))
