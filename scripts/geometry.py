"""Every convention of the project about space, in one place: grids, fields, units, directions, lattices.

This room knows voxel indices, millimetres and lattices. It must not know networks, losses, files or configs, and no other
module may repeat its arithmetic (`tests/test_layers.py` holds that).

Conventions
-----------
* A *grid* is an array shape with an affine: voxel index -> RAS millimetres (as nibabel and MONAI have it).
* A *field* ``u`` lives on the fixed image's grid, shape ``(3, W, H, D)`` (often with a leading batch axis), float32;
  channel ``c`` moves array axis ``c``, in voxels of that grid. ``warped(x) = moving(A_m^-1 A_f (x + u(x)))``.
* Millimetres: RAS displacement is ``A_f[:3, :3] @ u``; ITK wants LPS, which negates the first two components.
* Voxel *i* is a point, the centre of a cell. Reading between voxels is the business of `scripts.sampling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

ROUNDING = 1e-6  # of a node: what the affines' arithmetic may add to a whole number
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])  # a displacement's or a point's components; its own inverse


def spacing_mm(affine: np.ndarray) -> np.ndarray:
    """Voxel size along each array axis in mm, shape (3,), from a 4x4 voxel -> mm affine."""
    return np.sqrt((np.asarray(affine, dtype=np.float64)[:3, :3] ** 2).sum(axis=0))


def to_mm(points_vox: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """RAS millimetres (N, 3) of voxel indices (N, 3)."""
    affine = np.asarray(affine, dtype=np.float64)
    return np.asarray(points_vox, dtype=np.float64) @ affine[:3, :3].T + affine[:3, 3]


def to_vox(points_mm: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Voxel indices (N, 3) of RAS millimetres (N, 3)."""
    return to_mm(points_mm, np.linalg.inv(np.asarray(affine, dtype=np.float64)))


def field_to_mm(field_vox: torch.Tensor, affine: np.ndarray) -> torch.Tensor:
    """Displacement in RAS mm, shape (..., 3, W, H, D), of a field in voxels of the same shape."""
    matrix = torch.as_tensor(np.asarray(affine)[:3, :3], dtype=field_vox.dtype, device=field_vox.device)
    return torch.einsum("cd,...dwhk->...cwhk", matrix, field_vox)


def field_to_vox(field_mm: torch.Tensor, affine: np.ndarray) -> torch.Tensor:
    """Displacement in voxels, shape (..., 3, W, H, D), of a field in RAS mm of the same shape."""
    return field_to_mm(field_mm, np.linalg.inv(np.asarray(affine, dtype=np.float64)))


def placed(points: torch.Tensor, affine: np.ndarray) -> torch.Tensor:
    """Points (..., 3, W, H, D) moved by a 4x4 affine, in their own precision."""
    offset = torch.as_tensor(np.asarray(affine)[:3, 3], dtype=points.dtype, device=points.device)
    return field_to_mm(points, affine) + offset.view(3, 1, 1, 1)


def from_lps(affine: np.ndarray) -> np.ndarray:
    """The 4x4 map of RAS mm to RAS mm that is ``affine`` in LPS mm; the other way round it is the same."""
    turn = np.eye(4)
    turn[:3, :3] = RAS_TO_LPS
    return turn @ np.asarray(affine, dtype=np.float64) @ turn


def jacobian_of_map(field: torch.Tensor) -> torch.Tensor:
    """Determinant (W, H, D) of the Jacobian of x -> x + u(x), for u (3, W, H, D) in nodes of its own lattice.

    Central differences inside, one-sided ones at the borders; 0 or less is a fold. In mm it is the same number.
    """
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = (_slopes(field, axis).unbind() for axis in (1, 2, 3))
    xx, yy, zz = xx + 1, yy + 1, zz + 1
    return xx * (yy * zz - yz * zy) - xy * (yx * zz - yz * zx) + xz * (yx * zy - yy * zx)


def _slopes(field: torch.Tensor, axis: int) -> torch.Tensor:
    """How a field changes from node to node along one axis: torch.gradient's numbers in a third of its time."""
    last = field.shape[axis] - 1
    inner = (field.narrow(axis, 2, last - 1) - field.narrow(axis, 0, last - 1)) * 0.5
    ends = [field.narrow(axis, n + 1, 1) - field.narrow(axis, n, 1) for n in (0, last - 1)]
    return torch.cat([ends[0], inner, ends[1]], axis)


def size_and_turn(affine: np.ndarray) -> tuple[float, float]:
    """Return the size of an affine map (4, 4), the cubic root of its determinant, and its rotation in degrees."""
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    size = float(np.cbrt(np.linalg.det(linear)))
    return size, float(np.degrees(np.arccos(np.clip((np.trace(linear / size) - 1) / 2, -1, 1))))


