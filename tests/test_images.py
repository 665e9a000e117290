"""Images in memory: what other programs hold, brought in and out; the referees are nibabel and SimpleITK themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage

from ncf.io.image_files import read_image
from ncf.io.image_objects import image_of, to_sitk
from tests.grids import AFFINES, SHAPE, each_affine, random
from tests.refusing import refused

POINT_MM = 1e-4  # NIfTI keeps affines in float32: 1e-7 of positions up to some 100 mm


def forms(path: str) -> dict[str, Any]:
    """The same file as every program reads it."""
    image: Any = nib.load(path)
    values = np.asarray(image.dataobj)
    tensor = LoadImage(image_only=True, ensure_channel_first=True)(path)
    return {
        "array": (values, image.affine),
        "tensor": (torch.from_numpy(values), image.affine),
        "nibabel": image,
        "sitk": sitk.ReadImage(path),
        "meta tensor": tensor,
        "meta tensor without channel": tensor[0],
    }


@pytest.mark.filterwarnings("ignore:.*nvImageCodec")  # of LoadImage, which tries all its readers
@each_affine
def test_every_form_is_what_the_file_gives(tmp_path: Path, affine: np.ndarray) -> None:
    path = str(tmp_path / "image.nii.gz")
    nib.save(nib.Nifti1Image((100 * random(*SHAPE)).astype(np.int16), affine), path)
    truth = read_image("fixed", path)
    for name, given in forms(path).items():
        image = image_of("fixed", given)
        assert image.dtype == torch.float32 and torch.equal(image.as_tensor(), truth.as_tensor()), name
        assert image.affine.dtype == torch.float64, name
        assert np.allclose(image.affine, truth.affine, rtol=0, atol=POINT_MM if name == "sitk" else 1e-9), name


@each_affine
@pytest.mark.parametrize("channels", [1, 3])
def test_sitk_gets_every_voxel_at_its_place(affine: np.ndarray, channels: int) -> None:
    image = MetaTensor(torch.from_numpy(random(channels, *SHAPE)), affine=torch.from_numpy(affine))
    made = to_sitk(image)
    for index in ((0, 0, 0), (8, 0, 3), (2, 6, 5)):
        place = np.array(made.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]  # LPS
        assert np.allclose(place, (affine @ [*index, 1])[:3], rtol=0, atol=1e-9)
        assert np.array_equal(np.atleast_1d(made[index]), image.as_tensor()[(slice(None), *index)])


def test_what_is_given_stays_as_it_is() -> None:
    values = random(*SHAPE).astype(np.float32)
    image = image_of("fixed", (values, AFFINES["ras"]))
    image += 1
    assert np.array_equal(values, random(*SHAPE).astype(np.float32))


RGB = [("R", "u1"), ("G", "u1"), ("B", "u1")]


@pytest.mark.parametrize(
    ("given", "telling"),
    [
        ("scan.nii.gz", "fixed: expected an array with its affine .* got str; of files, ncf.register takes the paths"),
        (np.zeros((3, 3, 3)), "got ndarray"),
        (nib.Nifti1Image(np.zeros((3, 3, 3), np.complex64), np.eye(4)), "voxels are complex64"),
        (nib.Nifti1Image(np.zeros((3, 3, 3), RGB), np.eye(4)), "expected one real number each"),
        ((np.zeros((3, 3)), np.eye(4)), r"shape \(3, 3\), expected one 3D volume"),
        ((np.zeros((3, 3, 3), complex), np.eye(4)), "voxels are complex128"),
        ((np.zeros((3, 3, 3)), np.eye(3)), r"the affine has shape \(3, 3\)"),
        (MetaTensor(torch.zeros(2, 3, 3, 3)), "expected one channel"),
        (MetaTensor(torch.zeros(1, 3, 3, 3), meta={"space": "LPS"}), "affine is in LPS, expected RAS"),
        (sitk.Image(3, 3, sitk.sitkUInt8), "2 axes, 1 values"),
        (sitk.Image([3, 3, 3], sitk.sitkVectorFloat32), "3 axes, 3 values"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_image_is_refused(given: Any, telling: str) -> None:
    refused(telling, image_of, "fixed", given)
