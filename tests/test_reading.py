"""Images of every format against SimpleITK, nibabel and formulas, and what of them is refused."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from ncf.core.errors import PairError
from ncf.io.image_files import read_image
from ncf.io.image_objects import image_of
from tests.dicom_files import RAS_OF_LPS, write_dicom
from tests.refusing import refused

SHAPE = (9, 12, 10)
SPACING_MM = np.array([1.1, 2.3, 3.4])
ORIGIN_MM = np.array([35.0, -70.0, 110.0])
TURN = Rotation.from_euler("xyz", [10, -20, 35], degrees=True).as_matrix()
DIRECTIONS = {  # of the array axes in RAS; all right-handed, which DICOM slices cannot but be
    "RAS": np.eye(3),
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "permuted": np.eye(3)[:, [2, 0, 1]],
    "oblique": TURN,
    "oblique_flipped": TURN @ np.diag([1.0, -1.0, -1.0]),
}
POINT_MM = 1e-4  # NIfTI keeps affines in float32: 1e-7 of positions up to some 100 mm
VALUE = 1e-6  # relative; float32


def affine_of(name: str) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = DIRECTIONS[name] @ np.diag(SPACING_MM)
    affine[:3, 3] = ORIGIN_MM
    return affine


def volume(dtype: str = "int16") -> np.ndarray:
    """Values that tell every voxel from every other, and every axis from every other."""
    values = np.random.default_rng(0).permutation(np.prod(SHAPE)).reshape(SHAPE)
    return (values % 256 if dtype in ("uint8", "int8") else values - 300).astype(dtype)


def write_sitk(path: Path, array: np.ndarray, affine: np.ndarray) -> str:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(SPACING_MM.tolist())
    image.SetDirection((np.diag(RAS_OF_LPS) @ affine[:3, :3] / SPACING_MM).ravel().tolist())
    image.SetOrigin((RAS_OF_LPS * affine[:3, 3]).tolist())
    sitk.WriteImage(image, str(path))
    return str(path)


def nifti(path: str | Path) -> Any:
    return nib.load(path)


def write_nifti(path: Path, array: np.ndarray, *, sform: np.ndarray | None, qform: np.ndarray | None) -> str:
    image = nib.Nifti1Image(array, None)
    image.set_sform(sform, int(sform is not None))
    image.set_qform(qform, int(qform is not None))
    nib.save(image, path)
    return str(path)


def referee(path: str) -> sitk.Image:
    """The same file by SimpleITK."""
    if not os.path.isdir(path):
        return sitk.ReadImage(path, sitk.sitkFloat64)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(path))
    reader.SetOutputPixelType(sitk.sitkFloat64)
    return reader.Execute()


def check_against_referee(path: str) -> None:
    """Every voxel's value, and the place of several, as SimpleITK has them."""
    image, other = read_image("fixed", path), referee(path)
    assert image.dtype.is_floating_point and image.element_size() == 4
    assert tuple(image.shape) == (1, *other.GetSize()) == (1, *SHAPE)
    np.testing.assert_allclose(image.numpy()[0], sitk.GetArrayFromImage(other).T, rtol=VALUE)
    for index in [(0, 0, 0), (8, 0, 0), (0, 11, 0), (0, 0, 9), (3, 7, 5)]:
        place = image.affine.numpy() @ (*index, 1)
        assert np.abs(place[:3] - RAS_OF_LPS * other.TransformIndexToPhysicalPoint(index)).max() < POINT_MM


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", "dicom"])
def test_values_and_places_are_those_of_simpleitk_and_of_the_formula(tmp_path: Path, name: str, suffix: str) -> None:
    truth = affine_of(name)
    if suffix == "dicom":
        path = write_dicom(tmp_path / "series", volume(), truth)
    elif suffix.startswith(".nii"):
        path = write_nifti(tmp_path / f"x{suffix}", volume(), sform=truth, qform=truth)
    else:
        path = write_sitk(tmp_path / f"x{suffix}", volume(), truth)
    check_against_referee(path)
    image = read_image("fixed", path)
    np.testing.assert_array_equal(image.numpy()[0], volume())
    assert np.abs(image.affine.numpy() - truth).max() < POINT_MM


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_every_voxel_type(tmp_path: Path, dtype: str, suffix: str) -> None:
    array = volume(dtype) + (np.pi if dtype == "float64" else 0)
    if suffix == ".nii.gz":
        image = nib.Nifti1Image(array, affine_of("oblique"), dtype=array.dtype)
        nib.save(image, tmp_path / "x.nii.gz")
    else:
        write_sitk(tmp_path / f"x{suffix}", array, affine_of("oblique"))
    read = read_image("fixed", str(tmp_path / f"x{suffix}"))
    np.testing.assert_allclose(read.numpy()[0], array, rtol=VALUE)