def translation(shift_mm: Sequence[float] | np.ndarray) -> np.ndarray:
    """The 4x4 affine that moves every point by ``shift_mm`` (3,)."""
    moved = np.eye(4)
    moved[:3, 3] = shift_mm
    return moved


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie: its shape (W, H, D) and affine (4, 4), voxel -> RAS mm."""

    shape: tuple[int, ...]
    affine: np.ndarray

    def planes(self, first: int, last: int) -> torch.Tensor:
        """Indices (3, last - first, H, D), float32, of the voxels of some planes of the first axis."""
        shape = (last - first, self.shape[1], self.shape[2])
        return Lattice(shape, (float(first), 0.0, 0.0), (1.0, 1.0, 1.0)).points()

    def same_as(self, other: Grid) -> bool:
        """Whether both have the same voxels at the same places, to the bit."""
        return tuple(self.shape) == tuple(other.shape) and np.array_equal(self.affine, other.affine)

    def off_vox(self, other: Grid) -> float:
        """How far, in voxels of another grid, a voxel of this one lies at most from the other's of that index."""
        corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(self.shape) - 1)
        return float(np.abs(to_vox(to_mm(corners, self.affine), other.affine) - corners).max())


@dataclass(frozen=True)
class Lattice:
    """Evenly spread points in an image's voxel space: node ``i`` lies at ``origin_vox + i * step_vox``."""

    shape: tuple[int, int, int]
    origin_vox: tuple[float, float, float]
    step_vox: tuple[float, float, float]

    def axis(self, a: int, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """Positions of the nodes along axis ``a`` in the image's voxels, shape (shape[a],)."""
        return self.origin_vox[a] + torch.arange(self.shape[a], dtype=dtype) * self.step_vox[a]

    def points(self) -> torch.Tensor:
        """All nodes in the image's voxels, shape (3, *shape), float32."""
        return torch.stack(torch.meshgrid(*[self.axis(a) for a in range(3)], indexing="ij")).float()

    def affine(self, image_affine: np.ndarray) -> np.ndarray:
        """The 4x4 affine node index -> RAS mm of this lattice, by that of its image."""
        own = np.eye(4)
        own[:3, :3] = np.diag(self.step_vox)
        own[:3, 3] = self.origin_vox
        return np.asarray(image_affine, dtype=np.float64) @ own


def lattice_over(shape: Sequence[int], nodes: Sequence[int]) -> Lattice:
    """The lattice of ``nodes`` points whose corners are the corners of a grid of ``shape`` voxels."""
    step = tuple((n - 1) / (m - 1) if m > 1 else 1.0 for n, m in zip(shape, nodes, strict=True))
    return Lattice((nodes[0], nodes[1], nodes[2]), (0.0, 0.0, 0.0), (step[0], step[1], step[2]))


def nodes_for_budget(
    shape: Sequence[int], spacing: Sequence[float] | np.ndarray, budget: int, *, least: int = 2
) -> tuple[int, int, int]:
    """Node counts along each axis so that about ``budget`` points are spread as evenly in mm as the grid allows.

    Never more nodes than voxels along an axis (a thick-slice scan is not refined across its slices), and never fewer than
    ``least`` where the axis has as many voxels.
    """
    extent = [(n - 1) * s for n, s in zip(shape, spacing, strict=True)]

    def at(step_mm: float) -> tuple[int, int, int]:
        counts = [min(n, max(least, round(e / step_mm) + 1)) for n, e in zip(shape, extent, strict=True)]
        return counts[0], counts[1], counts[2]

    low, high = min(spacing) / 2, max(extent)
    for _ in range(60):  # bisection on the step, far below a voxel's difference
        middle = (low * high) ** 0.5
        low, high = (middle, high) if np.prod(at(middle)) > budget else (low, middle)
    return at(high)


def lattice_over_moving(
    level: Lattice,
    fixed_affine: np.ndarray,
    *,
    moving_affine: np.ndarray,
    moving_shape: Sequence[int],
) -> Lattice:
    """The lattice with the level's step that covers the whole moving image, in the fixed image's voxel space.

    Its nodes are those of the level's lattice, continued: where the fit begins, every node is visited once, exactly.
    """
    corners = np.array(np.meshgrid(*[[0, n - 1] for n in moving_shape], indexing="ij")).reshape(3, -1).T
    inside = to_vox(to_mm(corners, moving_affine), fixed_affine)
    origin, step = np.array(level.origin_vox), np.array(level.step_vox)
    first = np.floor((inside.min(axis=0) - origin) / step + ROUNDING)
    last = np.ceil((inside.max(axis=0) - origin) / step - ROUNDING)
    w, h, d = (np.maximum(last - first, 1).astype(int) + 1).tolist()
    x, y, z = (origin + first * step).tolist()
    return Lattice((w, h, d), (x, y, z), level.step_vox)


def step_along(affine: np.ndarray, other: np.ndarray) -> np.ndarray:
    """How far apart the points of the grid ``other`` lie along each axis of the grid ``affine``, in its voxels, shape (3,).

    Both are 4x4, index -> mm; where the axes are turned, the mean square of the steps that lie along an axis.
    """
    own, step = spacing_mm(affine), spacing_mm(other)
    turn = np.linalg.inv(np.asarray(affine, dtype=np.float64)) @ np.asarray(other, dtype=np.float64)
    cosines = np.abs(turn[:3, :3]) * own[:, None] / step[None, :]
    return np.sqrt((cosines**2) @ (step**2)) / own


def offset_between(level: Lattice, moving: Lattice) -> tuple[float, float, float]:
    """Where node 0 of the level lies in nodes of the moving lattice (both have one step), shape (3,)."""
    o = [(a - b) / s for a, b, s in zip(level.origin_vox, moving.origin_vox, level.step_vox, strict=True)]
    return o[0], o[1], o[2]


def isotropic_coordinates(lattice: Lattice, fixed_shape: Sequence[int], fixed_affine: np.ndarray) -> torch.Tensor:
    """Network input, shape (3, *lattice.shape): positions about the fixed image's centre over half its longest side.

    One scale in mm for all three axes, so a sine of the network has one wavelength in space whatever the grid.
    """
    spacing = torch.as_tensor(spacing_mm(fixed_affine), dtype=torch.float32)
    extent = (torch.tensor([float(n - 1) for n in fixed_shape])) * spacing
    centre, half = extent / 2, half_extent_mm(fixed_shape, fixed_affine)
    shape = (3, 1, 1, 1)
    return (lattice.points() * spacing.view(shape) - centre.view(shape)) / half


def half_extent_mm(fixed_shape: Sequence[int], fixed_affine: np.ndarray) -> float:
    """Half the longest side of the fixed image in mm: the unit of the network's input and output."""
    return float(((np.asarray(fixed_shape) - 1) * spacing_mm(fixed_affine)).max() / 2)


def interpolation_matrix(source: int, positions: torch.Tensor, *, order: int) -> torch.Tensor:
    """Weights (len(positions), source), float32, that interpolate a row of ``source`` nodes at ``positions`` (in nodes).

    ``order`` 1 is linear; 3 is the uniform cubic B-spline (an approximating one: nodes are control points), with the
    nodes beyond either end extrapolated linearly, so that a linear row is reproduced exactly by both.
    """
    if order not in (1, 3):
        raise ValueError(f"interpolation order is 1 (linear) or 3 (cubic B-spline), not {order}")
    if source == 1:
        return torch.ones(len(positions), 1)
    positions = positions.double()
    base = positions.floor().clamp(0, source - 2)
    t = positions - base
    if order == 1:
        weights, first = [1 - t, t], 0
    else:
        first = -1
        weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3]
        weights = [w / 6 for w in weights]
    matrix = torch.zeros(len(positions), source + 2, dtype=torch.float64)
    rows = torch.arange(len(positions))
    for k, weight in enumerate(weights):
        matrix.index_put_((rows, base.long() + first + k + 1), weight, accumulate=True)
    inner = matrix[:, 1:-1].clone()
    inner[:, 0] += 2 * matrix[:, 0]
    inner[:, 1] -= matrix[:, 0]
    inner[:, -1] += 2 * matrix[:, -1]
    inner[:, -2] -= matrix[:, -1]
    return inner.float()


def separable(volume: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """``volume`` (..., W, H, D) with one matrix (out, in) applied along each of its last three axes."""
    first, second, third = matrices
    volume = volume @ third.T
    volume = second @ volume
    lead, (w, h, d) = volume.shape[:-3], volume.shape[-3:]
    return (first @ volume.reshape(*lead, w, h * d)).reshape(*lead, first.shape[0], h, d)


class Upsampler:
    """Values on a control lattice -> values on a finer lattice, by three small matrix products (linear or B-spline)."""

    def __init__(self, control: Lattice, fine: Lattice, *, order: int, device: torch.device | str = "cpu") -> None:
        self.matrices = []
        for a in range(3):
            nodes = (fine.axis(a) - control.origin_vox[a]) / control.step_vox[a]
            self.matrices.append(interpolation_matrix(control.shape[a], nodes, order=order).to(device))

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Values (B, C, *fine) of control values (B, C, *control)."""
        return separable(values, self.matrices)
