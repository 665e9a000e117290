"""Volumes turned to how a radiologist looks at them, and cut into slices: three views, nearest orientation, no resampling.

Display space has its axes towards the patient's left, back and feet (L P I): an axial slice is seen from the feet with the
patient's right on the left of the screen, a coronal one from the front, a sagittal one from the left. Whole axes are
swapped and flipped, so every pixel is a voxel of the file. This room must not know files.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from nibabel import orientations

from scripts.geometry import Grid, spacing_mm, to_mm

MAX_SIDE = 256  # pixels of a picture along a side; a larger slice is shown by every second, third ... voxel
MAX_SLICES = 48  # of a view in the page
DISPLAY_AXES = ("L", "P", "I")


@dataclass(frozen=True)
class View:
    """One way of cutting: the axes of display space that slices stack along and run across and down, and edge letters."""

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
    """How a grid is turned for display."""

    grid: Grid

    @cached_property
    def _turn(self) -> np.ndarray:
        own = orientations.io_orientation(self.grid.affine)
        return orientations.ornt_transform(own, orientations.axcodes2ornt(DISPLAY_AXES))

    @cached_property
    def to_file(self) -> np.ndarray:
        """(4, 4): index in display space -> index in the file."""
        return orientations.inv_ornt_aff(self._turn, self.grid.shape)

    @cached_property
    def affine(self) -> np.ndarray:
        """(4, 4): index in display space -> RAS mm."""
        return self.grid.affine @ self.to_file

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Of a volume in display space."""
        w, h, d = (self.grid.shape[int(a)] for a in np.argsort(self._turn[:, 0]))
        return w, h, d

    @cached_property
    def tilt_degrees(self) -> float:
        """The largest angle between an axis of the grid and the patient's axis that it is shown as."""
        directions = self.affine[:3, :3] / spacing_mm(self.affine)
        along = np.abs(np.diag(directions))
        return float(np.degrees(np.arccos(np.clip(along, 0, 1)).max()))

    def turned(self, volume: np.ndarray) -> np.ndarray:
        """A volume (W, H, D, ...) of the file in display space; a view, nothing is copied."""
        return orientations.apply_orientation(volume, self._turn)


@dataclass(frozen=True)
class Cut:
    """Which voxels of display space a view shows: indices of its slices, and those across and down each of them."""

    view: View
    slices: np.ndarray
    across: np.ndarray
    down: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return len(self.slices), len(self.down), len(self.across)

    def take(self, volume: np.ndarray) -> np.ndarray:
        """The slices (n, rows, columns, ...) of a volume (W, H, D, ...) in display space, copied."""
        view = self.view
        turned = volume.transpose(view.stacked, view.down, view.across, *range(3, volume.ndim))
        return np.ascontiguousarray(turned[np.ix_(self.slices, self.down, self.across)])

    def points(self) -> np.ndarray:
        """Indices in display space (3, n, rows, columns) of every pixel, float32."""
        found = np.empty((3, *self.shape), dtype=np.float32)
        found[self.view.stacked] = self.slices[:, None, None]
        found[self.view.down] = self.down[None, :, None]
        found[self.view.across] = self.across[None, None, :]
        return found

    def positions(self, matrix: np.ndarray) -> torch.Tensor:
        """Where ``matrix`` (4, 4), from an index in display space, puts every pixel: (1, 3, n, rows, columns), float32."""
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
        """The number of the slice that lies nearest to an index along the stack."""
        return int(np.abs(self.slices - index).argmin())

    def only(self, number: int) -> Cut:
        """The same view, one slice of it."""
        return Cut(self.view, self.slices[number : number + 1], self.across, self.down)


def cut_of(view: View, shape: tuple[int, int, int], *, slices: int = MAX_SLICES, side: int = MAX_SIDE) -> Cut:
    """The cut of a view of display space: at most so many slices, evenly spread, and pixels along a side."""
    count = min(slices, shape[view.stacked])
    middles = ((np.arange(count) + 0.5) * shape[view.stacked] / count).astype(int)

    def every(axis: int) -> np.ndarray:
        step = -(-shape[axis] // side)
        return np.arange((shape[axis] - 1) % step // 2, shape[axis], step)

    return Cut(view, middles, every(view.across), every(view.down))


def positions_mm(cut: Cut, space: DisplaySpace, centre: np.ndarray) -> list[float]:
    """RAS mm of each slice along its own axis (R, A or S), where it meets the line through ``centre`` (3,), an index."""
    points = np.repeat(np.asarray(centre, dtype=np.float64)[None], len(cut.slices), axis=0)
    points[:, cut.view.stacked] = cut.slices
    return [round(float(v), 1) for v in to_mm(points, space.affine)[:, cut.view.stacked]]
