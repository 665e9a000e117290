"""Volumes turned to how a radiologist looks at them, and cut into slices: three views, no resampling.

The axes of display space point towards the patient's left, back and feet (L P I), in the nearest orientation of the
grid. An axial slice is seen from the feet with the patient's right on the left of the screen, a coronal slice from the
front, a sagittal slice from the left. Whole axes are swapped and flipped, so every pixel is a voxel of the file. This
room must not know files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from nibabel import orientations

from ncf.space.geometry import spacing_mm, to_mm
from ncf.space.grids import Grid

MAX_SIDE = 256  # pixels of a picture along a side; of a larger slice every second, third ... voxel is shown
MAX_SLICES = 48  # of one view, among which the pictures choose
DISPLAY_AXES = ("L", "P", "I")


@dataclass(frozen=True)
class View:
    """One way of cutting: axes of display space, and the letters at the edges of a slice.

    Attributes:
        name: of the view.
        stacked: the axis along which slices are stacked.
        across: the axis across a slice.
        down: the axis down a slice.
        left: letter at the left edge.
        right: letter at the right edge.
        top: letter at the top edge.
        bottom: letter at the bottom edge.
    """

    name: str
    stacked: int
    across: int
    down: int
    left: str
    right: str
    top: str
    bottom: str


VIEWS = (
    View("axial", 2, 0, 1, "R", "L", "A", "P"),
    View("coronal", 1, 0, 2, "R", "L", "S", "I"),
    View("sagittal", 0, 1, 2, "A", "P", "S", "I"),
)


@dataclass(frozen=True)
class DisplaySpace:
    """How a grid is turned for display.

    Attributes:
        grid: of the file.
    """

    grid: Grid

    @cached_property
    def _turn(self) -> np.ndarray:
        own = orientations.io_orientation(self.grid.affine)
        return orientations.ornt_transform(own, orientations.axcodes2ornt(DISPLAY_AXES))

    @cached_property
    def to_file(self) -> np.ndarray:
        """The map from an index in display space to an index in the file, (4, 4)."""
        return orientations.inv_ornt_aff(self._turn, self.grid.shape)

    @cached_property
    def affine(self) -> np.ndarray:
        """The map from an index in display space to RAS mm, (4, 4)."""
        return self.grid.affine @ self.to_file

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """The shape of a volume in display space."""
        w, h, d = (self.grid.shape[int(a)] for a in np.argsort(self._turn[:, 0]))
        return w, h, d

    @cached_property
    def tilt_degrees(self) -> float:
        """The largest angle between an axis of the grid and the patient's axis that it is shown as."""
        directions = self.affine[:3, :3] / spacing_mm(self.affine)
        along = np.abs(np.diag(directions))
        return float(np.degrees(np.arccos(np.clip(along, 0, 1)).max()))

    def turned(self, volume: np.ndarray) -> np.ndarray:
        """Return a volume (W, H, D, ...) of the file in display space; it is a view, nothing is copied."""
        return orientations.apply_orientation(volume, self._turn)


@dataclass(frozen=True)
class Cut:
    """Which voxels of display space a view shows.

    Attributes:
        view: how display space is cut.
        slices: indices of the slices along the stack.
        across: indices of the voxels across each slice.
        down: indices of the voxels down each slice.
    """

    view: View
    slices: np.ndarray
    across: np.ndarray
    down: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Numbers of slices, rows and columns."""
        return len(self.slices), len(self.down), len(self.across)

    def take(self, volume: np.ndarray) -> np.ndarray:
        """Return the slices (n, rows, columns, ...) of a volume (W, H, D, ...) in display space, copied."""
        view = self.view
        turned = volume.transpose(view.stacked, view.down, view.across, *range(3, volume.ndim))
        return np.ascontiguousarray(turned[np.ix_(self.slices, self.down, self.across)])

    def points(self) -> np.ndarray:
        """Return the indices in display space of every pixel, (3, n, rows, columns), float32."""
        found = np.empty((3, *self.shape), dtype=np.float32)
        found[self.view.stacked] = self.slices[:, None, None]
        found[self.view.down] = self.down[None, :, None]
        found[self.view.across] = self.across[None, None, :]
        return found

    def positions(self, matrix: np.ndarray) -> torch.Tensor:
        """Return where a matrix puts every pixel.

        Args:
            matrix: (4, 4), from an index in display space.

        Returns:
            (1, 3, n, rows, columns), float32.
        """
        parts = [
            torch.from_numpy(matrix[:3, axis, None] * indices).float()
            for axis, indices in (
                (self.view.stacked, self.slices),
                (self.view.down, self.down),
                (self.view.across, self.across),
            )
        ]
        origin = torch.from_numpy(matrix[:3, 3]).float().view(3, 1, 1, 1)
        first, second, third = parts
        return (first[:, :, None, None] + second[:, None, :, None] + third[:, None, None, :] + origin)[None]

    def nearest(self, index: float) -> int:
        """Return the number of the slice that lies nearest to an index along the stack."""
        return int(np.abs(self.slices - index).argmin())

    def only(self, number: int) -> Cut:
        """Return a cut with one slice of this one."""
        return Cut(self.view, self.slices[number : number + 1], self.across, self.down)


def cut_of(view: View, shape: tuple[int, int, int], *, slices: int = MAX_SLICES, side: int = MAX_SIDE) -> Cut:
    """Choose the voxels that a view shows.

    Args:
        view: how display space is cut.
        shape: of display space.
        slices: at most so many slices, at even distances.
        side: at most so many pixels along a side.
    """
    count = min(slices, shape[view.stacked])
    middles = ((np.arange(count) + 0.5) * shape[view.stacked] / count).astype(int)

    def every(axis: int) -> np.ndarray:
        """Return the indices of every step-th voxel along an axis."""
        step = -(-shape[axis] // side)
        return np.arange((shape[axis] - 1) % step // 2, shape[axis], step)

    return Cut(view, middles, every(view.across), every(view.down))


def positions_mm(cut: Cut, space: DisplaySpace, centre: np.ndarray) -> list[float]:
    """Return the position of each slice along its own axis (R, A or S).

    Args:
        cut: which voxels are shown.
        space: of the grid.
        centre: (3,), an index; a position is taken where the slice meets the line through it.

    Returns:
        RAS mm, to a tenth.
    """
    points = np.repeat(np.asarray(centre, dtype=np.float64)[None], len(cut.slices), axis=0)
    points[:, cut.view.stacked] = cut.slices
    return [round(float(v), 1) for v in to_mm(points, space.affine)[:, cut.view.stacked]]


def pixel_mm(cut: Cut, space: DisplaySpace) -> tuple[float, float]:
    """Return the size of a pixel across and down, in mm.

    Args:
        cut: which voxels are shown.
        space: of the grid.
    """
    spacing = spacing_mm(space.affine)
    steps = [np.diff(axis[:2]).item() if len(axis) > 1 else 1 for axis in (cut.across, cut.down)]
    return float(spacing[cut.view.across] * steps[0]), float(spacing[cut.view.down] * steps[1])
