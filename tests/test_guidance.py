"""Guide points: where they lie on a level, what they change, and that a fit follows them."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from ncf.commands.main import main
from ncf.fit.guidance import FAR_MM, REACH_MM, corrected, initial_by_points, on_lattice
from ncf.fit.losses.guide_points import GuidePointsLoss
from ncf.fit.optimizer import PairOptimizer
from ncf.fit.terms import GuideTerm, WeightedSum
from ncf.io.landmarks import read_landmarks
from ncf.phantom.chest import PhantomPair, breathing_thorax
from ncf.space.grids import lattice_over
from tests.fits import bytes_of, images_of, level, optimizer, terms
from tests.grids import OBLIQUE
from tests.refusing import refused

SHAPE = (20, 16, 12)
SINGLE_MM = 1e-3  # float32 millimetres up to about 100
NEAR_MM, AWAY_MM = 2.5, 8.0


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


@pytest.fixture(scope="module")
def chest() -> PhantomPair:
    return breathing_thorax((32, 28, 30), seed=0)


def pairs_mm(fixed_vox: np.ndarray, moved_mm: np.ndarray, affine: np.ndarray = OBLIQUE) -> np.ndarray:
    """Points at fixed voxels and their partners, moved by so many mm (RAS)."""
    fixed = apply_affine(affine, fixed_vox)
    return np.hstack([fixed, fixed + moved_mm])


def rigid(turn: float, shift: list[float]) -> np.ndarray:
    found = np.eye(4)
    found[:3, :3] = Rotation.from_rotvec([0.0, 0.0, np.deg2rad(turn)]).as_matrix()
    found[:3, 3] = shift
    return found


def test_the_field_that_leads_to_the_partners_leaves_nothing() -> None:
    lattice = lattice_over(SHAPE, (7, 5, 4))
    shift_vox, initial = np.array([1.5, -2.0, 0.75]), rigid(10.0, [30.0, 5.0, -8.0])
    fixed_vox = np.array([[3.0, 4.0, 5.0], [15.5, 9.0, 2.25], [19.0, 0.0, 11.0]])
    fixed = apply_affine(OBLIQUE, fixed_vox)
    moved = apply_affine(initial, apply_affine(OBLIQUE, fixed_vox + shift_vox))
    guides = on_lattice(np.hstack([fixed, moved]), lattice, OBLIQUE, initial=initial, device="cpu")
    nodes = torch.tensor(shift_vox / np.array(lattice.step_vox), dtype=torch.float32).view(1, 3, 1, 1, 1)
    assert guides.left_mm(nodes.expand(1, 3, *lattice.shape)).abs().max() < SINGLE_MM
    still = guides.left_mm(torch.zeros(1, 3, *lattice.shape))[0, :, :, 0, 0]
    spacing = np.sqrt((OBLIQUE[:3, :3] ** 2).sum(axis=0))
    np.testing.assert_allclose(still.numpy(), np.tile((shift_vox * spacing)[:, None], 3), atol=SINGLE_MM)


def test_a_field_is_corrected_at_the_points_and_not_far_from_them() -> None:
    affine, lattice = np.diag([2.0, 2.0, 2.0, 1.0]), lattice_over((60, 40, 40), (60, 40, 40))
    points = pairs_mm(np.array([[10.0, 20.0, 20.0]]), np.array([6.0, -4.0, 2.0]), affine)
    found = corrected(torch.zeros(1, 3, 60, 40, 40), lattice, points, affine=affine, initial=np.eye(4))
    np.testing.assert_allclose(found[0, :, 10, 20, 20].numpy(), [3.0, -2.0, 1.0], atol=SINGLE_MM)
    aside = np.exp(-((7 * 2.0 / REACH_MM) ** 2) / 2) * np.array([3.0, -2.0, 1.0])
    np.testing.assert_allclose(found[0, :, 17, 20, 20].numpy(), aside, atol=SINGLE_MM)
    assert found[0, :, 55].abs().max() < SINGLE_MM
    twice = np.vstack([points, points])  # a second click on the same place does not count twice
    again = corrected(torch.zeros(1, 3, 60, 40, 40), lattice, twice, affine=affine, initial=np.eye(4))
    np.testing.assert_allclose(again[0, :, 10, 20, 20].numpy(), [3.0, -2.0, 1.0], atol=SINGLE_MM)


def test_an_initial_transform_by_points_is_rigid_or_a_translation_or_none() -> None:
    fixed = apply_affine(OBLIQUE, np.random.default_rng(0).uniform(0, 15, (6, 3)))
    far = rigid(25.0, [90.0, -20.0, 10.0])
    found = initial_by_points(np.hstack([fixed, apply_affine(far, fixed)]), np.eye(4))
    assert found is not None
    np.testing.assert_allclose(found, far, atol=1e-9)
    few = initial_by_points(np.hstack([fixed[:3], apply_affine(far, fixed[:3])]), np.eye(4))
    assert few is not None
    np.testing.assert_array_equal(few[:3, :3], np.eye(3))
    line = fixed[:1] + np.arange(6)[:, None] * [[10.0, 0, 0]]
    on_a_line = initial_by_points(np.hstack([line, apply_affine(far, line)]), np.eye(4))
    assert on_a_line is not None
    np.testing.assert_array_equal(on_a_line[:3, :3], np.eye(3))
    near = rigid(0.0, [FAR_MM / 2, 0.0, 0.0])
    assert initial_by_points(np.hstack([fixed, apply_affine(near, fixed)]), np.eye(4)) is None
    apart = fixed + FAR_MM * 2 * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    assert initial_by_points(np.hstack([fixed, apart]), np.eye(4)) is None


def guided(chest: PhantomPair, at: np.ndarray, moved: list[float]) -> tuple[PairOptimizer, np.ndarray]:
    loss = WeightedSum({**terms().terms, "guide_points": GuideTerm(GuidePointsLoss(), 0.05)})
    return optimizer(level(40), level(20, guidance=0.5), loss=loss), pairs_mm(at, np.array(moved), chest.affine)


def test_a_fit_follows_its_guide_points_and_others_stay_as_they_are(chest: PhantomPair) -> None:
    at = np.array([[16.0, 14.0, 15.0], [10.0, 14.0, 15.0]])
    fitting, points = guided(chest, at, [AWAY_MM, 0.0, 0.0])  # where no image would lead
    network = _network()
    alone = fitting(images_of(chest), network)
    plain = optimizer(level(40), level(20, guidance=0.5))(images_of(chest), _network())
    assert bytes_of(alone) == bytes_of(plain) and "guide_points" not in alone.history[0].losses
    led = fitting(images_of(chest, guide_points_mm=points), network)
    spacing = np.sqrt((chest.affine[:3, :3] ** 2).sum(axis=0))
    left = {}
    for name, fit in (("alone", alone), ("led", led)):
        there = fit.field_vox[0, :, at[:, 0].astype(int), at[:, 1].astype(int), at[:, 2].astype(int)].numpy().T
        moved = (there * spacing) @ (chest.affine[:3, :3] / spacing).T
        left[name] = np.linalg.norm(moved - [AWAY_MM, 0.0, 0.0], axis=1).mean()
    assert left["led"] < NEAR_MM < left["alone"]
    values = [record.losses["guide_points"] for record in led.history]
    assert len(values[0]) == 40 and values[0][-1] < values[0][0]


def test_guides_weigh_less_on_a_level_that_says_so(chest: PhantomPair) -> None:
    fitting, points = guided(chest, np.array([[16.0, 14.0, 15.0]]), [AWAY_MM, 0.0, 0.0])
    first, second = fitting.levels.values()
    pair = images_of(chest, guide_points_mm=points)
    network = _network()
    losses = [
        fitting.objectives.on(own, pair, network).of_doing_nothing()["guide_points"].item()
        for own in (first, replace(second, voxels=first.voxels))
    ]
    assert losses[1] == pytest.approx(0.5 * losses[0], rel=1e-6) and losses[0] > 0


def _network() -> torch.nn.Module:
    from ncf.fit.network import NCF

    return NCF(width=16, depth=3, smooth_channels=8)


def test_markups_of_two_scans_are_pairs_of_voxels(tmp_path: Path) -> None:
    fixed_affine, moving_affine = OBLIQUE, np.diag([-1.5, 2.0, 3.0, 1.0])
    files = {}
    voxels = {
        "fixed": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        "moving": np.array([[2.0, 2.0, 2.0], [3.0, 4.0, 1.0]]),
    }
    for image, affine in (("fixed", fixed_affine), ("moving", moving_affine)):
        points = [{"position": (p * [-1, -1, 1]).tolist()} for p in apply_affine(affine, voxels[image])]
        content = {"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": points}]}
        files[f"{image}_guide_points"] = str(tmp_path / f"{image}.mrk.json")
        (tmp_path / f"{image}.mrk.json").write_text(json.dumps(content))
    shapes, affines = {"fixed": SHAPE, "moving": (9, 9, 9)}, {"fixed": fixed_affine, "moving": moving_affine}
    found = read_landmarks(files, shapes, affines, kind="guide_points")
    np.testing.assert_allclose(found, np.hstack([voxels["fixed"], voxels["moving"]]), atol=1e-9)
    swapped = {"fixed_guide_points": files["moving_guide_points"], "moving_guide_points": files["fixed_guide_points"]}
    read = partial(read_landmarks, kind="guide_points")
    refused("guide_points .*: point 1 is .* outside", read, swapped, shapes, affines)
    refused("guide_points and fixed_guide_points are both named", read, {**files, "guide_points": "x"}, shapes, affines)
    one = {"fixed_guide_points": files["fixed_guide_points"]}
    refused("moving_guide_points is missing; give guide_points", read, one, shapes, affines)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_command_tells_how_far_guide_points_are_apart(
    tmp_path: Path, chest: PhantomPair, capsys: pytest.CaptureFixture[str]
) -> None:
    from ncf.phantom.chest import write

    files = write(chest, tmp_path / "scans")
    words = [
        "register",
        str(files["fixed"]),
        str(files["moving"]),
        f"--guide_points={files['landmarks']}",
        "--name=led",
    ]
    main([*words, "--preset=fast", "--report=false", "--progress=false", f"--output_dir={tmp_path}"])
    metrics = json.loads((tmp_path / "led" / "metrics.json").read_text())
    before, after = (metrics["guide_points_mm"][when]["mean"] for when in ("before", "after"))
    assert after < 0.5 * before and "tre_mm" not in metrics
    assert f"guides      {before:.2f} mm before, {after:.2f} mm after" in capsys.readouterr().out
    run = json.loads((tmp_path / "led" / "run.json").read_text())
    assert "guide_points" in run["inputs"] and "guide_points" in run["losses"][0]["losses"]
