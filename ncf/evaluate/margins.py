"""How far a carried structure may be off: its inner and its outer outline, by bounds of the map's error.

The bound at a voxel says how far the map may lead astray there. A voxel of the structure whose distance to the surface
is larger stays inside, whatever the error is: these voxels are the inner structure. A voxel outside, whose distance is
the bound or less, could be inside: these and the structure are the outer one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import find_objects

from ncf.core.words import percent

MM3_A_ML = 1000.0
HALF = 0.5  # of a voxel, from its centre to its face
NOTABLE = 0.01  # share of a structure without a bound that is told


@dataclass(frozen=True)
class Margin:
    """A structure between its inner and its outer outline.

    Attributes:
        number: of the label.
        name: for people.
        shape: (3,), of the grid.
        box: the part of the grid in which the outer structure lies.
        inner: bool, within the box.
        outer: the same.
        away_mm: float32, within the box: the distance to the structure; 0 inside.
        volumes_ml: of the inner, the carried and the outer structure.
        unknown: share of the carried structure in which there is no bound.
    """

    number: int
    name: str
    shape: tuple[int, ...]
    box: tuple[slice, ...]
    inner: np.ndarray
    outer: np.ndarray
    away_mm: np.ndarray
    volumes_ml: tuple[float, float, float]
    unknown: float

    def whole(self, part: np.ndarray) -> np.ndarray:
        """Return ``inner`` or ``outer`` on the whole grid."""
        found = np.zeros(self.shape, dtype=part.dtype)
        found[self.box] = part
        return found

    def told(self) -> str:
        """Tell the three volumes in one line."""
        inner, carried, outer = self.volumes_ml
        line = f"{self.name}: inner {inner:.1f} ml, carried {carried:.1f} ml, outer {outer:.1f} ml"
        return f"{line}; the error is not known in {percent(self.unknown)} of it" if self.unknown > NOTABLE else line


def margin_of(
    mask: np.ndarray, bounds_mm: np.ndarray, spacing: Sequence[float] | np.ndarray, *, number: int = 1, name: str = ""
) -> Margin:
    """Find the inner and the outer outline of a structure.

    Where no bound is known, a voxel of the structure is not of the inner one, and nothing is added to the outer one.

    Args:
        mask: (W, H, D), bool, the carried structure; it holds a voxel.
        bounds_mm: (W, H, D), of the map's error, nan where nothing is known.
        spacing: of the voxels, in mm (3,).
        number: of the label.
        name: for people.
    """
    box, reach = _reached(mask, bounds_mm, spacing)
    here, bound = mask[box], bounds_mm[box]
    deep, away = surface_mm(here, spacing, reach_mm=reach), surface_mm(~here, spacing, reach_mm=reach)
    with np.errstate(invalid="ignore"):
        inner, outer = here & (deep > bound), here | (away <= bound)
    voxel_ml = float(np.prod(spacing)) / MM3_A_ML
    inside, all_of_it, outside = (int(np.count_nonzero(part)) for part in (inner, here, outer))
    unknown = int(np.count_nonzero(np.isnan(bound[here]))) / all_of_it
    volumes = (inside * voxel_ml, all_of_it * voxel_ml, outside * voxel_ml)
    return Margin(number, name, mask.shape, box, inner, outer, away, volumes, unknown)


def _reached(
    mask: np.ndarray, bounds_mm: np.ndarray, spacing: Sequence[float] | np.ndarray
) -> tuple[tuple[slice, ...], float]:
    """Return the part of a grid that a structure may reach into, and the largest bound there, in mm."""
    (own,) = find_objects(mask.astype(np.int8))
    box, reach = tuple(slice(0, n) for n in mask.shape), np.inf
    for _ in range(2):  # bounds far away do not matter: the second box is by those near the structure
        near = bounds_mm[box]
        reach = float(np.nanmax(near)) if np.isfinite(near).any() else 0.0
        more = [int(np.ceil(reach / mm)) + 1 for mm in spacing]
        box = tuple(slice(max(0, part.start - n), part.stop + n) for part, n in zip(own, more, strict=True))
    return box, reach


def surface_mm(mask: np.ndarray, spacing: Sequence[float] | np.ndarray, *, reach_mm: float) -> np.ndarray:
    """Return the distance from the centre of every voxel of a mask to its surface, the faces of the voxels outside.

    The border of the grid is no surface: a structure that is cut there goes on. The squares of the distances along the
    three axes add up, so the nearest voxel outside is looked for along one axis after the other.

    Args:
        mask: (W, H, D), bool.
        spacing: of the voxels, in mm (3,).
        reach_mm: larger distances are not needed.

    Returns:
        (W, H, D), float32; 0 outside of the mask, infinite beyond the reach.
    """
    squares = np.where(mask, np.float32(np.inf), np.float32(0))
    for axis, mm in enumerate(spacing):
        before = squares.copy()
        last = min(mask.shape[axis] - 1, int(reach_mm / mm + HALF))
        for steps in range(1, last + 1):
            gap = np.float32(((steps - HALF) * mm) ** 2)
            for here, there in ((slice(steps, None), slice(None, -steps)), (slice(None, -steps), slice(steps, None))):
                at, of = ((slice(None),) * axis + (part,) for part in (here, there))
                np.minimum(squares[at], before[of] + gap, out=squares[at])
    return np.sqrt(squares)


def label_maps(shown: np.ndarray, margins: Iterable[Margin]) -> tuple[np.ndarray, np.ndarray]:
    """Return the inner and the outer structures as label maps.

    A voxel shows one label: the carried one where there is one, else the one that is nearest.

    Args:
        shown: (W, H, D), the carried label map.
        margins: of its structures.

    Returns:
        Both of the shape and the type of ``shown``.
    """
    inner, outer = np.zeros_like(shown), shown.copy()
    nearest = np.full(shown.shape, np.inf, dtype=np.float32)
    for margin in margins:
        at, free = margin.box, (inner[margin.box] == 0) | (shown[margin.box] == margin.number)
        inner[at][margin.inner & free] = margin.number
        closer = margin.outer & (shown[at] == 0) & (margin.away_mm < nearest[at])
        outer[at][closer] = margin.number
        nearest[at][closer] = margin.away_mm[closer]
    return inner, outer
