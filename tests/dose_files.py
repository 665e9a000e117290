"""RTDOSE files as treatment planning systems write them, on a grid of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTDoseStorage, RTPlanStorage, generate_uid

from tests.dicom_files import RAS_OF_LPS

DOSE_SHAPE = (14, 13, 11)
DOSE_AFFINE = np.array([[-3.0, 0, 0, 19.5], [0, -2.5, 0, 10.0], [0, 0, 2.75, -41.25], [0, 0, 0, 1]])
STEP_GY = 2.0**-20


def write_dose(
    path: Path,
    dose_gy: np.ndarray,
    affine: np.ndarray = DOSE_AFFINE,
    *,
    like: str | Path | None = None,
    changed: Callable[[Dataset], None] = lambda data: None,
) -> str:
    """A dose (W, H, D) in steps of `STEP_GY`, of the patient, study and frame of a series. changed: gets it at last."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    columns = np.diag(RAS_OF_LPS) @ affine[:3, :3] / spacing
    data, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, RTDoseStorage
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.file_meta, data.SOPClassUID, data.Modality = meta, RTDoseStorage, "RTDOSE"
    data.SeriesInstanceUID = generate_uid()
    if like is not None:
        scan = pydicom.dcmread(next(Path(like).iterdir()))
        for word in ("SpecificCharacterSet", "PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID"):
            data[word] = scan[word]
    data.ImagePositionPatient = [f"{v:.9g}" for v in RAS_OF_LPS * affine[:3, 3]]
    data.ImageOrientationPatient = [f"{v:.12g}" for v in (*columns[:, 0], *columns[:, 1])]
    data.PixelSpacing, data.SliceThickness = [spacing[1], spacing[0]], ""
    data.Columns, data.Rows, data.NumberOfFrames = dose_gy.shape
    data.GridFrameOffsetVector, data.FrameIncrementPointer = list(np.arange(dose_gy.shape[2]) * spacing[2]), 0x3004000C
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 32, 32, 31, 0
    data.DoseGridScaling, data.DoseUnits, data.DoseType = STEP_GY, "GY", "PHYSICAL"
    data.DoseSummationType, plan = "PLAN", Dataset()
    plan.ReferencedSOPClassUID, plan.ReferencedSOPInstanceUID = RTPlanStorage, generate_uid()
    data.ReferencedRTPlanSequence = [plan]
    data.PixelData = np.rint(dose_gy.transpose(2, 1, 0) / STEP_GY).astype("<u4").tobytes()
    changed(data)
    data.save_as(path, enforce_file_format=True)
    return str(path)


def some_dose(shape: tuple[int, ...] = DOSE_SHAPE, seed: int = 5) -> np.ndarray:
    """Doses in whole steps, below 64 Gy."""
    return np.random.default_rng(seed).integers(0, 2**26, shape) * STEP_GY


def in_16_bits(path: Path) -> Path:
    """A copy with 16-bit pixels, for dciodvfy: dicom3tools 1.00 aborts at 32-bit ones, which PS3.3 allows for doses."""
    data = pydicom.dcmread(path)
    numbers = (data.pixel_array >> 16).astype("<i2" if data.PixelRepresentation else "<u2")
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.DoseGridScaling, data.PixelData = f"{float(data.DoseGridScaling) * 2**16:.8g}", numbers.tobytes()
    data.save_as(path.with_name(f"16_{path.name}"), enforce_file_format=True)
    return path.with_name(f"16_{path.name}")
