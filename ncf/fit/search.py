"""A discrete search for large motion: where each part of the fixed scan lies in the moving one, among many places.

A fit follows the slope of its loss, so it cannot see a match that lies further away than its images are smooth. The
search compares each node with every node within reach, and chooses for all nodes together: a choice may cost more
where it agrees with its neighbours' (coupled convex optimisation: Heinrich et al. 2014,
doi:10.1007/978-3-319-10404-1_32; Siebert et al. 2021, doi:10.48550/arXiv.2112.03053). It need not be exact, it need
only lead to the right valley. This room must not know networks, losses or files.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from ncf.fit.mind import box_mean, mind_ssc
from ncf.fit.pyramid import LevelImages, PairImages, level_images
from ncf.space.geometry import spacing_mm
from ncf.space.grids import Lattice, lattice_over
from ncf.space.interpolation import Upsampler, interpolation_matrix, separable
from ncf.space.sampling import PADDING_NOISE, gaussian_matrix, sample

LEAST_NODES = 12  # along an axis of the image lattices
HALF = 0.5  # of a node's neighbourhood must hold data to be compared
# how much a choice may cost for agreeing with its neighbours', more and more
COUPLINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
NODES = 4096  # nodes that are decided at a time, so that their costs stay in the processor's cache
MOST_COSTS, LARGER = 12_000_000, 1.1  # costs of a stage: 48 MB, of which some four are needed at a time
ROUNDS = 15  # of making both directions one another's inverse


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
        for stage in self.stages.values():
            images = level_images(pair, stage.voxels, least=LEAST_NODES)
            field = _searched(images, pair, stage, None if found is None else _on(images.lattice, *found))
            found = field * _per_axis(images.lattice.step_vox, field), images.lattice
        assert found is not None
        field_vox, lattice = found
        return _smoothed(field_vox, spacing_mm(pair.fixed_affine) * lattice.step_vox, self.smooth_mm), lattice


def _searched(images: LevelImages, pair: PairImages, stage: Stage, before: torch.Tensor | None) -> torch.Tensor:
    """Return the field (1, 3, W, H, D) of a stage, in nodes of its lattice, with what was found before."""
    shape = images.lattice.shape
    node = spacing_mm(pair.fixed_affine) * np.array(images.lattice.step_vox)
    pool, moves = blocks(shape, node, stage)
    size = node * pool  # mm, of the nodes that are searched for
    margin = [int(m) * p for m, p in zip(moves.abs().amax(dim=0).tolist(), pool, strict=True)]
    moving, weight = _moving(images, before, margin)
    described = [
        _pooled(mind_ssc(_filled(i, w)), w, pool) for i, w in ((images.fixed, images.fixed_weight), (moving, weight))
    ]
    costs = match_costs(*described[0], *described[1], moves)
    unit = torch.as_tensor(size / stage.node_mm, dtype=torch.float32, device=moving.device)
    there = choose(costs, moves.to(unit) * unit)
    back = choose(reversed_costs(costs, moves), moves.to(unit) * unit)
    unit = unit.view(1, 3, 1, 1, 1)
    found = _spread(consistent(there / unit, back / unit), pool, shape)
    if before is None:
        return found
    nodes = lattice_over(shape, shape).points()[None].to(found)
    return found + sample(before, nodes + found, padding_mode="border")


def blocks(shape: Sequence[int], node_mm: np.ndarray, stage: Stage) -> tuple[list[int], torch.Tensor]:
    """Return how many image nodes a searched node stands for along each axis, and the moves that are tried.

    In a large field of view, nodes become larger than the stage asks for, until there are at most `MOST_COSTS` pairs of
    a node and a move.

    Args:
        shape: of the image lattice (3,).
        node_mm: distance of its nodes along each axis (3,).
        stage: what is asked for.
    """
    wanted = stage.node_mm
    while True:
        pool = [max(1, min(round(wanted / mm), count // 4)) for mm, count in zip(node_mm, shape, strict=True)]
        moves = displacements(node_mm * pool, stage.reach_mm)
        if len(moves) * np.prod([count // size for count, size in zip(shape, pool, strict=True)]) <= MOST_COSTS:
            return pool, moves
        wanted *= LARGER


def displacements(size_mm: Sequence[float] | np.ndarray, reach_mm: float) -> torch.Tensor:
    """Return the moves that are tried, in nodes: all within a ball.

    Args:
        size_mm: distance of two nodes along each axis (3,).
        reach_mm: radius of the ball; at least one node along each axis.

    Returns:
        (M, 3), int64, in the order of the indices. The opposite of every move is among them.
    """
    most = [max(1, int(reach_mm / mm + HALF)) for mm in size_mm]
    moves = itertools.product(*(range(-m, m + 1) for m in most))
    inside = [move for move in moves if sum((a / m) ** 2 for a, m in zip(move, most, strict=True)) <= 1]
    return torch.tensor(inside)


def match_costs(
    fixed: torch.Tensor,
    fixed_weight: torch.Tensor,
    moving: torch.Tensor,
    moving_weight: torch.Tensor,
    moves: torch.Tensor,
) -> torch.Tensor:
    """Return how badly each fixed node matches the moving node that each move leads to.

    Args:
        fixed: descriptions (1, C, W, H, D).
        fixed_weight: (1, 1, W, H, D), 0 to 1: below `HALF` a node is not compared.
        moving: descriptions on the same nodes, continued on every side as far as the moves reach.
        moving_weight: of these nodes.
        moves: of `displacements`, (M, 3).

    Returns:
        Sums of squared differences (M, W, H, D). Where there is nothing to compare, a move costs what the node's other
        moves cost on average, so it neither attracts nor repels.
    """
    shape = fixed.shape[2:]
    most = moves.abs().amax(dim=0).tolist()
    own, other = (fixed * fixed).sum(dim=1)[0], (moving * moving).sum(dim=1)[0]
    there, known = fixed_weight[0, 0] >= HALF, moving_weight[0, 0] >= HALF
    costs = fixed.new_empty(len(moves), *shape)
    nothing = costs.new_tensor(torch.nan)
    for cost, move in zip(costs, moves.tolist(), strict=True):
        x, y, z = (slice(m + a, m + a + n) for m, a, n in zip(most, move, shape, strict=True))
        product = (fixed[0] * moving[0, :, x, y, z]).sum(dim=0)
        torch.where(there & known[x, y, z], own + other[x, y, z] - 2 * product, nothing, out=cost)
    return _neutral(costs)


def reversed_costs(costs: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Return the costs of the moves from the moving nodes to the fixed ones: the same pairs, seen from the other side.

    Args:
        costs: (M, W, H, D), of the moves from fixed to moving nodes.
        moves: (M, 3); the opposite of each is ``len(moves) - 1 - i``, as `displacements` orders them.

    Returns:
        (M, W, H, D), for the moving nodes at the places of the fixed ones.
    """
    shape = costs.shape[1:]
    found = torch.full_like(costs, torch.nan)
    for number, move in enumerate(moves.tolist()):
        x, y, z = (slice(max(0, -a), n - max(0, a)) for a, n in zip(move, shape, strict=True))
        i, j, k = (slice(max(0, a), n - max(0, -a)) for a, n in zip(move, shape, strict=True))
        found[number, x, y, z] = costs[len(moves) - 1 - number, i, j, k]
    return _neutral(found)


