"""A breathing chest with an exact truth: the default data of the demo, the tests and the benchmarks.

This module moves the points of `ncf.phantom.anatomy` and evaluates its formulas on grids: a fixed image (exhale) and a
moving image (inhale), as Learn2Reg pairs lungs. Nothing is ever resampled: intensities, labels, field and landmarks are
evaluated at displaced points. So ``moving(phi(x)) = fixed(x)`` holds by formula, except for the density of the lungs
and the noise. It must not know networks, losses or configs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

from ncf.core.errors import PairError
from ncf.phantom.anatomy import CAGE_MM, FIELD_OF_VIEW_MM, LABELS, Anatomy, bell
from ncf.space.geometry import field_to_vox, to_mm, to_vox
from ncf.space.grids import Grid

__all__ = ["LABELS", "Breathing", "Chest", "PhantomPair", "breathing_thorax", "write"]
SMALLEST_SHAPE = 16  # voxels along an axis; with fewer, a lung is only a few voxels
TINY_VOXEL_MM3 = 1e-9  # an affine with smaller voxels cannot be inverted
POINTS_AT_ONCE = 40_000  # so that a slab's arrays fit into the processor's cache


@dataclass(frozen=True)
class PhantomPair:
    """Two images of one chest, and where each point of the first lies in the second.

    Attributes:
        fixed, moving: float32, HU, each on its own grid.
        fixed_label, moving_label: uint8, numbered as in `LABELS`.
        affine, moving_affine: (4, 4), voxel -> RAS mm.
        field_vox: (3, W, H, D), float32, on the fixed grid, in its voxels, fixed to moving.
        landmarks: (N, 6), float64, the fixed voxel and then the moving voxel of the same point.
    """

    fixed: np.ndarray
    moving: np.ndarray
    fixed_label: np.ndarray
    moving_label: np.ndarray
    affine: np.ndarray
    moving_affine: np.ndarray
    field_vox: np.ndarray
    landmarks: np.ndarray


def _slabs(grid: Grid) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield slabs of a grid along its first axis, each with its voxel indices (N, 3)."""
    rows = max(1, POINTS_AT_ONCE // (grid.shape[1] * grid.shape[2]))
    for first in range(0, grid.shape[0], rows):
        last = min(first + rows, grid.shape[0])
        axes = (np.arange(first, last), np.arange(grid.shape[1]), np.arange(grid.shape[2]))
        yield slice(first, last), np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


class Breathing:
    """The motion from exhale to inhale: a move along each axis, each with inverse and Jacobian in closed form.

    A move along one axis is ``sinh(t') = exp(g) * sinh(t) + h`` with ``t = (coordinate - centre) / width``, where g and
    h depend only on the two other coordinates. So it is monotone and smooth for any g and h. It shifts by about
    ``width * h / cosh(t)`` (h) or widens about the centre (g). Its inverse follows by solving for t, and its
    determinant is its own derivative. ``motion`` is 1 for a deep breath and 0 for none.
    """

    def __init__(self, motion: float, rng: np.random.Generator) -> None:
        self.motion = motion
        self.sides = rng.uniform(0.94, 1.06, 2)  # the right and the left diaphragm move by slightly different amounts

    def forward(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return exhale points (3, N) moved to inhale, and the map's Jacobian determinant at the exhale points (N,)."""
        moved, jacobian = points, np.ones(points.shape[1])
        for axis in (0, 1, 2):
            moved, factor = self._move(moved, axis, back=False)
            jacobian = jacobian * factor
        return moved, jacobian

    def inverse(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return inhale points (3, N) moved to exhale, and the determinant of `forward` at the *exhale* points (N,)."""
        moved, jacobian = points, np.ones(points.shape[1])
        for axis in (2, 1, 0):
            moved, factor = self._move(moved, axis, back=True)
            jacobian = jacobian / factor
        return moved, jacobian

    def _move(self, points: np.ndarray, axis: int, *, back: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return points (3, N) after one move (or its inverse) along ``axis``, and its derivative (N,)."""
        centre, width, growth, shift = (self._sideways, self._to_front, self._down)[axis](*points)
        before = np.sinh((points[axis] - centre) / width)
        scale = np.exp(growth)
        after = (before - shift) / scale if back else before * scale + shift
        moved = points.copy()
        moved[axis] += width * (np.arcsinh(after) - np.arcsinh(before))  # this difference is exactly 0 without motion
        slope = np.sqrt((1 + before**2) / (1 + after**2))
        return moved, slope / scale if back else slope * scale

    def _sideways(self, _: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple:
        """Return centre mm, width mm, growth, shift: the ribs open by 3 mm on either side, the middle stays."""
        return 0.0, 70.0, self.motion * (3 / 70) * bell(z, -30, 75) * bell(y, 0, 70), 0.0

    def _to_front(self, x: np.ndarray, _: np.ndarray, z: np.ndarray) -> tuple:
        """Return centre mm, width mm, growth, shift: the breastbone rises by 6 mm, the spine stays."""
        return 80.0, 48.0, 0.0, self.motion * (6 / 48) * bell(x, 0, 80) * bell(z, -35, 75)

    def _down(self, x: np.ndarray, y: np.ndarray, _: np.ndarray) -> tuple:
        """Return centre mm, width mm, growth, shift: the domes sink by 25 mm, less between; spine and skin stay."""
        wall = (x / CAGE_MM[0]) ** 2 + (y / CAGE_MM[1]) ** 2
        spine = 1 - np.exp(-0.5 * ((x / 30) ** 2 + ((y + 70) / 34) ** 2))
        right = 0.5 + 0.5 * np.tanh(x / 30)
        side = self.sides[0] * right + self.sides[1] * (1 - right)
        share = side * spine * np.exp(-(wall**3)) * (1 - 0.35 * bell(x, 0, 28))
        return -58.0, 66.0, 0.0, -self.motion * (25 / 66) * share


@dataclass(frozen=True)
class Chest:
    """A breathing chest in the world: body mm = (RAS mm - ``centre_mm``) / ``scale``, axis by axis."""

    anatomy: Anatomy
    breathing: Breathing
    centre_mm: np.ndarray
    scale: np.ndarray

    @classmethod
    def filling(cls, grid: Grid, *, motion: float, seed: np.random.SeedSequence) -> Chest:
        """Return the chest of a seed that fills a grid, whatever the grid's size in mm.

        Args:
            grid: to fill; edges are about as wide as one of its voxels.
            motion: 1 for a deep breath, 0 for none.
            seed: of anatomy and motion.
        """
        size = np.asarray(grid.shape, dtype=np.float64)
        own, breath = (np.random.default_rng(s) for s in seed.spawn(2))
        anatomy = Anatomy(own, edge_mm=float(np.prod(FIELD_OF_VIEW_MM) / size.prod()) ** (1 / 3))
        scale = np.abs(grid.affine[:3, :3]) @ size / FIELD_OF_VIEW_MM
        return cls(anatomy, Breathing(motion, breath), to_mm((size[None] - 1) / 2, grid.affine)[0], scale)

    def body_mm(self, voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
        """Return the body mm (3, N) of voxel indices.

        Args:
            voxels: indices (N, 3).
            affine: (4, 4), voxel -> RAS mm.
        """
        return np.ascontiguousarray(((to_mm(voxels, affine) - self.centre_mm) / self.scale).T)

    def image(self, grid: Grid, *, inhale: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return HU, float32, without noise, and labels, uint8, on a grid.

        Args:
            grid: where.
            inhale: at inhale; otherwise at exhale.
        """
        hu, label = np.empty(grid.shape, np.float32), np.empty(grid.shape, np.uint8)
        for slab, voxels in _slabs(grid):
            points, ratio = self.body_mm(voxels, grid.affine), np.ones(len(voxels))
            if inhale:
                points, ratio = self.breathing.inverse(points)
            values = self.anatomy.evaluate(points, ratio)
            hu[slab], label[slab] = (v.reshape(hu[slab].shape) for v in values)
        return hu, label

    def field_vox(self, grid: Grid) -> np.ndarray:
        """Return the displacement from exhale to inhale at the voxels of ``grid``, in voxels, (3, *shape), float32."""
        field = np.empty((3, *grid.shape), np.float32)
        for slab, voxels in _slabs(grid):
            points = self.body_mm(voxels, grid.affine)
            shift_mm = (self.breathing.forward(points)[0] - points) * self.scale[:, None]
            shift = field_to_vox(torch.from_numpy(shift_mm)[..., None, None], grid.affine)
            field[:, slab] = shift.numpy().reshape(field[:, slab].shape)
        return field

    def landmarks(self, fixed: Grid, moving: Grid, *, count: int, seed: np.random.SeedSequence) -> np.ndarray:
        """Return landmarks on vessels inside the lungs, (count, 6), float64: the fixed voxel, then the moving voxel.

        Args:
            fixed: the grid of the image at exhale.
            moving: the grid of the image at inhale.
            count: how many.
            seed: of their choice.
        """
        points = self.anatomy.vessels.spots(np.random.default_rng(seed), count)
        pair = ((points, fixed), (self.breathing.forward(points)[0], moving))
        return np.hstack([to_vox(p.T * self.scale + self.centre_mm, grid.affine) for p, grid in pair])


def breathing_thorax(
    shape: Sequence[int] = (112, 96, 104),
    *,
    spacing_mm: Sequence[float] | None = None,
    affine: np.ndarray | None = None,
    moving_shape: Sequence[int] | None = None,
    moving_affine: np.ndarray | None = None,
    seed: int = 0,
    motion: float = 1.0,
    noise_hu: float = 20.0,
    landmarks: int = 100,
) -> PhantomPair:
    """Make the pair of a seed: a chest that fills the fixed grid, and the same chest at inhale.

    By default the fixed grid is oriented L P S and has the size of an adult.

    Args:
        shape: of the fixed grid.
        spacing_mm: of its voxels.
        affine: (4, 4), voxel -> RAS mm, instead of ``spacing_mm``.
        moving_shape, moving_affine: of the moving image's own grid in the same world; each the fixed one's by default.
        seed: of anatomy, motion, noise and landmarks.
        motion: 1 for a deep breath (25 mm at the diaphragm of an adult), 0 for none.
        noise_hu: standard deviation of the noise, in HU; it is independent in the two images.
        landmarks: how many.

    Raises:
        PairError: a grid or a number makes no sense.
    """
    _check_numbers(seed=seed, motion=motion, noise_hu=noise_hu, landmarks=landmarks)
    grid = grid_of(shape, spacing_mm=spacing_mm, affine=affine)
    moving_shape = grid.shape if moving_shape is None else moving_shape
    other = grid_of(moving_shape, affine=grid.affine if moving_affine is None else moving_affine)
    own, spots, *noise = np.random.SeedSequence(seed).spawn(4)
    chest = Chest.filling(grid, motion=motion, seed=own)
    fixed, fixed_label = chest.image(grid, inhale=False)
    moving, moving_label = chest.image(other, inhale=True)
    fixed, moving = (noisy(hu, noise_hu, seed=s) for hu, s in zip((fixed, moving), noise, strict=True))
    marks, field = chest.landmarks(grid, other, count=landmarks, seed=spots), chest.field_vox(grid)
    return PhantomPair(fixed, moving, fixed_label, moving_label, grid.affine, other.affine, field, marks)


def write(pair: PhantomPair, folder: str | Path) -> dict[str, str]:
    """Write a phantom's images as NIfTI files and its landmarks as CSV.

    Images are int16, as scanners write them, and therefore rounded by up to half a HU. Labels are uint8. Landmarks are
    in voxels, with a header line. Equal pairs give equal bytes.

    Args:
        pair: the phantom.
        folder: where; it is made if it is missing.

    Returns:
        The paths of the files by key: fixed, moving, fixed_label, moving_label, landmarks.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name in ("fixed", "moving", "fixed_label", "moving_label"):
        data = getattr(pair, name)
        data = data if data.dtype == np.uint8 else np.rint(data).astype(np.int16)
        affine = pair.moving_affine if name.startswith("moving") else pair.affine
        image = nib.Nifti1Image(data, affine)
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
        image.header.set_xyzt_units("mm")
        paths[name] = str(folder / f"{name}.nii.gz")
        nib.save(image, paths[name])
    paths["landmarks"] = str(folder / "landmarks.csv")
    header = "fixed_i,fixed_j,fixed_k,moving_i,moving_j,moving_k"
    np.savetxt(paths["landmarks"], pair.landmarks, fmt="%.6f", delimiter=",", header=header, comments="", newline="\n")
    return paths


def noisy(hu: np.ndarray, noise_hu: float, *, seed: np.random.SeedSequence) -> np.ndarray:
    """Return ``hu`` with Gaussian noise added, float32."""
    return hu + np.float32(noise_hu) * np.random.default_rng(seed).standard_normal(hu.shape, np.float32)


def _check_numbers(**numbers: float) -> None:
    """Raise PairError naming the first number that is negative or not finite."""
    for name, value in numbers.items():
        if not (np.isfinite(value) and value >= 0):
            raise PairError(f"phantom: {name} must be a finite number, zero or more, not {value}")


def grid_of(
    shape: Sequence[int], *, spacing_mm: Sequence[float] | None = None, affine: np.ndarray | None = None
) -> Grid:
    """Return the checked grid of a shape and an affine, or of a shape and a spacing about the world's origin."""
    if len(shape) != 3 or any(int(n) != n or n < SMALLEST_SHAPE for n in shape):
        raise PairError(f"phantom: a shape is three whole numbers of at least {SMALLEST_SHAPE}, not {tuple(shape)}")
    whole = (int(shape[0]), int(shape[1]), int(shape[2]))
    if affine is not None and spacing_mm is not None:
        raise PairError("phantom: give spacing_mm or affine, not both: the affine holds a spacing already")
    if affine is None:
        spacing = np.divide(FIELD_OF_VIEW_MM, whole) if spacing_mm is None else np.asarray(spacing_mm, np.float64)
        if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
            raise PairError(f"phantom: spacing_mm must be three positive numbers, not {spacing_mm}")
        affine = np.diag([*(spacing * (-1, -1, 1)), 1.0])
        affine[:3, 3] = -to_mm((np.array([whole]) - 1) / 2, affine)[0]
    affine = np.array(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < TINY_VOXEL_MM3:
        raise PairError(f"phantom: an affine must be an invertible 4x4 matrix, not {affine.tolist()}")
    return Grid(whole, affine)
