"""The one home of all conventions about space: grids, fields, units, directions, lattices.

This module knows voxel indices, millimetres and lattices. It must not know networks, losses, files or configs, and no
other module may repeat its arithmetic (`tests/test_layers.py` checks that).

Conventions
-----------
* A *grid* is an array shape with an affine, voxel index -> RAS millimetres (as in nibabel and MONAI).
* A *field* ``u`` lies on the fixed image's grid, shape ``(3, W, H, D)`` (often with a leading batch axis), float32.
  Channel ``c`` moves array axis ``c``, in voxels of that grid. ``warped(x) = moving(A_m^-1 A_f (x + u(x)))``.
* In millimetres the RAS displacement is ``A_f[:3, :3] @ u``. ITK uses LPS, which negates the first two components.
* Voxel *i* is a point, the centre of a cell. Reading between voxels is the task of `ncf.space.sampling`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])  # for the components of a displacement or a point; its own inverse
FLAT_VOLUME = 1e-6  # a cell with less than this fraction of its box's volume is flat: two axes coincide
SQUARE = 1e-3  # how far axes may be from 90 degrees, as a cosine: ITK's directions are rotations


def spacing_mm(affine: np.ndarray) -> np.ndarray:
    """Return the voxel size along each array axis in mm, shape (3,), of a 4x4 affine, voxel -> mm."""
    return np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(axis=0))


def is_solid(affine: np.ndarray) -> bool:
    """Tell whether an affine (4, 4) is finite, and the cells of its grid have a volume."""
    affine = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(affine).all():
        return False
    return bool(abs(np.linalg.det(affine[:3, :3])) > FLAT_VOLUME * np.prod(spacing_mm(affine)))


def is_sheared(affine: np.ndarray) -> bool:
    """Tell whether the axes of a grid, by its affine (4, 4), are not at right angles."""
    axes = np.asarray(affine, dtype=np.float64)[:3, :3] / spacing_mm(affine)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > SQUARE)


def to_mm(points_vox: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the RAS mm (N, 3), float64, of voxel indices.

    Args:
        points_vox: voxel indices (N, 3).
        affine: (4, 4), voxel -> RAS mm.
    """
    affine = np.asarray(affine, dtype=np.float64)
    return np.asarray(points_vox, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]


def to_vox(points_mm: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the voxel indices (N, 3), float64, of points in RAS mm.

    Args:
        points_mm: RAS mm (N, 3).
        affine: (4, 4), voxel -> RAS mm.
    """
    return to_mm(points_mm, np.linalg.inv(np.asarray(affine, dtype=np.float64)))


def field_to_mm(field_vox: torch.Tensor, affine: np.ndarray) -> torch.Tensor:
    """Return a field (..., 3, W, H, D) in RAS mm.

    Args:
        field_vox: (..., 3, W, H, D), in voxels.
        affine: (4, 4), voxel -> RAS mm.
    """
    matrix = torch.as_tensor(np.asarray(affine)[:3, :3], dtype=field_vox.dtype, device=field_vox.device)
    return torch.einsum("cd,...dwhk->...cwhk", matrix, field_vox)


def field_to_vox(field_mm: torch.Tensor, affine: np.ndarray) -> torch.Tensor:
    """Return a field (..., 3, W, H, D) in voxels.

    Args:
        field_mm: (..., 3, W, H, D), in RAS mm.
        affine: (4, 4), voxel -> RAS mm.
    """
    return field_to_mm(field_mm, np.linalg.inv(np.asarray(affine, dtype=np.float64)))


def placed(points: torch.Tensor, affine: np.ndarray) -> torch.Tensor:
    """Apply an affine to points, in their own precision.

    Args:
        points: (..., 3, W, H, D).
        affine: (4, 4).

    Returns:
        The moved points (..., 3, W, H, D).
    """
    offset = torch.as_tensor(np.asarray(affine)[:3, 3], dtype=points.dtype, device=points.device)
    return field_to_mm(points, affine) + offset.view(3, 1, 1, 1)


def from_lps(affine: np.ndarray) -> np.ndarray:
    """Return an affine map (4, 4) in LPS mm as a map in RAS mm; the way back is the same."""
    turn = np.eye(4)
    turn[:3, :3] = RAS_TO_LPS
    return turn @ np.asarray(affine, dtype=np.float64) @ turn


def size_and_turn(affine: np.ndarray) -> tuple[float, float]:
    """Return the size of an affine map and its rotation in degrees.

    Args:
        affine: (4, 4). Its size is the cubic root of its determinant.
    """
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    size = float(np.cbrt(np.linalg.det(linear)))
    return size, float(np.degrees(np.arccos(np.clip((np.trace(linear / size) - 1) / 2, -1, 1))))


def translation(shift_mm: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the affine (4, 4) that moves every point by ``shift_mm`` (3,)."""
    moved = np.eye(4)
    moved[:3, 3] = shift_mm
    return moved
