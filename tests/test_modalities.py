"""Two scans whose contrasts differ: it is noticed, and the motion is found as between two of one contrast."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from ncf.fit.contrast import LEAST_AGREEMENT, MOST_LEFT_BEND, ByContrast, compared
from ncf.fit.fitted import ContrastEvidence, Fit, LevelRecord
from ncf.fit.initial_transform import Begun
from ncf.fit.label_guidance import LabelWishes
from ncf.fit.losses.local_correlation import LocalCorrelationLoss
from ncf.fit.pyramid import PairImages
from ncf.phantom.chest import breathing_thorax, write
from tests.conftest import Run
from tests.fits import images_of

COARSE = {"voxels": 30_000, "control_points": 2_000, "iterations": 50, "learning_rate": 1e-3, "learning_rate_end": 1e-3}
LEVELS = {
    "coarse": COARSE,
    "fine": {"voxels": 90_000, "control_points": 6_000, "iterations": 50, "learning_rate": 1e-3},
}


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


def images(seed: int, count: int = 2) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.rand(1, 1, 14, 15, 16, generator=random) for _ in range(count)]


def test_the_loss_is_what_no_linear_function_of_a_window_explains() -> None:
    (x, y), size, sigma = images(0), 5, 1.2
    loss = LocalCorrelationLoss(size, sigma, noise=1e-9)
    windows = [
        v[0, 0].unfold(0, size, 1).unfold(1, size, 1).unfold(2, size, 1).reshape(-1, size**3).numpy() for v in (x, y)
    ]
    bell = np.exp(-(((np.arange(size) - size // 2) / sigma) ** 2) / 2)
    weights = np.einsum("i,j,k->ijk", bell, bell, bell).ravel()
    moments = [np.cov(a, b, aweights=weights) for a, b in zip(*windows, strict=True)]
    truth = np.mean([1 - c[0, 1] ** 2 / (c[0, 0] * c[1, 1]) for c in moments])
    assert loss(x, y).item() == pytest.approx(truth, abs=1e-4)
    assert loss(y, y).item() == pytest.approx(0, abs=1e-4) and loss(1 - 0.5 * y, y).item() == pytest.approx(0, abs=1e-4)


def test_windows_without_contrast_count_for_nothing_and_have_a_gradient() -> None:
    (x,) = images(1, 1)
    flat = torch.full_like(x, 0.3)
    loss = LocalCorrelationLoss(win_size=5, kernel_sigma=1.0)
    assert loss(x, flat).item() == pytest.approx(0, abs=1e-3) and loss(flat, x).item() == pytest.approx(1, abs=0.02)
    moved = flat.clone().requires_grad_()
    loss(moved, x).backward()
    assert moved.grad is not None and moved.grad.isfinite().all()


@pytest.mark.slow
def test_another_contrast_is_no_other_motion(run: Run, tmp_path: Path) -> None:
    write(breathing_thorax((48, 42, 45), seed=0), tmp_path)
    moving = nib.load(tmp_path / "moving.nii.gz")
    other = np.interp(np.asarray(moving.dataobj), [-1000, -900, 400], [0, 1000, 100]).astype(np.float32)
    nib.save(
        nib.Nifti1Image(other, moving.affine), tmp_path / "other.nii.gz"
    )  # air stays dark, all else is turned round
    pair = {
        "fixed": tmp_path / "fixed.nii.gz",
        "moving": tmp_path / "other.nii.gz",
        "landmarks": tmp_path / "landmarks.csv",
    }
    found, chosen = {}, {}
    for modality in ("auto", "same"):
        state = run(
            tmp_path / modality, pair, name="pair", modality=modality, **{"fit::levels": LEVELS}
        ).evaluator.state
        folder = Path(state.output["result_dir"])
        found[modality] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        chosen[modality] = json.loads((folder / "run.json").read_text(encoding="utf-8"))["contrast"]
    assert chosen["auto"]["chosen"] == "different" and chosen["auto"]["agreement"] < LEAST_AGREEMENT
    assert chosen["auto"]["moved"], chosen
    assert (chosen["same"]["chosen"], chosen["same"]["why"]) == ("same", "as asked")
    left = {modality: metrics["tre_mm"]["after"]["mean"] for modality, metrics in found.items()}
    before = found["same"]["tre_mm"]["before"]["mean"]
    assert left["auto"] < 0.25 * before < before < left["same"], left
    shared = found["auto"]["similarity"]
    assert shared["after"]["nmi"] > shared["before"]["nmi"]


def test_signs_and_bends_tell_contrasts_apart() -> None:
    pair = images_of(breathing_thorax((32, 30, 31), seed=0))
    alike = compared(pair)
    assert alike is not None and alike.agreement > 0.95 and alike.bend < 0.03 and alike.same
    inverted = compared(replace(pair, moving=1 - pair.moving))
    assert inverted is not None and not inverted.same
    assert inverted.agreement == pytest.approx(-alike.agreement, abs=1e-4)
    brighter = compared(replace(pair, moving=0.2 + 0.5 * pair.moving))
    assert brighter is not None and brighter.same and brighter.agreement > 0.95
    curved = np.interp(pair.moving.numpy(), [0, 0.4, 0.8, 1], [0, 0.7, 1, 0.3]).astype(np.float32)
    bent = compared(replace(pair, moving=torch.from_numpy(curved)))
    assert bent is not None and bent.bend > 0.05 and not bent.same
    assert compared(replace(pair, moving=torch.full_like(pair.moving, 0.5))) is None


class Told:
    """An optimizer that tells that it was asked, and ends with a field (zero) and a loss of its own."""

    def __init__(self, name: str, calls: list[str], *, left: float = 0.9, field: torch.Tensor | None = None) -> None:
        self.name, self.calls, self.left, self.field = name, calls, left, field

    def begin(self, pair: PairImages) -> Begun:
        return Begun(pair, None, 0.0)

    def fit(self, begun: Begun, network: object) -> Fit:
        self.calls.append(self.name)
        nothing = begun.pair.fixed.new_zeros(1, 3, *begun.pair.fixed_shape) if self.field is None else self.field
        history = [LevelRecord("only", (2, 2, 2), 0.0, {"term": [1.0, self.left]}, 1.0)]
        return Fit(nothing, {}, None, [], None, 0, history, 1)  # type: ignore[arg-type]  # nobody looks at it

    def unmoved(self, begun: Begun, network: object, *, history: list[LevelRecord]) -> Fit:
        self.calls.append("unmoved")
        return Fit(begun.pair.fixed, {}, None, [], None, 0, history, 1)  # type: ignore[arg-type]


def chosen_for(
    pair: PairImages, *, asked: str = "auto", left: float = 0.9, field: torch.Tensor | None = None
) -> tuple[list[str], ContrastEvidence]:
    """Which fits were asked for a pair, and what the evidence says; the field is that of the fit for two contrasts."""
    calls: list[str] = []
    told = Told("same", calls), Told("different", calls, left=left, field=field)
    fit = ByContrast(*told, modality=asked)(pair, None)  # type: ignore[arg-type]
    assert fit.contrast is not None
    return calls, fit.contrast


@pytest.fixture(scope="module")
def shown() -> PairImages:
    """A pair of one contrast."""
    return images_of(breathing_thorax((32, 30, 31), seed=0))


@pytest.mark.parametrize(
    ("modalities", "asked", "chosen"),
    [
        (("CT", "MR"), "auto", "different"),
        (("CT", "CT"), "auto", "same"),
        (("PT", "CT"), "auto", "different"),
        (("MR", "MR"), "auto", None),
        (("CT", ""), "auto", None),
        (("CT", "OT"), "auto", None),  # a secondary capture says nothing
        (("CT", "CT"), "different", "different"),
        (("CT", "MR"), "same", "same"),
    ],
)
def test_what_is_known_needs_no_look(
    shown: PairImages, modalities: tuple[str, str], asked: str, chosen: str | None
) -> None:
    for invert in (False, True):
        pair = replace(shown, modalities=modalities, moving=1 - shown.moving if invert else shown.moving)
        calls, evidence = chosen_for(pair, asked=asked)
        expected = chosen or ("different" if invert else "same")
        assert calls[0] == evidence.chosen == expected
        assert (evidence.agreement is None) == (chosen == "same")
    with pytest.raises(ValueError, match="auto, same, different"):
        ByContrast(Told("same", []), Told("different", []), modality="MR")  # type: ignore[arg-type]


def test_where_edges_alone_agree_a_motion_earns_its_place_or_a_person_leads_it(shown: PairImages) -> None:
    negative = replace(shown, moving=1 - shown.moving)
    calls, evidence = chosen_for(negative, left=0.8)  # all structures are inverted: more than edges agree
    assert calls == ["different"] and evidence.moved and not evidence.by_edges
    calls, evidence = chosen_for(negative, left=0.95)  # but not for a twentieth of the loss
    assert calls == ["different", "unmoved"] and not evidence.moved and not evidence.by_edges
    curve = np.interp(shown.moving.numpy(), [0, 0.3, 0.5, 1], [0, 1, 0.6, 0.1]).astype(np.float32)
    inverted = replace(shown, moving=torch.from_numpy(curve))
    calls, evidence = chosen_for(inverted, left=0.8)
    assert calls == ["different", "unmoved"] and not evidence.moved and evidence.earned == pytest.approx(0.2)
    assert evidence.by_edges
    calls, evidence = chosen_for(inverted, left=0.6)
    assert calls == ["different"] and evidence.moved and evidence.earned == pytest.approx(0.4)
    labels = LabelWishes(shown.fixed, shown.moving, meet=(1,))
    for led in (replace(inverted, guide_points_mm=np.zeros((1, 6))), replace(inverted, labels=labels)):
        calls, evidence = chosen_for(led, left=0.8)
        assert calls == ["different"] and evidence.moved and evidence.earned is None
    calls, evidence = chosen_for(replace(inverted, labels=replace(labels, meet=(), rigid=(1,))), left=0.8)
    assert calls == ["different", "unmoved"]  # that an organ stays rigid does not say where it goes


def test_what_a_fit_as_one_contrast_leaves_is_a_second_opinion(
    shown: PairImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = np.interp(shown.moving.numpy(), [0, 0.6, 0.8, 1], [0, 0.6, 0.75, 0.6]).astype(np.float32)
    bent = replace(shown, moving=torch.from_numpy(curve))
    before = compared(bent)
    assert before is not None and before.bend > MOST_LEFT_BEND
    monkeypatch.setattr("ncf.fit.contrast.MOST_BEND", 1.0)  # as if the scans had lain too far apart to tell
    monkeypatch.setattr("ncf.fit.contrast.LEAST_AGREEMENT", -1.0)
    truth = torch.from_numpy(breathing_thorax((32, 30, 31), seed=0).field_vox)[None]
    calls, evidence = chosen_for(bent, left=0.8, field=truth)  # the scans explain more of each other by it
    assert calls == ["same", "different"] and evidence.chosen == "different" and "after a fit" in evidence.why
    calls, evidence = chosen_for(bent, left=0.8, field=-truth)  # and less by this one
    assert calls == ["same", "different"] and evidence.chosen == "same" and "after a fit" not in evidence.why
    assert chosen_for(bent, asked="same")[0] == ["same"]  # a person has the last word
    assert chosen_for(shown)[0] == ["same"]


def test_contrasts_are_compared_by_a_map_too(shown: PairImages) -> None:
    chest = breathing_thorax((32, 30, 31), seed=0)
    before, after = compared(shown), compared(shown, torch.from_numpy(chest.field_vox)[None])
    assert before is not None and after is not None and after.agreement >= before.agreement
    assert compared(shown, torch.full((1, 3, *shown.fixed_shape), 1000.0)) is None  # it leads off the image
