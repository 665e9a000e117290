"""Learn2Reg's files and metrics: exact on maps by formula, whatever the affines; numbers derived by hand."""

from __future__ import annotations

import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine, voxel_sizes

from ncf.evaluate.learn2reg_metrics import (
    learn2reg_dice,
    learn2reg_hd95,
    learn2reg_log_jac_det_std,
    learn2reg_tre,
    learn2reg_tre30,
    warped_labels,
    weighted_percentile,
)
from ncf.evaluate.metrics import tre_mm
from ncf.io.learn2reg import (
    from_stored,
    load_displacement,
    save_displacement,
    to_stored,
    zip_submission,
)
from ncf.io.learn2reg_names import displacement_name
from tests.grids import AFFINES, each_affine, points_inside, random
from tests.refusing import refused

SHAPE = (22, 20, 24)
EXACT = 1e-6  # asked for of every metric, against closed forms
POSITION_VOX = 1e-4  # float32 positions below 100, there and back
SPLINE_MM = 1e-3  # a cubic spline through float32 samples of a quadratic
HALF_VOX = 0.02  # float16 of displacements up to 8 voxels (1/256), and a spline of order 2 through every second node


def world_map(points_mm: np.ndarray) -> np.ndarray:
    """A smooth map of RAS mm (..., 3): a turn, a stretch, a shift and a bend, which a cubic spline follows."""
    matrix = np.array([[1.02, 0.05, -0.03], [-0.04, 0.97, 0.06], [0.02, -0.05, 1.01]])
    moved = points_mm @ matrix.T + [1.5, -2.0, 0.7]
    moved[..., 0] += 2e-4 * points_mm[..., 1] * points_mm[..., 2]
    return moved


def field_between(fixed: np.ndarray) -> torch.Tensor:
    """`world_map` as a field (3, *SHAPE) in fixed voxels."""
    at = np.moveaxis(np.indices(SHAPE), 0, -1)
    moved = apply_affine(np.linalg.inv(fixed), world_map(apply_affine(fixed, at)))
    return torch.from_numpy(np.moveaxis(moved - at, -1, 0).copy()).float()


@pytest.mark.parametrize(
    ("fixed", "moving", "names", "expected"),
    [
        ("LungCT_0001_0000", "LungCT_0001_0001", "auto", "disp_0001_0001"),
        ("AbdomenMRCT_0003_0000", "AbdomenMRCT_0003_0001", "auto", "disp_0003_0003"),
        ("ThoraxCBCT_0011_0001", "ThoraxCBCT_0011_0000", "auto", "disp_0011_0001_0011_0000"),
        ("OASIS_0438_0000", "OASIS_0439_0000", "auto", "disp_0438_0000_0439_0000"),
        ("OASIS_0438_0000", "OASIS_0439_0000", "short", "disp_0438_0439"),
        ("LungCT_0001_0000", "LungCT_0001_0001", "long", "disp_0001_0000_0001_0001"),
        ("LungCT_0001_0000", "NLST_0001_0001", "auto", "disp_0001_0000_0001_0001"),
        ("case_007_exp", "case_007_insp", "auto", "disp_0007_0007"),
        ("case_007_exp", "case_008_exp", "auto", "disp_0007_0000_0008_0000"),
    ],
)
def test_names(fixed: str, moving: str, names: str, expected: str) -> None:
    assert displacement_name(fixed, moving, names=names) == expected


def test_names_that_cannot_be_made_are_refused() -> None:
    refused("'case_1_exp' is no Learn2Reg image name", displacement_name, "case_1_exp", "LungCT_0001_0001")
    with pytest.raises(ValueError, match="one of auto, short, long, got 'brief'"):
        displacement_name("A_0001_0000", "A_0001_0001", names="brief")


@each_affine
@pytest.mark.parametrize("moving", AFFINES.values(), ids=AFFINES.keys())
def test_a_file_is_right_in_stored_indices_whatever_the_affines(
    affine: np.ndarray, moving: np.ndarray, tmp_path: Path
) -> None:
    field, points = field_between(affine), points_inside(SHAPE).reshape(3, -1).T
    partners = apply_affine(np.linalg.inv(moving), world_map(apply_affine(affine, points)))
    stored = to_stored(field, fixed_affine=affine, moving_affine=moving)
    save_displacement(tmp_path / "disp.nii.gz", stored)
    image = nib.load(tmp_path / "disp.nii.gz")
    assert image.shape == (*SHAPE, 3) and image.get_data_dtype() == np.float32
    assert np.array_equal(image.affine, np.eye(4))
    displacement = load_displacement(tmp_path / "disp.nii.gz", SHAPE)
    assert torch.equal(displacement, stored)
    inside = (points > 5).all(axis=1) & (points < np.array(SHAPE) - 6).all(axis=1)  # splines feel the border's zeros
    assert inside.sum() > 3
    errors = learn2reg_tre(displacement.numpy(), points[inside], partners[inside], moving_zooms=voxel_sizes(moving))
    assert errors.max() < SPLINE_MM
    back = from_stored(displacement, fixed_affine=affine, moving_affine=moving)
    np.testing.assert_allclose(back.numpy(), field.numpy(), atol=POSITION_VOX)


