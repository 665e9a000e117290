"""The search for large motion: each step against a plain twin, the whole against a motion that is known."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ncf.fit.background import without_background
from ncf.fit.field import FieldSpace, control_values
from ncf.fit.fitted import Fit
from ncf.fit.matching import COMPARED, COUPLINGS, choose, consistent, displacements, match_costs, reversed_costs
from ncf.fit.mind import CHANNELS, SIX, box_mean, mind_ssc
from ncf.fit.network import NCF
from ncf.fit.optimizer import PairOptimizer, start_afresh
from ncf.fit.pyramid import PairImages
from ncf.fit.safety import DivergedError, DriftedError
from ncf.fit.search import MOST_COSTS, DiscreteSearch, Stage, blocks
from ncf.fit.teaching import Teaching
from ncf.phantom.chest import PhantomPair
from ncf.space.grids import lattice_over
from ncf.space.sampling import sample
from tests.conftest import Run
from tests.fits import GENTLE, images_of, optimizer

WITH_SEARCH = {"inferer::search": "@search"}
STAGES = {
    "far": {"voxels": 40_000, "node_mm": 10.0, "reach_mm": 40.0},
    "near": {"voxels": 40_000, "node_mm": 5.0, "reach_mm": 12.0},
}


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def test_descriptions_are_those_of_plain_loops() -> None:
    image, shape = uniform(1, 1, 6, 5, 7)[0, 0].double(), (6, 5, 7)

    def at(*place: int) -> float:
        return float(image[tuple(min(max(p, 0), n - 1) for p, n in zip(place, shape, strict=True))])

    def within(place: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(min(max(p, 0), n - 1) for p, n in zip(place, shape, strict=True))

    pairs = [(a, b) for a, b in itertools.combinations(SIX, 2) if np.dot(a, b) == 0]
    assert len(pairs) == CHANNELS == 12
    apart = np.zeros((12, *shape))
    for place in np.ndindex(*shape):
        for c, (a, b) in enumerate(pairs):
            total = 0.0
            for near in itertools.product((-1, 0, 1), repeat=3):
                middle = within(tuple(np.add(place, near)))  # of a patch: the map of differences is repeated outside
                total += (at(*np.add(middle, a)) - at(*np.add(middle, b))) ** 2
            apart[(c, *place)] = total / 27
    apart -= apart.min(axis=0)
    noise = apart.mean(axis=0)
    truth = np.exp(-apart / np.clip(noise, 1e-3 * noise.mean(), 1e3 * noise.mean()))
    np.testing.assert_allclose(mind_ssc(image[None, None]).numpy()[0], truth, atol=1e-9)


def test_descriptions_do_not_see_brightness_and_contrast() -> None:
    image = uniform(1, 1, 8, 8, 8).double()
    np.testing.assert_allclose(mind_ssc(0.2 - 0.5 * image).numpy(), mind_ssc(image).numpy(), atol=1e-9)
    assert mind_ssc(torch.full((1, 1, 4, 4, 4), 0.3)).isfinite().all()


def test_moves_fill_a_ball_and_come_with_their_opposites() -> None:
    moves = displacements((10.0, 10.0, 8.0), 40.0)
    assert moves.abs().amax(dim=0).tolist() == [4, 4, 5]
    assert (moves + moves.flip(0)).abs().max() == 0
    assert {tuple(move) for move in moves.tolist()} == {
        move
        for move in itertools.product(range(-4, 5), range(-4, 5), range(-5, 6))
        if (move[0] / 4) ** 2 + (move[1] / 4) ** 2 + (move[2] / 5) ** 2 <= 1
    }


def test_a_large_field_of_view_gets_larger_nodes() -> None:
    stage = Stage(**STAGES["far"])
    for shape, node in (((80, 80, 80), 2.5), ((128, 128, 128), 2.5), ((128, 128, 128), 9.0)):
        pool, moves = blocks(shape, np.full(3, node), stage)
        assert len(moves) * np.prod([n // p for n, p in zip(shape, pool, strict=True)]) <= MOST_COSTS
        assert min(pool) * node >= 0.75 * stage.node_mm


def test_a_small_field_of_view_is_searched_as_finely_as_a_large_one() -> None:
    stage = Stage(**STAGES["far"])
    usual, mouse = (blocks((60, 60, 60), np.full(3, mm), stage) for mm in (3.0, 0.3))
    assert mouse[0] == [3, 3, 3] and usual[0] == [3, 3, 3]  # 9 mm and 0.9 mm of 177 and 18
    assert mouse[1].abs().amax() == 5 and usual[1].abs().amax() == 4


def test_where_there_is_nothing_to_compare_nothing_moves() -> None:
    pair = shifted_pair((0, 0, 0), (3.0, 3.0, 5.0))
    field, _ = DiscreteSearch(STAGES)(replace(pair, moving_weight=torch.zeros_like(pair.moving_weight)))
    assert field.abs().max() < 1e-4


def plain_cost(f: torch.Tensor, fw: float, m: torch.Tensor, mw: float) -> float:
    return float(((f - m) ** 2).sum()) if fw >= COMPARED and mw >= COMPARED else math.nan


def test_costs_are_those_of_plain_loops_in_both_directions() -> None:
    shape, moves = (4, 5, 3), displacements((1.0, 1.0, 1.0), 1.0)
    fixed, fixed_weight = uniform(1, 3, *shape).double(), uniform(1, 1, *shape, seed=1)
    moving, moving_weight = uniform(1, 3, 6, 7, 5, seed=2).double(), uniform(1, 1, 6, 7, 5, seed=3)
    fixed_weight[0, 0, 0, 0, 0] = 0
    found = match_costs(fixed, fixed_weight, moving, moving_weight, moves)
    there = np.empty((len(moves), *shape))
    for number, move in enumerate(moves.tolist()):
        for place in np.ndindex(*shape):
            other = tuple(np.add(place, move) + 1)
            there[(number, *place)] = plain_cost(
                fixed[(0, slice(None), *place)],
                float(fixed_weight[(0, 0, *place)]),
                moving[(0, slice(None), *other)],
                float(moving_weight[(0, 0, *other)]),
            )
    np.testing.assert_allclose(found.numpy(), neutral(there), atol=1e-6)
    assert (found[:, 0, 0, 0] == 0).all()  # nothing to compare
    back = np.full((len(moves), *shape), np.nan)
    for number, move in enumerate(moves.tolist()):
        for place in np.ndindex(*shape):
            fixed_place = np.add(place, move)
            if (fixed_place >= 0).all() and (fixed_place < shape).all():
                back[(number, *place)] = float(found[(len(moves) - 1 - number, *fixed_place)])
    np.testing.assert_allclose(reversed_costs(found, moves).numpy(), neutral(back), atol=1e-6)


def neutral(costs: np.ndarray) -> np.ndarray:
    known = ~np.isnan(costs)
    mean = np.where(known, costs, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, costs, mean)


def test_choices_are_those_of_plain_loops() -> None:
    shape, moves = (4, 3, 5), displacements((1.0, 1.0, 1.0), 2.0).float()
    costs = uniform(len(moves), *shape).double()
    best = torch.full(shape, int((moves.abs().sum(dim=1) == 0).nonzero()))  # all stand still
    costs[:, 0] = 0.5  # nothing to compare
    for coupling in COUPLINGS:
        around = box_mean(moves.double()[best].movedim(-1, 0)[None], 1)[0]
        for place in np.ndindex(*shape):
            pull = ((moves.double() - around[(slice(None), *place)]) ** 2).sum(dim=1)
            best[place] = (costs[(slice(None), *place)] + coupling * pull).argmin()
    truth = box_mean(moves[best].movedim(-1, 0)[None].contiguous(), 1)
    np.testing.assert_allclose(choose(costs.float(), moves).numpy(), truth.numpy(), atol=1e-5)


def test_two_directions_become_inverse_to_one_another() -> None:
    nodes = lattice_over((12, 12, 12), (12, 12, 12)).points()[None]
    wave = 0.8 * torch.sin(nodes / 3)
    there = consistent(wave, -wave)
    back = consistent(-wave, wave)
    apart = (there + sample(back, nodes + there, padding_mode="border"))[..., 3:-3, 3:-3, 3:-3]
    before = (wave + sample(-wave, nodes + wave, padding_mode="border"))[..., 3:-3, 3:-3, 3:-3]
    assert apart.abs().max() < 0.1 * before.abs().max()


def texture(shape: tuple[int, int, int]) -> torch.Tensor:
    return box_mean(box_mean(uniform(1, 1, *shape, seed=5), 1), 1)


def shifted_pair(shift_mm: tuple[int, int, int], spacing: tuple[float, float, float]) -> PairImages:
    """A textured scan, and the same one moved by whole voxels and of the other contrast."""
    whole = texture((90, 84, 76))
    whole = (whole - whole.min()) / (whole.max() - whole.min())
    cut = [round(s / v) for s, v in zip(shift_mm, spacing, strict=True)]
    first = [12 - c for c in cut]
    fixed, moving = (
        whole[:, :, a : a + 64, b : b + 58, c : c + 50].contiguous() for a, b, c in ((12, 12, 12), tuple(first))
    )
    ones = torch.ones_like(fixed)
    affine = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    return PairImages(fixed, 1 - 0.5 * moving, ones, ones, affine, affine, np.eye(4))


@pytest.mark.parametrize("shift_mm", [(30, -15, 10), (0, 0, 0), (-36, 0, 0)])
@pytest.mark.parametrize("spacing", [(3.0, 3.0, 5.0), (3.0, 3.0, 2.5)])
def test_a_large_shift_is_found_whatever_the_contrast(
    shift_mm: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    pair = shifted_pair(shift_mm, spacing)
    field, lattice = DiscreteSearch(STAGES)(pair)
    inner = field[0, :, 3:-3, 3:-3, 3:-3].flatten(1).median(dim=1).values * torch.tensor(spacing)
    wanted = torch.tensor([round(s / v) * v for s, v in zip(shift_mm, spacing, strict=True)])
    assert (inner - wanted).norm() < 2.5
    again, _ = DiscreteSearch(STAGES)(pair)
    assert torch.equal(field, again) and lattice.shape == tuple(field.shape[2:])


def test_what_a_scan_does_not_show_does_not_pull() -> None:
    pair = shifted_pair((15, 0, 0), (3.0, 3.0, 5.0))
    weight = pair.moving_weight.clone()
    weight[..., :14] = 0
    field, _ = DiscreteSearch(STAGES)(replace(pair, moving_weight=weight))
    seen = field[0, :, 4:-8, 4:-4, 24:-3].flatten(1).median(dim=1).values * 3
    assert abs(float(seen[0]) - 15) < 2.5


@pytest.mark.parametrize(
    ("wrong", "telling"),
    [
        ({}, "at least one stage"),
        ({"far": {"voxels": 0, "node_mm": 10.0, "reach_mm": 40.0}}, "above zero"),
        ({"far": {"voxels": 1000, "node_mm": 10.0, "reach_mm": 4.0}}, "reach of at least one node"),
    ],
)
def test_searches_that_make_no_sense_are_refused(wrong: dict[str, dict[str, float]], telling: str) -> None:
    with pytest.raises(ValueError, match=telling):
        DiscreteSearch(wrong)


def test_a_network_learns_a_field_between_its_nodes_too() -> None:
    space = FieldSpace((40, 36, 30), np.diag([3.0, 3.0, 4.0, 1.0]))
    lattice = lattice_over(space.shape, (20, 18, 15))
    nodes = lattice.points()[None] / 10
    field = torch.cat([3 * torch.sin(nodes[:, :1]), 2 * torch.cos(nodes[:, 1:2]), nodes[:, 2:] - 1], dim=1)
    network = NCF()
    start_afresh(network, 0)
    Teaching()(network, space, field, lattice)
    values, control = control_values(network, space, space.control(1500))
    wanted = torch.nn.functional.interpolate(field, size=control.shape, mode="trilinear", align_corners=True)
    assert (values - wanted).square().mean() < 0.02 * wanted.square().mean()
    assert all(parameter.grad is None for parameter in network.parameters())
    with pytest.raises(ValueError, match="above zero"):
        Teaching(steps=0)


def test_a_search_that_leads_astray_is_not_followed_twice(chest: PhantomPair, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    coarse_to_fine = PairOptimizer.coarse_to_fine

    def diverges(self: PairOptimizer, *args: Any, taught: bool, **kwargs: Any) -> Fit:
        seen.append(taught)
        if taught:
            raise DivergedError("led astray")
        return coarse_to_fine(self, *args, taught=taught, **kwargs)

    monkeypatch.setattr(PairOptimizer, "coarse_to_fine", diverges)
    fit = optimizer(GENTLE, search=DiscreteSearch(STAGES), teaching=Teaching(steps=3))(images_of(chest), NCF(width=16))
    assert seen == [True, False] and fit.search is not None and not fit.search.taken and fit.attempt == 2


@pytest.mark.parametrize("error", [DriftedError, DivergedError])
def test_a_fit_that_drifts_off_the_images_is_tried_again_on_the_body(
    chest: PhantomPair, error: type[DivergedError], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = images_of(chest)
    body = without_background(pair)
    assert body is not None and 0.1 < float(body.fixed_weight.mean()) < 0.95 * float(pair.fixed_weight.mean())
    assert bool((body.fixed_weight[0, 0][torch.from_numpy(chest.fixed_label > 0)] == 1).all())
    bright = replace(pair, fixed=torch.ones_like(pair.fixed))
    assert without_background(bright) is None  # nothing is darker than the body
    seen: list[float] = []
    coarse_to_fine = PairOptimizer.coarse_to_fine

    def drifts(self: PairOptimizer, pair: PairImages, *args: Any, **kwargs: Any) -> Fit:
        seen.append(float(pair.fixed_weight.mean()))
        if len(seen) == 1:
            raise error("left 41 % of the images in common")
        return coarse_to_fine(self, pair, *args, **kwargs)

    monkeypatch.setattr(PairOptimizer, "coarse_to_fine", drifts)
    fit = optimizer(GENTLE)(pair, NCF(width=16))
    drifted = error is DriftedError
    assert (seen[1] < seen[0]) == drifted and (fit.background, fit.attempt) == ((False, 1) if drifted else (True, 2))


def test_a_run_tells_what_its_search_found(run: Run, pair: Mapping[str, str], tmp_path: Path) -> None:
    run(tmp_path, pair, name="chest", **WITH_SEARCH)
    told = json.loads((tmp_path / "chest" / "run.json").read_text(encoding="utf-8"))
    evidence = told["search_evidence"]
    assert evidence["taken"] and 0 < evidence["found"] < 0.8 * evidence["nothing"]
    assert "DiscreteSearch" in json.dumps(told["config"]) and "reach_mm=40.0" in json.dumps(told["config"])
    assert json.loads((tmp_path / "chest" / "metrics.json").read_text())["seconds"]["search"] > 0


def test_a_search_that_finds_nothing_changes_nothing(
    run: Run, pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, pair, name="without")
    call = DiscreteSearch.__call__

    def astray(self: DiscreteSearch, images: PairImages) -> tuple[torch.Tensor, object]:
        field, lattice = call(self, images)
        return field + 15 * torch.sin(lattice.points()[None]), lattice

    monkeypatch.setattr(DiscreteSearch, "__call__", astray)
    run(tmp_path, pair, name="astray", **WITH_SEARCH)
    fields = [(tmp_path / name / "displacement.nii.gz").read_bytes() for name in ("without", "astray")]
    assert fields[0] == fields[1]
    told = json.loads((tmp_path / "astray" / "run.json").read_text(encoding="utf-8"))["search_evidence"]
    assert not told["taken"] and told["found"] >= told["nothing"]
