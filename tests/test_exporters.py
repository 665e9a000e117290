"""Images and fields as files, against SimpleITK, nibabel and formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from ncf.io import nifti as exporters
from ncf.io.nifti import load_itk_field, save_image, save_itk_field
from tests.refusing import refused

SHAPE, SPACING, CENTRE = (20, 24, 28), (2.1, 1.6, 1.3), np.array([11.0, -23.0, 40.0])
MOVING_SHAPE, MOVING_SPACING = (60, 64, 56), (1.6, 1.5, 1.7)
ROTATION = Rotation.from_euler("xyz", [25, -15, 40], degrees=True).as_matrix()
DIRECTIONS = {
    **{"RAS": np.eye(3), "LAS": np.diag([-1, 1, 1]), "LPS": np.diag([-1, -1, 1])},
    "permuted": np.array([[0, -1, 0], [0, 0, 1], [1, 0, 0]]),
    **{"oblique": ROTATION, "mirrored": ROTATION @ np.diag([1, -1, 1])},
}
WAVES = 2 * np.pi / 50 * np.array([[0.6, 0.0, 0.8], [-0.48, 0.8, 0.36]])  # radians a mm: two waves of 50 mm
# Trilinear error: at most the sum over axes of spacing^2 / 8 times the second derivative (the squared wave numbers).
TRILINEAR = float((np.array(MOVING_SPACING) ** 2).sum() / 8 * (WAVES**2).sum())
GRID_MM = 1e-4  # mm, and cosines: float32 sform and quaternion, over some 60 mm
FIELD_VOX = 1e-5  # float32 displacements of a few voxels, to mm and back


def affine_of(direction: np.ndarray, shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """A voxel -> RAS mm affine whose grid is centred at CENTRE."""
    affine = np.eye(4)
    affine[:3, :3] = direction @ np.diag(spacing)
    affine[:3, 3] = CENTRE - affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


def intensity(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The image as a formula of RAS mm, at voxels (3, W, H, D) of a grid."""
    world = np.einsum("cd,d...->c...", affine[:3, :3], voxels) + affine[:3, 3, None, None, None]
    phases = np.einsum("wc,c...->w...", WAVES, world)
    return np.sin(phases[0]) + np.cos(phases[1])


def smooth_field() -> np.ndarray:
    """A field (3, W, H, D) in voxels whose channels differ in size, sign and course."""
    x = np.indices(SHAPE)
    return np.array([a * np.sin(x[c - 2] / 4 + c) for c, a in enumerate((2.5, -1.8, 3.1))], dtype=np.float32)


def by_nibabel(path: Path, array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """An image that nibabel wrote and SimpleITK read."""
    nib.save(nib.Nifti1Image(array.astype(np.float32), affine), path)
    return sitk.ReadImage(str(path))


@pytest.mark.parametrize("name", DIRECTIONS)
def test_itk_resamples_with_the_saved_field_and_gives_it_back(tmp_path: Path, name: str) -> None:
    affine, field = affine_of(DIRECTIONS[name], SHAPE, SPACING), smooth_field()
    moving_affine = affine_of(ROTATION.T @ DIRECTIONS["LPS"], MOVING_SHAPE, MOVING_SPACING)
    fixed = by_nibabel(tmp_path / "fixed.nii", np.zeros(SHAPE), affine)
    moving = by_nibabel(tmp_path / "moving.nii", intensity(np.indices(MOVING_SHAPE), moving_affine), moving_affine)
    save_itk_field(tmp_path / "field.nii.gz", MetaTensor(torch.from_numpy(field)).requires_grad_(), affine)
    image = sitk.ReadImage(str(tmp_path / "field.nii.gz"))
    assert image.GetPixelID() == sitk.sitkVectorFloat32 and image.GetNumberOfComponentsPerPixel() == 3
    assert image.IsSameImageGeometryAs(fixed, GRID_MM / SPACING[0], GRID_MM)
    transform = sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))
    warped = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, -99.0)).T
    truth, unmoved = intensity(np.indices(SHAPE) + field, affine), intensity(np.indices(SHAPE), affine)
    assert np.abs(warped - truth).max() <= TRILINEAR
    assert np.abs(unmoved - truth).max() > 10 * TRILINEAR  # or the test would pass without a field
    sitk.WriteImage(image, str(tmp_path / "itk.nii"))
    for file in ("field.nii.gz", "itk.nii"):
        back, its_affine = load_itk_field(tmp_path / file)
        assert back.dtype == np.float32
        np.testing.assert_allclose(back, field, atol=FIELD_VOX)
        np.testing.assert_allclose(its_affine, affine, atol=GRID_MM)


