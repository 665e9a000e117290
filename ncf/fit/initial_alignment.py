"""The initial alignment: a map of at most seven parameters to begin a fit with, where headers leave scans far apart.

Many candidates (translations, rotations) are improved together on a coarse lattice, and the best of them again on a
finer one. The fit then has to find only what remains. This room must not know networks, losses or files.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, replace

import numpy as np
import torch

from ncf.fit.adam import Adam, share_of_rate
from ncf.fit.pyramid import PairImages, level_images
from ncf.space.geometry import to_mm
from ncf.space.grids import half_extent_mm
from ncf.space.sampling import PADDING_NOISE, sample

logger = logging.getLogger(__name__)
LEAST_NODES = 8  # along an axis of the coarse lattices
FLAT = 1e-9  # variance below which an image has nothing to correlate
OVERLAP_POWER = 0.5  # of the share of the variance that overlaps: docs/decisions/0007-initial-alignment.md
PARAMETERS = 7  # of a map: shift in half longest sides, rotation vector in radians, logarithm of the size
# which parameters are free, the simpler kind first: a translation, with a rotation, with a size
KINDS = ((1, 1, 1, 0, 0, 0, 0), (1, 1, 1, 1, 1, 1, 0), (1, 1, 1, 1, 1, 1, 1))
ALIKE = 0.05  # two maps count as one where all their parameters differ by less


class _Coarse:
    """A pair on one lattice, as a function of similarity maps: how much of the fixed image each map explains."""

    def __init__(self, pair: PairImages, points: int, *, bins: int) -> None:
        images = level_images(pair, points, least=LEAST_NODES)
        own = images.lattice.affine(pair.fixed_affine)
        around = own @ np.linalg.inv(images.to_moving)  # moving node to RAS mm by the initial transform
        nodes = np.indices(images.lattice.shape).reshape(3, -1).T
        device = images.fixed.device
        self.bins = torch.arange(bins, device=device)
        there = images.fixed_weight.flatten() > 0
        self.half_mm = half_extent_mm(pair.fixed_shape, pair.fixed_affine)
        self.fixed, self.weight = images.fixed.flatten()[there], images.fixed_weight.flatten()[there]
        self.moving = images.moving
        self.centre_mm = _centre_mm(images.fixed * images.fixed_weight, own)
        self.moving_centre_mm = _centre_mm(images.moving[:, :1], around)
        points_unit = (to_mm(nodes, own) - self.centre_mm) / self.half_mm
        self.points = torch.as_tensor(points_unit.T, dtype=torch.float32, device=device)[:, there]
        inverse = np.linalg.inv(around)
        self.to_node = torch.as_tensor(inverse[:3, :3] * self.half_mm, dtype=torch.float32, device=device)
        self.origin = torch.as_tensor(to_mm(self.centre_mm[None], inverse)[0], dtype=torch.float32, device=device)
        mean = (self.weight * self.fixed).sum() / self.weight.sum()
        self.variance = (self.weight * (self.fixed - mean) ** 2).sum().clamp(min=FLAT)

    def explained(self, parameters: torch.Tensor) -> torch.Tensor:
        """Return how well the moving image explains the fixed one under each map, 0 to 1.

        This is the share of the fixed variance that it explains where the images overlap, times the root of how much of
        the whole variance lies there (`OVERLAP_POWER`). So to move the other image away does not pay; yet of two scans
        that are cut differently the right map, which leaves parts without a partner, beats one that covers everything.

        Args:
            parameters: of the maps, (K, 7).

        Returns:
            (K,); negative for an inverse relation where no bins are used.
        """
        matrix, shift = _similarity(parameters)
        moved = matrix @ self.points + shift[:, :, None]
        nodes = (self.to_node @ moved).transpose(0, 1) + self.origin.view(3, 1, 1)
        read = sample(self.moving, nodes[None, ..., None])[0, ..., 0]
        weight = self.weight * read[1]
        moving = read[0] / read[1].clamp(min=PADDING_NOISE)
        total = weight.sum(dim=1, keepdim=True).clamp(min=PADDING_NOISE)
        fixed = self.fixed - (weight * self.fixed).sum(dim=1, keepdim=True) / total
        own = (weight * fixed * fixed).sum(dim=1)
        if len(self.bins):
            alike = self._by_any_function(fixed, moving, weight) / own.clamp(min=FLAT)
        else:
            moving = moving - (weight * moving).sum(dim=1, keepdim=True) / total
            other = (weight * moving * moving).sum(dim=1)
            correlation = (weight * fixed * moving).sum(dim=1) / torch.sqrt(own * other + FLAT)
            alike = correlation * correlation.abs()  # negative for an inverse relation
        return alike * (own / self.variance).clamp(min=FLAT) ** OVERLAP_POWER

    def _by_any_function(self, fixed: torch.Tensor, moving: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Return how much variance the mean fixed intensity at each moving intensity explains, (K,).

        This is the numerator of the correlation ratio (Roche et al. 1998). A value of (K, N) belongs to its two nearest
        bins by linear weights, so there is a gradient.
        """
        place = moving.clamp(0, 1)[..., None] * (len(self.bins) - 1)
        share = (1 - (place - self.bins).abs()).clamp(min=0) * weight[..., None]
        held = share.sum(dim=1)
        sums = torch.einsum("knb,kn->kb", share, fixed)
        return (sums * sums / held.clamp(min=PADDING_NOISE)).sum(dim=1)

    def as_mm(self, parameters: torch.Tensor) -> np.ndarray:
        """Return the map c + matrix (x - c) + shift as a 4x4 affine in RAS mm, c the fixed centre of mass.

        Args:
            parameters: of one map, (7,).
        """
        matrix, shift = _similarity(parameters[None].double().cpu())
        found = np.eye(4)
        found[:3, :3] = matrix[0].numpy()
        moved = self.centre_mm + self.half_mm * shift[0].numpy()
        found[:3, 3] = moved - found[:3, :3] @ self.centre_mm
        return found


