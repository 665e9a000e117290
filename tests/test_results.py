"""The result folder: SimpleITK resamples with it, numpy and scipy count the same, a seed fixes every byte."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from ignite.engine import State
from monai.bundle import ConfigWorkflow
from nibabel.affines import apply_affine
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from ncf.core.files import sha256_of
from ncf.io.checkpoint import load_checkpoint, save_checkpoint
from ncf.io.nifti import load_itk_field
from ncf.phantom.chest import PhantomPair, breathing_thorax, write
from ncf.result.network_file import network_field

SHAPE, MOVING_SHAPE = (24, 22, 26), (30, 34, 32)
LEVELS = {"only": {"voxels": 4000, "control_points": 400, "iterations": 40, "learning_rate": 1e-3}}
# Both sides interpolate the same file linearly; the float32 positions differ by some 1e-5 voxels, times steps of up to
# 2000 HU between two voxels; warped.nii.gz is rounded to whole HU besides.
ITK_HU = 0.5 + 0.1
TIE_VOX = 1e-3  # nearest neighbours are only compared where rounding cannot decide
DIGITS = 1e-6  # of a share or a mean: the same sums in another order; fields are float32
NETWORK_MM = 1e-4  # the same network, once more
MEASURED = ("seconds", "peak_memory_mib")  # of metrics.json: of the machine, not of the pair
VOLUMES = {"displacement.nii.gz", "warped.nii.gz", "warped_label.nii.gz"}
RESULTS = {*VOLUMES, "affine.tfm", "network.pt", "run.json", "metrics.json", "findings.json"}

Run = Callable[..., ConfigWorkflow]
load: Callable[[str | Path], Any] = nib.load  # its own type says less than what it returns


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


@pytest.fixture(scope="module")
def turned() -> PhantomPair:
    """Exhale on an L P S grid, inhale on a turned, permuted one of another size."""
    spacing = np.array([12.0, 11.0, 13.0])
    affine = np.eye(4)
    turn = Rotation.from_euler("xyz", [12, -9, 15], degrees=True).as_matrix()
    affine[:3, :3] = turn @ [[0, -1, 0], [0, 0, 1], [1, 0, 0]] @ np.diag(spacing)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(MOVING_SHAPE) - 1) / 2 + [8.0, -5.0, 11.0]
    return breathing_thorax(SHAPE, seed=1, moving_shape=MOVING_SHAPE, moving_affine=affine)


@pytest.fixture(scope="module")
def files(turned: PhantomPair, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return write(turned, tmp_path_factory.mktemp("turned"))


@pytest.fixture(scope="module")
def done(run: Run, files: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> State:
    """The evaluator's state after the run: what came in as ``batch``, what went into files as ``output``."""
    output = tmp_path_factory.mktemp("output")
    return run(output, files, name="turned", **{"fit::levels": LEVELS}).evaluator.state


@pytest.fixture(scope="module")
def folder(done: State) -> Path:
    output: Any = done.output
    return Path(output["result_dir"])


@pytest.fixture(scope="module")
def read_vox(folder: Path, turned: PhantomPair) -> np.ndarray:
    """Where each fixed voxel reads the moving file, (3, W, H, D) in its voxels, by numpy from the saved field."""
    image = load(folder / "displacement.nii.gz")
    shift = image.get_fdata()[:, :, :, 0] * [-1, -1, 1]  # LPS to RAS mm
    places = apply_affine(image.affine, np.moveaxis(np.indices(SHAPE), 0, -1)) + shift
    return np.moveaxis(apply_affine(np.linalg.inv(turned.moving_affine), places), -1, 0)


def inside(places: np.ndarray) -> np.ndarray:
    """Where places (3, ...) lie between the moving file's voxel centres: beyond them programs differ."""
    return np.all((places >= 0) & (places <= np.reshape(np.array(MOVING_SHAPE) - 1, (3, 1, 1, 1))), axis=0)


