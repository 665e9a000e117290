"""A discrete search for large motion: where each part of the fixed scan lies in the moving one, among many places.

A fit follows the slope of its loss, so it cannot see a match that lies further away than its images are smooth. The
search compares each node with every node within reach, and chooses for all nodes together: a choice may cost more
where it agrees with its neighbours' (coupled convex optimisation: Heinrich et al. 2014,
doi:10.1007/978-3-319-10404-1_32; Siebert et al. 2021, doi:10.48550/arXiv.2112.03053). It need not be exact, it need
only lead to the right valley. This room must not know networks, losses or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from ncf.fit.matching import COMPARED, choose, consistent, displacements, match_costs, reversed_costs
from ncf.fit.mind import mind_ssc
from ncf.fit.pyramid import LevelImages, PairImages, level_images
from ncf.space.geometry import placed, spacing_mm
from ncf.space.grids import Lattice, lattice_over
from ncf.space.interpolation import Upsampler, interpolation_matrix, separable
from ncf.space.sampling import PADDING_NOISE, sample, sample_data

LEAST_NODES = 12  # along an axis of the image lattices
MOST_COSTS, LARGER = 12_000_000, 1.1  # costs of a stage: 48 MB, of which some four are needed at a time
SHARES = {"node": 20, "reach": 4}  # a node and the reach are at most these parts of the scan's longest side


@dataclass(frozen=True)
class Stage:
    """One search, from what the stage before has left.

    Attributes:
        voxels: nodes of the image lattice on which places are described.
        node_mm: distance of the nodes that are searched for; a node stands for all image nodes around it.
        reach_mm: how far from where the stage before has left it a node is searched for.

    Raises:
        ValueError: a number is not above zero, or the reach is below one node.
    """

    voxels: int
    node_mm: float
    reach_mm: float

    def __post_init__(self) -> None:
        if not min(self.voxels, self.node_mm) > 0 or self.reach_mm < self.node_mm:
            raise ValueError(
                f"a stage needs voxels and node_mm above zero, and a reach of at least one node, got {self}"
            )


class DiscreteSearch:
    """Searches in stages, coarse first, in both directions.

    Args:
        stages: entries of `Stage` by name, coarse first.
        smooth_mm: standard deviation of the Gaussian that smooths the field that is found.

    Raises:
        ValueError: there is no stage, or one has wrong entries.
    """

    def __init__(self, stages: Mapping[str, Mapping[str, float]], smooth_mm: float = 8.0) -> None:
        if not stages:
            raise ValueError("a search needs at least one stage, each under a name")
        self.stages = {name: Stage(**entries) for name, entries in stages.items()}  # type: ignore[arg-type]
        self.smooth_mm = smooth_mm

    def __str__(self) -> str:
        """Return what run.json records of the search."""
        return f"DiscreteSearch({self.stages}, smooth_mm={self.smooth_mm})"

    @torch.no_grad()
    def __call__(self, pair: PairImages) -> tuple[torch.Tensor, Lattice]:
        """Search a pair.

        Returns:
            The displacement (1, 3, W, H, D) on a lattice over the fixed grid, in fixed voxels, fixed to moving, without
            the initial transform; and the lattice.
        """
        found: tuple[torch.Tensor, Lattice] | None = None
        by_voxels = {n: level_images(pair, n, least=LEAST_NODES) for n in {s.voxels for s in self.stages.values()}}
        fixed = {n: _described(images.fixed, images.fixed_weight) for n, images in by_voxels.items()}
        for stage in self.stages.values():
            images = by_voxels[stage.voxels]
            before = None if found is None else _on(images.lattice, *found)
            field = _searched(images, pair, stage, fixed[stage.voxels], before)
            found = field * _per_axis(images.lattice.step_vox, field), images.lattice
        assert found is not None
        field_vox, lattice = found
        return _smoothed(field_vox, spacing_mm(pair.fixed_affine) * lattice.step_vox, self.smooth_mm), lattice


def _searched(
    images: LevelImages, pair: PairImages, stage: Stage, fixed: torch.Tensor, before: torch.Tensor | None
) -> torch.Tensor:
    """Return the field (1, 3, W, H, D) of a stage, in nodes of its lattice, with what was found before.

    ``fixed``: the fixed image, described.
    """
    shape = images.lattice.shape
    node = spacing_mm(pair.fixed_affine) * np.array(images.lattice.step_vox)
    pool, moves = blocks(shape, node, stage)
    size = node * pool  # mm, of the nodes that are searched for
    margin = [int(m) * p for m, p in zip(moves.abs().amax(dim=0).tolist(), pool, strict=True)]
    moving, weight = _moving(images, before, margin)
    described = [_pooled(fixed, images.fixed_weight, pool), _pooled(_described(moving, weight), weight, pool)]
    costs = match_costs(*described[0], *described[1], moves)
    unit = torch.as_tensor(size / stage.node_mm, dtype=torch.float32, device=moving.device)
    there = choose(costs, moves.to(unit) * unit)
    back = choose(reversed_costs(costs, moves), moves.to(unit) * unit)
    unit = unit.view(1, 3, 1, 1, 1)
    found = _spread(consistent(there / unit, back / unit), pool, shape)
    if before is None:
        return found
    nodes = lattice_over(shape, shape).points(found.device)[None]
    return found + sample(before, nodes + found, padding_mode="border")


def blocks(shape: Sequence[int], node_mm: np.ndarray, stage: Stage) -> tuple[list[int], torch.Tensor]:
    """Return how many image nodes a searched node stands for along each axis, and the moves that are tried.

    In a large field of view, nodes become larger than the stage asks for, until there are at most `MOST_COSTS` pairs of
    a node and a move. In a small one, as of a mouse, nodes and reach become smaller (`SHARES`).

    Args:
        shape: of the image lattice (3,).
        node_mm: distance of its nodes along each axis (3,).
        stage: what is asked for.
    """
    longest = float((node_mm * (np.array(shape) - 1)).max())
    wanted, reach = (min(mm, longest / SHARES[k]) for k, mm in (("node", stage.node_mm), ("reach", stage.reach_mm)))
    while True:
        pool = [max(1, min(round(wanted / mm), count // 4)) for mm, count in zip(node_mm, shape, strict=True)]
        moves = displacements(node_mm * pool, reach)
        if len(moves) * np.prod([count // size for count, size in zip(shape, pool, strict=True)]) <= MOST_COSTS:
            return pool, moves
        wanted *= LARGER


def _moving(
    images: LevelImages, field: torch.Tensor | None, margin: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the moving image and its weight by a field, on the level's lattice continued by a margin on every side."""
    own = images.lattice.shape
    w, h, d = (n + 2 * m for n, m in zip(own, margin, strict=True))
    nodes = Lattice((w, h, d), (-margin[0], -margin[1], -margin[2]), (1.0, 1.0, 1.0)).points(images.fixed.device)[None]
    at = nodes if field is None else nodes + sample(field, nodes, padding_mode="border")
    return sample_data(images.moving, placed(at, images.to_moving))