@each_affine
def test_tre_of_a_wrong_field_is_ours_between_the_voxels_where_a_spline_is_a_line(affine: np.ndarray) -> None:
    at, shift = np.indices(SHAPE), np.array([0.5, -1.0, 0.25])
    field = torch.from_numpy(0.01 * at[[1, 2, 0]] + shift.reshape(3, 1, 1, 1)).float()
    points = random(30, 3) + np.array(SHAPE) / 2
    landmarks = np.hstack([points, points + random(30, 3, seed=1)])
    ours = tre_mm(field, landmarks, fixed_affine=affine, moving_affine=affine)
    theirs = learn2reg_tre(field.numpy(), points, landmarks[:, 3:], moving_zooms=voxel_sizes(affine))
    np.testing.assert_allclose(theirs, ours, atol=SPLINE_MM)
    assert ours.min() > 100 * SPLINE_MM


def test_tre_beyond_the_image_knows_no_displacement() -> None:
    displacement, far = np.full((3, 9, 9, 9), 2.0), np.array([[30.0, 4.0, 4.0]])
    assert learn2reg_tre(displacement, far, far + np.array([3, 4, 0]), moving_zooms=(1, 2, 1)) == pytest.approx(
        [np.hypot(3, 8)], abs=EXACT
    )


def test_tre30_is_the_seventh_decile_of_the_cases() -> None:
    assert learn2reg_tre30([4.0, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]) == pytest.approx(8.0, abs=EXACT)
    assert learn2reg_tre30([1.0, 2.0]) == pytest.approx(1.7, abs=EXACT)


def test_the_format_of_2021_has_half_the_nodes_and_whole_voxels(tmp_path: Path) -> None:
    x = np.indices(SHAPE)
    field = np.stack([3 + 2 * np.sin(x[1] / 9), -2 + np.cos(x[2] / 8), 5 + x[0] / 10]).astype(np.float32)
    save_displacement(tmp_path / "disp_0001_0001.npz", field)
    with np.load(tmp_path / "disp_0001_0001.npz") as file:
        assert file.files == ["arr_0"] and file["arr_0"].dtype == np.float16
        assert file["arr_0"].shape == (3, 11, 10, 12)
        np.testing.assert_allclose(
            file["arr_0"][:, [0, -1], [0, -1], [0, -1]], field[:, [0, -1], [0, -1], [0, -1]], atol=HALF_VOX
        )
    back = load_displacement(tmp_path / "disp_0001_0001.npz", SHAPE).numpy()
    np.testing.assert_allclose(back[:, 2:-2, 2:-2, 2:-2], field[:, 2:-2, 2:-2, 2:-2], atol=HALF_VOX)
    save_displacement(tmp_path / "again.npz", field)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "disp_0001_0001.npz").read_bytes()


def test_files_of_other_programs_are_read(tmp_path: Path) -> None:
    values = random(*SHAPE, 3).astype(np.float16)
    np.savez(tmp_path / "last.npz", values)
    assert np.array_equal(
        load_displacement(tmp_path / "last.npz", SHAPE), np.moveaxis(values.astype(np.float32), -1, 0)
    )
    nib.save(nib.Nifti1Image(values[:, :, :, None].astype(np.float64), np.diag([-2, -2, 3, 1])), tmp_path / "five.nii")
    assert np.array_equal(
        load_displacement(tmp_path / "five.nii", SHAPE), np.moveaxis(values.astype(np.float32), -1, 0)
    )


def test_what_is_no_displacement_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", np.zeros((*SHAPE, 3)), np.zeros(2))
    refused("holds 2 arrays", load_displacement, tmp_path / "two.npz", SHAPE)
    np.savez(tmp_path / "code.npz", np.array([print], dtype=object))
    refused("cannot read .*pickle", load_displacement, tmp_path / "code.npz", SHAPE)
    np.savez(tmp_path / "small.npz", np.zeros((3, *SHAPE), np.float32))
    refused(
        r"expected floats of shape \(22, 20, 24, 3\) or .*got float32 of \(3, 22",
        load_displacement,
        tmp_path / "small.npz",
        SHAPE,
    )
    holes = np.zeros((*SHAPE, 3), np.float32)
    holes[3, 4, 5, 1] = np.nan
    np.savez(tmp_path / "holes.npz", holes)
    refused("not finite", load_displacement, tmp_path / "holes.npz", SHAPE)
    (tmp_path / "text.npz").write_text("no")
    refused("cannot read", load_displacement, tmp_path / "text.npz", SHAPE)
    refused("cannot read", load_displacement, tmp_path / "missing.nii.gz", SHAPE)
    refused("finite", save_displacement, tmp_path / "a.nii.gz", np.moveaxis(holes, -1, 0))
    refused("end in .nii.gz or .npz", save_displacement, tmp_path / "a.mha", np.zeros((3, *SHAPE)))


