"""Planes as one box of voxels: even, straight, of one shape, where their positions and orientations put them.

Tags that repeat the geometry in other words (spacing between slices, slice thickness, instance numbers) are not used,
because scanners write them wrong: a negative spacing between slices made ITK 5.4 read a patient upside down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ncf.core.errors import PairError
from ncf.space.geometry import RAS_TO_LPS

SLICE_TOLERANCE = 0.2  # of a step; positions are often rounded to 0.1 mm, and a missing slice is a whole step
TURN_TOLERANCE = 1e-3  # of direction cosines; they are written with four digits or more
SIZE_TOLERANCE = 1e-3  # relative, of the side of a pixel
TILT_TOLERANCE = 0.5  # pixels that a stack may drift sideways from its first to its last plane


@dataclass(frozen=True)
class Plane:
    """One plane of voxels and where it lies.

    Attributes:
        file: of its pixels.
        frame: of its pixels in the file.
        shape: rows, columns.
        position: (3,), of the first pixel's centre, LPS mm.
        axes: (2, 3), unit vectors along a row (to the next column) and along a column (to the next row), LPS.
        spacing: mm between columns and between rows.
        slope: of stored value to real value, where no lookup table says it.
        intercept: of stored value to real value, where no lookup table says it.
    """

    file: Path
    frame: int
    shape: tuple[int, int]
    position: np.ndarray
    axes: np.ndarray
    spacing: np.ndarray
    slope: float
    intercept: float

    @property
    def normal(self) -> np.ndarray:
        """Unit vector (3,) across the plane, LPS."""
        return np.cross(self.axes[0], self.axes[1])


def stacked(planes: Sequence[Plane], what: str) -> list[Plane]:
    """Sort planes along their normal.

    Refused are planes of several shapes, pixel sizes or orientations, several planes at one place (time points, echoes
    or stacks), gaps, and stacks that lean sideways (gantry tilt): as one box of voxels, all of them would show wrong
    places.

    Args:
        planes: in any order.
        what: how messages begin.

    Raises:
        PairError: the planes are not one even, straight stack.
    """
    first = planes[0]
    for name, differs in (
        ("sizes", lambda p: p.shape != first.shape),
        ("orientations", lambda p: np.abs(p.axes - first.axes).max() > TURN_TOLERANCE),
        ("pixel sizes", lambda p: (np.abs(p.spacing - first.spacing) > SIZE_TOLERANCE * first.spacing).any()),
    ):
        others = sum(map(differs, planes))
        if others:
            raise PairError(
                f"{what}: slices have different {name}, {others} of {len(planes)} are unlike {first.file.name}; keep "
                "the slices of one volume"
            )
    planes = sorted(planes, key=lambda p: float(p.position @ first.normal))
    if len(planes) > 1:
        _check_even(planes, what)
    return planes


def _check_even(planes: Sequence[Plane], what: str) -> None:
    first, positions = planes[0], np.array([p.position for p in planes])
    steps = np.diff(positions, axis=0)
    apart = steps @ first.normal
    middle = float(np.median(apart))
    at_one_place = Counter(np.round(positions @ first.normal, 2).tolist())
    most = max(at_one_place.values())
    if most > 1 and min(at_one_place.values()) > 1:
        raise PairError(
            f"{what}: slices must be evenly spaced, here {most} lie at each place (several time points, echoes or "
            "stacks); keep the slices of one volume"
        )
    if middle <= 0 or np.abs(apart - middle).max() > SLICE_TOLERANCE * middle:
        raise PairError(
            f"{what}: slices must be evenly spaced, these are {apart.min():.3g} to {apart.max():.3g} mm apart (missing "
            "slices, or several time points); complete the series, or convert one volume to NIfTI"
        )
    drift = (positions[-1] - positions[0]) - first.normal * apart.sum()
    if np.linalg.norm(drift) > TILT_TOLERANCE * first.spacing.min():
        raise PairError(
            f"{what}: slices are shifted sideways (gantry tilt); resample the scan to a straight grid first"
        )


def affine_of_planes(planes: Sequence[Plane]) -> np.ndarray:
    """Return the affine (4, 4), voxel (column, row, plane) -> RAS mm, of sorted planes."""
    first = planes[0]
    step = first.normal
    if len(planes) > 1:
        step = step * float((planes[-1].position - first.position) @ step) / (len(planes) - 1)
    affine = np.eye(4)
    affine[:3, :3] = RAS_TO_LPS @ np.column_stack([*(first.axes * first.spacing[:, None]), step])
    affine[:3, 3] = RAS_TO_LPS @ first.position
    return affine
