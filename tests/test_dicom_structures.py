"""Carried structures as RTSTRUCT and segmentation: valid, and the same voxels by other programs' readers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from ncf.core.labels import Labels
from ncf.io.dicom.written.between import between
from ncf.io.dicom.written.registration import save_matrix
from ncf.io.dicom.written.segments import save_segments
from ncf.io.dicom.written.series import Warped, save_series
from ncf.io.dicom.written.structures import outlines, save_structures, structures_of
from ncf.io.nifti import save_image
from tests.dicom_pair import AFFINE, NAME, SHAPE, valid, write_pair
from tests.refusing import refused

NAMES = {2: "Löwe", 7: "ring"}


def labels() -> np.ndarray:
    """A block at the border of the grid, and a ring with two holes."""
    codes = np.zeros(SHAPE, np.uint8)
    codes[0:4, 2:7, 0:5] = 2
    codes[6:17, 3:14, 3:8] = 7
    codes[8:10, 5:8, 3:8] = 0
    codes[12:15, 8:11, 4:7] = 0
    return codes


@pytest.mark.parametrize("save", [save_structures, save_segments])
@pytest.mark.parametrize("anonymous", [False, True])
def test_structures_are_valid_and_always_the_same(tmp_path: Path, save: object, anonymous: bool) -> None:
    fixed, moving, _ = write_pair(tmp_path)
    scans, found = between(fixed, moving, anonymous=anonymous), structures_of(labels(), Labels(names=NAMES))
    save(tmp_path / "a.dcm", found, scans)  # type: ignore[operator]
    save(tmp_path / "b.dcm", found, scans)  # type: ignore[operator]
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()
    data = pydicom.dcmread(tmp_path / "a.dcm")
    assert (data.PatientName == NAME) != anonymous
    assert (data.FrameOfReferenceUID == scans.fixed.frame) != anonymous
    assert not any(element.tag.is_private for element in data.iterall())
    secrets = [NAME.encode("utf-8"), b"19700203", b"20200101", scans.fixed.series.encode(), scans.fixed.frame.encode()]
    assert any(secret in (tmp_path / "a.dcm").read_bytes() for secret in secrets) != anonymous
    valid(tmp_path / "a.dcm")


def test_plastimatch_reads_the_contours_as_the_same_voxels(tmp_path: Path) -> None:
    if shutil.which("plastimatch") is None:
        pytest.skip("no plastimatch: apt-get install plastimatch")
    fixed, moving, _ = write_pair(tmp_path)
    save_structures(
        tmp_path / "rs.dcm", structures_of(labels(), Labels(names=NAMES)), between(fixed, moving, anonymous=False)
    )
    save_image(tmp_path / "fixed.nii.gz", labels(), AFFINE)
    options = [
        "--output-prefix",
        str(tmp_path / "masks"),
        "--prefix-format",
        "nii.gz",
        "--fixed",
        str(tmp_path / "fixed.nii.gz"),
    ]
    command = ["plastimatch", "convert", "--input", str(tmp_path / "rs.dcm"), "--referenced-ct", fixed, *options]
    subprocess.run(command, check=True, capture_output=True)
    read = {
        path.name: sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T > 0 for path in (tmp_path / "masks").iterdir()
    }
    assert len(read) == 2
    for code in NAMES:
        wanted = labels() == code
        assert max(2 * (wanted & mask).sum() / (wanted.sum() + mask.sum()) for mask in read.values()) >= 0.99


def test_dcmqi_reads_the_segments_as_the_same_voxels(tmp_path: Path) -> None:
    reader = shutil.which("segimage2itkimage")
    if reader is None:
        pytest.skip("no dcmqi")
    fixed, moving, _ = write_pair(tmp_path)
    save_segments(
        tmp_path / "seg.dcm", structures_of(labels(), Labels(names=NAMES)), between(fixed, moving, anonymous=False)
    )
    out = tmp_path / "out"
    out.mkdir()
    command = [reader, "--inputDICOM", str(tmp_path / "seg.dcm"), "--outputDirectory", str(out), "-t", "nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    scan = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(fixed))
    for number, code in enumerate(NAMES, start=1):
        image = sitk.ReadImage(str(next(out.glob(f"*{number}.nrrd"))))
        mask = sitk.GetArrayFromImage(sitk.Resample(image, scan, sitk.Transform(), sitk.sitkNearestNeighbor)).T > 0
        np.testing.assert_array_equal(mask, labels() == code)


def test_names_and_colours_are_told_and_nothing_is_refused(tmp_path: Path) -> None:
    fixed, moving, _ = write_pair(tmp_path)
    found = structures_of(labels(), Labels(names={7: "ring"}))
    save_structures(tmp_path / "rs.dcm", found, between(fixed, moving, anonymous=False))
    data = pydicom.dcmread(tmp_path / "rs.dcm")
    assert [roi.ROIName for roi in data.StructureSetROISequence] == ["label 2", "ring"]
    assert [list(roi.ROIDisplayColor) for roi in data.ROIContourSequence] == [s.colour for s in found]
    assert found[0].colour != found[1].colour
    refused("no carried label lies on the fixed grid", structures_of, np.zeros(SHAPE, np.uint8), Labels())
    assert not list(outlines(np.zeros((4, 4), bool)))


@pytest.mark.parametrize("save", [save_structures, save_segments])
def test_odd_values_of_the_scan_are_not_shown(tmp_path: Path, save: object, capsys: pytest.CaptureFixture) -> None:
    fixed, moving, _ = write_pair(tmp_path)
    for file in Path(fixed).iterdir():
        data = pydicom.dcmread(file)
        with pydicom.config.disable_value_validation():
            data.AccessionNumber, data.PatientName = "longer than sixteen characters", "ODD_NAME"
            data.save_as(file)
    scans, found = between(fixed, moving, anonymous=True), structures_of(labels(), Labels(names=NAMES))
    save(tmp_path / "a.dcm", found, scans)  # type: ignore[operator]  # a warning would be an error here
    assert "ODD_NAME" not in "".join(capsys.readouterr())
    valid(tmp_path / "a.dcm")


def test_structures_that_overlap_are_each_written_whole() -> None:
    codes = np.array([[[0, 1, 2, 3]]])  # the last voxel belongs to both
    found = structures_of(codes, Labels({1: (5,), 2: (9,), 3: (5, 9)}, {5: "a", 9: "b"}))
    assert [(s.number, s.name, s.mask.ravel().tolist()) for s in found] == [
        (5, "a", [False, True, False, True]),
        (9, "b", [False, False, True, True]),
    ]


@pytest.mark.parametrize("part", ["EXTREMITY", ""])
def test_a_side_is_told_where_dicom_asks_for_one(tmp_path: Path, part: str) -> None:
    fixed, moving, _ = write_pair(tmp_path, part=part)
    scans, found = between(fixed, moving, anonymous=False), structures_of(labels(), Labels(names=NAMES))
    save_structures(tmp_path / "rtstruct.dcm", found, scans)
    save_segments(tmp_path / "seg.dcm", found, scans)
    save_matrix(tmp_path / "matrix.dcm", np.eye(4), scans)
    (tmp_path / "warped").mkdir()
    warped = Warped(labels(), scans.fixed.grid, [(0, 1)] * SHAPE[2])
    save_series(tmp_path / "warped", warped, fixed=scans.fixed, moving=scans.moving)
    for file in (*tmp_path.glob("*.dcm"), tmp_path / "warped" / "0001.dcm"):
        valid(file)
