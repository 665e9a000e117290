"""Planes as one box of voxels: even, straight, of one shape, where their positions and orientations put them.

Tags that repeat the geometry in other words (spacing between slices, slice thickness, instance numbers) are not used,
because scanners write them wrong: a negative spacing between slices made ITK 5.4 read a patient upside down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ncf.core.errors import PairError
from ncf.io.dicom.native import Native
from ncf.space.geometry import RAS_TO_LPS

SLICE_TOLERANCE = 0.2  # of a step; positions are often rounded to 0.1 mm, and a missing slice is a whole step
TURN_TOLERANCE = 1e-3  # of direction cosines; they are written with four digits or more
SIZE_TOLERANCE = 1e-3  # relative, of the side of a pixel
TILT_TOLERANCE = 0.5  # pixels that a stack may drift sideways from its first to its last plane
SAME_PLACE_MM = 0.01  # planes nearer to each other lie at one place; positions are written in 0.1 mm or finer


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
        instance: the SOPInstanceUID of its file.
        groups: where its other tags are looked up: its frame's, all frames', the file's (pydicom data sets).
        native: where its file keeps pixels as plain numbers, None where it takes a decoder to read them.
    """

    file: Path
    frame: int
    shape: tuple[int, int]
    position: np.ndarray
    axes: np.ndarray
    spacing: np.ndarray
    slope: float
    intercept: float
    instance: str = ""
    groups: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    native: Native | None = None

    @property
    def normal(self) -> np.ndarray:
        """Unit vector (3,) across the plane, LPS."""
        return np.cross(self.axes[0], self.axes[1])


def unlike(plane: Plane, other: Plane) -> str:
    """Return what keeps two planes from being in one volume: sizes, orientations or pixel sizes; else nothing."""
    if plane.shape != other.shape:
        return "sizes"
    if np.abs(plane.axes - other.axes).max() > TURN_TOLERANCE:
        return "orientations"
    if (np.abs(plane.spacing - other.spacing) > SIZE_TOLERANCE * other.spacing).any():
        return "pixel sizes"
    return ""


def heights(planes: Sequence[Plane]) -> np.ndarray:
    """Return how far each plane lies along the normal of the first one, (N,), in mm."""
    return np.array([p.position for p in planes]) @ planes[0].normal


def places(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Return planes of one orientation by the place where they lie along their normal, from the lowest place up."""
    along = heights(planes)
    found: list[list[Plane]] = []
    last = -np.inf
    for index in np.argsort(along, kind="stable"):
        if along[index] - last > SAME_PLACE_MM:
            found.append([])
        found[-1].append(planes[index])
        last = along[index]
    return found


def stacked(planes: Sequence[Plane], what: str = "") -> list[Plane]:
    """Sort planes along their normal.

    Refused are planes of several shapes, pixel sizes or orientations, several planes at one place (time points, echoes
    or stacks), gaps, and stacks that lean sideways (gantry tilt): as one box of voxels, all of them would show wrong
    places.

    Args:
        planes: in any order.
        what: how messages begin.

    Raises:
        PairError: the planes are not one even, straight stack of two or more.
    """
    reason = _reason(planes)
    if reason:
        raise PairError(f"{what}: {reason}" if what else reason)
    return sorted(planes, key=lambda p: float(p.position @ planes[0].normal))


def _reason(planes: Sequence[Plane]) -> str:
    """Return why planes are no volume, with what to do; nothing where they are one."""
    first = planes[0]
    odd = [name for name in (unlike(plane, first) for plane in planes) if name]
    if odd:
        return (
            f"slices have different {odd[0]}, {len(odd)} of {len(planes)} are unlike {first.file.name}; keep the "
            "slices of one volume"
        )
    if len(planes) == 1:
        return "it is a single slice, and a volume needs two or more; name the folder with all slices of the series"
    at_one_place = places(planes)
    most = max(map(len, at_one_place))
    if most > 1:
        several = sum(len(place) > 1 for place in at_one_place)
        return (
            f"slices must be evenly spaced, here up to {most} lie at one place ({several} of {len(at_one_place)} "
            "places), and no tag tells them apart; keep the slices of one volume"
        )
    return _uneven([place[0] for place in at_one_place])


def _uneven(planes: Sequence[Plane]) -> str:
    """Return why sorted planes at places of their own are not even or not straight; nothing where they are."""
    first, along = planes[0], heights(planes)
    apart = np.diff(along)
    middle = float(np.median(apart))
    line = np.linspace(along[0], along[-1], len(along))
    if np.abs(apart - middle).max() > SLICE_TOLERANCE * middle or np.abs(along - line).max() > SLICE_TOLERANCE * middle:
        missing = int(np.rint(apart / middle - 1).clip(min=0).sum())
        hint = f"as if {missing} were missing" if missing else "not one even stack"
        return (
            f"slices must be evenly spaced, these are {apart.min():.3g} to {apart.max():.3g} mm apart ({hint}); "
            "complete the series, or convert one volume to NIfTI"
        )
    positions = np.array([p.position for p in planes])
    aside = (positions - positions[0]) - np.outer(along - along[0], first.normal)
    if np.linalg.norm(aside, axis=1).max() <= TILT_TOLERANCE * first.spacing.min():
        return ""
    steps = np.diff(aside, axis=0)
    even = np.linalg.norm(steps - steps.mean(axis=0), axis=1).max() <= TILT_TOLERANCE * first.spacing.min()
    each = float(np.linalg.norm(steps.mean(axis=0)))
    if even and each > 0:
        angle = np.degrees(np.arctan2(each, middle))
        return (
            f"slices are shifted sideways, each by {each:.3g} mm from the one before (gantry tilt, or a sheared stack, "
            f"of {angle:.3g} degrees); resample the scan to a straight grid first"
        )
    far = float(np.linalg.norm(aside, axis=1).max())
    return (
        f"slices are parallel, but shifted sideways by up to {far:.3g} mm, each differently (a localizer, or parts of "
        "several volumes); choose another series"
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