def test_a_submission_is_one_zip_file_the_same_each_time(tmp_path: Path) -> None:
    for case in ("0002", "0001"):
        save_displacement(tmp_path / f"disp_{case}_{case}.nii.gz", np.zeros((3, 4, 4, 4)))
    (tmp_path / "notes.txt").write_text("not part of it")
    names = [zip_submission(tmp_path, tmp_path / f"{name}.zip") for name in ("a", "b")]
    assert names == [["disp_0001_0001.nii.gz", "disp_0002_0002.nii.gz"]] * 2
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == names[0] and archive.testzip() is None
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    (tmp_path / "empty").mkdir()
    refused("no displacement files", zip_submission, tmp_path / "empty", tmp_path / "c.zip")


def boxes() -> tuple[np.ndarray, np.ndarray]:
    """Plates of 2 x 20 x 20 voxels: label 1 at first index 4, its partner at 14; label 3 in the first map alone."""
    fixed, moving = np.zeros((24, 26, 26), np.uint8), np.zeros((24, 26, 26), np.uint8)
    fixed[4:6, 3:23, 3:23], moving[14:16, 3:23, 3:23] = 1, 1
    fixed[20:22, 3:6, 3:6] = 3
    return fixed, moving


@pytest.mark.parametrize(("shift", "overlap", "apart"), [(10, 1.0, 0.0), (9, 0.5, 1.0), (4, 0.0, 6.0)])
def test_dice_and_hd95_of_plates(shift: int, overlap: float, apart: float) -> None:
    """Shifted by s of 10 voxels, two plates 2 thick share 2 - (10 - s) planes; their faces are 10 - s apart."""
    fixed, moving = boxes()
    displacement = np.zeros((3, *fixed.shape))
    displacement[0] = shift
    warped = warped_labels(displacement, moving)
    assert warped.dtype == np.uint8 and set(np.unique(warped)) == {0, 1}
    dice = learn2reg_dice(fixed, warped, moving, [1, 3])
    assert dice[0] == pytest.approx(overlap, abs=EXACT) and np.isnan(dice[1])
    hd95 = learn2reg_hd95(fixed, warped, moving, [1, 3])
    assert hd95[0] == pytest.approx(apart, abs=EXACT) and np.isnan(hd95[1])


def test_labels_are_nothing_where_the_map_leaves_the_image() -> None:
    displacement = np.zeros((3, 4, 4, 4))
    displacement[0, 2:] = 3
    warped = warped_labels(displacement, np.full((4, 4, 4), 7, np.uint8))
    assert (warped[:2] == 7).all() and (warped[2:] == 0).all()


@pytest.mark.parametrize(("width", "height", "expected"), [(10, 4, 4.0), (3, 1, 0.0)])
def test_hd95_counts_area(width: int, height: int, expected: float) -> None:
    """A plate of area 960 with a bump: its top alone is 100 of 1120 in one case, all of it 21 of 972 in the other."""
    fixed = np.zeros((20, 26, 26), np.uint8)
    fixed[4:6, 3:23, 3:23] = 1
    bumpy = fixed.copy()
    bumpy[6 : 6 + height, 8 : 8 + width, 8 : 8 + width] = 1
    for truth, other in ((fixed, bumpy), (bumpy, fixed)):
        assert learn2reg_hd95(truth, other, other, [1]) == pytest.approx([expected], abs=EXACT)


def test_a_larger_surfel_weighs_more() -> None:
    distances = np.array([2.0, 0.0, 1.0])
    assert weighted_percentile(distances, np.array([0.05, 0.9, 0.05])) == 1  # 95 % of the area lie at 1 or below
    assert weighted_percentile(distances, np.array([0.06, 0.9, 0.04])) == 2


@pytest.mark.parametrize("stretch", [1.0, 1.2, 0.5, -4.0])
def test_sd_log_jacobian_of_two_halves_that_are_stretched(stretch: float) -> None:
    """det J is 1 on one side and ``stretch`` on the other; ln(det + 3) has half their distance as its deviation."""
    x = np.indices((40, 16, 16))
    displacement = np.zeros((3, 40, 16, 16))
    displacement[0] = np.where(x[0] >= 20, (stretch - 1) * (x[0] - 20), 0)
    mask = np.ones((40, 16, 16))
    mask[19:21], mask[:5] = 0, 2  # the kink, and what is not exactly 1
    logs = np.log(np.maximum(np.array([1.0, stretch]) + 3, 1e-9))
    left, right = (19 - 5), (40 - 2 - 21)  # planes that count
    share = left / (left + right)
    truth = abs(logs[1] - logs[0]) * np.sqrt(share * (1 - share))
    assert learn2reg_log_jac_det_std(displacement, mask) == pytest.approx(truth, abs=EXACT)


def test_sd_log_jacobian_of_an_affine_map_is_nothing() -> None:
    displacement = np.einsum("cd,d...->c...", 0.1 * random(3, 3), np.indices((12, 13, 14)))
    assert learn2reg_log_jac_det_std(displacement) == pytest.approx(0, abs=EXACT)
