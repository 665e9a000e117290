"""Two scans whose contrasts differ: the preset for them finds the motion, and the default's losses would not."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from ncf.core.presets import presets
from ncf.fit.losses.local_correlation import LocalCorrelationLoss
from ncf.phantom.chest import breathing_thorax, write
from tests.conftest import Run

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
    overlays = {"multimodal": (presets()["multimodal"].path,), "default": ()}
    found = {}
    for preset, overlay in overlays.items():
        state = run(tmp_path / preset, pair, *overlay, name="pair", **{"fit::levels": LEVELS}).evaluator.state
        found[preset] = json.loads((Path(state.output["result_dir"]) / "metrics.json").read_text())
    left = {preset: metrics["tre_mm"]["after"]["mean"] for preset, metrics in found.items()}
    before = found["default"]["tre_mm"]["before"]["mean"]
    assert left["multimodal"] < 0.25 * before < before < left["default"], left
    shared = found["multimodal"]["similarity"]
    assert shared["after"]["nmi"] > shared["before"]["nmi"]