def test_files_that_are_no_field_are_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "image.nii.gz", np.zeros((5, 6, 7), np.int16), np.eye(4))
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7, 1, 3), np.float32), np.eye(4)), tmp_path / "intent.nii.gz")
    nib.save(nib.MGHImage(np.zeros((5, 6, 7), np.float32), np.eye(4)), tmp_path / "other.mgz")
    for name in ("image.nii.gz", "intent.nii.gz", "other.mgz"):
        refused("no ITK displacement field|no header of NIfTI", load_itk_field, tmp_path / name)
    for path in (tmp_path / "field.nii", tmp_path / "field.nii.gz"):
        save_itk_field(path, smooth_field(), np.eye(4))
        whole = path.read_bytes()
        for length in (0, 100, 352, len(whole) // 2, len(whole) - 100):
            path.write_bytes(whole[:length])
            refused("cannot read", load_itk_field, path)
    refused("cannot read", load_itk_field, tmp_path / "missing.nii.gz")
    spoilt = smooth_field()
    spoilt[1, 2, 3, 4] = np.nan
    save_itk_field(tmp_path / "nan.nii", spoilt, np.eye(4))
    refused("not finite; every voxel needs a displacement", load_itk_field, tmp_path / "nan.nii")


@pytest.mark.parametrize("dtype", exporters.STORABLE)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_an_image_keeps_type_values_and_grid(tmp_path: Path, dtype: str, suffix: str) -> None:
    affine, path = affine_of(DIRECTIONS["mirrored"], SHAPE, SPACING), tmp_path / f"image{suffix}"
    data = (np.random.default_rng(0).uniform(size=(*SHAPE, 2)) * 120).astype(dtype)
    one = data[..., 0]
    for array in (data, one.astype(one.dtype.newbyteorder(">")), np.asfortranarray(one), one):
        save_image(path, array, affine)
        image: Any = nib.load(path)
        assert image.get_data_dtype() == np.dtype(dtype) and image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), array)
        assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
        np.testing.assert_allclose([image.get_sform(), image.get_qform()], [affine, affine], atol=GRID_MM)
    read, referee = sitk.ReadImage(str(path)), by_nibabel(tmp_path / "referee.nii", one, affine)
    assert read.IsSameImageGeometryAs(referee, GRID_MM / SPACING[0], GRID_MM)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read).T, one)


def test_a_sheared_affine_goes_into_the_sform_alone(tmp_path: Path) -> None:
    affine = affine_of(np.array([[1.0, 0.2, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), SHAPE, SPACING)
    save_image(tmp_path / "sheared.nii.gz", np.zeros(SHAPE, np.uint8), affine)
    image: Any = nib.load(tmp_path / "sheared.nii.gz")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 0)
    np.testing.assert_allclose(image.affine, affine, atol=GRID_MM)
    save_itk_field(tmp_path / "field.nii.gz", smooth_field(), affine)
    np.testing.assert_allclose(load_itk_field(tmp_path / "field.nii.gz")[0], smooth_field(), atol=FIELD_VOX)


def test_what_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    volume, unit, image = np.zeros((4, 4, 4), np.int16), np.eye(4), tmp_path / "image.nii"
    refused(r"\.nii or \.nii\.gz", save_image, tmp_path / "a.mha", volume, unit)
    refused("int64", save_image, image, volume.astype(np.int64), unit)
    refused("bool", save_image, image, volume == 0, unit)
    refused(r"got \(4, 4\)", save_image, image, volume[0], unit)
    refused("have an inverse", save_image, image, volume, np.diag([1.0, 0, 1, 1]))
    refused("4x4", save_image, image, volume, np.eye(3))
    refused(r"\(3, W, H, D\)", save_itk_field, image, smooth_field()[None], unit)
    assert list(tmp_path.iterdir()) == []