def resampled(files: Mapping[str, str], folder: Path, *, key: str, interpolator: int) -> np.ndarray:
    """A moving file carried to the fixed grid by SimpleITK, with displacement.nii.gz."""
    field = sitk.Cast(sitk.ReadImage(str(folder / "displacement.nii.gz")), sitk.sitkVectorFloat64)
    moving = sitk.Cast(sitk.ReadImage(files[key]), sitk.sitkFloat32)
    fixed = sitk.ReadImage(files["fixed"])
    return sitk.GetArrayFromImage(
        sitk.Resample(moving, fixed, sitk.DisplacementFieldTransform(field), interpolator, -1e4)
    ).T


def test_itk_warps_the_image_to_the_same_values(files: Mapping[str, str], folder: Path, read_vox: np.ndarray) -> None:
    warped = load(folder / "warped.nii.gz")
    its, sure = resampled(files, folder, key="moving", interpolator=sitk.sitkLinear), inside(read_vox)
    assert sure.mean() > 0.8 and warped.get_data_dtype() == np.int16
    assert np.abs(warped.get_fdata() - its)[sure].max() < ITK_HU
    np.testing.assert_allclose(warped.affine, load(files["fixed"]).affine, atol=1e-4)
    unmoved = sitk.Resample(sitk.ReadImage(files["moving"]), sitk.ReadImage(files["fixed"]))
    assert np.abs(sitk.GetArrayFromImage(unmoved).T - its)[sure].mean() > 20 * ITK_HU  # or no field would pass as well


def test_itk_warps_the_labels_to_the_same_values(files: Mapping[str, str], folder: Path, read_vox: np.ndarray) -> None:
    warped = load(folder / "warped_label.nii.gz")
    its = resampled(files, folder, key="moving_label", interpolator=sitk.sitkNearestNeighbor)
    tie = (np.abs(read_vox - np.floor(read_vox) - 0.5) < TIE_VOX).any(axis=0)
    sure = inside(read_vox) & ~tie
    assert sure.mean() > 0.8 and warped.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(warped.dataobj)[sure], its[sure]) and len(np.unique(its[sure])) > 3


def test_where_the_field_leaves_the_moving_image_is_its_lowest_value(
    turned: PhantomPair, folder: Path, read_vox: np.ndarray
) -> None:
    gone = ((read_vox < -1) | (read_vox > np.reshape(MOVING_SHAPE, (3, 1, 1, 1)))).any(axis=0)
    assert gone.sum() > 20
    assert set(load(folder / "warped.nii.gz").get_fdata()[gone]) == {np.rint(turned.moving).min()}
    assert set(load(folder / "warped_label.nii.gz").get_fdata()[gone]) == {0}


def test_the_labels_overlap_as_numpy_counts(turned: PhantomPair, folder: Path) -> None:
    found = json.loads((folder / "metrics.json").read_text())["dice"]
    warped = load(folder / "warped_label.nii.gz").get_fdata()
    truth = {}
    for label in np.unique(turned.fixed_label)[1:]:
        a, b = turned.fixed_label == label, warped == label
        truth[str(label)] = 2 * (a & b).sum() / (a.sum() + b.sum())
    assert found["after"]["labels"] == pytest.approx(truth, abs=DIGITS)
    assert found["after"]["mean"] == pytest.approx(np.mean(list(truth.values())), abs=DIGITS)
    assert found["before"]["mean"] < found["after"]["mean"] < 1


def test_the_landmarks_miss_by_what_scipy_finds(turned: PhantomPair, files: Mapping[str, str], folder: Path) -> None:
    found = json.loads((folder / "metrics.json").read_text())["tre_mm"]
    points = np.loadtxt(files["landmarks"], delimiter=",", skiprows=1)
    field, _ = load_itk_field(folder / "displacement.nii.gz")
    shift = np.stack([map_coordinates(u, points[:, :3].T, order=1, mode="nearest") for u in field], axis=1)
    partner = apply_affine(turned.moving_affine, points[:, 3:])
    for when, moved in (("before", points[:, :3]), ("after", points[:, :3] + shift)):
        miss = np.linalg.norm(apply_affine(turned.affine, moved) - partner, axis=1)
        truth = [miss.mean(), np.median(miss), np.percentile(miss, 95), miss.max(), len(miss)]
        assert list(found[when].values()) == pytest.approx(truth, abs=1e-4)  # float32 fields, in mm
    assert found["after"]["mean"] < 0.8 * found["before"]["mean"]


