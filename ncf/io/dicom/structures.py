"""DICOM RTSTRUCT: the contours of structures as a label map on the grid of the scan that they were drawn for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np

from ncf.core.errors import PairError
from ncf.core.labels import Labels, listed
from ncf.io.dicom.contours import axis_of, filled, lps_grid, normal_of, spacing_of, stacked
from ncf.io.masks import Codes
from ncf.space.geometry import RAS_TO_LPS, spacing_mm
from ncf.space.grids import Grid

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
LEAST_POINTS = 3
SAME_MM = 3  # decimals to which two contours are compared


@dataclass(frozen=True)
class Structure:
    """One structure of an RTSTRUCT.

    Attributes:
        number: its ROINumber.
        name: its ROIName.
        contours: its closed contours, each (N, 3), RAS mm.
        frame: the FrameOfReferenceUID of its contours.
        left_out: contours of other types, by type: points, and lines that enclose nothing.
        doubled: contours that are there twice and count once.
    """

    number: int
    name: str
    contours: tuple[np.ndarray, ...]
    frame: str
    left_out: tuple[str, ...] = ()
    doubled: int = 0


def structures_of(data: Any, what: str) -> list[Structure]:
    """Return the structures of an RTSTRUCT, in the order of its list.

    Args:
        data: the data set.
        what: how messages begin.

    Raises:
        PairError: it lists none, or a contour is no list of points.
    """
    told = [item for item in data.get("StructureSetROISequence") or () if item.get("ROINumber") is not None]
    if not told:
        raise PairError(f"{what} lists no structures; export it again")
    drawn: dict[int, list[Any]] = {}
    for item in data.get("ROIContourSequence") or ():
        drawn.setdefault(int(item.get("ReferencedROINumber", -1)), []).extend(item.get("ContourSequence") or ())
    found = [_structure(item, drawn.get(int(item.ROINumber), ()), what) for item in told]
    numbers = [structure.number for structure in found]
    if min(numbers) < 1 or len(set(numbers)) < len(numbers):  # 0 is the background of a label map
        found = [replace(structure, number=n) for n, structure in enumerate(found, start=1)]
    return found


def _structure(item: Any, contours: Sequence[Any], what: str) -> Structure:
    name = " ".join(str(item.get("ROIName") or f"ROI {item.ROINumber}").split())
    kept: dict[bytes, np.ndarray] = {}
    left_out: list[str] = []
    doubled = 0
    for number, contour in enumerate(contours):
        kind = str(contour.get("ContourGeometricType", ""))
        try:
            points = np.array(contour.get("ContourData") or (), dtype=np.float64).reshape(-1, 3) @ RAS_TO_LPS
        except (TypeError, ValueError) as error:
            raise PairError(f"{what}: contour {number + 1} of {name} is no list of points; export it again") from error
        if not np.isfinite(points).all():
            raise PairError(f"{what}: contour {number + 1} of {name} has points that are no numbers; export it again")
        if kind not in CLOSED or len(points) < LEAST_POINTS:
            left_out.append(kind if kind not in CLOSED else f"{kind} with fewer than {LEAST_POINTS} points")
            continue
        key = b"" if kind == CLOSED[1] else points.round(SAME_MM).tobytes()
        if key in kept and key:
            doubled += 1
        kept[key or number.to_bytes(8)] = points
    frame = str(item.get("ReferencedFrameOfReferenceUID", ""))
    return Structure(int(item.ROINumber), name, tuple(kept.values()), frame, tuple(left_out), doubled)


def references(data: Any) -> set[str]:
    """Return the SeriesInstanceUIDs of the scans that an RTSTRUCT was drawn on."""
    return {
        str(series.get("SeriesInstanceUID", ""))
        for frame in data.get("ReferencedFrameOfReferenceSequence") or ()
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    }


def rasterised(
    structures: Sequence[Structure], grid: Grid, *, note: Callable[[str], None]
) -> tuple[np.ndarray, Labels]:
    """Return the label map of structures on a grid: a voxel belongs to each structure that surrounds its centre.

    Args:
        structures: with contours in RAS mm.
        grid: of the scan.
        note: takes what a user must know, in words.

    Returns:
        Codes (W, H, D), int32, and what they stand for.
    """
    own, back = lps_grid(grid)
    for words in _left_out(structures):
        note(words)
    drawn = [structure for structure in structures if structure.contours]
    axes = [axis_of(structure.contours, own) for structure in drawn]
    normals = [normal_of(s.contours, own, axis) for s, axis in zip(drawn, axes, strict=True)]
    bent = [structure.name for structure, normal in zip(drawn, normals, strict=True) if normal is None]
    if bent:
        note(f"the contours of {listed(bent)} lie in planes of several directions; left out")
    stacks = [None if n is None else stacked(s.contours, n) for s, n in zip(drawn, normals, strict=True)]
    codes = Codes(tuple(own.shape))
    outside: list[str] = []
    for structure, axis, normal, stack in zip(drawn, axes, normals, stacks, strict=True):
        if normal is None or stack is None:
            continue
        alike = [s for s, other in zip(stacks, axes, strict=True) if s is not None and other == axis]
        step = spacing_mm(own.affine)[axis] if axis is not None else spacing_mm(own.affine).max()
        thick = spacing_of(alike, stack, float(step))
        found = filled(stack, own, axis=axis, normal=normal, thickness=thick)
        for words in _odd(structure.name, found.gap_mm, found.crossing):
            note(words)
        if not found.mask.any():
            outside.append(structure.name)
        codes.add(structure.number, found.mask, found.box)
    if outside:
        note(f"{listed(outside)} enclose{'s' if len(outside) == 1 else ''} no voxel of the scan's grid")
    names = {structure.number: structure.name for structure in structures}
    volume, labels = codes.finished(names, note)
    return np.ascontiguousarray(nib.apply_orientation(volume, back)), labels


def _left_out(structures: Sequence[Structure]) -> Iterator[str]:
    """Yield what of the contours does not count."""
    kinds = {kind for structure in structures for kind in structure.left_out}
    for kind in sorted(kinds):
        names = [structure.name for structure in structures if kind in structure.left_out]
        yield f"contours of type {kind or '(none)'} enclose nothing and are left out, of {listed(names)}"
    twice = [structure.name for structure in structures if structure.doubled]
    if twice:
        yield f"contours that are there twice count once, of {listed(twice)}"


def _odd(name: str, gap_mm: float, crossing: int) -> Iterator[str]:
    """Yield what is odd about the contours of a structure."""
    if gap_mm:
        yield f"{name} has no contour over {gap_mm:.1f} mm between two planes of contours; that gap stays empty"
    if crossing:
        yield f"contours of {name} cross each other in {crossing} planes; where two of them overlap counts as outside"
