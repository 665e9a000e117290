"""The header of one DICOM file, read by pydicom without its pixels, and the planes that it describes.

Points are in LPS mm here, as in DICOM. A file that says too little is refused with a reason that begins with its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncf.core.errors import PairError
from ncf.core.packages import optional
from ncf.io.dicom.native import Native, native_of
from ncf.io.dicom.stack import TURN_TOLERANCE, Plane
from ncf.io.dicom.tags import TELLING_TAGS, told

GREY = ("MONOCHROME1", "MONOCHROME2")
RTDOSE = "1.2.840.10008.5.1.4.1.1.481.2"
SAME_HEIGHT_MM = 0.01  # of the first frame of a dose, told twice
OFFSET_TOLERANCE = 0.02  # of a step: offsets of a dose are exact but for their last digit
BY_HAND = "it does not say where its voxels lie, convert it to NIfTI by hand"
PIXELS_ELSEWHERE = ("Segmentation Storage", "Surface Segmentation Storage", "Label Map Segmentation Storage")
HEADER_TAGS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesNumber",
    "Modality", "SeriesDescription", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
    "RescaleIntercept", "SpacingBetweenSlices", "SliceThickness", "GridFrameOffsetVector", "DoseGridScaling",
    "DimensionIndexSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "StudyDate", "SeriesDate", "SeriesTime", "AcquisitionDate", "InstanceNumber",
    "Units", "SUVType", "CorrectedImage", "DecayCorrection", "PatientWeight", "RadiopharmaceuticalInformationSequence",
    "ActualFrameDuration",
    "ModalityLUTSequence", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
)  # fmt: skip
TEXTS = {"UI", "CS", "DA", "TM", "DT", "LO", "SH", "ST", "LT", "AE", "AS"}  # types of values
PRIVATE_TAGS = (0x00090010, 0x0009100D, 0x70530010, 0x70531000, 0x70531009)  # of PET: `ncf.io.dicom.suv`
NUMBERS = (
    ("ImagePositionPatient", ("PlanePositionSequence",), 3),
    ("ImageOrientationPatient", ("PlaneOrientationSequence",), 6),
    ("PixelSpacing", ("PixelMeasuresSequence",), 2),
    ("RescaleSlope", ("PixelValueTransformationSequence",), 1),
    ("RescaleIntercept", ("PixelValueTransformationSequence",), 1),
)


class Head(NamedTuple):
    """The header of a file.

    Attributes:
        path: of the file.
        data: the pydicom data set, without pixels.
        native: where its pixels lie as plain numbers, None where they do not.
    """

    path: Path
    data: Any
    native: Native | None


@lru_cache(maxsize=1)
def _tags() -> list[Any]:
    tag = optional("pydicom").tag.Tag
    return [tag(word) for word in (*HEADER_TAGS, *TELLING_TAGS, *PRIVATE_TAGS)]


def head_of(path: Path) -> Head | None:
    """Return the header of a file; None where it is damaged, or lacks its class or its size."""
    pydicom = optional("pydicom")
    try:
        with path.open("rb") as file:
            header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=_tags())
            _drop_unreadable(header)
            native = native_of(header, file) if "Rows" in header and "Columns" in header else None
        kind = pydicom.uid.UID(str(header.get("SOPClassUID", "")))
        image = "Rows" in header and "Columns" in header
        if not kind or ("Image Storage" in kind.name and not image):
            return None
        if image:
            int(header.Rows), int(header.Columns)
        str(header.get("SeriesInstanceUID", "")), str(header.get("Modality", ""))
    except Exception:  # whatever pydicom meets in a damaged file
        return None
    return Head(path, header, native)


def _drop_unreadable(header: Any) -> None:
    """Take out values that pydicom cannot convert, so that their tags count as missing.

    Texts are left as they are: any bytes are one, and to convert all takes as long as to read the file.
    """
    for tag in list(header.keys()):
        if header.get_item(tag).VR in TEXTS:
            continue
        try:
            header[tag]
        except Exception:  # whatever pydicom meets in a damaged value
            del header[tag]


def is_scan(header: Any) -> bool:
    """Tell whether a file has planes of a scan: structures, reports, presentation states and segmentations have not."""
    kind = optional("pydicom").uid.UID(str(header.SOPClassUID)).name
    return "Rows" in header and kind not in PIXELS_ELSEWHERE


def planes_of(head: Head) -> list[Plane]:
    """Return the planes of one file, each with the values that its frames share.

    Args:
        head: of the file.

    Raises:
        PairError: the file has no grey values, or does not say where they lie; the reason names the file.
    """
    try:
        return _in_dose(head, list(_planes(head)))
    except PairError:
        raise
    except Exception as error:  # values that pydicom cannot convert, groups without items
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:100]}"
        raise PairError(f"{head.path.name} has a damaged header ({reason}); copy it again") from error


def _planes(head: Head) -> Iterator[Plane]:
    path, header, _ = head
    if int(header.get("SamplesPerPixel", 1) or 1) != 1:
        raise PairError(
            f"{path.name} holds {header.SamplesPerPixel}-component voxels, expected one real number each; extract one "
            "channel"
        )
    colours = str(header.get("PhotometricInterpretation", "") or GREY[0])
    if colours not in GREY:
        raise PairError(f"{path.name} holds colours ({colours}), expected one real number a voxel; convert it")
    count = int(header.get("NumberOfFrames", 1) or 1)
    frames = header.get("PerFrameFunctionalGroupsSequence")
    shared = (header.get("SharedFunctionalGroupsSequence") or [header])[0]
    if not frames and count == 1 and shared is header:
        yield _plane(head, 0, (header,))
        return
    if not frames:
        if count > 1:
            yield from _offset_planes(head, count)
            return
        frames = [header]
    elif len(frames) != count:
        raise PairError(f"{path.name} tells the places of {len(frames)} frames and holds {count}; copy it again")
    for number, own in enumerate(frames):
        yield _plane(head, number, (own, shared, header))


def _offset_planes(head: Head, count: int) -> Iterator[Plane]:
    """Yield the frames of a dose grid, which lie at places (mm) along the normal (PS3.3, C.8.8.3.2).

    A vector that begins with 0 tells distances from the first frame. In axial planes it may begin with the z of the
    first pixel, and then tells the z of each frame.
    """
    path, header, _ = head
    told = header.get("GridFrameOffsetVector")
    offsets = np.array([float(v) for v in np.atleast_1d([] if told is None else told)])
    if offsets.size != count or not np.isfinite(offsets).all():
        raise PairError(f"{path.name} holds {count} frames without their places; convert it to NIfTI by hand")
    first = _plane(head, 0, (header, header, header))
    step = np.array([0.0, 0.0, 1.0]) if offsets[0] else first.normal
    height, axial = float(first.position[2]), 1 - abs(float(first.normal[2])) < TURN_TOLERANCE
    if offsets[0] and not (axial and abs(offsets[0] - height) <= SAME_HEIGHT_MM):
        raise PairError(
            f"{path.name} places its frames from {offsets[0]:g} mm on (GridFrameOffsetVector), expected 0 or, of axial "
            f"planes, the z of the first pixel, {height:g} mm; correct the header"
        )
    apart = np.diff(offsets)
    if np.abs(apart - apart.mean()).max() > OFFSET_TOLERANCE * abs(apart.mean()):
        low, high = np.sort(np.abs(apart))[[0, -1]]
        raise PairError(
            f"{path.name} has frames that are {low:.3g} to {high:.3g} mm apart (GridFrameOffsetVector), expected even "
            "ones; export the dose on an even grid"
        )
    for number, offset in enumerate(offsets - offsets[0]):
        yield replace(first, frame=number, position=first.position + offset * step)


def _in_dose(head: Head, planes: list[Plane]) -> list[Plane]:
    """Return the planes of a dose by its own scale; planes of other objects as they are."""
    if str(head.data.get("SOPClassUID", "")) != RTDOSE:
        return planes
    scale = float(head.data.get("DoseGridScaling", 0) or 0)
    if not (np.isfinite(scale) and scale > 0):
        raise PairError(
            f"{head.path.name} is a dose without DoseGridScaling, so its numbers are in no unit; export it again"
        )
    return [replace(plane, slope=scale, intercept=0.0) for plane in planes]


def _plane(head: Head, number: int, groups: tuple[Any, ...]) -> Plane:
    """Return one plane, with each number from the first of ``groups`` (frame, all frames, file) that has it."""
    path = head.path
    name = path.name if groups[0] is groups[-1] else f"frame {number + 1} of {path.name}"
    values = {word: _numbers(word, macro, length, groups=groups, name=name) for word, macro, length in NUMBERS}
    axes = values["ImageOrientationPatient"].reshape(2, 3)
    spacing = values["PixelSpacing"][::-1]  # in DICOM the spacing between rows is first
    square = abs(axes @ axes.T - np.eye(2)).max() <= TURN_TOLERANCE * 10
    if not square or (spacing <= 0).any():
        raise PairError(
            f"{name} has the orientation {axes.ravel().tolist()} and pixels of {spacing.tolist()} mm; correct the "
            "header"
        )
    header = groups[-1]
    shape = (int(header.Rows), int(header.Columns))
    slope, intercept = float(values["RescaleSlope"][0]), float(values["RescaleIntercept"][0])
    if slope == 0 or min(shape) < 1:
        raise PairError(
            f"{name} has {shape[0]} rows, {shape[1]} columns and RescaleSlope {slope:g}; correct the header"
        )
    instance = str(header.get("SOPInstanceUID", ""))
    position = values["ImagePositionPatient"]
    return Plane(path, number, shape, position, axes, spacing, slope, intercept, instance, groups, head.native)


def _numbers(word: str, macro: Sequence[str], length: int, *, groups: tuple[Any, ...], name: str) -> np.ndarray:
    """Return the numbers of a tag, (length,); without a tag for the values, these are the stored ones."""
    value = told(word, macro if len(groups) > 1 else (), groups)  # a file without frames has no macros
    if value is None and word.startswith("Rescale"):
        return np.array([float(word.endswith("Slope"))])
    numbers = np.array([float(v) for v in np.atleast_1d(value)]) if value is not None else np.empty(0)
    if len(numbers) != length or not np.isfinite(numbers).all():
        raise PairError(f"{name} tells no {word}; {BY_HAND}")
    return numbers
