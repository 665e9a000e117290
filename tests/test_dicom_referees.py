"""Other programs read the same DICOM files: SimpleITK always, dcm2niix and plastimatch where they are installed."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from ncf.core.errors import PairError
from ncf.io.dicom.series import read_series
from tests.dicom_files import RAS_OF_LPS, write_dicom, write_enhanced
from tests.test_reading import DIRECTIONS, SHAPE, affine_of, volume

POINT_MM = 1e-3
REAL = Path(__file__).parents[2] / "shared" / "data" / "limb_ct_mr" / "dicom"
PROGRAMS = ("dcm2niix", "plastimatch")


def itk_image(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Values (W, H, D) and affine by SimpleITK."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(folder))
    return of_image(reader.Execute())


def of_image(image: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    affine = np.eye(4)
    turned = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, :3] = RAS_OF_LPS[:, None] * turned
    affine[:3, 3] = RAS_OF_LPS * np.array(image.GetOrigin())
    return sitk.GetArrayFromImage(image).T, affine


def by_program(program: str, folder: str, out: Path) -> tuple[np.ndarray, np.ndarray]:
    out.mkdir()
    if program == "dcm2niix":
        subprocess.run([program, "-o", out, "-f", "a", "-z", "n", folder], check=True, capture_output=True)
        image = nib.load(out / "a.nii")
        return np.asarray(image.dataobj), image.affine
    command = [program, "convert", "--input", folder, "--output-img", out / "a.mha"]
    subprocess.run(command, check=True, capture_output=True)
    return of_image(sitk.ReadImage(str(out / "a.mha")))


def check_same(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray], rtol: float = 1e-6) -> None:
    """Holds that two volumes have the same values at the same points, whatever the order of their axes."""
    (values, affine), (other, at) = ours, theirs
    to_other = np.linalg.inv(at) @ affine
    turned = np.rint(to_other[:3, :3]).astype(int)
    assert np.abs(to_other[:3, :3] - turned).max() < POINT_MM and abs(np.linalg.det(turned)) == 1
    indices = np.indices(values.shape).reshape(3, -1)
    positions = to_other[:3, :3] @ indices + to_other[:3, 3:]
    there = np.rint(positions).astype(int)
    assert np.abs(positions - there).max() < POINT_MM * 10
    np.testing.assert_allclose(other[tuple(there)].reshape(values.shape), values, rtol=rtol, atol=1e-3)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_series_is_where_other_programs_see_it(tmp_path: Path, name: str, program: str) -> None:
    folder = write_dicom(tmp_path / "series", volume(), affine_of(name))
    ours = read_series(folder, "x")[:2]
    check_same(ours, itk_image(folder))
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    check_same(ours, by_program(program, folder, tmp_path / "out"))


@pytest.mark.skipif(shutil.which("dcm2niix") is None, reason="dcm2niix is not installed")
def test_frames_are_where_dcm2niix_sees_them(tmp_path: Path) -> None:
    folder = write_enhanced(tmp_path / "frames", volume(), affine_of("RAS"), order=range(SHAPE[2]))
    check_same(read_series(folder, "x")[:2], by_program("dcm2niix", folder, tmp_path / "out"))


@pytest.mark.data
@pytest.mark.skipif(not REAL.exists(), reason="no real scans beside the checkout")
@pytest.mark.parametrize("scan", ["CT", "MR_T1", "PET"])
def test_real_series_are_where_other_programs_see_them(tmp_path: Path, scan: str) -> None:
    folder = str(REAL / scan)
    ours = read_series(folder, "x")[:2]
    check_same(ours, itk_image(f"{folder}/image"))
    for program in PROGRAMS:
        if shutil.which(program) is not None:
            check_same(ours, by_program(program, f"{folder}/image", tmp_path / program), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("enhanced", [False, True])
def test_damaged_headers_are_refused_or_read_where_they_say(tmp_path: Path, enhanced: bool) -> None:
    """Bytes of one file are changed at random: no error but ours, and no geometry that the file does not tell."""
    write = write_enhanced if enhanced else write_dicom
    folder = Path(write(tmp_path / "s", volume(), affine_of("oblique")))
    file = sorted(folder.iterdir())[0]
    whole, rng = file.read_bytes(), np.random.default_rng(0)
    header = len(whole) - volume().nbytes // (1 if enhanced else SHAPE[2])
    logging.disable(logging.CRITICAL)
    read = 0
    try:
        for _ in range(1500):
            damaged = bytearray(whole)
            for at in rng.integers(0, header, rng.integers(1, 4)):
                damaged[at] = rng.integers(256)
            file.write_bytes(damaged[: rng.integers(200, len(whole)) if rng.random() < 0.1 else None])
            try:
                values, affine, _ = read_series(folder, "x")
            except PairError as error:
                assert "\n" not in str(error)
                continue
            read += 1
            assert values.shape[:2] == SHAPE[:2] or enhanced
            if not enhanced:  # the other nine slices hold it in its place
                assert np.abs(affine - affine_of("oblique")).max() < 1
    finally:
        logging.disable(logging.NOTSET)
    assert 100 < read < 1450
