"""A saved field in a few numbers: how far it goes, where it leaves the moving scan, how volumes change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ncf.space.geometry import field_to_mm
from ncf.space.grids import Grid
from ncf.space.sampling import inside, moving_positions

NODES = 160_000  # of the lattice on which the field is summarised


@dataclass(frozen=True)
class Motion:
    """The field in numbers.

    Attributes:
        mean_mm: mean length of the displacement, on a lattice of about `NODES` voxels.
        largest_mm: largest length of the displacement on that lattice.
        outside: share of the fixed grid whose counterpart lies outside the moving scan, on that lattice.
        below: share of all voxels with a determinant below 1/3.
        above: share of all voxels with a determinant above 3.
    """

    mean_mm: float
    largest_mm: float
    outside: float
    below: float
    above: float


def motion_of(field_vox: torch.Tensor, det: torch.Tensor, *, fixed: Grid, moving: Grid) -> Motion:
    """Summarise a field on a lattice of about `NODES` voxels, and its determinant everywhere.

    Args:
        field_vox: u, (3, W, H, D), in voxels of the fixed grid, fixed to moving.
        det: its Jacobian determinant, (W, H, D).
        fixed: the fixed grid.
        moving: the moving grid.
    """
    step = max(1, round((np.prod(fixed.shape) / NODES) ** (1 / 3)))
    coarse = field_vox[:, ::step, ::step, ::step]
    own = fixed.affine @ np.diag([step, step, step, 1.0])  # of every step-th voxel
    length = field_to_mm(coarse, fixed.affine).norm(dim=0)
    positions = moving_positions(coarse[None] / step, fixed_affine=own, moving_affine=moving.affine)
    return Motion(
        mean_mm=float(length.mean()),
        largest_mm=float(length.max()),
        outside=1 - float(inside(positions, moving.shape).float().mean()),
        below=float((det < 1 / 3).float().mean()),
        above=float((det > 3).float().mean()),
    )