def test_big_endian_nifti(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    image = nib.Nifti1Image(volume(), affine_of("oblique"), header)
    nib.save(image, tmp_path / "x.nii")
    assert (tmp_path / "x.nii").read_bytes()[:4] == b"\x00\x00\x01\x5c"
    check_against_referee(str(tmp_path / "x.nii"))


@pytest.mark.parametrize("name", DIRECTIONS)
def test_nifti_with_a_qform_only(tmp_path: Path, name: str) -> None:
    check_against_referee(write_nifti(tmp_path / "x.nii.gz", volume(), sform=None, qform=affine_of(name)))


@pytest.mark.parametrize("pixdim", [True, False])
def test_nifti_with_an_sform_only_keeps_it_whatever_pixdim_says(tmp_path: Path, pixdim: bool) -> None:
    # Where pixdim was never set, MONAI's NibabelReader replaces this sform by an empty qform.
    path = write_nifti(tmp_path / "x.nii.gz", volume(), sform=affine_of("oblique"), qform=None)
    if pixdim:
        image = nib.Nifti1Image(volume(), affine_of("oblique"))
        image.set_qform(None, 0)
        image.header.set_zooms(SPACING_MM)
        nib.save(image, path)
    assert int(nifti(path).header["qform_code"]) == 0
    read = read_image("fixed", path).affine.numpy()
    np.testing.assert_array_equal(read, nifti(path).affine)
    assert np.abs(read - affine_of("oblique")).max() < POINT_MM


def test_nifti_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(volume(), affine_of("LPS"))
    image.header.set_slope_inter(0.25, -1024)
    nib.save(image, tmp_path / "x.nii")
    np.testing.assert_array_equal(nifti(tmp_path / "x.nii").dataobj.get_unscaled(), volume())
    np.testing.assert_allclose(read_image("fixed", str(tmp_path / "x.nii")).numpy()[0], volume() * 0.25 - 1024)
    check_against_referee(str(tmp_path / "x.nii"))


def test_nrrd_in_ras_space(tmp_path: Path) -> None:
    truth = affine_of("oblique_flipped")
    vectors = [f"({','.join(map(str, v))})" for v in (*truth[:3, :3].T, truth[:3, 3])]
    header = (
        "NRRD0004\ntype: int16\ndimension: 3\nspace: right-anterior-superior\nendian: little\nencoding: raw\n"
        f"sizes: {' '.join(map(str, SHAPE))}\nspace directions: {' '.join(vectors[:3])}\nspace origin: {vectors[3]}\n\n"
    )
    (tmp_path / "x.nrrd").write_bytes(header.encode() + volume().astype("<i2").tobytes(order="F"))
    image = read_image("fixed", str(tmp_path / "x.nrrd"))
    np.testing.assert_array_equal(image.numpy()[0], volume())
    assert np.abs(image.affine.numpy() - truth).max() < POINT_MM


def test_dicom_rescale_is_applied_slice_by_slice(tmp_path: Path) -> None:
    # A whole slope first, fractions later: a series read in the type of its first slice would cut these off.
    rescale = [(1.0, -1024.0)] + [(0.5 + 0.25 * (k % 2), -1024.0) for k in range(1, SHAPE[2])]
    path = write_dicom(tmp_path / "pet", volume(), affine_of("oblique"), rescale=rescale)
    truth = volume() * np.array([s for s, _ in rescale]) - 1024.0
    np.testing.assert_allclose(read_image("fixed", path).numpy()[0], truth, rtol=VALUE)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_a_last_axis_of_one_is_dropped_and_more_are_refused(tmp_path: Path, suffix: str) -> None:
    for count in (1, 3):
        path = tmp_path / f"x{count}{suffix}"
        if suffix == ".nii.gz":
            write_nifti(path, np.stack([volume()] * count, axis=-1), sform=affine_of("RAS"), qform=affine_of("RAS"))
        else:
            write_sitk(tmp_path / f"one{suffix}", volume(), affine_of("RAS"))
            sitk.WriteImage(sitk.JoinSeries([sitk.ReadImage(str(tmp_path / f"one{suffix}"))] * count), str(path))
    one = read_image("fixed", str(tmp_path / f"x1{suffix}"))
    np.testing.assert_array_equal(one.numpy()[0], volume())
    assert np.abs(one.affine.numpy() - affine_of("RAS")).max() < POINT_MM
    with pytest.raises(PairError, match=r"x3.*shape \(9, 12, 10, 3\), expected one 3D volume"):
        read_image("fixed", str(tmp_path / f"x3{suffix}"))


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_a_flat_image_is_refused(tmp_path: Path, suffix: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(volume()[:, :, 0]), str(tmp_path / f"flat{suffix}"))
    with pytest.raises(PairError, match=r"^moving: .*flat.* expected one 3D volume"):
        read_image("moving", str(tmp_path / f"flat{suffix}"))


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd", "dicom"])
def test_colour_is_refused_and_not_turned_into_grey(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"colour{suffix}"
    if suffix == "dicom":
        write_dicom(path, volume("uint8"), affine_of("RAS"), rgb=True)
    elif suffix == ".nii.gz":
        nib.save(nib.Nifti1Image(np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), np.eye(4)), path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(np.stack([volume("uint8")] * 3, axis=-1), isVector=True), str(path))
    with pytest.raises(PairError, match=r"(RGB|3-component) voxels, expected one real number"):
        read_image("fixed", str(path))


def test_complex_voxels_are_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(volume().astype("complex64"), np.eye(4)), tmp_path / "x.nii.gz")
    with pytest.raises(PairError, match="complex voxels"):
        read_image("fixed", str(tmp_path / "x.nii.gz"))


