"""A fixed and a moving DICOM series of one patient, as a hospital has them, and what its checkers say of objects."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from ncf.io.dicom.written.between import Between, between
from tests.dicom_files import write_dicom

SHAPE = (18, 16, 10)
AFFINE = np.array([[-2.0, 0, 0, 20.5], [0, -2.0, 0, 11.25], [0, 0, 3.0, -40.125], [0, 0, 0, 1]])
MOVING_SHAPE = (20, 15, 14)
MOVING_AFFINE = np.array([[-1.9, 0, 0, 21.0], [0, -2.2, 0, 12.0], [0, 0, 2.5, -43.0], [0, 0, 0, 1]])
NAME, SECRET = "Jäger^Ute", "SECRET-4711"
CLASSES = {"CT": "1.2.840.10008.5.1.4.1.1.2", "MR": "1.2.840.10008.5.1.4.1.1.4", "PT": "1.2.840.10008.5.1.4.1.1.128"}


def headers(
    modality: str, frame: str, study: str, *, patient: str = "4711", part: str = "CHEST"
) -> Callable[[Dataset, int], None]:
    """What makes a slice one of a patient's series: names, dates, private tags, and tags of its modality."""

    def changed(data: Dataset, k: int) -> None:
        data.SpecificCharacterSet = "ISO_IR 100"
        data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = NAME, patient, "19700203", "F"
        data.StudyInstanceUID, data.FrameOfReferenceUID = study, frame
        data.StudyDate, data.StudyTime, data.SeriesTime = "20200101", "101112", "111213"
        data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "S1", "A1", "Doe^Jo"
        data.InstitutionName, data.SeriesDescription, data.Manufacturer = SECRET, f"{modality} of {NAME}", "Maker"
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CLASSES[modality]
        data.Modality, data.BodyPartExamined = modality, part
        data.PatientPosition = "HFS"
        block = data.private_block(0x0009, "SECRET MAKER", create=True)
        block.add_new(0x01, "LO", SECRET)
        if modality == "PT":
            data.Units, data.DecayCorrection, data.AcquisitionDate, data.AcquisitionTime = "BQML", "START", "", ""
            data.DecayFactor = "1.1"
        if modality == "MR":
            del data.RescaleSlope, data.RescaleIntercept

    return changed


def write_pair(
    folder: Path, *, modality: str = "CT", patient: str = "4711", part: str = "CHEST"
) -> tuple[str, str, np.ndarray]:
    """The folders of both series, and the moving values. The moving scan is from another day's study."""
    rng = np.random.default_rng(3)
    fixed = rng.integers(-1000, 1500, SHAPE)
    moving = rng.integers(-1000 if modality == "CT" else 0, 1500, MOVING_SHAPE)
    scale = {"CT": (1.0, -1024.0), "MR": (1.0, 0.0), "PT": (0.37, 0.0)}[modality]
    stored = moving - int(scale[1])
    write_dicom(folder / "fixed", fixed, AFFINE, changed=headers("CT", generate_uid(), generate_uid(), part=part))
    own = headers(modality, generate_uid(), generate_uid(), patient=patient, part=part)
    rescale = [scale] * MOVING_SHAPE[2]
    write_dicom(folder / "moving", stored, MOVING_AFFINE, rescale=rescale, changed=own)
    return str(folder / "fixed"), str(folder / "moving"), stored * scale[0] + scale[1]


def of_two_series(folder: Path) -> Between:
    """The headers of such a pair."""
    fixed, moving, _ = write_pair(folder)
    return between(fixed, moving, anonymous=False)


def valid(path: Path) -> None:
    """Holds that dciodvfy (Debian: dicom3tools) has no error against an object."""
    errors = errors_of(path)
    assert not errors, f"{path.name}: {errors}"


def errors_of(path: Path) -> list[str]:
    """What dciodvfy has against an object."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy: apt-get install dicom3tools")
    told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
    assert told.returncode >= 0, f"{path.name}: dciodvfy aborts: {told.stderr}"
    lines = (told.stdout + told.stderr).splitlines()
    return [line.strip() for line in lines if line.strip().startswith(("Error", "Abort"))]
