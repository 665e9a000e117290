"""Grids of voxels, and lattices: evenly spaced nodes in the voxel space of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ncf.space.geometry import spacing_mm, to_mm, to_vox

ROUNDING = 1e-6  # nodes: the rounding error that the affines' arithmetic may add to a whole number


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie.

    Attributes:
        shape: (W, H, D).
        affine: (4, 4), voxel -> RAS mm.
    """

    shape: tuple[int, ...]
    affine: np.ndarray

    def planes(self, first: int, last: int) -> torch.Tensor:
        """Return the indices of the voxels of some planes of the first axis, (3, last - first, H, D), float32.

        Args:
            first: the first plane.
            last: the plane after the last one.
        """
        shape = (last - first, self.shape[1], self.shape[2])
        return Lattice(shape, (float(first), 0.0, 0.0), (1.0, 1.0, 1.0)).points()

    def same_as(self, other: Grid) -> bool:
        """Tell whether another grid has the same voxels at the same places, to the bit."""
        return tuple(self.shape) == tuple(other.shape) and np.array_equal(self.affine, other.affine)

    def off_vox(self, other: Grid) -> float:
        """Return how far this grid and another lie apart, in voxels of the other.

        It is the largest distance, along any axis, between two voxels of the same index.
        """
        corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(self.shape) - 1)
        return float(np.abs(to_vox(to_mm(corners, self.affine), other.affine) - corners).max())


@dataclass(frozen=True)
class Lattice:
    """Evenly spaced nodes in the voxel space of an image: node ``i`` lies at ``origin_vox + i * step_vox``.

    Attributes:
        shape: number of nodes along each axis.
        origin_vox: position of node 0, in voxels of the image.
        step_vox: distance between nodes along each axis, in voxels of the image.
    """

    shape: tuple[int, int, int]
    origin_vox: tuple[float, float, float]
    step_vox: tuple[float, float, float]

    def axis(self, a: int, *, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """Return the positions of the nodes along one axis in voxels of the image, shape (shape[a],).

        Args:
            a: the axis, 0 to 2.
            dtype: of the result.
        """
        return self.origin_vox[a] + torch.arange(self.shape[a], dtype=dtype) * self.step_vox[a]

    def points(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Return all nodes in voxels of the image, shape (3, *shape), float32.

        Args:
            device: of the result.
        """
        axes = [self.axis(a).float().to(device) for a in range(3)]  # some devices have no float64
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))

    def affine(self, image_affine: np.ndarray) -> np.ndarray:
        """Return the affine (4, 4) of this lattice, node index -> RAS mm, by that of its image, voxel -> RAS mm."""
        own = np.eye(4)
        own[:3, :3] = np.diag(self.step_vox)
        own[:3, 3] = self.origin_vox
        return np.asarray(image_affine, dtype=np.float64) @ own


def lattice_over(shape: Sequence[int], nodes: Sequence[int]) -> Lattice:
    """Return a lattice whose corner nodes are the corner voxels of a grid.

    Args:
        shape: of the grid, in voxels (3,).
        nodes: number of nodes along each axis (3,).
    """
    step = tuple((n - 1) / (m - 1) if m > 1 else 1.0 for n, m in zip(shape, nodes, strict=True))
    return Lattice((nodes[0], nodes[1], nodes[2]), (0.0, 0.0, 0.0), (step[0], step[1], step[2]))


def nodes_for_budget(
    shape: Sequence[int], spacing: Sequence[float] | np.ndarray, budget: int, *, least: int = 2
) -> tuple[int, int, int]:
    """Return the numbers of nodes along each axis that place about ``budget`` nodes as evenly in mm as the grid allows.

    An axis never has more nodes than voxels (a thick-slice scan is not refined across its slices), and never fewer than
    ``least``, unless it has fewer voxels.

    Args:
        shape: of the grid, in voxels (3,).
        spacing: of its voxels, in mm (3,).
        budget: the total number of nodes.
        least: the smallest number along an axis.
    """
    extent = [(n - 1) * s for n, s in zip(shape, spacing, strict=True)]

    def at(step_mm: float) -> tuple[int, int, int]:
        """Return the numbers of nodes for one distance between them."""
        counts = [min(n, max(least, round(e / step_mm) + 1)) for n, e in zip(shape, extent, strict=True)]
        return counts[0], counts[1], counts[2]

    low, high = min(spacing) / 2, max(extent)
    for _ in range(60):  # bisection on the step, until it changes by far less than a voxel
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
    """Return the lattice with the level's step that covers the whole moving image, in the fixed image's voxel space.

    It continues the nodes of the level's lattice, so that at the beginning of the fit the occupancy of each node is
    exactly 1.

    Args:
        level: the lattice of the level, over the fixed image.
        fixed_affine: (4, 4), voxel -> RAS mm.
        moving_affine: (4, 4), voxel -> RAS mm.
        moving_shape: of the moving image, in voxels (3,).
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
    """Return the distance between the points of another grid along each axis of a grid, in its voxels (3,).

    Where the axes are rotated against each other, it is the root mean square of the steps, weighted by how much each
    lies along the axis.

    Args:
        affine: (4, 4), index -> mm, of the grid.
        other: (4, 4), index -> mm, of the other grid.
    """
    own, step = spacing_mm(affine), spacing_mm(other)
    turn = np.linalg.inv(np.asarray(affine, dtype=np.float64)) @ np.asarray(other, dtype=np.float64)
    cosines = np.abs(turn[:3, :3]) * own[:, None] / step[None, :]
    return np.sqrt((cosines**2) @ (step**2)) / own


def offset_between(level: Lattice, moving: Lattice) -> tuple[float, float, float]:
    """Return the position of node 0 of the level's lattice, in nodes of the moving lattice, shape (3,).

    Args:
        level: the lattice of the level.
        moving: the lattice over the moving image, with the same step (`lattice_over_moving`).
    """
    o = [(a - b) / s for a, b, s in zip(level.origin_vox, moving.origin_vox, level.step_vox, strict=True)]
    return o[0], o[1], o[2]


def isotropic_coordinates(lattice: Lattice, fixed_shape: Sequence[int], fixed_affine: np.ndarray) -> torch.Tensor:
    """Return the network's input: positions relative to the fixed image's centre, divided by half its longest side.

    All three axes have one scale in mm, so a sine of the network has one wavelength in space whatever the grid.

    Args:
        lattice: the positions, in voxels of the fixed image.
        fixed_shape: (W, H, D).
        fixed_affine: (4, 4), voxel -> RAS mm.

    Returns:
        Coordinates (3, *lattice.shape), float32; -1 to 1 along the longest side.
    """
    spacing = torch.as_tensor(spacing_mm(fixed_affine), dtype=torch.float32)
    extent = (torch.tensor([float(n - 1) for n in fixed_shape])) * spacing
    centre, half = extent / 2, half_extent_mm(fixed_shape, fixed_affine)
    shape = (3, 1, 1, 1)
    return (lattice.points() * spacing.view(shape) - centre.view(shape)) / half


def half_extent_mm(fixed_shape: Sequence[int], fixed_affine: np.ndarray) -> float:
    """Return half the longest side of the fixed image in mm: the unit of the network's input and output.

    Args:
        fixed_shape: (W, H, D).
        fixed_affine: (4, 4), voxel -> RAS mm.
    """
    return float(((np.asarray(fixed_shape) - 1) * spacing_mm(fixed_affine)).max() / 2)
