"""Two scans whose contrasts differ: it is noticed, and the motion is found as between two of one contrast."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from ncf.fit.contrast import LEAST_AGREEMENT, ByContrast, compared
from ncf.fit.fitted import Fit
from ncf.fit.losses.local_correlation import LocalCorrelationLoss
from ncf.fit.optimizer import Begun
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


@pytest.mark.parametrize(
    ("modalities", "asked", "chosen"),
    [
        (("CT", "MR"), "auto", "different"),
        (("CT", "CT"), "auto", "same"),
        (("PT", "CT"), "auto", "different"),
        (("MR", "MR"), "auto", None),
        (("CT", ""), "auto", None),
        (("CT", "CT"), "different", "different"),
        (("CT", "MR"), "same", "same"),
    ],
)
def test_what_is_known_needs_no_look(modalities: tuple[str, str], asked: str, chosen: str | None) -> None:
    calls = []

    class Told:
        """An optimizer that only tells that it was asked."""

        def __init__(self, name: str) -> None:
            self.name = name

        def begin(self, pair: PairImages) -> Begun:
            return Begun(pair, None, 0.0)

        def fit(self, begun: Begun, network: object) -> Fit:
            return self(begun.pair, network)

        def __call__(self, pair: PairImages, network: object) -> Fit:
            calls.append(self.name)
            return Fit(pair.fixed, {}, None, [], None, 0, [], 1)  # type: ignore[arg-type]  # nobody looks at it

    pair = replace(images_of(breathing_thorax((32, 30, 31), seed=0)), modalities=modalities)
    for invert in (False, True):
        shown = replace(pair, moving=1 - pair.moving) if invert else pair
        choice = ByContrast(Told("same"), Told("different"), modality=asked)  # type: ignore[arg-type]
        fit = choice(shown, None)  # type: ignore[arg-type]
        expected = chosen or ("different" if invert else "same")
        assert calls.pop() == expected and fit.contrast is not None and fit.contrast.chosen == expected
        assert (fit.contrast.agreement is None) == (chosen == "same")
    with pytest.raises(ValueError, match="auto, same, different"):
        ByContrast(Told("same"), Told("different"), modality="MR")  # type: ignore[arg-type]
