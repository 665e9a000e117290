"""Carried labels on the fixed scan's planes: as structures in memory, and as an RTSTRUCT of closed contours."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import contourpy
import numpy as np

from ncf.core.errors import PairError
from ncf.core.labels import Labels
from ncf.core.packages import optional
from ncf.io.dicom.written.between import Between
from ncf.io.dicom.written.identity import copy_named, identified, new_object, save_object, set_dates, set_side
from ncf.io.dicom.written.planes import planes_of

STRUCTURES_KIND, STRUCTURES_NUMBER = "1.2.840.10008.5.1.4.1.1.481.3", 9003
DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"
HALFWAY = 0.5  # between a voxel inside and one outside
GOLDEN = 0.618034  # of a turn of hue from label to label, so that neighbours differ
DIGITS = 4  # of a contour's millimetres
WHAT = "an RTSTRUCT or a segmentation"


@dataclass(frozen=True)
class Structure:
    """One carried label.

    Attributes:
        number: of the label.
        name: for people.
        mask: (W, H, D), bool, on the fixed grid.
    """

    number: int
    name: str
    mask: np.ndarray

    @property
    def colour(self) -> list[int]:
        """Red, green and blue, 0 to 255, by the number alone."""
        return [round(255 * part) for part in colorsys.hsv_to_rgb(self.number * GOLDEN % 1, 0.75, 0.95)]


def structures_of(codes: np.ndarray, table: Labels) -> list[Structure]:
    """Return the labels of a map as structures, each whole; a label without a name is called by its number.

    Args:
        codes: (W, H, D), whole numbers, 0 outside.
        table: what they stand for.

    Raises:
        PairError: there are none.
    """
    labels = sorted(table.of(np.unique(codes)))
    if not labels:
        raise PairError("no carried label lies on the fixed grid, so there is no structure to write")
    return [Structure(n, table.names.get(n) or f"label {n}", table.mask(codes, n)) for n in labels]


def save_structures(path: Path, structures: list[Structure], scans: Between) -> None:
    """Write an RTSTRUCT; equal structures and scans give the same bytes.

    Contours run halfway between voxels inside and outside. A hole is joined to its outline by a line without width,
    because readers differ in what contours within contours mean.

    Args:
        path: of the file.
        structures: on the fixed scan's grid.
        scans: the fixed scan is the one that contours lie on.

    Raises:
        PairError: the file cannot be written.
    """
    data = new_structures(STRUCTURES_KIND, "RTSTRUCT", (STRUCTURES_NUMBER, "Carried structures"), scans)
    data.StructureSetDate, data.StructureSetTime = data.ContentDate, data.ContentTime
    del data.ContentDate, data.ContentTime
    data.StructureSetLabel, data.OperatorsName, data.ApprovalStatus = "CARRIED", "", "UNAPPROVED"
    data.ReferencedFrameOfReferenceSequence = [_referenced_frame(scans)]
    rois, contours, observations = [], [], []
    for number, structure in enumerate(structures, start=1):
        roi, shown, observed = (optional("pydicom").Dataset() for _ in range(3))
        roi.ROINumber, roi.ReferencedFrameOfReferenceUID = number, scans.fixed.frame
        roi.ROIName, roi.ROIGenerationAlgorithm = structure.name[:64], "AUTOMATIC"
        shown.ROIDisplayColor, shown.ReferencedROINumber = structure.colour, number
        shown.ContourSequence = list(_contours(structure, scans))
        observed.ObservationNumber, observed.ReferencedROINumber = number, number
        observed.RTROIInterpretedType, observed.ROIInterpreter = "", ""
        rois.append(roi)
        contours.append(shown)
        observations.append(observed)
    data.StructureSetROISequence, data.ROIContourSequence = rois, contours
    data.RTROIObservationsSequence = observations
    save_object(path, identified(data, anonymous=scans.anonymous), implicit=True)


def new_structures(kind: str, modality: str, series: tuple[int, str], scans: Between) -> Any:
    """Return a data set with what an RTSTRUCT and a segmentation share.

    Args:
        kind: the SOP class UID.
        modality: of the series.
        series: its number and its description.
        scans: the fixed one gives patient and study.
    """
    data = new_object(kind, scans.fixed, modality=modality, series=series, anonymous=scans.anonymous)
    copy_named(data, scans.fixed.header, ("BodyPartExamined", "Laterality"))
    set_side(data)
    set_dates(data, (scans.fixed, scans.moving), anonymous=scans.anonymous)
    return data


def _referenced_frame(scans: Between) -> Any:
    """Return the item that names the series, its study and its frame of reference."""
    frame, study, series = (optional("pydicom").Dataset() for _ in range(3))
    series.SeriesInstanceUID, series.ContourImageSequence = scans.fixed.series, scans.fixed.references()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = DETACHED_STUDY, scans.fixed.study
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = scans.fixed.frame, [study]
    return frame


def _contours(structure: Structure, scans: Between) -> Iterator[Any]:
    """Yield the contours of a structure, plane by plane."""
    planes = planes_of(scans.fixed.grid, WHAT)
    for plane in range(planes.shape[2]):
        for outline in outlines(structure.mask[:, :, plane]):
            vox = np.column_stack([outline, np.full(len(outline), plane)])
            points = planes.origin + (vox * planes.spacing) @ planes.axes
            item = optional("pydicom").Dataset()
            item.ContourImageSequence = scans.fixed.references(plane, plane + 1)
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            item.ContourData = [f"{value + 0.0:.{DIGITS}f}" for value in points.ravel()]
            yield item


def outlines(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the closed outlines (N, 2) of a mask (W, H) in its voxels with their holes, no point twice."""
    if not mask.any():
        return
    lines = contourpy.contour_generator(z=np.pad(mask.T, 1).astype(float), fill_type="OuterOffset")
    for points, offsets in zip(*lines.filled(HALFWAY, np.inf), strict=True):
        parts = [points[a : b - 1] - 1.0 for a, b in pairwise(offsets)]
        outline = parts[0]
        for hole in parts[1:]:
            outline = _joined(outline, hole)
        yield outline


def _joined(outline: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Return an outline with a hole, gone around where both are nearest: there and back on one line."""
    apart = ((outline[:, None] - hole[None]) ** 2).sum(axis=2)
    here, there = np.unravel_index(apart.argmin(), apart.shape)
    around = np.roll(hole, -there, axis=0)
    return np.concatenate([outline[: here + 1], around, around[:1], outline[here:]])