def _described(image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the descriptions of an image, with its mean where there is no data, so that no edge appears there by 0."""
    mean = (image * weight).sum() / weight.sum().clamp(min=PADDING_NOISE)
    return mind_ssc(torch.where(weight >= COMPARED, image, mean))


def _pooled(described: torch.Tensor, weight: torch.Tensor, pool: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean of descriptions and weights over blocks of nodes."""
    size = tuple(pool)
    return F.avg_pool3d(described, size, stride=size), F.avg_pool3d(weight, size, stride=size)


def _spread(field: torch.Tensor, pool: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """Return a field of blocks on the nodes of a lattice, in its nodes; linear between the centres of the blocks."""
    matrices = []
    for count, size, blocks in zip(shape, pool, field.shape[2:], strict=True):
        at = (torch.arange(count, dtype=torch.float64) - (size - 1) / 2) / size
        matrices.append(interpolation_matrix(blocks, at.clamp(0, blocks - 1), order=1).to(field.device))
    return separable(field, matrices) * _per_axis(pool, field)


def _on(lattice: Lattice, field_vox: torch.Tensor, source: Lattice) -> torch.Tensor:
    """Return a field in voxels on another lattice, in its nodes."""
    found = Upsampler(source, lattice, order=1, device=field_vox.device)(field_vox)
    return found / _per_axis(lattice.step_vox, found)


def _per_axis(values: Sequence[float] | Sequence[int], like: torch.Tensor) -> torch.Tensor:
    """Return one number an axis as (1, 3, 1, 1, 1)."""
    return torch.tensor([float(value) for value in values], device=like.device).view(1, 3, 1, 1, 1)


def _smoothed(field: torch.Tensor, node_mm: np.ndarray, sigma_mm: float) -> torch.Tensor:
    """Return the field smoothed by a Gaussian; beyond the border the outer nodes are repeated."""
    from scipy.ndimage import gaussian_filter

    sigma = (0.0, 0.0, *(sigma_mm / node_mm))
    return torch.from_numpy(gaussian_filter(field.cpu().numpy(), sigma, mode="nearest")).to(field)
