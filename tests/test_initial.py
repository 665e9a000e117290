"""What a fit begins with and may end with: a found map must beat the headers, a result must beat no registration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ncf.evaluate.measured import CheckGained
from ncf.fit.fitted import ContrastEvidence
from ncf.fit.initial_transform import Evidence, better_initial
from ncf.fit.losses.local_correlation import LocalCorrelationLoss
from ncf.fit.pyramid import PairImages
from ncf.fit.terms import ImageTerm, WeightedSum
from ncf.phantom.chest import PhantomPair, breathing_thorax
from ncf.space.geometry import size_and_turn, translation
from ncf.space.sampling import Warp
from tests.conftest import ROOT, Run
from tests.fits import images_of, terms
from tests.refusing import refused

SHARED = ROOT.parent / "shared" / "data" / "limb_ct_mr"


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


@pytest.fixture(scope="module")
def torso() -> PhantomPair:
    return breathing_thorax((48, 44, 46), seed=1, motion=0.3)


def chosen(pair: PairImages, start: np.ndarray, loss: WeightedSum | None = None) -> tuple[bool, Evidence]:
    found = replace(pair, initial=start)
    best, evidence = better_initial(pair, found, loss=loss or terms(), warp=Warp(), points=20_000, least=12)
    assert best is (found if evidence.taken else pair)
    return evidence.taken, evidence


def local_correlation() -> WeightedSum:
    return WeightedSum({"local": ImageTerm(LocalCorrelationLoss())})


def similarity(pair: PairImages, *, size: float = 1.0, turn: float = 0.0) -> np.ndarray:
    """A map about the middle of the fixed image."""
    middle = (pair.fixed_affine @ [*(np.array(pair.fixed_shape) - 1) / 2, 1])[:3]
    found = np.eye(4)
    found[:3, :3] = size * Rotation.from_euler("z", turn, degrees=True).as_matrix()
    found[:3, 3] = middle - found[:3, :3] @ middle
    return found


@pytest.mark.parametrize("loss", [terms, local_correlation])
def test_the_right_map_is_taken_and_no_worse_one(torso: PhantomPair, loss: Any) -> None:
    away = translation([45.0, -20.0, 30.0])
    pair = images_of(torso, moving_affine=away @ torso.moving_affine)
    assert chosen(pair, away, loss())[0]
    straight = images_of(torso)
    for wrong in (away, similarity(straight, size=0.6), similarity(straight, size=1.6), similarity(straight, turn=30)):
        taken, evidence = chosen(straight, wrong, loss())
        assert not taken and evidence.found > evidence.headers


def test_a_field_of_view_that_grows_does_not_pay(torso: PhantomPair) -> None:
    """A moving scan of a part of the body, spread over all of the fixed one, explains more of it, and is no better."""
    half = torso.moving.shape[2] // 2
    pair = images_of(torso)
    pair = replace(pair, moving=pair.moving[..., :half].clone(), moving_weight=pair.moving_weight[..., :half].clone())
    spread = np.diag([1.0, 1.0, 0.5, 1.0])
    spread[:3, 3] = (pair.moving_affine @ [0, 0, 0, 1])[:3] * [0, 0, 0.5]
    taken, evidence = chosen(pair, spread)
    assert not taken and evidence.common < 0.6


def test_unlikely_sizes_and_turns_need_more(torso: PhantomPair) -> None:
    """Upside down or half as large by its header: true with overwhelming evidence; a little better is not enough."""
    for true in (dict(turn=180.0), dict(size=0.5)):
        straight = images_of(torso)
        away = similarity(straight, **true)
        pair = images_of(torso, moving_affine=away @ torso.moving_affine)
        taken, evidence = chosen(pair, away)
        assert taken and evidence.found < 0.4 * evidence.headers
        halfway = similarity(straight, **{name: value if name == "turn" else 0.6 for name, value in true.items()})
        blurred = replace(pair, moving=0.5 * pair.moving + 0.5 * torch.rand_like(pair.moving))
        weak, evidence = chosen(blurred, halfway)
        assert not weak


def test_headers_that_share_nothing_give_way(torso: PhantomPair) -> None:
    away = translation([2000.0, 0.0, 0.0])
    taken, evidence = chosen(images_of(torso, moving_affine=away @ torso.moving_affine), away)
    assert taken and evidence.common == 0


def test_size_and_turn() -> None:
    found = size_and_turn(
        0.7 * np.vstack([np.c_[Rotation.from_euler("x", 50, degrees=True).as_matrix(), np.ones(3)], [0] * 4])
    )
    np.testing.assert_allclose(found, (0.7, 50.0))


def test_a_result_that_is_worse_than_nothing_is_refused(run: Run, pair: dict[str, str], tmp_path: Path) -> None:
    ended = run(tmp_path, pair, name="x").parser.get_parsed_content("evaluator").state
    data = {**ended.batch, **ended.output}
    keys = ("fixed", "fixed_weight", "before_valid", "warped_valid", "before", "warped", "name", "pred")
    state = {key: data[key] for key in keys}
    fixed = state["fixed"].as_tensor()[0]
    state["warped"] = fixed.max() - fixed + torch.from_numpy(np.random.default_rng(0).normal(size=tuple(fixed.shape)))
    for measure in ("nmi", "ncc"):
        state["warped"] = state["warped"] if measure == "nmi" else fixed  # an inverse contrast tells as much
        assert CheckGained(measure)(state) is state
        swapped = {**state, "before": state["warped"], "warped": state["before"]}
        refused(
            f"x: the scans are less alike after the fit.*{'correlation' if measure == 'ncc' else 'mutual'}",
            CheckGained(measure),
            swapped,
        )
        empty = {**swapped, "before_valid": torch.zeros_like(state["before_valid"])}
        assert CheckGained(measure)(empty) is empty  # nothing was there to be worse than
        as_two = replace(state["pred"], contrast=ContrastEvidence("different" if measure == "nmi" else "same", "x"))
        refused("correlation" if measure == "ncc" else "mutual", CheckGained(), {**swapped, "pred": as_two})
    with pytest.raises(ValueError, match="ncc, nmi"):
        CheckGained("mse")


@pytest.mark.data
@pytest.mark.parametrize("case", ["004", "022"])
def test_ct_and_mr_of_one_limb_keep_their_size(run: Run, tmp_path: Path, case: str) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no real scans in {SHARED}")
    keys = {"fixed": "ct", "moving": "mr", "fixed_label": "ct_gtv", "moving_label": "mr_gtv"}
    files = {key: str(SHARED / case / f"{name}.nii.gz") for key, name in keys.items()}
    from monai.bundle import ConfigWorkflow

    from ncf.core.presets import config_files

    settings = {"output_dir": str(tmp_path), "name": "limb", "report": False, "progress": False, "device": "cpu"}
    overlaid = list(config_files("multimodal"))
    workflow = ConfigWorkflow(config_file=overlaid, workflow_type="inference", logging_file=False, **settings, **files)
    workflow.initialize()
    workflow.run()
    fixed, carried = (
        np.asarray(nib.load(f).dataobj) > 0 for f in (files["fixed_label"], tmp_path / "limb/warped_label.nii.gz")
    )
    assert 2 * (fixed & carried).sum() / (fixed.sum() + carried.sum()) > 0.8  # 1 by the headers, 0.20 and 0.70 before
    assert 0.8 < carried.sum() / fixed.sum() < 1.35