def _neutral(costs: torch.Tensor) -> torch.Tensor:
    """Replace unknown costs (nan) by the mean of the node's known ones, 0 where none is known; in place."""
    known = ~costs.isnan()
    mean = costs.nan_to_num(nan=0.0).sum(dim=0) / known.sum(dim=0).clamp(min=1)
    return torch.where(known, costs, mean, out=costs)


def choose(costs: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Choose a move for every node, so that a node and its neighbours agree.

    In each round a node takes the move of least cost plus coupling times the squared distance to what its neighbours
    chose in the round before.

    Args:
        costs: (M, W, H, D).
        moves: (M, 3), float32, in one unit for all axes.

    Returns:
        (1, 3, W, H, D), in that unit: the mean of the choices around each node.
    """
    rows, shape = costs.flatten(1).T.contiguous(), costs.shape[1:]  # a node's costs side by side
    squares = (moves * moves).sum(dim=1)
    best = rows.min(dim=1).indices
    for coupling in COUPLINGS:
        around = box_mean(moves[best].T.reshape(1, 3, *shape).contiguous(), 1)
        pull = torch.cat([-2 * coupling * moves.T, coupling * squares[None]])
        own = torch.cat([around[0].flatten(1).T, torch.ones_like(rows[:, :1])], dim=1)
        parts = zip(rows.split(NODES), own.split(NODES), strict=True)
        best = torch.cat([torch.addmm(some, place, pull).min(dim=1).indices for some, place in parts])
    return box_mean(moves[best].T.reshape(1, 3, *shape).contiguous(), 1)


def consistent(there: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """Return the first of two fields, made more and more the inverse of the second, and the second of the first.

    Args:
        there: (1, 3, W, H, D), in nodes.
        back: the same, the other way.
    """
    nodes = lattice_over(there.shape[2:], there.shape[2:]).points()[None].to(there)
    for _ in range(ROUNDS):
        there, back = (
            0.5 * (there - sample(back, nodes + there, padding_mode="border")),
            0.5 * (back - sample(there, nodes + back, padding_mode="border")),
        )
    return there


def _moving(
    images: LevelImages, field: torch.Tensor | None, margin: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the moving image and its weight by a field, on the level's lattice continued by a margin on every side."""
    own = images.lattice.shape
    w, h, d = (n + 2 * m for n, m in zip(own, margin, strict=True))
    nodes = Lattice((w, h, d), (-margin[0], -margin[1], -margin[2]), (1.0, 1.0, 1.0)).points()[None].to(images.fixed)
    at = nodes if field is None else nodes + sample(field, nodes, padding_mode="border")
    matrix = torch.as_tensor(images.to_moving, dtype=torch.float32, device=at.device)
    positions = matrix[:3, :3] @ at.reshape(3, -1) + matrix[:3, 3:]
    read = sample(images.moving, positions.reshape(1, 3, w, h, d))
    return read[:, :1] / read[:, 1:].clamp(min=PADDING_NOISE), read[:, 1:].clamp(0, 1)


def _filled(image: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the image with its mean where there is no data, so that no edge appears there by 0."""
    mean = (image * weight).sum() / weight.sum().clamp(min=PADDING_NOISE)
    return torch.where(weight >= HALF, image, mean)


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
    matrices = []
    for count, mm in zip(field.shape[2:], node_mm, strict=True):
        reach = int(np.ceil(3 * sigma_mm / mm))
        weights = gaussian_matrix(count + 2 * reach, sigma_mm / mm)[reach : reach + count]
        inner = weights[:, reach : reach + count].clone()
        inner[:, 0] += weights[:, :reach].sum(dim=1)
        inner[:, -1] += weights[:, reach + count :].sum(dim=1)
        matrices.append(inner.to(field.device))
    return separable(field, matrices)