def test_alikeness_and_folds_are_those_of_numpy(turned: PhantomPair, done: State, folder: Path) -> None:
    found = json.loads((folder / "metrics.json").read_text())
    went_in, came_out = cast(tuple[dict, dict], (done.batch, done.output))
    weight = went_in["fixed_weight"][0].numpy() * came_out["warped_valid"].numpy()
    a, b = (np.asarray(image, np.float64)[weight > 0] for image in (np.rint(turned.fixed), came_out["warped"].numpy()))
    assert found["similarity"]["after"]["ncc"] == pytest.approx(np.corrcoef(a, b)[0, 1], abs=DIGITS)
    assert found["similarity"]["after"]["mse"] == pytest.approx(np.mean((a - b) ** 2), rel=DIGITS)
    assert found["similarity"]["before"]["ncc"] < found["similarity"]["after"]["ncc"]
    field, _ = load_itk_field(folder / "displacement.nii.gz")
    slopes = np.moveaxis(np.array([np.gradient(u) for u in field.astype(np.float64)]), (0, 1), (-2, -1))
    det, body = np.linalg.det(slopes + np.eye(3)), turned.fixed_label > 0
    assert found["folding_fraction"] == pytest.approx({"all": (det <= 0).mean(), "in_label": (det[body] <= 0).mean()})
    spread = {"all": np.log(det[det > 0]).std(), "in_label": np.log(det[body & (det > 0)]).std()}
    assert found["sd_log_jacobian"] == pytest.approx(spread, abs=1e-4)  # float32 fields of some voxels


def test_what_was_measured_and_what_was_run(files: Mapping[str, str], folder: Path) -> None:
    metrics, told = (json.loads((folder / name).read_text()) for name in ("metrics.json", "run.json"))
    assert metrics["name"] == "turned" and metrics["attempts"] == 1
    seconds = metrics["seconds"]
    assert (
        list(seconds)
        == ["reading", "initial_alignment", "search", "level_only", "measuring", "judging", "tg132", "writing", "total"]
        and min(seconds.values()) > 0
    )
    assert sum(seconds.values()) <= 2 * seconds["total"] and metrics["peak_memory_mib"]["host"] > 50
    assert {key: entry["path"] for key, entry in told["inputs"].items()} == dict(files)
    assert told["inputs"]["fixed"]["sha256"] == sha256_of(files["fixed"])
    assert told["config"]["fit"]["levels"] == LEVELS and told["config"]["seed"] == 0 and told["device"] == "cpu"
    assert "seconds" not in json.dumps(told)
    losses = told["losses"][0]["losses"]
    assert {"photometric", "ssim", "occupancy"} <= set(losses) and {len(values) for values in losses.values()} == {40}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"fit::interpolation": 1, "align_centres": True},
        {"fit::levels": {"only": {**LEVELS["only"], "offset_points": 900, "offset_rate": 15}}},
    ],
    ids=["spline", "linear", "offsets"],
)
def test_the_network_file_gives_the_field_back(
    run: Run, files: Mapping[str, str], tmp_path: Path, options: dict[str, Any]
) -> None:
    folder = Path(run(tmp_path, files, name="pair", **options).evaluator.state.output["result_dir"])
    saved, affine = load_itk_field(folder / "displacement.nii.gz")
    field, its = network_field(folder / "network.pt")
    assert field.dtype == torch.float32 and np.abs(saved).max() > 0.5
    np.testing.assert_allclose(its, affine, atol=1e-4)
    off_mm = np.einsum("cd,dwhk->cwhk", affine[:3, :3], field.numpy() - saved)
    assert np.abs(off_mm).max() < NETWORK_MM


