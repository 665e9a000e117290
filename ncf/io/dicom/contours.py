"""Closed planar contours as voxels: a voxel is inside where its centre is.

Where a border runs through a centre exactly, the voxel belongs to what lies right or posterior of it, as in plastimatch
(which, in addition, loses voxels between two such borders one voxel apart). So two structures with a common border
share no voxel, and it does not matter how a file stores its axes. matplotlib's `Path` has no rule for such borders, and
takes minutes for a body; it is used where contours lie oblique to the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import nibabel as nib
import numpy as np

from ncf.core.drawing import load_matplotlib
from ncf.space.geometry import spacing_mm, to_mm, to_vox
from ncf.space.grids import Grid

SNAP = 4  # decimals of a voxel: rounding of float32 and of text must not decide on which side of a centre a border runs
FLAT_VOX = 0.1  # a contour that leaves a plane of the grid by less lies in it
PLANE_MM = 0.05  # contours nearer than this along their normal are in one plane
GAP = 1.5  # spacings: planes further apart have a gap between them


@dataclass
class Filled:
    """The voxels of one structure.

    Attributes:
        mask: bool (w, h, d), a box of the grid.
        box: where it lies in the grid.
        gap_mm: the widest gap between planes of contours that was left empty, 0 without one.
        crossing: planes in which contours cross each other.
    """

    mask: np.ndarray
    box: tuple[slice, ...]
    gap_mm: float = 0.0
    crossing: int = 0


@dataclass(frozen=True)
class Stack:
    """Planes of contours along one direction.

    Attributes:
        places: (P,), of the planes along the direction, mm, ascending.
        planes: the contours of each.
    """

    places: np.ndarray
    planes: list[list[np.ndarray]]

    def gaps(self) -> np.ndarray:
        """Return the distances of neighbouring planes, mm."""
        return np.diff(self.places)

    def nearest(self, at: np.ndarray, thickness: float) -> np.ndarray:
        """Return the plane whose slab, of a thickness in mm, each place lies in, -1 where none does.

        A place just between two planes belongs to the one below.
        """
        slack = 10.0**-SNAP * thickness
        between = (self.places[:-1] + self.places[1:]) / 2
        near = np.searchsorted(between, at - slack)
        off = at - self.places[near]
        return np.where((off > slack - thickness / 2) & (off <= slack + thickness / 2), near, -1)


def lps_grid(grid: Grid) -> tuple[Grid, np.ndarray]:
    """Return a grid with its axes in the order and direction L, P, S, and the way back for `nib.apply_orientation`."""
    own = nib.io_orientation(grid.affine)
    wanted = nib.orientations.axcodes2ornt(("L", "P", "S"))
    there = nib.orientations.ornt_transform(own, wanted)
    shape = tuple(int(n) for n in np.array(grid.shape)[np.argsort(there[:, 0])])
    affine = grid.affine @ nib.orientations.inv_ornt_aff(there, grid.shape)
    return Grid(shape, affine), nib.orientations.ornt_transform(wanted, own)


def axis_of(contours: Sequence[np.ndarray], grid: Grid) -> int | None:
    """Return the axis of the grid that crosses the planes of all contours, None where they lie oblique to it.

    Args:
        contours: each (N, 3), RAS mm.
        grid: of the voxels.
    """
    spread = np.max([np.ptp(to_vox(points, grid.affine), axis=0) for points in contours], axis=0)
    axis = int(np.argmin(spread))
    return axis if spread[axis] <= FLAT_VOX else None


def normal_of(contours: Sequence[np.ndarray], grid: Grid, axis: int | None) -> np.ndarray | None:
    """Return the unit vector (3,) across the planes of contours, RAS; None where they lie in no parallel planes."""
    if axis is not None:
        others = np.delete(grid.affine[:3, :3], axis, axis=1)
        normal = np.cross(others[:, 0], others[:, 1])
        return normal / np.linalg.norm(normal) * np.sign(normal @ grid.affine[:3, axis])
    areas = [np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0) for points in contours]
    largest = max(areas, key=lambda area: float(np.linalg.norm(area)))
    normal = largest / max(np.linalg.norm(largest), 1e-12)
    slack = FLAT_VOX * spacing_mm(grid.affine).min()
    return normal if all(np.ptp(points @ normal) <= slack for points in contours) else None


def stacked(contours: Sequence[np.ndarray], normal: np.ndarray) -> Stack:
    """Sort contours, each (N, 3) in RAS mm, into planes along a normal."""
    at = np.array([float((points @ normal).mean()) for points in contours])
    order = np.argsort(at, kind="stable")
    breaks = np.flatnonzero(np.diff(at[order]) > PLANE_MM) + 1
    groups = np.split(order, breaks)
    return Stack(np.array([at[group].mean() for group in groups]), [[contours[i] for i in group] for group in groups])


def filled(stack: Stack, grid: Grid, *, axis: int | None, normal: np.ndarray, thickness: float) -> Filled:
    """Fill the contours of one structure.

    Each plane of contours counts for the voxels whose centres are nearest to it, half a thickness away at most. In a
    plane a voxel is inside where an odd number of contours surround it, so that a contour within another is a hole.

    Args:
        stack: of the contours.
        grid: its axes point L, P, S (`lps_grid`).
        axis: of `axis_of`.
        normal: of `normal_of`.
        thickness: of the slab of a plane, mm.
    """
    points = np.concatenate([contour for plane in stack.planes for contour in plane])
    reach = np.vstack([points + s * thickness * normal for s in (-0.51, 0.51)])
    vox = to_vox(reach, grid.affine)
    low = np.clip(np.ceil(vox.min(axis=0) - 1e-3), 0, grid.shape).astype(int)
    high = np.clip(np.floor(vox.max(axis=0) + 1e-3) + 1, low, grid.shape).astype(int)
    place = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    found = Filled(np.zeros(high - low, dtype=bool), place)
    wide = stack.gaps()[stack.gaps() > GAP * thickness]
    found.gap_mm = float(wide.max(initial=0))
    if not found.mask.size:
        return found
    box = Grid(found.mask.shape, grid.affine @ _shift(low))
    fill = _fill_slices if axis is not None else _fill_oblique
    fill(found, stack, box, 0 if axis is None else axis, normal, thickness)
    return found


def _shift(low: np.ndarray) -> np.ndarray:
    moved = np.eye(4)
    moved[:3, 3] = low
    return moved


def _fill_slices(found: Filled, stack: Stack, box: Grid, axis: int, normal: np.ndarray, thick: float) -> None:
    """Fill contours that lie in slices of the grid."""
    origin = box.affine[:3, 3] @ normal
    step = box.affine[:3, axis] @ normal
    which = stack.nearest(origin + step * np.arange(box.shape[axis]), thick)
    others = [n for n in range(3) if n != axis]
    shape = (box.shape[others[0]], box.shape[others[1]])
    slices = np.moveaxis(found.mask, axis, 0)  # a view
    for plane in np.unique(which[which >= 0]):
        outlines = [to_vox(points, box.affine)[:, others].round(SNAP) for points in stack.planes[plane]]
        masks = [inside_outline(outline, shape) for outline in outlines]
        slices[which == plane] = _even_odd(found, masks)


def _fill_oblique(found: Filled, stack: Stack, box: Grid, _: int, normal: np.ndarray, thick: float) -> None:
    """Fill contours that lie oblique to the grid: each voxel's centre in the plane of the nearest contours."""
    load_matplotlib()
    from matplotlib.path import Path as outline

    indices = np.indices(box.shape).reshape(3, -1).T
    centres = to_mm(indices, box.affine)
    which = stack.nearest(centres @ normal, thick)
    across = np.linalg.svd(normal[None])[2][1:].T  # (3, 2), two unit vectors in the planes
    flat = found.mask.reshape(-1)
    for plane in np.unique(which[which >= 0]):
        own = np.flatnonzero(which == plane)
        masks = [outline(points @ across).contains_points(centres[own] @ across) for points in stack.planes[plane]]
        flat[own] = _even_odd(found, masks)


