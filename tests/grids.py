"""Grids and images that several test files share."""

from __future__ import annotations

import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from ncf.space import grids

SPACING = np.array([0.7, 1.6, 2.5])
SHAPE = (9, 7, 6)


def posed(matrix: np.ndarray, *, at: tuple[float, float, float] = (-31.0, 12.5, 7.25)) -> np.ndarray:
    """An affine with `SPACING` whose axes are the columns of a rotation or reflection, voxel 0 being at ``at`` mm."""
    affine = np.eye(4)
    affine[:3, :3] = matrix @ np.diag(SPACING)
    affine[:3, 3] = at
    return affine


AFFINES = {
    "ras": posed(np.eye(3), at=(-33.0, 11.0, 8.0)),
    "lps": posed(np.diag([-1.0, -1.0, 1.0]), at=(-24.0, 18.5, 6.0)),
    "permuted": posed(np.eye(3)[[2, 0, 1]] * [1.0, -1.0, 1.0], at=(-33.0, 10.0, 21.0)),
    "oblique": posed(Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()),
}
OBLIQUE = AFFINES["oblique"]
each_affine = pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def points_inside(shape: tuple[int, ...], *, beyond: float = 0.0) -> np.ndarray:
    """Positions (3, 5, 4, 3) all over an image of ``shape`` and ``beyond`` voxels outside."""
    draw = np.random.default_rng(3).uniform(size=(3, 5, 4, 3))
    return draw * (np.reshape(shape, (3, 1, 1, 1)) - 1 + 2 * beyond) - beyond


def world(lattice: grids.Lattice, affine: np.ndarray) -> np.ndarray:
    """RAS mm (3, *shape) of a lattice's nodes, by nibabel."""
    return np.moveaxis(apply_affine(affine, np.moveaxis(lattice.points().double().numpy(), 0, -1)), -1, 0)


def same_but_for_ties(found: np.ndarray, truth: np.ndarray) -> None:
    """Two scans of whole numbers are the same but where the last bit of a saved field turns a half up or down."""
    differ = found != truth
    assert found.dtype == truth.dtype and found.dtype.kind in "iu"
    assert np.abs(found[differ].astype(int) - truth[differ]).max(initial=0) <= 1
    assert differ.mean() < 5e-4