@dataclass(frozen=True)
class InitialAlignment:
    """Finds an initial transform for a pair, and leaves the pair as it is where its headers are good enough.

    The transform is the simplest that does: a translation, else with a rotation, else with one size for all axes. What
    a map of more parameters would gain is left to the network, which does it better
    (docs/decisions/0007-initial-alignment.md).

    Attributes:
        coarse_points: nodes of the lattice of the search.
        fine_points: nodes of the lattice of the refinement.
        enough: where the headers alone explain so much (0 to 1), there is no search.
        gain: how much more than a simpler one a map must explain to be taken instead.
        angle: rotations tried about each axis, in radians, both ways.
        step: translations tried along each axis around the centres of mass, in half longest sides of the fixed image,
            both ways.
        bins: 0 asks how much the moving image explains linearly, as for two scans of one modality. A larger number asks
            how much any function of its intensities explains, given by its values at so many intensities.
        kept: candidates that are left after each round of the search.
        rounds: iterations of each round.
        refining: iterations of the refinement.
    """

    coarse_points: int = 4000
    fine_points: int = 12000
    enough: float = 0.75
    gain: float = 0.15
    angle: float = 0.35
    step: float = 0.35
    bins: int = 0
    kept: tuple[int, ...] = (24, 8, 3)
    rounds: tuple[int, ...] = (10, 20)
    refining: int = 30

    def __call__(self, pair: PairImages) -> PairImages:
        """Return the pair with a better initial transform, or the pair itself.

        Nothing else of the pair is changed. The result is deterministic: no candidate is random.
        """
        fine = _Coarse(pair, self.fine_points, bins=self.bins)
        with torch.no_grad():
            before = float(fine.explained(fine.points.new_zeros(1, PARAMETERS)))
        if before >= self.enough:
            return pair
        with torch.enable_grad():
            parameters, explained = self._refined(fine, self._search(_Coarse(pair, self.coarse_points, bins=self.bins)))
        best, chosen = max(before, 0.0), None  # an inverse relation counts as explaining nothing, not less
        for own, of_it in zip(parameters, explained, strict=True):  # the simpler kinds first
            if of_it >= best + self.gain:
                best, chosen = float(of_it), own
        logger.debug(
            "the headers leave the scans apart, and explain %.0f %% of the fixed image's variance; "
            "the transform found %.0f %%",
            max(100 * before, 0.0),
            max(100 * best, 0.0),
        )
        return pair if chosen is None else replace(pair, initial=pair.initial @ fine.as_mm(chosen))

    def _candidates(self, images: _Coarse) -> torch.Tensor:
        """Return shift, rotation vector and logarithm of the size of every candidate, (K, 7)."""
        apart = torch.as_tensor((images.moving_centre_mm - images.centre_mm) / images.half_mm, dtype=torch.float32)
        none = torch.zeros(3)
        turns = [torch.tensor(t) for t in itertools.product((-self.angle, 0.0, self.angle), repeat=3)]
        pairs = [(shift, turn) for shift in (apart, none) for turn in turns]
        pairs += [(apart + sign * self.step * axis, none) for axis in torch.eye(3) for sign in (-1, 1)]
        return torch.stack([torch.cat([shift, turn, torch.zeros(1)]) for shift, turn in pairs]).to(images.points.device)

    def _search(self, images: _Coarse) -> torch.Tensor:
        """Return the parameters (k, 7) of the best different maps."""
        parameters = self._candidates(images)
        with torch.no_grad():
            explained = images.explained(parameters)
        for keep, iterations in zip(self.kept, self.rounds, strict=False):
            parameters = _best(parameters, explained, keep)
            parameters, explained = _ascend(
                parameters, torch.ones_like(parameters), images, rate=0.04, iterations=iterations
            )
        return _best(parameters, explained, self.kept[-1])

    def _refined(self, images: _Coarse, parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the best map of each kind, the simpler first, (len(KINDS), 7), and what each explains."""
        free = torch.tensor(KINDS, device=parameters.device).repeat_interleave(len(parameters), dim=0)
        parameters, explained = _ascend(
            parameters.repeat(len(KINDS), 1) * free, free, images, rate=0.015, iterations=self.refining
        )
        by_kind = explained.view(len(KINDS), -1)
        best = by_kind.argmax(dim=1) + torch.arange(len(KINDS), device=parameters.device) * by_kind.shape[1]
        return parameters[best], explained[best]


def _similarity(parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return matrices (K, 3, 3) and shifts (K, 3) of parameters (K, 7); the rotation vector is in radians."""
    x, y, z = parameters[:, 3:6].unbind(dim=1)
    nothing = torch.zeros_like(x)
    rows = [torch.stack(row, dim=1) for row in ((nothing, -z, y), (z, nothing, -x), (-y, x, nothing))]
    return torch.linalg.matrix_exp(torch.stack(rows, dim=1)) * parameters[:, 6, None, None].exp(), parameters[:, :3]


def _best(parameters: torch.Tensor, explained: torch.Tensor, keep: int) -> torch.Tensor:
    """Return the ``keep`` best maps, no two of them alike."""
    chosen: list[int] = []
    for i in explained.argsort(descending=True, stable=True).tolist():
        if all((parameters[i] - parameters[j]).abs().max() > ALIKE for j in chosen):
            chosen.append(i)
        if len(chosen) == keep:
            break
    return parameters[chosen]


def _ascend(
    parameters: torch.Tensor, free: torch.Tensor, images: _Coarse, *, rate: float, iterations: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Raise what each map explains by Adam, over its free parameters (1; else 0); return both, (K, 7) and (K,)."""
    start, step = parameters.detach(), torch.zeros_like(parameters, requires_grad=True)
    adam = Adam()
    adam.add([step], rate)
    for iteration in range(iterations):
        adam.zero_grad()
        (-images.explained(start + free * step).sum()).backward()
        adam.step(share_of_rate(iteration, iterations=iterations, end=1 / 30))
    with torch.no_grad():
        found = start + free * step
        return found, images.explained(found)


def _centre_mm(mass: torch.Tensor, affine: np.ndarray) -> np.ndarray:
    """Return the centre of mass (3,) in RAS mm of a volume (1, 1, W, H, D) on the lattice of an affine."""
    volume = mass[0, 0].double().cpu()
    total = volume.sum().clamp(min=PADDING_NOISE)
    along = [
        (volume.sum(dim=[b for b in range(3) if b != a]) * torch.arange(n)).sum() for a, n in enumerate(volume.shape)
    ]
    return to_mm((torch.stack(along) / total).numpy()[None], affine)[0]
