"""The fit: the same bytes for a seed, alone or after others; what it does with bad luck; where it finds the motion."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from torch import nn

from ncf.core.errors import PairError
from ncf.fit.fitted import Fit
from ncf.fit.network import NCF
from ncf.fit.optimizer import CAREFUL, start_afresh
from ncf.phantom.chest import PhantomPair, breathing_thorax
from ncf.space.geometry import translation
from tests.fits import GENTLE, bytes_of, images_of, left_mm, level, optimizer

SHAPE, MOVING_SHAPE = (32, 32, 32), (40, 42, 44)
STILL_VOX = (
    0.3  # sines of a fresh network never cancel quite; seen 0.05 to 0.18 for equal images, motions are 0.8 to 2.5
)
BFLOAT_VOX = 0.15  # root mean square in the body; seen 0.01 to 0.08, while two seeds differ by 0.07 to 0.21
ORDER_VOX = 0.2  # the same for the interpolation; seen 0.03 to 0.13
FOUND = 0.5  # of the motion's mean length may be left after 40 coarse iterations; seen 0.28 to 0.36
CROP_VOX = 0.05  # mean shift of a scan against a crop of itself; seen 0.03, with nodes in between 0.23


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


@pytest.fixture(scope="module")
def chest() -> PhantomPair:
    return breathing_thorax(SHAPE, seed=1)


def apart_vox(a: Fit, b: Fit, chest: PhantomPair) -> float:
    """Root mean square of the two fields' difference in the body, in voxels."""
    return float((a.field_vox - b.field_vox)[0][:, chest.fixed_label > 0].square().mean().sqrt())


@pytest.fixture(scope="module")
def fitted(chest: PhantomPair) -> Fit:
    """40 iterations: the motion is found as far as a lattice of 4000 nodes shows it."""
    return optimizer(level(40))(images_of(chest), NCF())


def test_a_seed_fixes_every_byte_and_another_does_not(chest: PhantomPair) -> None:
    first, again, other = (
        optimizer(GENTLE, {**GENTLE, "voxels": 6000}, seed=seed)(images_of(chest), NCF()) for seed in (3, 3, 4)
    )
    assert first.attempt == 1 and bytes_of(first) == bytes_of(again) != bytes_of(other)


