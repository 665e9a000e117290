"""The referee, against formulas and SimpleITK, on grids that hide no mistake of sign, order or unit."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from benchmarks import evaluate as e
from ncf.evaluate.metrics import folding_fraction, sd_log_jacobian
from ncf.io.nifti import save_image, save_itk_field
from ncf.phantom.chest import PhantomPair
from ncf.space.jacobian import jacobian_determinant
from tests.grids import OBLIQUE, SHAPE, each_affine, random

SINGLE_MM = 2e-4  # float32 millimetres up to about 100
SINGLE = 2e-6  # float32, relative
MATRIX = np.array([[0.10, -0.05, 0.02], [0.03, -0.08, 0.06], [-0.04, 0.02, 0.12]])
SHIFT_MM = np.array([1.4, -2.2, 0.9])
ROOT = Path(__file__).parent.parent


def linear_field(affine: np.ndarray, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """u(p) = MATRIX p + SHIFT_MM, RAS mm, at the voxels of a grid, (W, H, D, 3): linear, so read exactly anywhere."""
    points = nib.affines.apply_affine(affine, np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1))
    return points @ MATRIX.T + SHIFT_MM


def save_field(path: Path, ras_mm: np.ndarray, affine: np.ndarray) -> Path:
    """A displacement field as SimpleITK would write it, by nibabel."""
    image = nib.Nifti1Image((ras_mm * [-1, -1, 1])[:, :, :, None].astype(np.float32), affine)
    image.header["intent_code"] = 1007
    nib.save(image, path)
    return path


@each_affine
def test_a_known_map_leaves_no_landmark_error(tmp_path: Path, affine: np.ndarray) -> None:
    files = {"fixed": tmp_path / "f.nii", "moving": tmp_path / "m.nii", "landmarks": tmp_path / "l.csv"}
    save_image(files["fixed"], np.zeros(SHAPE, np.float32), affine)
    moving_affine = OBLIQUE @ np.diag([1.5, 1, 0.5, 1])
    save_image(files["moving"], np.zeros((5, 6, 7), np.float32), moving_affine)
    fixed = np.random.default_rng(0).uniform(size=(20, 3)) * (np.array(SHAPE) - 1)
    world = nib.affines.apply_affine(affine, fixed)
    partners = nib.affines.apply_affine(np.linalg.inv(moving_affine), world + world @ MATRIX.T + SHIFT_MM)
    np.savetxt(files["landmarks"], np.hstack([fixed, partners]), delimiter=",", header="a,b,c,d,e,f", comments="")
    found = e.evaluate(save_field(tmp_path / "u.nii", linear_field(affine), affine), files)
    assert found["tre_mm"]["mean"] < SINGLE_MM
    assert found["tre_mm"]["count"] == 20
    none = e.evaluate(None, files)["tre_mm"]
    distances = np.linalg.norm(world @ MATRIX.T + SHIFT_MM, axis=1)
    assert none["median"] == pytest.approx(np.median(distances), abs=SINGLE_MM)
    assert none["p95"] == pytest.approx(np.percentile(distances, 95), abs=SINGLE_MM)
    assert none["max"] == pytest.approx(distances.max(), abs=SINGLE_MM)


def test_sets_of_landmarks_are_judged_together_and_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "scan.nii"
    save_image(scan, np.zeros(SHAPE, np.float32), np.diag([2.0, 1, 1, 1]))
    sets = {"near": [[1, 1, 1, 2, 1, 1]], "far": [[1, 1, 1, 1, 4, 1], [1, 1, 1, 1, 1, 2]]}
    for name, rows in sets.items():
        np.savetxt(tmp_path / f"{name}.csv", rows, delimiter=",")
    words = ["evaluate", f"--fixed={scan}", f"--moving={scan}"]
    words += [f"--landmarks_{name}={tmp_path / name}.csv" for name in sets]
    monkeypatch.setattr("sys.argv", words)
    e.main()
    found = json.loads(capsys.readouterr().out)
    assert {name: (of["mean"], of["max"], of["count"]) for name, of in found["tre_mm_of"].items()} == {
        "near": (2.0, 2.0, 1),
        "far": (2.0, 3.0, 2),
    }
    assert found["tre_mm"]["count"] == 3 and found["tre_mm"]["mean"] == 2.0
    monkeypatch.setattr("sys.argv", [*words, "--landmark_typo=x"])
    with pytest.raises(SystemExit):
        e.main()
    assert "unrecognized arguments: --landmark_typo=x" in capsys.readouterr().err


@each_affine
def test_labels_are_carried_as_simpleitk_carries_them(tmp_path: Path, affine: np.ndarray) -> None:
    turned = OBLIQUE @ np.diag([1.2, 0.9, 0.7, 1])
    labels = np.random.default_rng(1).integers(0, 5, (11, 9, 10)).astype(np.uint8)
    save_image(tmp_path / "m.nii", labels, turned)
    save_image(tmp_path / "f.nii", np.zeros(SHAPE, np.uint8), affine)
    path = save_field(tmp_path / "u.nii", linear_field(affine), affine)
    u = e.read_field(path, shape=SHAPE, affine=affine)
    ours = e.warp_labels(u, e.read_labels(tmp_path / "m.nii"), affines=(affine, turned))
    fixed, moving = (sitk.ReadImage(str(tmp_path / name)) for name in ("f.nii", "m.nii"))
    move = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    theirs = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, move, sitk.sitkNearestNeighbor, 0)).T
    assert np.count_nonzero(theirs) > 20
    assert np.count_nonzero(ours != theirs) <= 1  # a place halfway between two voxels may go either way


@each_affine
def test_a_linear_map_has_one_determinant(affine: np.ndarray) -> None:
    det = e.jacobian(linear_field(affine).astype(np.float32), affine)
    np.testing.assert_allclose(det, np.linalg.det(np.eye(3) + MATRIX), rtol=20 * SINGLE)
    found = e.regularity(linear_field(affine).astype(np.float32), affine=affine, label=None)
    assert found["folding_fraction"] == {"all": 0.0}
    assert found["sd_log_jacobian"]["all"] < 1e-4


def test_folds_are_counted_where_they_are() -> None:
    u = np.zeros((40, 6, 5, 3), np.float32)
    u[
        25:, :, :, 0
    ] = -6.0  # one step back of 6 mm between planes 24 and 25, 2 mm apart: both fold, by central differences
    label = np.zeros(u.shape[:3], np.int32)
    label[24:28] = 1
    found = e.regularity(u, affine=np.diag([2.0, 1.0, 3.0, 1.0]), label=label)
    assert found["folding_fraction"] == {"all": pytest.approx(2 / 40), "in_label": pytest.approx(2 / 4)}
    assert found["sd_log_jacobian"] == {"all": pytest.approx(0, abs=SINGLE), "in_label": pytest.approx(0, abs=SINGLE)}


@each_affine
def test_two_implementations_agree_on_a_restless_field(tmp_path: Path, affine: np.ndarray) -> None:
    shape = (35, 8, 7)  # more planes than are worked on at a time
    field = torch.as_tensor(random(3, *shape), dtype=torch.float32) * 0.35
    save_itk_field(tmp_path / "u.nii.gz", field, affine)
    found = e.regularity(e.read_field(tmp_path / "u.nii.gz", shape=shape, affine=affine), affine=affine, label=None)
    det = jacobian_determinant(field)
    assert 0.005 < folding_fraction(det) < 0.5
    assert found["folding_fraction"]["all"] == pytest.approx(folding_fraction(det), abs=1 / det.numel())
    assert found["sd_log_jacobian"]["all"] == pytest.approx(sd_log_jacobian(det), rel=1e-3)


def test_dice_is_of_labels_that_both_scans_have() -> None:
    fixed = np.array([1, 1, 2, 2, 3, 0, 0, 0])
    warped = np.array([1, 0, 2, 2, 4, 4, 0, 2])
    moving = np.array([1, 2, 4, 4, 5, 0, 0, 0])
    assert e.dice(fixed, warped, moving) == {"1": pytest.approx(2 / 3), "2": pytest.approx(4 / 5)}
    assert e.dice(fixed, np.zeros(8, int), moving) == {"1": 0.0, "2": 0.0}


def test_the_exact_field_of_the_phantom_is_judged_exact(
    tmp_path: Path, chest: PhantomPair, pair: dict[str, str]
) -> None:
    save_itk_field(tmp_path / "u.nii.gz", chest.field_vox, chest.affine)
    files = {key: Path(path) for key, path in pair.items()}
    exact, none = e.evaluate(tmp_path / "u.nii.gz", files), e.evaluate(None, files)
    assert exact["tre_voxel"] < 0.1 < 0.5 < none["tre_voxel"]  # what linear reading of a bent field leaves
    assert exact["dice"]["mean"] > none["dice"]["mean"] + 0.05
    assert exact["folding_fraction"] == {"all": 0.0, "in_label": 0.0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda u: u[:-1], "expected a vector field of shape"),
        (lambda u: np.where(np.arange(u.size).reshape(u.shape) == 7, np.nan, u), "holds 1 values that are not finite"),
    ],
)
def test_a_field_that_cannot_be_judged_is_refused(tmp_path: Path, change: object, message: str) -> None:
    path = save_field(tmp_path / "u.nii", change(linear_field(OBLIQUE)), OBLIQUE)  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        e.read_field(path, shape=SHAPE, affine=OBLIQUE)


def test_a_field_on_another_grid_is_refused(tmp_path: Path) -> None:
    path = save_field(tmp_path / "u.nii", linear_field(OBLIQUE), OBLIQUE + np.eye(4, k=3))
    with pytest.raises(ValueError, match="affine is not the fixed scan's"):
        e.read_field(path, shape=SHAPE, affine=OBLIQUE)


@pytest.mark.parametrize("path", [ROOT / "benchmarks" / "evaluate.py", *(ROOT / "benchmarks" / "peers").glob("*.py")])
def test_referee_and_peers_know_nothing_of_ours(path: Path) -> None:
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    names = [n.module or "" for n in tree if isinstance(n, ast.ImportFrom)]
    names += [
        alias.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Import) for alias in n.names
    ]
    assert not [name for name in names if name.startswith(("ncf", "monai", "torch"))]
    assert all(name.startswith("benchmarks.peers") for name in names if name.startswith("benchmarks"))
