"""A smooth map between scans whose grids have nothing in common, and what ITK makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from scipy.spatial.transform import Rotation

from ncf.io.fields.base import FieldToSave
from ncf.io.fields.table import field_formats
from ncf.space.geometry import to_mm
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap

SHAPE, SPACING = (20, 24, 28), (2.1, 1.6, 1.3)
MOVING_SHAPE, MOVING_SPACING = (40, 44, 36), (1.9, 1.7, 2.0)
CENTRE = np.array([11.0, -23.0, 40.0])  # mm, of both grids
TURN = Rotation.from_euler("xyz", [25, -15, 40], degrees=True).as_matrix()
DIRECTIONS = {
    "ras": np.eye(3),
    "lps": np.diag([-1.0, -1.0, 1.0]),
    "permuted": np.array([[0.0, -1, 0], [0, 0, 1], [1, 0, 0]]),
    "oblique": TURN,
}
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])  # by hand, so that the tests have their own word


def grid(direction: np.ndarray, shape: tuple[int, ...], spacing: tuple[float, ...]) -> Grid:
    """A grid centred at CENTRE."""
    affine = np.eye(4)
    affine[:3, :3] = direction @ np.diag(spacing)
    affine[:3, 3] = CENTRE - affine[:3, :3] @ (np.array(shape) - 1) / 2
    return Grid(shape, affine)


def fixed_grid(name: str) -> Grid:
    return grid(DIRECTIONS[name], SHAPE, SPACING)


MOVING = grid(TURN.T @ DIRECTIONS["lps"], MOVING_SHAPE, MOVING_SPACING)


def smooth_map(name: str) -> SpatialMap:
    """A field of some voxels whose channels differ in size, sign and course; its slopes stay below 0.4."""
    x = np.indices(SHAPE)
    field = np.array([a * np.sin(x[c - 2] / 5 + c) for c, a in enumerate((1.5, -1.2, 1.9))], dtype=np.float32)
    return SpatialMap(torch.from_numpy(field), fixed_grid(name))


def points_in(shape: tuple[int, ...], affine: np.ndarray, *, margin: float = 2.0, count: int = 40) -> np.ndarray:
    """Points (N, 3) in RAS mm, all over a grid but for a margin in voxels."""
    draw = np.random.default_rng(5).uniform(size=(count, 3))
    return to_mm(margin + draw * (np.array(shape) - 1 - 2 * margin), affine)


def waves(points_mm: np.ndarray) -> np.ndarray:
    """An image as a formula of RAS mm, in HU."""
    k = 2 * np.pi / 45 * np.array([[0.6, 0.0, 0.8], [-0.48, 0.8, 0.36]])
    phases = points_mm @ k.T
    return 400 * (np.sin(phases[..., 0]) + np.cos(phases[..., 1]))


def moving_image() -> np.ndarray:
    """`waves` on the moving grid, float32."""
    voxels = np.indices(MOVING.shape).reshape(3, -1).T
    return waves(to_mm(voxels, MOVING.affine)).reshape(MOVING.shape).astype(np.float32)


def through_itk(transform: sitk.Transform, points_mm: np.ndarray) -> np.ndarray:
    """Points (N, 3) in RAS mm moved by SimpleITK."""
    return np.array([transform.TransformPoint((p * RAS_TO_LPS).tolist()) for p in points_mm]) * RAS_TO_LPS


def save_map(path: Path, mapping: SpatialMap) -> None:
    """Write a map's field in the format that the suffix names."""
    field_formats()[path.name.partition(".")[2]].save(path, FieldToSave(mapping.field, mapping.grid, None))


def itk_transform(path: Path) -> sitk.Transform:
    """The transform of a file, by SimpleITK: of a vector image, or of a transform file."""
    if path.suffix in (".h5", ".tfm"):
        return sitk.ReadTransform(str(path))
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
