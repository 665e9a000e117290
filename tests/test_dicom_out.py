"""DICOM objects that are written: valid by dciodvfy, true to the values, of the right patient, and always the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from ncf.commands.main import main
from ncf.io.dicom.series import read_series
from ncf.io.nifti import save_image, save_itk_field
from ncf.use.carry import open_map
from ncf.use.dicom import export_dicom
from tests.dicom_pair import AFFINE, MOVING_AFFINE, MOVING_SHAPE, NAME, SECRET, SHAPE, valid, write_pair
from tests.refusing import refused
from tests.test_suv import pet

SHIFT_VOX = (1.0, 0.5, -0.25)


@pytest.fixture
def field(tmp_path: Path) -> Path:
    """A map's file: a shift of the fixed grid, in its voxels."""
    values = np.broadcast_to(np.array(SHIFT_VOX, np.float32)[:, None, None, None], (3, *SHAPE))
    save_itk_field(tmp_path / "field.nii.gz", np.ascontiguousarray(values), AFFINE)
    return tmp_path / "field.nii.gz"


def read_linearly(values: np.ndarray) -> np.ndarray:
    """The moving values at the shifted voxels, by scipy."""
    from scipy.ndimage import map_coordinates

    at = np.indices(SHAPE).reshape(3, -1) + np.array(SHIFT_VOX)[:, None]
    mm = AFFINE[:3, :3] @ at + AFFINE[:3, 3:]
    vox = np.linalg.inv(MOVING_AFFINE[:3, :3]) @ (mm - MOVING_AFFINE[:3, 3:])
    last = np.array(MOVING_SHAPE)[:, None] - 1
    there = ((vox > -0.5) & (vox < last + 0.5)).all(axis=0)
    found = np.where(there, map_coordinates(values, np.clip(vox, 0, last), order=1), values.min())
    return found.reshape(SHAPE)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize("anonymous", [False, True])
def test_a_warped_series_is_valid_and_true_to_the_values(
    tmp_path: Path, field: Path, modality: str, anonymous: bool
) -> None:
    fixed, moving, values = write_pair(tmp_path, modality=modality)
    options = {"kind": "dicom", "reference": fixed, "moving": moving, "anonymous": anonymous}
    (folder,) = export_dicom(field, tmp_path / "out", **options)
    files = sorted(folder.iterdir())
    assert [file.name for file in files] == [f"{k + 1:04d}.dcm" for k in range(SHAPE[2])]
    found, affine, kind = read_series(folder, "warped")
    assert kind == modality and np.abs(affine - AFFINE).max() < 1e-6
    slopes = np.array([float(pydicom.dcmread(file).get("RescaleSlope", 1)) for file in files])
    assert (np.abs(found - read_linearly(values)) <= 0.5001 * slopes.max() + 1e-3).all()
    told = pydicom.dcmread(files[4])
    assert list(told.ImageType[:2]) == ["DERIVED", "PRIMARY" if modality == "PT" else "SECONDARY"]
    own = pydicom.dcmread(next(Path(fixed).iterdir()))
    assert (told.FrameOfReferenceUID == own.FrameOfReferenceUID) != anonymous
    assert (told.StudyInstanceUID == own.StudyInstanceUID) != anonymous
    assert told.PatientName == ("ANONYMOUS" if anonymous else NAME)
    assert SECRET.encode() not in files[4].read_bytes() and not any(e.tag.is_private for e in told.iterall())
    if modality == "PT":
        assert told.Units == "BQML" and float(told.RescaleIntercept) == 0
    again = export_dicom(field, tmp_path / "again", **options)[0]
    assert [f.read_bytes() for f in sorted(again.iterdir())] == [f.read_bytes() for f in files]
    for file in (files[0], files[4], files[-1]):
        valid(file)


def test_a_pet_that_is_read_in_suv_is_written_in_suv(tmp_path: Path, field: Path) -> None:
    fixed, moving, _ = write_pair(tmp_path, modality="PT")
    for file in Path(moving).iterdir():
        data = pydicom.dcmread(file)
        for element in pet():
            data[element.tag] = element
        data.WindowCenter, data.WindowWidth = "3000", "6000"  # in Bq/ml
        data.save_as(file)
    (folder,) = export_dicom(field, tmp_path / "out", kind="dicom", reference=fixed, moving=moving)
    told = pydicom.dcmread(folder / "0005.dcm")
    assert (told.Units, told.SUVType) == ("GML", "BW") and float(told.WindowWidth) < 100
    values, _, _ = read_series(moving, "moving")  # in SUV
    found, _, _ = read_series(folder, "warped")
    slopes = [float(pydicom.dcmread(file).RescaleSlope) for file in folder.iterdir()]
    assert values.max() < 100 and np.abs(found - read_linearly(values)).max() <= 0.5001 * max(slopes) + 1e-6
    valid(folder / "0005.dcm")


