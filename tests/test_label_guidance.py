"""Labels that guide a fit: organs meet, stay rigid, or keep their volume; and wishes that cannot be met are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ncf.api.options import Options
from ncf.fit.label_guidance import LabelWishes, on_level
from ncf.fit.losses.bodies import RigidityLoss, VolumeLoss
from ncf.phantom.chest import LABELS
from ncf.space.geometry import to_mm
from ncf.space.grids import lattice_over
from tests.conftest import Run
from tests.refusing import refused

SHAPE = (20, 24, 22)
AFFINE = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -3], [0, 0, 3.0, 7], [0, 0, 0, 1]])
LEVELS = {
    "coarse": {"voxels": 20_000, "control_points": 1_000, "iterations": 60, "learning_rate": 1e-3},
    "fine": {"voxels": 60_000, "control_points": 4_000, "iterations": 40, "learning_rate": 1e-3, "guidance": 0.1},
}


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


def blocks() -> torch.Tensor:
    """A map with two labels."""
    labels = torch.zeros(1, 1, *SHAPE)
    labels[..., 4:10, 5:15, 6:14] = 3
    labels[..., 12:17, 8:18, 4:9] = 7
    return labels


def test_rigid_motions_cost_nothing_and_others_what_is_left() -> None:
    random = np.random.default_rng(0)
    own = torch.from_numpy(random.normal(size=(3, 50)))
    turn = torch.from_numpy(Rotation.from_euler("xyz", (20, -30, 50), degrees=True).as_matrix())
    assert RigidityLoss()(turn @ own + 4, own).item() == pytest.approx(0, abs=1e-10)
    mirrored = own * torch.tensor([[-1.0], [1], [1]])
    assert RigidityLoss()(mirrored, own).item() > 0.1
    moved = (own + 0.2 * torch.from_numpy(random.normal(size=(3, 50)))).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: RigidityLoss()(m, own), (moved,), atol=1e-4)
    assert VolumeLoss()(torch.tensor([np.e, 1 / np.e, 1.0])).item() == pytest.approx(2 / 3)
    assert VolumeLoss()(torch.tensor([-1.0])).isfinite()


def test_a_level_knows_where_labels_go() -> None:
    labels, lattice = blocks(), lattice_over(SHAPE, (15, 17, 16))
    initial = np.eye(4)
    initial[:3, :3] = 1.1 * Rotation.from_euler("z", 10, degrees=True).as_matrix()
    wishes = LabelWishes(labels, labels.clone(), (3, 7), rigid=(3,), volume=(7,))
    plain = on_level(wishes, lattice, AFFINE, moving_affine=AFFINE, initial=np.eye(4), strength=0.5)
    nothing = torch.zeros(1, 3, *lattice.shape)
    found, wanted = plain.shares(nothing)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert wanted.shape[1] == 2 and plain.strength == 0.5
    turned = on_level(wishes, lattice, AFFINE, moving_affine=initial @ AFFINE, initial=initial, strength=1.0)
    np.testing.assert_allclose(turned.shares(nothing)[0], wanted, atol=1e-5)  # the initial transform alone fits
    # an affine field: its determinant, and where it brings the points, by the formulas
    matrix = np.eye(3) + np.array([[0.05, 0.02, 0], [0, -0.1, 0.03], [0.01, 0, 0.08]])
    nodes = lattice.points().double()
    mm = to_mm(nodes.reshape(3, -1).T.numpy(), AFFINE)
    wanted_vox = np.linalg.solve(AFFINE[:3, :3], (matrix - np.eye(3)) @ mm.T)
    field = torch.from_numpy(
        wanted_vox.reshape(1, 3, *lattice.shape) / np.array(lattice.step_vox).reshape(1, 3, 1, 1, 1)
    )
    (body,), (organ,) = turned.rigid, turned.volume
    det = organ.volume_change(field.float())
    np.testing.assert_allclose(det, np.linalg.det(initial[:3, :3] @ matrix), rtol=1e-4)
    moved = body.moved_mm(field.float()).numpy()
    expected = initial[:3, :3] @ matrix @ body.own_mm.numpy()
    np.testing.assert_allclose(
        moved - moved.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=1e-3
    )


def registered(run: Run, folder: Path, pair: Mapping[str, str], **wanted: Any) -> tuple[dict[str, Any], Path]:
    """Metrics and result folder of the phantom with a wish."""
    state = run(folder, pair, name="x", **{"fit::levels": LEVELS}, **wanted).evaluator.state
    return state.output["metrics"], Path(state.output["result_dir"])


@pytest.mark.slow
def test_organs_meet_stay_rigid_or_keep_their_volume(run: Run, pair: dict[str, str], tmp_path: Path) -> None:
    label = LABELS["heart"]
    free, folder = registered(run, tmp_path / "free", pair)
    labels = np.asarray(nib.load(pair["fixed_label"]).dataobj)
    affine = nib.load(pair["fixed_label"]).affine
    inside = np.argwhere(labels == label)

    def left(result: Path) -> tuple[float, float]:
        """What is not rigid in the label, in mm, and the logarithm of its change of volume."""
        field = nib.load(result / "displacement.nii.gz").get_fdata()[..., 0, :] * [-1, -1, 1]  # LPS to RAS
        moved = to_mm(inside, affine) + field[tuple(inside.T)]
        loss = RigidityLoss()(torch.from_numpy(moved.T), torch.from_numpy(to_mm(inside, affine).T))
        jacobian = np.stack([np.stack(np.gradient(field[..., c]), -1) for c in range(3)], -2) @ np.linalg.inv(
            affine[:3, :3]
        )
        det = np.linalg.det(np.eye(3) + jacobian)[tuple(inside.T)]
        return float(loss) ** 0.5, float(np.abs(np.log(det)).mean())

    strong = {"guide_labels": True, "weights::guide_labels": 10.0}  # on a phantom the intensities alone nearly suffice
    guided, _ = registered(run, tmp_path / "guided", pair, **strong)
    assert guided["dice"]["after"]["mean"] > free["dice"]["after"]["mean"]
    _, rigid = registered(run, tmp_path / "rigid", pair, rigid_label=label)
    _, kept = registered(run, tmp_path / "kept", pair, keep_volume_label=[label])
    assert left(rigid)[0] < 0.5 * left(folder)[0]
    assert left(kept)[1] < 0.5 * left(folder)[1]
    told = json.loads((rigid / "metrics.json").read_text(encoding="utf-8"))["kept"]
    assert told[str(label)]["rigid_rms_mm"] == pytest.approx(left(rigid)[0], rel=0.1)
    assert (
        abs(json.loads((kept / "metrics.json").read_text(encoding="utf-8"))["kept"][str(label)]["volume_ratio"] - 1)
        < 0.1
    )
    assert guided["dice"]["guided"] and "guided" not in free["dice"]
    losses = json.loads((kept / "run.json").read_text(encoding="utf-8"))["losses"][-1]["losses"]
    assert "keep_volume_label" in losses and "rigid_label" not in losses


@pytest.mark.parametrize(
    ("wanted", "without", "telling"),
    [
        ({"guide_labels": True}, ("moving_label",), "guide_labels needs fixed_label and moving_label"),
        ({"rigid_label": 99}, (), "rigid_label: the fixed label map has no label 99; it has 1"),
        ({"keep_volume_label": [1, 88]}, (), "keep_volume_label: the fixed label map has no label 88"),
        ({"rigid_label": 1}, ("fixed_label", "moving_label"), "rigid_label needs fixed_label"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(
    run: Run, pair: dict[str, str], tmp_path: Path, wanted: dict[str, Any], without: tuple[str, ...], telling: str
) -> None:
    less = {key: value for key, value in pair.items() if key not in without}
    with pytest.raises(SystemExit, match=re.escape(telling)):
        run(tmp_path, less, name="x", **wanted)


@pytest.mark.parametrize(
    ("wanted", "telling"),
    [
        ({"rigid_label": " "}, "rigid_label is a label number above zero, or several, got ' '"),
        ({"rigid_label": 3.5}, "rigid_label is a label number"),
        ({"keep_volume_label": []}, "keep_volume_label is a label number"),
        ({"keep_volume_label": [0]}, "keep_volume_label is a label number"),
        ({"guide_labels": "false"}, "guide_labels is True or False"),
        ({"guide_labels": True, "transform": "rigid"}, "guide_labels is for maps that bend"),
        ({"transform": "rigd"}, "transform is one of rigid, affine, deformable"),
        ({"modality": "MR"}, "modality is one of auto, same, different"),
    ],
)
def test_options_that_mean_nothing_are_refused(wanted: dict[str, Any], telling: str) -> None:
    refused(telling, lambda: Options(**wanted))
    assert Options(rigid_label=np.int64(3)).overrides["rigid_label"] == [3]  # type: ignore[arg-type]