def test_another_network_is_not_taken_for_the_saved_one(folder: Path, tmp_path: Path) -> None:
    state = load_checkpoint(folder / "network.pt")
    for change in ({"modules": [*state["modules"], "ReLU"]}, {"network": {**state["network"], "width": 8}}):
        save_checkpoint(tmp_path / "network.pt", {**state, **change})
        with pytest.raises(ValueError, match="another network than its options"):
            network_field(tmp_path / "network.pt")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by name; of metrics.json only what the pair decides."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    metrics = json.loads(found["metrics.json"])
    found["metrics.json"] = json.dumps({k: v for k, v in metrics.items() if k not in MEASURED}).encode()
    return found


def test_a_seed_fixes_every_byte_of_every_file(run: Run, pair: Mapping[str, str], tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 2)):
        run(tmp_path / name, pair, name="pair", seed=seed)
    first, again, other = (contents(tmp_path / name / "pair") for name in "abc")
    assert set(first) == RESULTS and first == again
    assert all(first[name] != other[name] for name in RESULTS - {"warped_label.nii.gz", "affine.tfm", "findings.json"})


def tree(*roots: Path) -> dict[str, tuple[int, int]]:
    """Size and time of everything below some folders."""
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for root in roots for p in sorted(root.rglob("*"))}


def test_nothing_is_written_but_the_result(
    run: Run, pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, here, inputs = tmp_path / "home", tmp_path / "here", Path(pair["fixed"]).parent
    for folder in (home, here):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    before = tree(home, here, inputs)
    run(tmp_path / "output", pair)
    assert tree(home, here, inputs) == before
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")} == {
        *("home", "here", "output", "output/fixed__moving"),
        *(f"output/fixed__moving/{name}" for name in RESULTS),
    }


@pytest.mark.parametrize(("dtype", "kept"), [("int16", "int16"), ("uint8", "int16"), ("float32", "float32")])
def test_whole_numbers_stay_whole(
    run: Run, pair: Mapping[str, str], chest: PhantomPair, tmp_path: Path, dtype: str, kept: str
) -> None:
    scaled = {"int16": chest.moving, "uint8": (chest.moving + 1100) / 12, "float32": chest.moving / 1000}[dtype]
    moving = scaled if dtype == "float32" else np.rint(scaled).astype(dtype)
    nib.save(nib.Nifti1Image(moving, chest.moving_affine), tmp_path / "moving.nii.gz")
    state = run(tmp_path, {"fixed": pair["fixed"], "moving": str(tmp_path / "moving.nii.gz")}).evaluator.state
    warped = load(Path(state.output["result_dir"]) / "warped.nii.gz")
    assert warped.get_data_dtype() == kept and (warped.dataobj.slope, warped.dataobj.inter) == (1, 0)
    assert moving.min() <= warped.get_fdata().min() and warped.get_fdata().max() <= moving.max()


@pytest.mark.parametrize(
    ("lowest", "highest", "kept"), [(0, 255, np.uint8), (0, 300, np.uint16), (0, 70000, np.uint32)]
)
def test_labels_keep_their_numbers(
    run: Run, pair: Mapping[str, str], tmp_path: Path, lowest: int, highest: int, kept: type
) -> None:
    image = load(pair["moving_label"])
    label = np.asarray(image.dataobj).astype(np.int32)
    label = np.choose(label, [0, lowest, highest, 1, 2])
    nib.save(nib.Nifti1Image(label.astype(np.int32), image.affine), tmp_path / "label.nii.gz")
    state = run(tmp_path, {**pair, "moving_label": str(tmp_path / "label.nii.gz")}).evaluator.state
    warped = load(Path(state.output["result_dir"]) / "warped_label.nii.gz")
    assert warped.get_data_dtype() == kept and set(np.unique(warped.get_fdata())) == set(np.unique(label))


def test_a_second_run_leaves_nothing_of_the_first(run: Run, pair: Mapping[str, str], tmp_path: Path) -> None:
    run(tmp_path, pair, name="pair")
    run(tmp_path, {key: pair[key] for key in ("fixed", "moving")}, name="pair")
    assert {path.name for path in (tmp_path / "pair").iterdir()} == RESULTS - {"warped_label.nii.gz"}
    assert not {"dice", "tre_mm"} & set(json.loads((tmp_path / "pair" / "metrics.json").read_text()))
