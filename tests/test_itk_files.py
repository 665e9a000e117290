"""Fields in ITK's files: SimpleITK moves points and images with them as we do, and what it wrote is read back."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from ncf.io.fields.table import load_map
from ncf.io.itk_fields import load_affine
from ncf.io.nifti import save_image
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap
from ncf.space.resampling import warp
from tests.maps import (
    DIRECTIONS,
    MOVING,
    SHAPE,
    fixed_grid,
    grid,
    itk_transform,
    moving_image,
    points_in,
    save_map,
    smooth_map,
    through_itk,
)
from tests.refusing import refused

SUFFIXES = (".nii.gz", ".nrrd", ".mha", ".h5", ".tfm")
POINT_MM = 1e-3  # float32 displacements and header values, far below any voxel
IMAGE_HU = 0.5  # median difference of float32 against float64 interpolation
LINEAR, CUBIC = sitk.sitkLinear, sitk.sitkBSpline


@pytest.fixture(scope="module")
def moving_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("moving") / "moving.nii"
    save_image(path, moving_image(), MOVING.affine)
    return path


@pytest.mark.parametrize("name", DIRECTIONS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_itk_moves_points_as_we_do_and_the_file_comes_back(tmp_path: Path, suffix: str, name: str) -> None:
    mapping, path = smooth_map(name), tmp_path / f"field{suffix}"
    save_map(path, mapping)
    points = points_in(SHAPE, mapping.grid.affine)
    ours, known = mapping.to_moving(points)
    assert known.all() and np.linalg.norm(ours - points, axis=1).mean() > 100 * POINT_MM
    np.testing.assert_allclose(through_itk(itk_transform(path), points), ours, atol=POINT_MM)
    np.testing.assert_allclose(load_map(path).to_moving(points)[0], ours, atol=POINT_MM)
    first = path.read_bytes()
    save_map(path, mapping)
    assert path.read_bytes() == first


@pytest.mark.parametrize(("mode", "itks"), [("bilinear", LINEAR), ("spline", CUBIC)])
@pytest.mark.parametrize("name", DIRECTIONS)
def test_itk_warps_images_as_we_do(tmp_path: Path, moving_file: Path, name: str, mode: str, itks: int) -> None:
    mapping, path = smooth_map(name), tmp_path / "field.nrrd"
    save_map(path, mapping)
    reference = grid(DIRECTIONS["oblique"].T, (13, 15, 11), (2.0, 1.7, 2.3))  # inside the field, at another angle
    for onto in (mapping.grid, reference):
        save_image(tmp_path / "onto.nii", np.zeros(onto.shape, np.float32), onto.affine)
        images = [sitk.ReadImage(str(p), sitk.sitkFloat32) for p in (moving_file, tmp_path / "onto.nii")]
        truth = sitk.GetArrayFromImage(sitk.Resample(*images, itk_transform(path), itks, 0.0)).T
        found = warp(mapping, torch.from_numpy(moving_image()), moving=MOVING.affine, reference=onto, mode=mode).numpy()
        apart = np.abs(found - truth)[2:-2, 2:-2, 2:-2]
        assert np.median(apart) <= IMAGE_HU and np.percentile(apart, 99) <= 4 * IMAGE_HU
        assert truth.std() > 100 * IMAGE_HU


def test_transforms_of_itk_are_read_in_their_order(tmp_path: Path) -> None:
    mapping = smooth_map("oblique")
    save_map(tmp_path / "field.h5", mapping)
    turn, scale = sitk.Euler3DTransform(), sitk.AffineTransform(3)
    turn.SetRotation(0.02, -0.03, 0.04)
    turn.SetCenter((1.0, -5.0, 9.0))
    scale.Scale((1.02, 0.97, 1.01))
    scale.SetTranslation((3.0, -2.0, 1.0))
    both = sitk.CompositeTransform([scale, sitk.ReadTransform(str(tmp_path / "field.h5")), turn])
    points = points_in(SHAPE, mapping.grid.affine, margin=4)
    truth = through_itk(both, points)
    for name in ("both.h5", "both.tfm"):
        sitk.WriteTransform(both, str(tmp_path / name))
        np.testing.assert_allclose(load_map(tmp_path / name).to_moving(points)[0], truth, atol=POINT_MM)
    sitk.WriteTransform(turn, str(tmp_path / "turn.tfm"))
    sitk.WriteTransform(sitk.AffineTransform(scale), str(tmp_path / "scale.mat"))
    sitk.WriteTransform(scale, str(tmp_path / "scale.tfm"))
    np.testing.assert_allclose(load_affine(tmp_path / "scale.mat"), load_affine(tmp_path / "scale.tfm"), atol=1e-9)
    given = mapping.composed(
        pre_transform=load_affine(tmp_path / "turn.tfm"), post_transform=load_affine(tmp_path / "scale.tfm")
    )
    np.testing.assert_allclose(given.to_moving(points)[0], truth, atol=POINT_MM)
    home, known = given.to_reference(truth)
    assert known.all()
    np.testing.assert_allclose(home, points, atol=POINT_MM)
    refused("expected one displacement field", load_map, tmp_path / "turn.tfm")
    sitk.WriteTransform(sitk.BSplineTransform(3), str(tmp_path / "spline.h5"))
    refused("a BSplineTransform is (no affine|not known)", load_affine, tmp_path / "spline.h5")


def test_a_composite_in_itks_old_spelling_is_read(tmp_path: Path) -> None:
    """Until 2018 ITK wrote TranformParameters, and it reads both to this day."""
    mapping, path = smooth_map("oblique"), tmp_path / "old.h5"
    save_map(path, mapping)
    with h5py.File(path, "r+") as file:
        for group in file["TransformGroup"].values():
            for name in ("TransformParameters", "TransformFixedParameters"):
                group.move(name, name.replace("Transform", "Tranform"))
    points = points_in(SHAPE, mapping.grid.affine)
    truth = through_itk(itk_transform(path), points)
    assert np.linalg.norm(truth - points, axis=1).mean() > 100 * POINT_MM
    np.testing.assert_allclose(load_map(path).to_moving(points)[0], truth, atol=POINT_MM)


def test_an_affine_is_rows_of_text(tmp_path: Path) -> None:
    affine = fixed_grid("oblique").affine
    for name, delimiter in (("a.txt", " "), ("a.csv", ",")):
        np.savetxt(tmp_path / name, affine, delimiter=delimiter)
        np.testing.assert_allclose(load_affine(tmp_path / name), affine)
    mapping = smooth_map("ras")
    (tmp_path / "b.txt").write_text("1 0 0\n0 1 0\n", encoding="utf-8")
    refused(
        "the affine post_transform must be 4x4",
        lambda: mapping.composed(post_transform=load_affine(tmp_path / "b.txt")),
    )
    (tmp_path / "b.txt").write_text("one two", encoding="utf-8")
    refused("cannot read", load_affine, tmp_path / "b.txt")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_files_are_one_line(tmp_path: Path, suffix: str) -> None:
    mapping = smooth_map("lps")
    save_map(tmp_path / f"field{suffix}", mapping)
    damaged(tmp_path / f"field{suffix}")


def damaged(path: Path) -> None:
    """Holds that a field's file is refused when it is cut, empty, something else, or not there."""
    whole = path.read_bytes()
    for content in (b"", b"nothing of the kind", whole[: len(whole) // 2]):
        path.write_bytes(content)
        refused("cannot read|no ITK displacement field", load_map, path)
    refused("cannot read", load_map, path.with_name(f"missing{path.name.removeprefix('field')}"))


@pytest.mark.parametrize("suffix", [".mha", ".h5"])
def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    import itk

    def full(*_: object, **__: object) -> None:
        raise (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if suffix == ".h5"
            else RuntimeError("itkMetaImageIO.cxx:77:")
        )

    monkeypatch.setattr(itk, "imwrite", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    mapping = smooth_map("ras")
    refused("cannot write .*(No space left|disk may be full)", save_map, tmp_path / f"a{suffix}", mapping)
    assert not list(tmp_path.iterdir())


def test_transforms_that_are_none_in_space_are_refused(tmp_path: Path) -> None:
    mapping = smooth_map("ras")
    save_map(tmp_path / "flat.tfm", mapping)
    lines = (tmp_path / "flat.tfm").read_text(encoding="utf-8").splitlines()
    numbers = lines[-1].split()
    lines[-1] = " ".join([*numbers[:-3], *numbers[-6:-3]])  # the last axis is the one before
    (tmp_path / "flat.tfm").write_text("\n".join(lines), encoding="utf-8")
    refused("without axes", load_map, tmp_path / "flat.tfm")
    sitk.WriteTransform(sitk.AffineTransform(2), str(tmp_path / "plane.tfm"))
    refused("its AffineTransform is in 2D", load_affine, tmp_path / "plane.tfm")


def test_what_no_file_holds_is_refused(tmp_path: Path) -> None:
    mapping = smooth_map("ras")
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    refused("not at right angles", save_map, tmp_path / "a.h5", SpatialMap(mapping.field, Grid(SHAPE, sheared)))
    refused("ends in .*nii.gz.*h5", load_map, tmp_path / "a.png")
    sitk.WriteImage(sitk.Image(4, 5, 6, sitk.sitkFloat32), str(tmp_path / "image.nrrd"))
    refused("finite vectors of 3", load_map, tmp_path / "image.nrrd")
    refused("4x4", SpatialMap, mapping.field, Grid(SHAPE, np.eye(4)), np.zeros((4, 4)))
    empty, centre = tmp_path / "empty.tfm", tmp_path / "centre.tfm"
    empty.write_text("\n")
    refused("it is empty", load_affine, empty)
    head = "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
    centre.write_text(f"{head}Parameters: 1 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0\n")
    refused("centre of its AffineTransform has 2 numbers, expected 3", load_affine, centre)
    assert {p.name for p in tmp_path.iterdir()} == {"image.nrrd", "empty.tfm", "centre.tfm"}
