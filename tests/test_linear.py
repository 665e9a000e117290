"""Rigid and affine registration: a known map is found again, nothing is bent, and the result is one like any other."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.spatial.transform import Rotation

from ncf.fit.linear import LinearFit
from ncf.pair.prepare import prepare_batch
from ncf.phantom.chest import PhantomPair, breathing_thorax
from ncf.report.make import make_report
from ncf.result.folder import saved_map
from ncf.space.geometry import to_mm, to_vox
from ncf.space.sampling import sample
from tests.conftest import Run

LEVELS = {
    "coarse": {"voxels": 20_000, "control_points": 1_000, "iterations": 3, "learning_rate": 1e-3},
    "fine": {"voxels": 60_000, "control_points": 2_000, "iterations": 3, "learning_rate": 1e-3},
}
SHIFT_MM, TURN_DEG, STRETCH = np.array([6.0, -4.0, 5.0]), (4.0, -3.0, 5.0), np.diag([1.06, 0.95, 1.03])


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


def moved(chest: PhantomPair, *, stretch: bool) -> tuple[torch.Tensor, np.ndarray]:
    """The fixed scan seen through a known map about its middle, and the map, fixed to moving, in RAS mm."""
    matrix = Rotation.from_euler("xyz", TURN_DEG, degrees=True).as_matrix() @ (STRETCH if stretch else np.eye(3))
    centre = to_mm((np.array(chest.fixed.shape)[None] - 1) / 2, chest.affine)[0]
    there = np.eye(4)
    there[:3, :3], there[:3, 3] = matrix, centre + SHIFT_MM - matrix @ centre
    voxels = np.indices(chest.fixed.shape).reshape(3, -1).T
    read = to_vox(to_mm(to_mm(voxels, chest.affine), np.linalg.inv(there)), chest.affine)
    at = torch.from_numpy(read.T.reshape(1, 3, *chest.fixed.shape).astype(np.float32))
    image = torch.as_tensor(np.asarray(chest.fixed), dtype=torch.float32)
    return sample(image[None, None], at, padding_mode="border")[0, 0], there


@pytest.mark.parametrize("kind", ["rigid", "affine"])
def test_a_known_map_is_found_again(run: Run, tmp_path: Path, kind: str) -> None:
    chest = breathing_thorax((48, 42, 45), seed=0)
    image, truth = moved(chest, stretch=kind == "affine")
    nib.save(nib.Nifti1Image(np.asarray(chest.fixed, dtype=np.float32), chest.affine), tmp_path / "fixed.nii.gz")
    nib.save(nib.Nifti1Image(image.numpy(), chest.affine), tmp_path / "moving.nii.gz")
    pair = {"fixed": str(tmp_path / "fixed.nii.gz"), "moving": str(tmp_path / "moving.nii.gz")}
    state = run(tmp_path, pair, name="x", transform=kind, **{"fit::levels": LEVELS}).evaluator.state
    folder = Path(state.output["result_dir"])
    found = np.array(json.loads((folder / "run.json").read_text(encoding="utf-8"))["initial_transform"])
    corners = to_mm(np.array(list(np.ndindex(2, 2, 2))) * (np.array(chest.fixed.shape) - 1), chest.affine)
    off = np.linalg.norm(to_mm(corners, found) - to_mm(corners, truth), axis=1)
    before = np.linalg.norm(corners - to_mm(corners, truth), axis=1)
    voxel = np.linalg.norm(chest.affine[:3, 0])
    assert off.max() < 0.25 * voxel < before.min(), (off, before)
    if kind == "rigid":
        np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-6)
    for path in (folder, folder / "network.pt"):  # the saved field is this map, and the network's file gives the same
        reached, inside = saved_map(path).to_moving(corners)
        assert inside.all() and np.abs(reached - to_mm(corners, found)).max() < 1e-2
    saved = sitk.ReadTransform(str(folder / "affine.tfm"))
    lps = np.array([saved.TransformPoint((corner * [-1, -1, 1]).tolist()) for corner in corners]) * [-1, -1, 1]
    np.testing.assert_allclose(lps, to_mm(corners, found), atol=1e-6)
    page = make_report(folder).read_text(encoding="utf-8")
    assert "Verdict: <strong>good</strong>" in page and "another position" not in page
    levels = json.loads((folder / "run.json").read_text(encoding="utf-8"))["losses"]
    for level in levels:  # only the coarse level, as these maps need no finer one
        totals = np.sum(list(level["losses"].values()), axis=0)
        assert level["level"] == "coarse" and totals[-1] == totals.min() < 0.7 * totals[0]
    metrics = state.output["metrics"]
    assert metrics["folding_fraction"]["all"] == 0 and metrics["similarity"]["after"]["ncc"] > 0.9


def test_a_map_that_leaves_the_images_is_none(run: Run, pair: dict[str, str], tmp_path: Path) -> None:
    wild = LinearFit(iterations=5, rate=3.0)  # every step leads far away
    workflow = run(tmp_path, pair, name="x", transform="rigid")
    optimizer = workflow.parser.get_parsed_content("inferer")
    optimizer.linear = wild
    images, _ = prepare_batch(workflow.evaluator.state.batch)
    fit = optimizer(images, workflow.network_def)
    np.testing.assert_array_equal(fit.space.initial, np.eye(4))
    assert fit.history[-1].total == pytest.approx(fit.history[-1].nothing)