@pytest.mark.parametrize("kept", [0.1, 0.6])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_a_truncated_file_is_one_clear_line(tmp_path: Path, suffix: str, kept: float) -> None:
    path = tmp_path / f"x{suffix}"
    write_sitk(path, volume(), affine_of("oblique"))
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(PairError, match=r"^fixed: cannot read .*x\.(nii|mha|nrrd)") as caught:
        read_image("fixed", str(path))
    assert "\n" not in str(caught.value) and "0x" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"Dear colleague, ", b"\xff\xd8\xff\xe0 of a JPEG", gzip.compress(b"text" * 200)],
    ids=["text", "jpeg", "gz"],
)
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_what_is_only_named_as_nifti_is_not_called_damaged(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refused("cannot read .*it is no NIfTI file, although its name says so", read_image, "fixed", str(tmp_path / name))
    nib.save(nib.Nifti1Image(volume(), affine_of("RAS")), tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:300])
    refused("cannot read .*it is damaged", read_image, "fixed", str(tmp_path / name))


def test_a_damaged_bit_of_a_compressed_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    nib.save(nib.Nifti1Image(volume(), affine_of("RAS")), path)
    whole, refusals = path.read_bytes(), 0
    for place in np.random.default_rng(0).integers(10, len(whole), size=60).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            gzip.decompress(path.read_bytes())
        except (OSError, EOFError, zlib.error):
            refusals += 1
            with pytest.raises(PairError, match="cannot read"):
                read_image("fixed", str(path))
    assert refusals > 40


@pytest.mark.parametrize(("unit", "size_mm"), [("meter", 1000.0), ("mm", 1.0), ("micron", 0.001), ("unknown", 1.0)])
def test_the_headers_unit_of_length_counts(tmp_path: Path, unit: str, size_mm: float) -> None:
    affine = affine_of("RAS")
    image = nib.Nifti1Image(volume(), affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "x.nii.gz")
    found = read_image("fixed", str(tmp_path / "x.nii.gz")).affine.numpy()
    np.testing.assert_allclose(found[:3], size_mm * affine[:3], rtol=1e-6)
    np.testing.assert_allclose(found, image_of("fixed", image).affine.numpy(), rtol=1e-6)
    spacing = sitk.ReadImage(str(tmp_path / "x.nii.gz")).GetSpacing()
    np.testing.assert_allclose(np.linalg.norm(found[:3, :3], axis=0), spacing, rtol=1e-6)


def test_a_mhd_without_its_data_and_a_file_of_another_kind(tmp_path: Path) -> None:
    write_sitk(tmp_path / "x.mhd", volume(), affine_of("RAS"))
    for data in tmp_path.glob("*raw"):
        data.unlink()
    (tmp_path / "text.nrrd").write_text("no image at all\n" * 30)
    for name in ("x.mhd", "text.nrrd"):
        with pytest.raises(PairError, match="cannot read"):
            read_image("fixed", str(tmp_path / name))


def test_without_itk_nifti_is_read_and_others_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mha = write_sitk(tmp_path / "x.mha", volume(), affine_of("RAS"))
    nifti = write_sitk(tmp_path / "x.nii.gz", volume(), affine_of("RAS"))
    monkeypatch.setitem(sys.modules, "itk", None)
    assert tuple(read_image("fixed", nifti).shape[1:]) == SHAPE
    with pytest.raises(PairError, match="pip install itk"):
        read_image("fixed", mha)
