"""DICOM series as scanners write them: positions and orientations decide; what contradicts them is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset

from ncf.io.dicom.planes import head_of
from ncf.io.dicom.series import read_series
from ncf.io.nifti import save_itk_field
from ncf.pair.checks import CheckFilesd
from ncf.use.carry import apply_to_images, grid_of, open_map
from tests.dicom_files import write_dicom, write_enhanced
from tests.refusing import refused
from tests.test_reading import DIRECTIONS, POINT_MM, SHAPE, affine_of, check_against_referee, volume

POSED = pytest.mark.parametrize("name", DIRECTIONS)


def check(folder: str, affine: np.ndarray, values: np.ndarray) -> None:
    found, at, _ = read_series(folder, "fixed")
    np.testing.assert_allclose(found, values, rtol=1e-6)
    assert np.abs(at - affine).max() < POINT_MM


@POSED
@pytest.mark.parametrize("spacing", [-3.4, 3.4, 7.0, 0.0])
def test_a_tag_beside_the_positions_turns_nothing_round(
    tmp_path: Path, name: str, spacing: float, caplog: pytest.LogCaptureFixture
) -> None:
    def changed(data: Dataset, k: int) -> None:
        data.SpacingBetweenSlices = spacing
        data.InstanceNumber = SHAPE[2] - k

    folder = write_dicom(tmp_path / "series", volume(), affine_of(name), changed=changed)
    logging.getLogger("ncf.notes").propagate = True
    check(folder, affine_of(name), volume())
    assert ("SpacingBetweenSlices" in caplog.text) == (spacing != 3.4)
    if spacing > 0:
        check_against_referee(folder)


@POSED
def test_frames_of_one_file_lie_where_each_says(tmp_path: Path, name: str) -> None:
    order = np.random.default_rng(0).permutation(SHAPE[2]).tolist()
    rescale = [(0.5 + 0.25 * (k % 3), -10.0 * k) for k in range(SHAPE[2])]
    folder = write_enhanced(tmp_path / "frames", volume(), affine_of(name), order=order, rescale=rescale)
    slopes, intercepts = (np.array(values) for values in zip(*rescale, strict=True))
    check(folder, affine_of(name), volume() * slopes + intercepts)


def test_slices_that_are_no_one_stack_are_refused(tmp_path: Path) -> None:
    def sagittal(data: Dataset, k: int) -> None:
        if k == 3:
            data.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]

    def wider(data: Dataset, k: int) -> None:
        if k == 3:
            data.PixelSpacing = [2.3, 1.2]

    def smaller(data: Dataset, k: int) -> None:
        if k == 3:
            data.Rows, data.PixelData = data.Rows - 1, data.PixelData[: -2 * data.Columns]

    def unplaced(data: Dataset, k: int) -> None:
        if k == 3:
            del data.ImagePositionPatient

    def unsized(data: Dataset, k: int) -> None:
        del data.PixelSpacing

    for telling, changed in (
        (
            r"2 DICOM volumes: .*x9 orientation .*evenly spaced\); .* sagittal .*x1 .*single slice\); .*none can",
            sagittal,
        ),
        (r"pixels of 1.2x2.3 mm \(cannot be read: it is a single slice\)", wider),
        (r"2 DICOM volumes: 1 CT axial 9x12x9 .*; 2 CT axial 9x11x1 .*", smaller),
        ("tells no ImagePositionPatient", unplaced),
        ("tells no PixelSpacing", unsized),
    ):
        folder = tmp_path / changed.__name__
        write_dicom(folder, volume(), affine_of("oblique"), changed=changed)
        refused(telling, read_series, folder, "fixed")
    twice = write_enhanced(tmp_path / "twice", volume(), affine_of("oblique"), times=2)
    refused("here up to 2 lie at one place", read_series, twice, "fixed")
    tilted = write_enhanced(tmp_path / "tilted", volume(), affine_of("RAS"), tilt_mm=0.4)
    refused("gantry tilt", read_series, tilted, "fixed")


def test_what_lies_beside_a_series_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def thicker(data: Dataset, k: int) -> None:
        data.SliceThickness = 3.4 + 0.01 * (k % 2)

    folder = Path(write_dicom(tmp_path / "series", volume(), affine_of("RAS"), changed=thicker))
    (folder / "._1.dcm").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X")
    (folder / "notes.txt").write_text("not an image")
    logging.getLogger("ncf.notes").propagate = True
    check(str(folder), affine_of("RAS"), volume())
    assert "1 files of macOS" in caplog.text and "slices are 3.4 to 3.41 mm thick" in caplog.text


def test_values_are_what_is_stored_whatever_white_means(tmp_path: Path) -> None:
    def inverted(data: Dataset, k: int) -> None:
        data.PhotometricInterpretation = "MONOCHROME1"

    rescale = [(2.0, 100.0)] * SHAPE[2]
    folder = write_dicom(tmp_path / "pet", volume(), affine_of("RAS"), rescale=rescale, changed=inverted)
    check(folder, affine_of("RAS"), volume() * 2.0 + 100)


@pytest.mark.parametrize("syntax", ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"])
def test_compressed_slices(tmp_path: Path, syntax: str) -> None:
    folder = Path(write_dicom(tmp_path / "series", volume(), affine_of("LPS")))
    for file in folder.iterdir():
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(file))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(file))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        assert pydicom.dcmread(file).file_meta.TransferSyntaxUID.is_compressed
    check(str(folder), affine_of("LPS"), volume())


def test_a_series_is_carried_only_if_it_could_be_registered(tmp_path: Path) -> None:
    affine = affine_of("RAS")
    save_itk_field(tmp_path / "field.nii.gz", np.zeros((3, *SHAPE), np.float32), affine)
    opened = open_map(tmp_path / "field.nii.gz")
    whole = write_dicom(tmp_path / "whole", volume(), affine)
    (carried,) = apply_to_images(opened, [whole], tmp_path / "out", mode="bilinear")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(carried))).T, volume())
    gap = write_dicom(tmp_path / "gap", volume(), affine, skip=(4,))
    tilted = write_dicom(tmp_path / "tilted", volume(), affine, tilt_mm=0.5)
    for folder, telling in ((gap, "evenly spaced"), (tilted, "gantry tilt")):
        refused(telling, lambda f=folder: apply_to_images(opened, [f], tmp_path / "out", mode="bilinear"))
        refused(telling, grid_of, folder, "reference")


def test_headers_of_a_pair_are_read_once_and_again_where_a_file_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [write_dicom(tmp_path / name, volume() + n, affine_of("RAS")) for n, name in enumerate(("a", "b"))]
    read: list[Path] = []

    def counted(path: Path) -> Any:
        read.append(path)
        return head_of(path)

    monkeypatch.setattr("ncf.io.dicom.headers.head_of", counted)
    pair = CheckFilesd()({"fixed": folders[0], "moving": folders[1]})
    for key in ("fixed", "moving"):
        found, _, _ = read_series(pair[key], key)
    assert len(read) == 2 * SHAPE[2] == len(set(read))
    np.testing.assert_array_equal(found, volume() + 1)
    for file in Path(folders[1]).iterdir():
        data = pydicom.dcmread(file)
        data.RescaleIntercept = 7
        data.save_as(file)
    found, _, _ = read_series(folders[1], "moving")
    np.testing.assert_array_equal(found, volume() + 8)
    assert len(read) == 3 * SHAPE[2]
