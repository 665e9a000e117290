"""Which of many moves each node takes: the costs of all moves, and a choice for all nodes together.

Coupled convex optimisation: Heinrich et al. 2014, doi:10.1007/978-3-319-10404-1_32. Nodes and moves only; this room
must not know where they lie in a patient.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from ncf.fit.mind import box_mean
from ncf.space.grids import lattice_over
from ncf.space.sampling import sample

COMPARED = 0.5  # share of a node's neighbourhood that must hold data
# how much a choice may cost for agreeing with its neighbours', more and more; the first round, from standing still,
# is free up to ties
COUPLINGS = (0.003, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
NODES = 4096  # nodes that are decided at a time on a processor, so that their costs stay in its cache
ROUNDS = 15  # of making both directions one another's inverse


def displacements(size_mm: Sequence[float] | np.ndarray, reach_mm: float) -> torch.Tensor:
    """Return the moves that are tried, in nodes: all within a ball.

    Args:
        size_mm: distance of two nodes along each axis (3,).
        reach_mm: radius of the ball; at least one node along each axis.

    Returns:
        (M, 3), int64, in the order of the indices. The opposite of every move is among them.
    """
    most = [max(1, round(reach_mm / mm)) for mm in size_mm]
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
        fixed_weight: (1, 1, W, H, D), 0 to 1: below `COMPARED` a node is not compared.
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
    there, known = fixed_weight[0, 0] >= COMPARED, moving_weight[0, 0] >= COMPARED
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
    chose in the round before. Before the first round all stand still, so a node that has nothing to compare does too.

    Args:
        costs: (M, W, H, D).
        moves: (M, 3), float32, in one unit for all axes.

    Returns:
        (1, 3, W, H, D), in that unit: the mean of the choices around each node.
    """
    rows, shape = costs.flatten(1).T.contiguous(), costs.shape[1:]  # a node's costs side by side
    squares = (moves * moves).sum(dim=1)
    around, at_a_time = moves.new_zeros(1, 3, *shape), NODES if rows.device.type == "cpu" else len(rows)
    for coupling in COUPLINGS:
        pull = torch.cat([-2 * coupling * moves.T, coupling * squares[None]])
        own = torch.cat([around[0].flatten(1).T, torch.ones_like(rows[:, :1])], dim=1)
        parts = zip(rows.split(at_a_time), own.split(at_a_time), strict=True)
        best = torch.cat([torch.addmm(some, place, pull).min(dim=1).indices for some, place in parts])
        around = box_mean(moves[best].T.reshape(1, 3, *shape).contiguous(), 1)
    return around


def consistent(there: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
    """Return the first of two fields, made more and more the inverse of the second, and the second of the first.

    Args:
        there: (1, 3, W, H, D), in nodes.
        back: the same, the other way.
    """
    nodes = lattice_over(there.shape[2:], there.shape[2:]).points(there.device)[None]
    for _ in range(ROUNDS):
        there, back = (
            0.5 * (there - sample(back, nodes + there, padding_mode="border")),
            0.5 * (back - sample(there, nodes + back, padding_mode="border")),
        )
    return there
