"""A carried dose as an RTDOSE on the fixed scan's planes."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from ncf.core.errors import PairError
from ncf.core.packages import optional
from ncf.io.dicom.doses import TOLD, said
from ncf.io.dicom.planes import RTDOSE
from ncf.io.dicom.written.identity import (
    LONGEST,
    coded,
    copy_named,
    identified,
    made_by,
    new_object,
    save_object,
    set_dates,
)
from ncf.io.dicom.written.planes import decimal, planes_of
from ncf.io.dicom.written.source import Scan
from ncf.space.grids import Grid

WHAT, NUMBER = "an RTDOSE", 9005
SLACK = 1e-9  # a step is this much larger, so that its rounding leaves the largest dose within range
PLANS = ("PLAN", "MULTI_PLAN")  # doses of whole plans, of which sums are one again
OFFSETS = (0x3004, 0x000C)  # GridFrameOffsetVector, along which frames lie
COPIED = ("TissueHeterogeneityCorrection",)
NO_DOSE = "; write NIfTI with --dicom=false"


def plans_of(doses: Sequence[Scan]) -> dict[str, Any]:
    """Return the items of the plans that doses name, each once, by the UID of the plan.

    Args:
        doses: with ReferencedRTPlanSequence.
    """
    plans: dict[str, Any] = {}
    for dose in doses:
        for item in dose.header.get("ReferencedRTPlanSequence") or ():
            plans.setdefault(str(item.get("ReferencedSOPInstanceUID", "")), deepcopy(item))
    for item in plans.values():
        item.remove_private_tags()
    return plans


def check_doses(doses: Sequence[Scan]) -> None:
    """Raise PairError unless an RTDOSE can be written of doses: they say what it must, and agree in it.

    Args:
        doses: one, or those of a sum.

    Raises:
        PairError: a dose lacks a word or its plan, or the sum has no name in DICOM.
    """
    for dose in doses:
        missing = next((word for word in TOLD if not said(dose, word)), None)
        if missing is not None:
            raise PairError(f"{dose.path} tells no {missing}, which {WHAT} must{NO_DOSE}")
        if not dose.header.get("ReferencedRTPlanSequence"):
            raise PairError(f"{dose.path} names no plan (ReferencedRTPlanSequence), which {WHAT} must{NO_DOSE}")
        if len(doses) > 1 and said(dose, "DoseSummationType") not in PLANS:
            kind = said(dose, "DoseSummationType")
            raise PairError(
                f"{dose.path} is the dose of a {kind}, and such doses need not add up to a whole plan{NO_DOSE}"
            )


def save_dose(
    path: Path,
    values: np.ndarray,
    *,
    fixed: Scan,
    doses: Sequence[Scan],
    words: str,
    rigid: bool,
    anonymous: bool = False,
) -> None:
    """Write a carried dose, or the sum of several; equal doses and scans give the same bytes.

    Stored numbers have 32 bits: they are half a step, max / (2^33 - 2), from the values, or nearer.

    Args:
        path: of the file.
        values: (W, H, D), on the fixed scan's grid, in the unit of the doses.
        fixed: gives patient, study, frame of reference and planes.
        doses: that were carried, checked by `check_doses`.
        words: how they were carried, for the reader.
        rigid: whether the map is.
        anonymous: see `ncf.io.dicom.written.identity.new_object`.

    Raises:
        PairError: the grid is none of DICOM's, or the file cannot be written.
    """
    title = "Carried dose" if len(doses) == 1 else f"Sum of {len(doses)} carried doses"
    data = new_object(RTDOSE, fixed, modality="RTDOSE", series=(NUMBER, title), anonymous=anonymous)
    data.OperatorsName = ""
    set_dates(data, (fixed, *doses), anonymous=anonymous)
    data.ContributingEquipmentSequence = made_by()
    data.ImageType = ["DERIVED", "SECONDARY"]
    data.DerivationDescription, data.DerivationCodeSequence = words, coded("113085", "Spatial resampling")
    _add_meaning(data, doses, words, rigid=rigid)
    _add_grid(data, fixed.grid)
    pixels = _add_numbers(data, values)
    data = identified(data, anonymous=anonymous, pixels=pixels)
    data.PixelData = pixels
    save_object(path, data)


def _add_meaning(data: Any, doses: Sequence[Scan], words: str, *, rigid: bool) -> None:
    """Add what the dose is of: units, type, plans, the files that it comes from."""
    header = doses[0].header
    data.DoseUnits, data.DoseType, data.DoseSummationType = (said(doses[0], word) for word in TOLD)
    plans = plans_of(doses)
    data.ReferencedRTPlanSequence = list(plans.values())
    if len(doses) > 1:
        data.DoseSummationType = PLANS[len(plans) > 1]
    same = [w for w in COPIED if all(dose.header.get(w) == header.get(w) for dose in doses)]
    copy_named(data, header, same)
    data.DoseComment = words[: LONGEST["LO"]]
    data.SpatialTransformOfDose = "RIGID" if rigid else "NON_RIGID"
    data.ReferencedSpatialRegistrationSequence = []
    data.SourceImageSequence = [_source(kind, instance) for dose in doses for kind, instance in _files(dose)]


def _files(dose: Scan) -> list[tuple[str, str]]:
    """Return class and UID of each file of a dose."""
    return list(dict.fromkeys((kind, instance) for kind, instance, _ in dose.instances))


def _source(kind: str, instance: str) -> Any:
    """Return the item of a file that the dose comes from."""
    item = optional("pydicom").Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kind, instance
    item.PurposeOfReferenceCodeSequence = coded("121322", "Source image for image processing operation")
    return item


def _add_grid(data: Any, grid: Grid) -> None:
    """Add where the frames lie."""
    planes = planes_of(grid, WHAT)
    data.ImagePositionPatient, data.ImageOrientationPatient = planes.position(0), planes.orientation
    data.PixelSpacing, data.SliceThickness = planes.pixel_spacing, decimal(planes.spacing[2])
    data.Rows, data.Columns, data.NumberOfFrames = planes.shape[1], planes.shape[0], planes.shape[2]
    data.FrameIncrementPointer = OFFSETS
    data.GridFrameOffsetVector = [decimal(k * planes.spacing[2]) for k in range(planes.shape[2])]


def _add_numbers(data: Any, values: np.ndarray) -> bytes:
    """Add the scale of the numbers, and return these, frame by frame."""
    signed = data.DoseType == "ERROR"  # PS3.3: of the three types, only errors have a sign
    kind = np.dtype("<i4" if signed else "<u4")
    largest = np.iinfo(kind).max
    most = float(np.abs(values).max())
    scale = decimal(most / largest * (1 + SLACK)) if most > 0 else "1"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 32, 32, 31
    data.PixelRepresentation, data.DoseGridScaling = int(signed), scale
    low = 0 if not signed else -largest
    numbers = np.empty(values.shape[::-1], dtype=kind)
    for frame in range(values.shape[2]):
        exact = values[:, :, frame].T.astype(np.float64) / float(scale)
        numbers[frame] = np.rint(exact).clip(low, largest)
    return numbers.tobytes()