def _even_odd(found: Filled, masks: Sequence[np.ndarray]) -> np.ndarray:
    """Return where an odd number of masks hold; note where they cross, so that neither contains the other."""
    if len(masks) == 1:
        return masks[0]
    sizes = [int(mask.sum()) for mask in masks]
    pairs = ((int((masks[a] & masks[b]).sum()), min(sizes[a], sizes[b])) for a, b in combinations(range(len(masks)), 2))
    found.crossing += any(0 < common < smaller for common, smaller in pairs)
    return np.logical_xor.reduce(masks)


def inside_outline(outline: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return which pixel centres a closed outline surrounds: those with an odd number of borders before them in a row.

    Args:
        outline: (N, 2), in pixels; the last point is joined to the first.
        shape: of the pixels, along both axes.

    Returns:
        bool of that shape. A centre on a border is inside where the outline lies at lower indices of the first axis, or
        at higher ones of the second.
    """
    begin, end = outline, np.roll(outline, -1, axis=0)
    low, high = (np.where((begin[:, 1] < end[:, 1])[:, None], a, b) for a, b in ((begin, end), (end, begin)))
    low, high = (ends[begin[:, 1] != end[:, 1]] for ends in (low, high))
    first = np.clip(np.ceil(low[:, 1]), 0, shape[1]).astype(int)
    last = np.clip(np.ceil(high[:, 1]), 0, shape[1]).astype(int)  # the row after the last one that is crossed
    edge = np.repeat(np.arange(len(low)), last - first)
    row = np.concatenate([np.arange(a, b) for a, b in zip(first, last, strict=True)] or [np.arange(0)])
    slope = (high[edge, 0] - low[edge, 0]) / (high[edge, 1] - low[edge, 1])
    at = (low[edge, 0] + (row - low[edge, 1]) * slope).round(SNAP + 2)
    column = np.clip(np.floor(at) + 1, 0, shape[0]).astype(int)
    borders = np.bincount(column * shape[1] + row, minlength=(shape[0] + 1) * shape[1]).reshape(-1, shape[1])
    return np.cumsum(borders, axis=0)[:-1] % 2 == 1


def spacing_of(stacks: Sequence[Stack], own: Stack, otherwise: float) -> float:
    """Return the distance of the planes of a structure, mm: the thickness of each.

    Args:
        stacks: of all structures in the same direction.
        own: of the structure; with fewer than three planes it does not tell.
        otherwise: where none tells.
    """
    if len(own.places) > 2:
        return float(np.median(own.gaps()))
    pooled = [gap for stack in stacks if len(stack.places) > 2 for gap in stack.gaps()]
    usual = float(np.median(pooled)) if pooled else otherwise
    return min(usual, float(own.gaps()[0])) if len(own.places) == 2 else usual
