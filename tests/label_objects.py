"""RTSTRUCT and SEG of a series in a folder, written by pydicom and highdicom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
FRAME = "1.2.826.0.1.3680043.8.498.1"
Drawn = tuple[str, np.ndarray]  # type of a contour, and its points (N, 3) in RAS mm


def complete(data: Dataset, _: int = 0) -> None:
    """Add what highdicom and plastimatch want of a slice."""
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Secret^Name", "7", "", ""
    data.StudyDate = data.StudyTime = data.AccessionNumber = data.ReferringPhysicianName = data.StudyID = ""
    data.FrameOfReferenceUID, data.SeriesNumber, data.PositionReferenceIndicator = FRAME, 1, ""


def slices_of(folder: str | Path) -> list[Dataset]:
    """The slices of a series, in the order of their places."""
    found = [pydicom.dcmread(path) for path in Path(folder).iterdir()]
    axes = np.array(found[0].ImageOrientationPatient, float).reshape(2, 3)
    return sorted(found, key=lambda d: float(np.array(d.ImagePositionPatient, float) @ np.cross(*axes)))


def write_structures(
    path: Path,
    scan: str | Path,
    drawn: Mapping[str, Sequence[Drawn]],
    *,
    numbers: Sequence[int] | None = None,
    **tags: Any,
) -> Path:
    """An RTSTRUCT with structures by name; tags: of the data set, such as ``frame``."""
    first = slices_of(scan)[0]
    frame, series = (
        tags.get("frame", first.get("FrameOfReferenceUID", FRAME)),
        tags.get("series", first.SeriesInstanceUID),
    )
    data, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, RTSTRUCT
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.file_meta, data.SOPClassUID, data.Modality = meta, RTSTRUCT, "RTSTRUCT"
    data.StudyInstanceUID, data.SeriesInstanceUID = first.StudyInstanceUID, generate_uid()
    data.PatientName, data.PatientID, data.StructureSetLabel = "Secret^Name", "7", "set"
    referenced, study, whole = Dataset(), Dataset(), Dataset()
    referenced.SeriesInstanceUID, referenced.ContourImageSequence = series, Items([])
    study.RTReferencedSeriesSequence = Items([referenced])
    whole.FrameOfReferenceUID, whole.RTReferencedStudySequence = frame, Items([study])
    data.ReferencedFrameOfReferenceSequence = Items([whole])
    rois, contours = [], []
    for number, (name, shapes) in zip(numbers or range(1, 1 + len(drawn)), drawn.items(), strict=True):
        roi, item = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, roi.ReferencedFrameOfReferenceUID = number, name, frame
        roi.ROIGenerationAlgorithm = "MANUAL"
        item.ReferencedROINumber, item.ROIDisplayColor, own = number, [255, 0, 0], []
        for kind, points in shapes:
            contour = Dataset()
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [f"{v:.8g}" for v in (points * [-1, -1, 1]).ravel()]
            own.append(contour)
        item.ContourSequence = Items(own)
        rois.append(roi)
        contours.append(item)
    data.StructureSetROISequence, data.ROIContourSequence = Items(rois), Items(contours)
    data.save_as(path, enforce_file_format=True)
    return path


def write_segments(path: Path, scan: str | Path, masks: Mapping[str, np.ndarray], *, kind: str = "BINARY") -> Path:
    """A SEG of masks (W, H, D) on the grid of a series: frames without a voxel are left out.

    kind: BINARY, FRACTIONAL or LABELMAP.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes

    described = [
        hd.seg.SegmentDescription(
            segment_number=n,
            segment_label=name,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.Organ,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for n, name in enumerate(masks, start=1)
    ]
    stack = np.stack([mask.transpose(2, 1, 0) for mask in masks.values()], axis=-1)
    if kind == "LABELMAP":
        array: np.ndarray = (stack * np.arange(1, len(masks) + 1)).max(axis=-1).astype(np.uint8)
    else:
        array = stack.astype(np.float32 if kind == "FRACTIONAL" else np.uint8)
    more = {"fractional_type": "PROBABILITY"} if kind == "FRACTIONAL" else {}
    made = hd.seg.Segmentation(
        slices_of(scan),
        array,
        kind,
        described,
        generate_uid(),
        2,
        generate_uid(),
        1,
        "tests",
        "tests",
        "1",
        "1",
        omit_empty_frames=True,
        **more,
    )
    made.save_as(path)
    return path