def test_threads_do_not_race(chest: PhantomPair, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(lambda: torch.set_num_threads(1))
    torch.set_num_threads(2)
    # no more than three steps: where both cores are busy, a thread waits a second for the other at each
    first, again = (optimizer(GENTLE)(images_of(chest), NCF(width=32)) for _ in range(2))
    assert first.attempt == 1 and bytes_of(first) == bytes_of(again)


def test_a_pair_after_another_is_a_pair_alone(chest: PhantomPair) -> None:
    shared, network = optimizer(GENTLE, level(2, voxels=6000)), NCF()
    earlier = breathing_thorax((20, 30, 24), seed=5, moving_shape=(26, 28, 30))
    shared(images_of(earlier, initial=translation([5.0, -3.0, 2.0])), network)
    after = shared(images_of(chest), network)
    assert bytes_of(after) == bytes_of(optimizer(GENTLE, level(2, voxels=6000))(images_of(chest), NCF()))


def test_nothing_but_the_result_is_left_behind(chest: PhantomPair) -> None:
    pair, network = images_of(chest), NCF()
    before = {name: value.clone() for name, value in vars(pair).items() if isinstance(value, torch.Tensor)}
    state, others = torch.get_rng_state(), str(np.random.get_state())
    with torch.no_grad():  # as in MONAI's evaluator
        fit = optimizer(level(3))(pair, network)
        assert not torch.is_grad_enabled()
    assert torch.equal(state, torch.get_rng_state()) and others == str(np.random.get_state())
    assert all(torch.equal(value, getattr(pair, name)) for name, value in before.items())
    kept = bytes_of(fit)
    start_afresh(network, 9)
    assert bytes_of(fit) == kept and not fit.field_vox.requires_grad


def test_fresh_weights_depend_on_the_seed_alone() -> None:
    first, second = NCF(), NCF()
    start_afresh(first, 7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        second.reset_parameters()
        torch.manual_seed(8)
        start_afresh(first, 7)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_fit_that_runs_away_is_tried_again_with_smaller_steps(chest: PhantomPair) -> None:
    wild = optimizer(level(20, learning_rate=1.5e-2, learning_rate_end=9e-3))(images_of(chest), NCF())
    calm = optimizer(level(20, learning_rate=1.5e-2 / CAREFUL, learning_rate_end=9e-3 / CAREFUL))(
        images_of(chest), NCF()
    )
    assert (wild.attempt, calm.attempt) == (2, 1) and bytes_of(wild) == bytes_of(calm)
    missed, motion = left_mm(wild, chest, chest.fixed_label > 0)
    assert missed < FOUND * motion and len(wild.history) == 1


class Emits(NCF):
    """A network whose output is multiplied by a number, from a given call after a reset on."""

    def __init__(self, factor: float, *, call: int = 0) -> None:
        self.factor, self.call, self.calls = factor, call, 0
        super().__init__(width=8)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.calls = 0

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        self.calls += torch.is_grad_enabled()
        return super().forward(grid) * (self.factor if self.calls > self.call else 1.0)


class SpoilsLastStep(Emits):
    """Gradients, and so the weights after the step, are not finite at one call; the losses seen until then are."""

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        out = super().forward(grid)
        if out.requires_grad and self.calls == self.call:
            out.register_hook(lambda grad: grad * self.factor)
        return out


@pytest.mark.parametrize(
    ("network", "learning_rate", "telling"),
    [
        (NCF(), 1e3, "0 % of the images in common"),
        (Emits(float("nan")), 1e-3, "ended at a loss of nan"),
        (Emits(float("inf"), call=4), 1e-3, "ended at a loss of nan"),
        (SpoilsLastStep(float("nan"), call=5), 1e-3, "ended at a loss of nan"),
    ],
    ids=["steps", "nan", "late", "last"],
)
def test_a_fit_that_cannot_be_had_is_refused(
    chest: PhantomPair, network: nn.Module, learning_rate: float, telling: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PairError, match=telling) as caught:
        optimizer(level(5, learning_rate=learning_rate))(images_of(chest), network)
    assert "in 3 attempts" in str(caught.value) and "\n" not in str(caught.value)
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [message[:14] for message in warned] == [f"attempt {n} of 3" for n in (1, 2, 3)]


def test_a_level_that_ends_above_where_it_began_is_no_fit(chest: PhantomPair) -> None:
    levels = level(20), level(3, learning_rate=1e-6)
    assert optimizer(*levels)(images_of(chest), Emits(1.0)).attempt == 1
    with pytest.raises(PairError, match=r"level 2 of 2 .* ended at a loss of .*, where it had begun with"):
        optimizer(*levels)(images_of(chest), Emits(0.6, call=21))  # still better than no motion


@pytest.mark.parametrize("what", ["initial", "moving_weight", "fixed_weight"])
def test_nothing_to_compare_is_said_before_the_first_iteration(chest: PhantomPair, what: str) -> None:
    pair = images_of(chest)
    nothing: Any = translation([0.0, 0.0, 900.0]) if what == "initial" else torch.zeros_like(pair.fixed)
    network = Emits(1.0)
    with pytest.raises(PairError, match=r"level 1 of 1 .*: .* nothing to compare; correct the headers") as caught:
        optimizer(level(5))(replace(pair, **{what: nothing}), network)
    assert network.calls == 0 and caught.value.hint == "align_centres"


def test_equal_images_stay_where_they_are(chest: PhantomPair) -> None:
    fit = optimizer(level(20))(images_of(replace(chest, moving=chest.fixed)), NCF())
    assert fit.field_vox.abs().max() < STILL_VOX


def test_half_precision_and_the_interpolation_are_details(chest: PhantomPair) -> None:
    plain, half, linear = (
        optimizer(level(20, bfloat16=True), **options)(images_of(chest), NCF())
        for options in ({}, {"amp": True}, {"interpolation": 1})
    )
    assert half.field_vox.dtype == torch.float32
    assert 0 < apart_vox(plain, half, chest) < BFLOAT_VOX
    assert 0 < apart_vox(plain, linear, chest) < ORDER_VOX
    assert (plain.space.order, linear.space.order) == (3, 1)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_shown_in_a_terminal_only(
    chest: PhantomPair, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, terminal: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    optimizer(level(6), level(3, voxels=9000), progress=True)(images_of(chest), NCF())
    assert ("level 1 of 2" in capsys.readouterr().err) == terminal


def test_the_history_has_every_term_of_every_iteration(chest: PhantomPair) -> None:
    fit = optimizer(level(6), level(3, voxels=9000))(images_of(chest), NCF())
    assert [entry.name for entry in fit.history] == ["level_1", "level_2"] and fit.attempt == 1
    for entry, count in zip(fit.history, (6, 3), strict=True):
        assert list(entry.losses) == ["photometric", "ssim", "occupancy"] and entry.seconds > 0
        assert all(len(values) == count and np.isfinite(values).all() for values in entry.losses.values())
    coarse, fine = (np.prod(entry.shape) for entry in fit.history)
    assert coarse < fine <= np.prod(SHAPE)


def test_a_level_begins_where_the_last_one_ended(chest: PhantomPair) -> None:
    fit = optimizer(level(20), level(2, voxels=9000))(images_of(chest), NCF())
    alone = optimizer(level(2, voxels=9000))(images_of(chest), NCF())
    first, untrained = (sum(values[0] for values in run.history[-1].losses.values()) for run in (fit, alone))
    assert first < 0.5 * untrained


@pytest.mark.parametrize(
    ("entry", "number"),
    [("iterations", 0), ("voxels", -1), ("learning_rate", 0.0), ("learning_rate_end", 0.0), ("control_points", 0)],
)
def test_levels_without_sense_are_refused(entry: str, number: float) -> None:
    with pytest.raises(ValueError, match=f"numbers above zero.*{entry}"):
        optimizer({**level(5), entry: number})
    with pytest.raises(ValueError, match="at least one level"):
        optimizer()


def test_a_crop_of_a_scan_is_found_where_it_was(chest: PhantomPair) -> None:
    """Nodes of the moving lattice between those of the fixed one would blur one image only, and shift the map."""
    from_corner = chest.moving_affine.copy()
    from_corner[:3, 3] = apply_affine(chest.affine, [3, 2, 5])
    whole = images_of(replace(chest, moving=chest.fixed))
    pair = replace(
        whole,
        moving=whole.moving[:, :, 3:-2, 2:-4, 5:-3],
        moving_weight=whole.moving_weight[:, :, 3:-2, 2:-4, 5:-3],
        moving_affine=from_corner,
    )
    fit = optimizer(level(20))(pair, NCF())
    assert fit.field_vox[0, :, 8:-8, 8:-8, 8:-8].mean(dim=(1, 2, 3)).abs().max() < CROP_VOX
