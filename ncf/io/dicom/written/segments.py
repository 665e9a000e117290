"""Carried labels as a DICOM segmentation on the fixed scan's planes, by highdicom: of bits, or as a label map."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ncf.core.errors import PairError
from ncf.core.labels import listed
from ncf.core.packages import optional
from ncf.core.presets import version
from ncf.io.dicom.segmentation import BINARY, LABELMAP
from ncf.io.dicom.written.between import Between
from ncf.io.dicom.written.identity import FAMILY, MODEL, NO_SERIAL, PATIENT, STUDY, identified, save_object
from ncf.io.dicom.written.planes import decimal, planes_of
from ncf.io.dicom.written.structures import WHAT, Structure, new_structures
from ncf.io.dicom.written.uids import uid_of

SEGMENTS_NUMBER, LABELMAP_NUMBER = 9004, 9005
# what highdicom says of the time of writing
NOT_KEPT = ("InstanceCreationDate", "InstanceCreationTime", "TimezoneOffsetFromUTC", "ContributingEquipmentSequence")


def save_segments(path: Path, structures: list[Structure], scans: Between) -> None:
    """Write a binary segmentation by highdicom; equal structures and scans give the same bytes.

    Args:
        path: of the file.
        structures: on the fixed scan's grid.
        scans: the fixed scan is the one that segments lie on.

    Raises:
        PairError: highdicom is missing, cannot use the fixed scan's headers, or the file cannot be written.
    """
    frames = np.stack([s.mask.transpose(2, 1, 0) for s in structures], axis=-1).astype(np.uint8)
    _save(path, _made(frames, BINARY, structures, scans), SEGMENTS_NUMBER, scans)


def save_labelmap(path: Path, structures: list[Structure], scans: Between) -> None:
    """Write a label map segmentation (one number a voxel, from 1 on in the order of structures) by highdicom.

    Args:
        path: of the file.
        structures: on the fixed scan's grid.
        scans: the fixed scan is the one that segments lie on.

    Raises:
        PairError: structures overlap, and what `save_segments` raises.
    """
    require_apart(structures)
    numbers = np.zeros(structures[0].mask.transpose(2, 1, 0).shape, np.min_scalar_type(len(structures)))
    for number, structure in enumerate(structures, start=1):
        numbers[structure.mask.transpose(2, 1, 0)] = number
    _save(path, _made(numbers, LABELMAP, structures, scans), LABELMAP_NUMBER, scans)


def require_apart(structures: Sequence[Structure]) -> None:
    """Raise PairError where a voxel belongs to two structures, which a label map cannot tell."""
    shared = [
        f"{one.name} and {other.name} ({count} voxels)"
        for one, other in combinations(structures, 2)
        if (count := int((one.mask & other.mask).sum()))
    ]
    if shared:
        raise PairError(
            f"structures overlap: {listed(shared)}; a label map holds one number a voxel, so write --format=seg, "
            "whose segments may overlap"
        )


def _made(frames: np.ndarray, kind: str, structures: Sequence[Structure], scans: Between) -> Any:
    """Return the segmentation as highdicom makes it.

    Args:
        frames: bits (D, H, W, segments), or numbers (D, H, W).
        kind: `BINARY` or `LABELMAP`.
        structures: that are described.
        scans: the fixed scan is the one that segments lie on.
    """
    highdicom = optional("highdicom")
    planes, headers = planes_of(scans.fixed.grid, WHAT), _headers(scans)
    apart = float(decimal(planes.spacing[2]))
    measures = highdicom.PixelMeasuresSequence([float(v) for v in planes.pixel_spacing], apart, apart)
    places = [
        highdicom.PlanePositionSequence("PATIENT", [float(v) for v in planes.position(k)])
        for k in range(planes.shape[2])
    ]
    try:
        return _quietly(highdicom.seg.Segmentation,
            headers, frames, kind, [_segment(highdicom, n, s) for n, s in enumerate(structures, start=1)],
            uid_of("series"), SEGMENTS_NUMBER, uid_of("instance"), 1, FAMILY, MODEL, version(), NO_SERIAL,
            content_label="SEGMENTATION", content_description="Carried labels", plane_positions=places,
            plane_orientation=highdicom.PlaneOrientationSequence("PATIENT", [float(v) for v in planes.orientation]),
            pixel_measures=measures,
        )  # fmt: skip
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise PairError(
            f"{scans.fixed.path}: its headers do not do for a segmentation ({reason}); write rtstruct"
        ) from error


def _save(path: Path, made: Any, number: int, scans: Between) -> None:
    """Write what highdicom has made, with patient, study and dates as in every object of ours."""
    own = new_structures(str(made.SOPClassUID), "SEG", (number, "Carried labels"), scans)
    for word in (*PATIENT, *STUDY, *NOT_KEPT):
        if word in made:
            del made[word]
    data = optional("pydicom").Dataset({**{e.tag: e for e in made}, **{e.tag: e for e in own}})
    data.FrameOfReferenceUID = scans.fixed.frame
    if "Laterality" in data:  # an object of frames tells the side of each frame, if any
        del data.Laterality
    dimensions = uid_of("dimensions", scans.fixed.series)
    for item in (*data.DimensionOrganizationSequence, *data.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    save_object(path, identified(data, anonymous=scans.anonymous))


def _headers(scans: Between) -> list[Any]:
    """Return the data sets of the fixed scan, without their pixels, decoded."""
    with optional("pydicom").config.disable_value_validation():
        read = [optional("pydicom").dcmread(file, stop_before_pixels=True) for file in scans.fixed.files]
        for header in read:
            header.decode()
    return read


def _quietly(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what a call makes; what pydicom says of odd values in the scan is not printed: it shows the patient's."""
    with optional("pydicom").config.disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*args, **kwargs)


def _segment(highdicom: Any, number: int, structure: Structure) -> Any:
    """Return the description of one segment."""
    code = highdicom.sr.CodedConcept
    tissue, algorithm = code("85756007", "SCT", "Tissue"), code("113085", "DCM", "Spatial resampling")
    who = highdicom.AlgorithmIdentificationSequence(MODEL, algorithm, version())
    colour = highdicom.color.CIELabColor.from_rgb(*structure.colour)
    return highdicom.seg.SegmentDescription(
        number, structure.name[:64], tissue, tissue, "AUTOMATIC", who, display_color=colour
    )
