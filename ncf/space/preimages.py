"""The inverse of a field: the points that a map takes to given points.

Broyden's method finds each point on its own. It is a quasi-Newton method that learns the 3x3 inverse Jacobian from the
steps before, so that each round reads the field only once. This module knows fields and grids; it must not know files.
"""

from __future__ import annotations

import torch

from ncf.space.sampling import inside, through

CLOSE_VOX = 1e-4  # how near x + u(x) must come to the target; float32 displacements are not more exact
GIVE_UP = 60  # rounds; points in folds have no origin, or several, and may never converge
STEEP = 0.05  # smallest part of a step by which the target must come nearer for the update to be trusted
AT_ONCE = 2**18  # points solved together


def preimages(field_vox: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the points x with ``x + u(x) = target``.

    Args:
        field_vox: u, (3, W, H, D), float32, in voxels.
        targets: (N, 3), in voxels, float32 or float64; the result has the same type.

    Returns:
        The points (N, 3), in voxels; and which of them are known (N,), bool. A point is not known if it lies outside
        the field's grid (half a voxel beyond its outer voxels), where ``u`` is continued from the border, or if it was
        not found to CLOSE_VOX.
    """
    found, known = torch.empty_like(targets), torch.zeros(len(targets), dtype=torch.bool)
    for first in range(0, len(targets), AT_ONCE):
        piece = slice(first, first + AT_ONCE)
        found[piece], known[piece] = _solve(field_vox[None], targets[piece])
    return found, known


def _solve(field: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    at = goal = targets.T.contiguous()
    found = at.clone()
    open_ = torch.arange(at.shape[1])  # the points that are not found yet; the other arrays hold only these
    missed = _missed(field, at, goal)
    inverse = torch.eye(3, dtype=at.dtype)[:, :, None].repeat(1, 1, at.shape[1])
    for _ in range(GIVE_UP):
        still = missed.abs().amax(dim=0) > CLOSE_VOX
        open_, at, goal, missed, inverse = (
            open_[still],
            at[:, still],
            goal[:, still],
            missed[:, still],
            inverse[:, :, still],
        )
        if not len(open_):
            break
        step = -(inverse * missed).sum(dim=1)
        ahead = _missed(field, at + step, goal)
        inverse = _learned(inverse, step, ahead - missed)
        at, missed = at + step, ahead
        found[:, open_] = at
    known = inside(found.view(1, 3, -1, 1, 1), field.shape[2:]).flatten()
    known[open_[missed.abs().amax(dim=0) > CLOSE_VOX]] = False
    return found.T, known


def _missed(field: torch.Tensor, points: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return ``x + u(x) - target`` (3, N)."""
    moved, _ = through(field, points.view(1, 3, -1, 1, 1))
    return moved.reshape(3, -1) - targets


def _learned(inverse: torch.Tensor, step: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """Return the inverse Jacobians (3, 3, N), corrected so that they map a change (3, N) to its step (Broyden 1965)."""
    explained = (inverse * change).sum(dim=1)
    row = (step[:, None] * inverse).sum(dim=0)
    length = (row * change).sum(dim=0)
    trusted = length.abs() > STEEP * (step * step).sum(dim=0)
    share = torch.where(trusted, 1 / length, 0.0)
    return inverse + (step - explained)[:, None] * row[None] * share