def test_nothing_of_the_patient_is_left_in_an_anonymous_series(tmp_path: Path, field: Path) -> None:
    fixed, moving, _ = write_pair(tmp_path)
    (folder,) = export_dicom(field, tmp_path / "o", kind="dicom", reference=fixed, moving=moving, anonymous=True)
    content = b"".join(file.read_bytes() for file in folder.iterdir())
    for scan in (fixed, moving):
        for file in Path(scan).iterdir():
            data = pydicom.dcmread(file)
            uids = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
            for secret in (*(str(data[word].value) for word in uids), "Ute", "19700203", "20200101", "Doe^Jo"):
                assert secret.encode() not in content, secret


def test_sources_are_the_slices_that_were_read(tmp_path: Path, field: Path) -> None:
    fixed, moving, _ = write_pair(tmp_path)
    (folder,) = export_dicom(field, tmp_path / "out", kind="dicom", reference=fixed, moving=moving)
    heights = {}
    for file in Path(moving).iterdir():
        data = pydicom.dcmread(file, stop_before_pixels=True)
        heights[data.SOPInstanceUID] = float(data.ImagePositionPatient[2])
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        z = float(data.ImagePositionPatient[2]) + 3.0 * SHIFT_VOX[2]
        named = [heights[item.ReferencedSOPInstanceUID] for item in data.get("SourceImageSequence", [])]
        assert sorted(named) == sorted(h for h in heights.values() if abs(h - z) < 2.5)


def test_what_has_no_dicom_scans_or_two_patients_is_refused(tmp_path: Path, field: Path) -> None:
    fixed, moving, _ = write_pair(tmp_path, patient="0815")

    def write(reference: str | Path | None, other: str | Path | None) -> None:
        export_dicom(field, tmp_path / "out", kind="dicom", reference=reference, moving=other)

    refused("name different patients.*--anonymous=true", write, fixed, moving)
    save_image(tmp_path / "scan.nii.gz", np.zeros(SHAPE, np.int16), AFFINE)
    refused(
        r"the fixed scan .*scan.nii.gz is no DICOM series.*--reference=FOLDER", write, tmp_path / "scan.nii.gz", moving
    )
    refused("which fixed scan\\?", write, None, moving)
    assert not list((tmp_path / "out").iterdir())


def test_the_commands_write_series(tmp_path: Path, field: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fixed, moving, _ = write_pair(tmp_path)
    options = [f"--reference={fixed}", f"--output_dir={tmp_path / 'applied'}"]
    main(["apply", str(field), moving, "--to=image", "--dicom=true", *options])
    assert capsys.readouterr().out.strip() == str(tmp_path / "applied" / "moving_warped")
    main(["export", str(field), "--format=dicom", f"--moving={moving}", options[0], f"--output_dir={tmp_path / 'e'}"])
    exported = [file.read_bytes() for file in sorted((tmp_path / "e" / "field_warped").iterdir())]
    assert exported == [file.read_bytes() for file in sorted((tmp_path / "applied" / "moving_warped").iterdir())]
    assert open_map(field, reference=fixed).reference.shape == SHAPE


@pytest.mark.slow
def test_a_registration_writes_its_objects_with_the_rest(tmp_path: Path, run: Callable[..., object]) -> None:
    fixed, moving, _ = write_pair(tmp_path)
    save_image(tmp_path / "label.nii.gz", np.ones(MOVING_SHAPE, np.uint8), MOVING_AFFINE)
    pair = {"fixed": fixed, "moving": moving, "moving_label": str(tmp_path / "label.nii.gz"), "name": "p"}
    relaxed = {"preparing::transforms::0::min_size": 4, "measuring::transforms::2": {"_target_": "Identity"}}
    for _ in range(2):  # the second replaces the first
        run(tmp_path / "out", pair, **relaxed, dicom=True, transform="rigid")
    made = tmp_path / "out" / "p" / "dicom"
    assert sorted(p.name for p in made.iterdir()) == ["registration.dcm", "rtstruct.dcm", "seg.dcm", "warped"]
    found, _, _ = read_series(made / "warped", "warped")
    np.testing.assert_allclose(found, nib.load(tmp_path / "out" / "p" / "warped.nii.gz").get_fdata(), atol=0.501)
    assert "RegistrationSequence" in pydicom.dcmread(made / "registration.dcm")
    run(tmp_path / "out", pair, **relaxed)
    assert not made.exists()


def test_a_registration_says_before_the_fit_that_scans_are_no_series(tmp_path: Path) -> None:
    save_image(tmp_path / "scan.nii.gz", np.zeros(SHAPE, np.int16), AFFINE)
    scan = str(tmp_path / "scan.nii.gz")
    with pytest.raises(SystemExit, match="is no DICOM series"):
        main(["register", scan, scan, "--dicom=true", f"--output_dir={tmp_path / 'out'}"])
    with pytest.raises(SystemExit, match="add --dicom=true"):
        main(["register", scan, scan, "--anonymous=true"])
    assert not (tmp_path / "out").exists()
