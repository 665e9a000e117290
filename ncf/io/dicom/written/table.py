"""The table of DICOM objects that are made of a result, beside the registrations, which are fields."""

from __future__ import annotations

from typing import NamedTuple


class DicomObject(NamedTuple):
    """One kind of object.

    Attributes:
        suffix: of the file or folder, after the name of the result.
        sentence: what it is, for help and docs.
    """

    suffix: str
    sentence: str


DICOM_OBJECTS = {
    "dicom": DicomObject("_warped", "the warped moving scan as a DICOM series of the fixed scan's study"),
    "rtstruct": DicomObject("_rtstruct.dcm", "the carried labels as contours on the fixed series, an RTSTRUCT"),
    "seg": DicomObject("_seg.dcm", "the carried labels as a DICOM segmentation of the fixed series, by highdicom"),
    "seg-labelmap": DicomObject("_labelmap.dcm", "the same as a label map: one number a voxel, so no overlap"),
}
