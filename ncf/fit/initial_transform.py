"""The choice between two initial transforms, the headers' and one that a search has found, by the loss of the fit.

A search compares by its own coarse measure. A wrong size can please that measure: a scan that is shrunk onto a similar
region explains more of it. So a found transform must beat the headers by the terms that the fit minimises, over the
places where both maps show data. This room must not know how a transform was found, nor any file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from ncf.fit.guidance import initial_by_points
from ncf.fit.pyramid import LevelImages, PairImages, level_images
from ncf.fit.safety import LEAST_OVERLAP
from ncf.fit.terms import Sampled, WeightedSum
from ncf.space.geometry import size_and_turn
from ncf.space.grids import lattice_over
from ncf.space.sampling import PADDING_NOISE, Warp

logger = logging.getLogger(__name__)

# share of the headers' loss that a found map must remove; right maps removed 30 to 85 %, wrong ones added to it
GAIN = 0.1
OVERWHELMING = 0.6  # the same for an unlikely map
# likely sizes: 0.8 to 1.25, as of two people or of slightly wrong units, and a margin for the error of the search
SIZES = (0.78, 1.28)
MOST_TURN_DEGREES = 45.0  # a patient lies on the back, on a side or on the belly, and the headers know which
LEAST_COMMON = 0.1  # of the fixed data: below this, each map is judged over the data that it shows itself


@dataclass(frozen=True)
class Evidence:
    """What was compared.

    Attributes:
        headers: the loss of the fit with the headers' transform.
        found: the loss of the fit with the found transform.
        common: share of the fixed data that both show.
        size: scale factor of the found map; 1 for no change of size.
        turn_degrees: rotation of the found map.
        taken: True where the fit begins with the found map.
    """

    headers: float
    found: float
    common: float
    size: float
    turn_degrees: float
    taken: bool


@dataclass(frozen=True)
class Begun:
    """A pair with the initial transform of its fit.

    Attributes:
        pair: the pair.
        evidence: what was compared, if a search found another transform than the headers'.
        seconds: that it took.
        by_points: whether guide points gave the transform.
    """

    pair: PairImages
    evidence: Evidence | None
    seconds: float
    by_points: bool = False

    def tell(self) -> None:
        """Log what was found, where the headers' transform was in question."""
        if self.by_points:
            logger.info("initial transform: by the guide points, which the headers leave far apart")
        if self.evidence is not None:
            found = self.evidence
            logger.info(
                "initial transform: loss %.3f by the headers, "
                "%.3f by the map that was found (size %.2f, turn %.1f degrees); %s",
                found.headers,
                found.found,
                found.size,
                found.turn_degrees,
                "it is taken" if found.taken else "the headers are kept",
            )


def begun(
    pair: PairImages,
    alignment: Callable[[PairImages], PairImages] | None,
    *,
    loss: WeightedSum,
    warp: Warp,
    points: int,
    least: int,
) -> Begun:
    """Find the initial transform of a pair: by guide points, by a search, or that of the headers.

    Args:
        pair: the images with the headers' transform.
        alignment: finds another transform; None keeps that of the headers.
        loss: as of `better_initial`, like the next three.
        warp: of the fit.
        points: of the lattice.
        least: nodes along an axis.
    """
    at = time.perf_counter()
    if pair.guide_points_mm is not None:
        by_points = initial_by_points(pair.guide_points_mm, pair.initial)
        if by_points is not None:
            return Begun(replace(pair, initial=by_points), None, time.perf_counter() - at, by_points=True)
    found = pair if alignment is None else alignment(pair)
    if found is pair:
        return Begun(pair, None, time.perf_counter() - at)
    chosen, evidence = better_initial(pair, found, loss=loss, warp=warp, points=points, least=least)
    return Begun(chosen, evidence, time.perf_counter() - at)


@torch.no_grad()
def better_initial(
    headers: PairImages, found: PairImages, *, loss: WeightedSum, warp: Warp, points: int, least: int
) -> tuple[PairImages, Evidence]:
    """Return the better of two pairs that differ in their initial transform, and why.

    Args:
        headers: the images with the headers' transform.
        found: the same images with a transform that a search has found.
        loss: of the fit.
        warp: of the fit.
        points: nodes of the lattice on which they are compared.
        least: fewest nodes along an axis.

    Returns:
        One of the two pairs, and what was compared.
    """
    levels = [level_images(pair, points, least=least) for pair in (headers, found)]
    read = [_read(images, warp) for images in levels]
    whole = levels[0].fixed_weight.sum().clamp(min=PADDING_NOISE)
    both = torch.minimum(read[0][1], read[1][1])
    common = float(both.sum() / whole)
    weights = [both, both] if common >= LEAST_COMMON else [weight for _, weight in read]
    losses = [_loss(i, moving, w, loss) for i, (moving, _), w in zip(levels, read, weights, strict=True)]
    size, turn = size_and_turn(found.initial @ np.linalg.inv(headers.initial))
    unlikely = not SIZES[0] <= size <= SIZES[1] or turn > MOST_TURN_DEGREES
    nothing_to_compare = float(read[0][1].sum() / whole) < LEAST_OVERLAP
    taken = nothing_to_compare or losses[1] <= losses[0] * (1 - (OVERWHELMING if unlikely else GAIN))
    return found if taken else headers, Evidence(losses[0], losses[1], common, size, turn, taken)


def _read(images: LevelImages, warp: Warp) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the moving image by the initial transform, and where both images have data, both (1, 1, W, H, D)."""
    moving, weight = warp.data(images.moving, _no_field(images), images.to_moving)
    return moving, images.fixed_weight * weight


def _no_field(images: LevelImages) -> torch.Tensor:
    """Return a zero field (1, 3, W, H, D) on the level."""
    return images.fixed.new_zeros(1, 3, *images.lattice.shape)


def _loss(images: LevelImages, moving: torch.Tensor, weight: torch.Tensor, loss: WeightedSum) -> float:
    """Return the sum of the terms for a zero field, over the nodes of a weight."""
    nodes = lattice_over(images.lattice.shape, images.lattice.shape).points(moving.device)[None]
    nothing = _no_field(images)
    state = Sampled(
        warped=torch.lerp(images.fixed, moving, weight),
        fixed=images.fixed,
        weight=weight,
        field=nothing,
        control=nothing,
        visited_nodes=nodes + torch.tensor(images.offset, device=nodes.device).view(1, 3, 1, 1, 1),
        moving_shape=images.visited.shape,
    )
    return float(sum(value.item() for value in loss(state).values()))
