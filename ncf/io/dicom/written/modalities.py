"""What a series of each modality takes over from the moving scan, and what its definition in PS3.3 asks for beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ncf.core.errors import PairError
from ncf.io.dicom.written.identity import set_side

SERIES = ("BodyPartExamined", "Laterality")
EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions")
DATES = ("SeriesDate", "SeriesTime", "AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime")
CONTRAST = ("ContrastBolusAgent", "ContrastBolusRoute")
CT = (
    "KVP", "AcquisitionNumber", "ScanOptions", "DataCollectionDiameter", "ReconstructionDiameter",
    "DistanceSourceToDetector", "DistanceSourceToPatient", "ExposureTime", "XRayTubeCurrent", "Exposure", "FilterType",
    "GeneratorPower", "FocalSpots", "ConvolutionKernel",
)  # fmt: skip
MR = (
    "ScanningSequence", "SequenceVariant", "ScanOptions", "MRAcquisitionType", "SequenceName", "RepetitionTime",
    "EchoTime", "EchoTrainLength", "NumberOfAverages", "ImagingFrequency", "ImagedNucleus", "EchoNumbers",
    "MagneticFieldStrength", "FlipAngle", "AcquisitionNumber",
)  # fmt: skip
PT = (
    "Units", "CountsSource", "CollimatorType", "CorrectedImage", "RandomsCorrectionMethod",
    "AttenuationCorrectionMethod", "ScatterCorrectionMethod", "DecayCorrection", "ReconstructionMethod", "SUVType",
    "RadiopharmaceuticalInformationSequence", "FrameReferenceTime", "ActualFrameDuration", "DecayFactor",
    "DoseCalibrationFactor",
)  # fmt: skip


@dataclass(frozen=True)
class Modality:
    """How a series of one modality is written.

    Attributes:
        kind: the SOP class UID.
        image_type: the ImageType.
        copied: keywords of what the moving scan's settings are.
        complete: adds to a data set what its definition asks for, by the fixed and the moving header.
        scale_by_plane: whether each plane has a slope of its own, and no intercept.
    """

    kind: str
    image_type: tuple[str, ...]
    copied: tuple[str, ...]
    complete: Callable[[Any, Any, Any], None]
    scale_by_plane: bool = False


def _series(data: Any, fixed: Any, *, position: bool = True) -> None:
    """Add what each series has: a side, and how the patient lay in the fixed scan."""
    set_side(data)
    if position:
        data.PatientPosition = str(fixed.get("PatientPosition", "") or "")


def _empty(data: Any, *words: str) -> None:
    """Add attributes without a value where there are none."""
    for word in words:
        if word not in data:
            setattr(data, word, None)


def _complete_ct(data: Any, fixed: Any, moving: Any) -> None:
    _series(data, fixed)
    data.RescaleType = str(moving.get("RescaleType", "") or "HU")
    _empty(data, "KVP", "AcquisitionNumber")


def _complete_mr(data: Any, fixed: Any, moving: Any) -> None:
    _series(data, fixed)
    _empty(data, "ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength")
    for word, unknown in (("ScanningSequence", "RM"), ("SequenceVariant", "NONE")):
        if word not in data:
            setattr(data, word, unknown)
    if "IR" in data.ScanningSequence:
        data.InversionTime = moving.get("InversionTime")
    if "CG" in (data.ScanOptions or ""):
        data.TriggerTime = moving.get("TriggerTime")


def _complete_pt(data: Any, fixed: Any, moving: Any) -> None:
    _series(data, fixed, position=False)
    for word in ("PatientOrientationCodeSequence", "PatientGantryRelationshipCodeSequence"):
        setattr(data, word, list(fixed.get(word) or []))
    _empty(data, "CorrectedImage", "CollimatorType", "AcquisitionDate", "AcquisitionTime", "ActualFrameDuration")
    if "RadiopharmaceuticalInformationSequence" not in data:
        data.RadiopharmaceuticalInformationSequence = []
    for given in data.RadiopharmaceuticalInformationSequence:
        _empty(given, "RadionuclideCodeSequence")
    data.SeriesType = ["STATIC", "IMAGE"]
    for word in ("Units", "DecayCorrection"):
        if word not in data:
            raise PairError(
                f"the moving PET tells no {word}, so what its values are is not known; complete its headers"
            )
    for word, usual in (("CountsSource", "EMISSION"), ("FrameReferenceTime", "0")):
        if word not in data:
            setattr(data, word, usual)


MODALITIES = {
    "CT": Modality(
        "1.2.840.10008.5.1.4.1.1.2", ("DERIVED", "SECONDARY", "AXIAL"), (*SERIES, *EQUIPMENT, *CONTRAST, *CT),
        _complete_ct,
    ),
    "MR": Modality(
        "1.2.840.10008.5.1.4.1.1.4", ("DERIVED", "SECONDARY", "OTHER"), (*SERIES, *EQUIPMENT, *CONTRAST, *MR),
        _complete_mr,
    ),
    "PT": Modality(
        "1.2.840.10008.5.1.4.1.1.128", ("DERIVED", "PRIMARY"), (*SERIES, *EQUIPMENT, *PT), _complete_pt,
        scale_by_plane=True,
    ),
}  # fmt: skip
