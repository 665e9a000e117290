"""Fields as 3D Slicer writes them: doubles, intent 1006, a direction in words. SimpleITK is the second reader."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from ncf.io.fields.table import load_map
from tests.maps import DIRECTIONS, SHAPE, itk_transform, points_in, save_map, smooth_map, through_itk
from tests.refusing import refused

POINT_MM = 1e-3
KEY = "displacement field type"


@pytest.mark.parametrize("name", DIRECTIONS)
def test_vectors_of_intent_1006_are_ras(tmp_path: Path, name: str) -> None:
    mapping, path = smooth_map(name), tmp_path / "field.nii.gz"
    save_map(path, mapping)
    points = points_in(SHAPE, mapping.grid.affine)
    ours, _ = mapping.to_moving(points)
    image = nib.load(path)
    turned = nib.Nifti1Image(np.asarray(image.dataobj) * np.array([-1, -1, 1], np.float32), image.affine, image.header)
    turned.header["intent_code"] = 1006
    nib.save(turned, tmp_path / "theirs.nii.gz")
    np.testing.assert_allclose(through_itk(itk_transform(tmp_path / "theirs.nii.gz"), points), ours, atol=POINT_MM)
    np.testing.assert_allclose(load_map(tmp_path / "theirs.nii.gz").to_moving(points)[0], ours, atol=POINT_MM)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_fields_of_doubles_are_read(tmp_path: Path, suffix: str) -> None:
    mapping, path = smooth_map("oblique"), tmp_path / f"field{suffix}"
    save_map(path, mapping)
    image = sitk.ReadImage(str(path))
    assert suffix != ".nrrd" or image.GetMetaData(KEY) == "resampling"
    sitk.WriteImage(sitk.Cast(image, sitk.sitkVectorFloat64), str(tmp_path / f"doubles{suffix}"))
    points = points_in(SHAPE, mapping.grid.affine)
    found, known = load_map(tmp_path / f"doubles{suffix}").to_moving(points)
    assert known.all()
    np.testing.assert_allclose(found, mapping.to_moving(points)[0], atol=POINT_MM)
    for kind in (sitk.Cast(sitk.VectorIndexSelectionCast(image, 0), sitk.sitkFloat64), sitk.Image([4, 5, 6, 7], 8)):
        sitk.WriteImage(kind, str(tmp_path / f"other{suffix}"))
        refused("expected a 3D image of finite vectors of 3|cannot read", load_map, tmp_path / f"other{suffix}")


def test_a_field_that_leads_the_other_way_is_refused(tmp_path: Path) -> None:
    save_map(tmp_path / "field.nrrd", smooth_map("oblique"))
    image = sitk.ReadImage(str(tmp_path / "field.nrrd"))
    image.SetMetaData(KEY, "modeling")
    sitk.WriteImage(image, str(tmp_path / "other.nrrd"))
    refused("of type 'modeling', which leads from moving to fixed points", load_map, tmp_path / "other.nrrd")
