"""The initial alignment: scans far apart are found again, near ones left alone, and the simplest map is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel import affines
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from ncf.fit.initial_alignment import PARAMETERS, InitialAlignment, _Coarse
from ncf.fit.pyramid import PairImages
from ncf.phantom.chest import PhantomPair, breathing_thorax, write
from ncf.space.geometry import translation
from tests.conftest import Run

AIR_HU, RANGE_HU = -1045.0, 1470.0  # of the chest: what becomes 0, and how much becomes 1
FOUND_MM = 6.0  # mean over the fixed image, from the map that undoes the displacement; half a coarse node; seen 1 to 4
EXPLAINED = 0.12  # of the variance: the two images lie on coarse lattices of their own
TRANSLATION_MM = 80.0
TURN_DEGREES = 25.0
CUT = 14  # of 46 slices, from each scan


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


@pytest.fixture(scope="module")
def chest() -> PhantomPair:
    return breathing_thorax((48, 44, 46), seed=1)


def images_of(chest: PhantomPair, moved: np.ndarray | None = None) -> PairImages:
    """The chest, with a moving header that is wrong by a map in mm."""
    volumes: dict[str, torch.Tensor] = {}
    for name in ("fixed", "moving"):
        scaled = torch.from_numpy((getattr(chest, name) - AIR_HU) / RANGE_HU).clamp(0, 1)[None, None].float()
        volumes |= {name: scaled, f"{name}_weight": torch.ones_like(scaled)}
    away = np.eye(4) if moved is None else moved
    return PairImages(**volumes, fixed_affine=chest.affine, moving_affine=away @ chest.moving_affine, initial=np.eye(4))


def wrong_header(
    chest: PhantomPair, *, shift_mm: float = 0, turn: float = 0, size: float = 1, seed: int = 0
) -> np.ndarray:
    """A map in mm about the middle of the moving image, in a direction drawn from the seed."""
    rng = np.random.default_rng(seed)
    axis, direction = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    middle = apply_affine(chest.moving_affine, (np.array(chest.moving.shape) - 1) / 2)
    found = np.eye(4)
    found[:3, :3] = size * Rotation.from_rotvec(np.deg2rad(turn) * axis).as_matrix()
    found[:3, 3] = middle - found[:3, :3] @ middle + shift_mm * direction
    return found


def off_mm(start: np.ndarray, moved: np.ndarray, chest: PhantomPair) -> float:
    """Mean distance over the fixed image between a start and the map that makes up for a wrong header."""
    points = apply_affine(chest.affine, np.indices(chest.fixed.shape).reshape(3, -1).T[::97])
    return float(np.linalg.norm(apply_affine(start, points) - apply_affine(moved, points), axis=1).mean())


@pytest.mark.parametrize(
    ("shift_mm", "turn", "size"),
    [
        (TRANSLATION_MM, 0, 1),
        (0, TURN_DEGREES, 1),
        (0, 0, 0.8),
        (0, 0, 1.25),
        (TRANSLATION_MM, TURN_DEGREES, 0.8),
        (TRANSLATION_MM, TURN_DEGREES, 1.25),
    ],
)
def test_a_far_start_is_found_again(chest: PhantomPair, shift_mm: float, turn: float, size: float) -> None:
    for seed in (0, 1):
        moved = wrong_header(chest, shift_mm=shift_mm, turn=turn, size=size, seed=seed)
        pair = images_of(chest, moved)
        assert off_mm(np.eye(4), moved, chest) > 4 * FOUND_MM
        found = InitialAlignment()(pair)
        assert off_mm(found.initial, moved, chest) < FOUND_MM * size
        assert np.array_equal(found.moving_affine, pair.moving_affine) and found.fixed is pair.fixed


@pytest.mark.parametrize("shift_mm", [-TRANSLATION_MM, TRANSLATION_MM])
def test_scans_that_are_cut_at_opposite_ends_are_not_laid_on_one_another(chest: PhantomPair, shift_mm: float) -> None:
    whole = images_of(chest, moved := affines.from_matvec(np.eye(3), [0, 0, shift_mm]))
    low, high = (slice(None),) * 4 + (slice(None, -CUT),), (slice(None),) * 4 + (slice(CUT, None),)
    pair = replace(
        whole,
        fixed=whole.fixed[low],
        fixed_weight=whole.fixed_weight[low],
        moving=whole.moving[high],
        moving_weight=whole.moving_weight[high],
        moving_affine=whole.moving_affine @ affines.from_matvec(np.eye(3), [0, 0, CUT]),
    )
    assert off_mm(InitialAlignment()(pair).initial, moved, chest) < FOUND_MM  # by overlap alone 25 and 80 mm


@pytest.mark.parametrize(("shift_mm", "turn"), [(TRANSLATION_MM, 0), (TRANSLATION_MM, TURN_DEGREES)])
def test_a_far_start_of_another_contrast_is_found_by_any_function(
    chest: PhantomPair, shift_mm: float, turn: float
) -> None:
    moved = wrong_header(chest, shift_mm=shift_mm, turn=turn)
    pair = images_of(chest, moved)
    at, value = ([0, 0.1, 0.6, 0.75, 1], [0, 0.2, 0.9, 0.4, 0.1])  # air dark, fat bright, bone dark
    other = torch.from_numpy(np.interp(pair.moving.numpy(), at, value)).float()
    start = InitialAlignment(bins=16)(replace(pair, moving=other)).initial
    assert off_mm(start, moved, chest) < 2 * FOUND_MM


def test_an_inverse_relation_is_no_reason_to_move(chest: PhantomPair) -> None:
    pair = images_of(chest)
    assert np.array_equal(InitialAlignment()(replace(pair, moving=1 - pair.moving)).initial, np.eye(4))


def test_any_function_explains_all_of_itself_and_nothing_of_chance(chest: PhantomPair) -> None:
    pair = images_of(chest)
    nothing = torch.zeros(1, PARAMETERS)
    for bins, moving, expected in (
        (0, 1 - pair.fixed, -1.0),
        (16, 1 - pair.fixed, 1.0),
        (16, torch.rand(pair.fixed.shape, generator=torch.Generator().manual_seed(0)), 0.0),
    ):
        same = replace(pair, moving=moving, moving_affine=pair.fixed_affine)
        assert float(_Coarse(same, 12_000, bins=bins).explained(nothing)) == pytest.approx(expected, abs=EXPLAINED), (
            bins
        )


def test_the_simplest_map_that_does_is_taken(chest: PhantomPair) -> None:
    only_moved = InitialAlignment()(images_of(chest, wrong_header(chest, shift_mm=60))).initial[:3, :3]
    np.testing.assert_array_equal(only_moved, np.eye(3))
    turned = InitialAlignment()(images_of(chest, wrong_header(chest, turn=20))).initial[:3, :3]
    np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-6)
    assert np.abs(turned - np.eye(3)).max() > 0.1


def test_good_headers_are_left_alone(chest: PhantomPair) -> None:
    pair = images_of(chest)
    assert InitialAlignment()(pair) is pair


def test_no_map_is_taken_that_explains_little_more(chest: PhantomPair) -> None:
    pair = images_of(chest)
    assert InitialAlignment(enough=2.0)(pair) is pair  # the search runs, and finds nothing much better than the headers
    rng = torch.Generator().manual_seed(0)
    noise = replace(
        pair, fixed=torch.rand(pair.fixed.shape, generator=rng), moving=torch.rand(pair.moving.shape, generator=rng)
    )
    assert InitialAlignment()(noise) is noise


def test_it_follows_a_start_that_is_there_already(chest: PhantomPair) -> None:
    moved = wrong_header(chest, shift_mm=500)
    near = wrong_header(chest, shift_mm=450)
    found = InitialAlignment()(replace(images_of(chest, moved), initial=near))
    assert off_mm(found.initial, moved, chest) < FOUND_MM


def test_the_same_pair_has_the_same_start_to_the_bit(chest: PhantomPair) -> None:
    pair = images_of(chest, wrong_header(chest, shift_mm=40, turn=20))
    first = InitialAlignment()(pair).initial
    torch.manual_seed(5)
    np.testing.assert_array_equal(first, InitialAlignment()(pair).initial)


@pytest.mark.slow
def test_it_is_told_once_of_two_contrasts_too(
    run: Run, chest: PhantomPair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(chest, tmp_path)
    moved = translation([60.0, -50.0, 70.0]) @ chest.moving_affine
    other = np.interp(chest.moving, [-1000, -900, 400], [0, 1000, 100]).astype(np.float32)  # air is dark
    nib.save(nib.Nifti1Image(other, moved), tmp_path / "other.nii.gz")
    pair = {"fixed": tmp_path / "fixed.nii.gz", "moving": tmp_path / "other.nii.gz"}
    with caplog.at_level("INFO", logger="ncf"):
        run(tmp_path / "output", pair, transform="rigid")
    told = [record.getMessage() for record in caplog.records]
    assert [line for line in told if line.startswith("contrast: different")]
    assert len([line for line in told if line.startswith("initial transform: ")]) == 1
    assert not [line for line in told if "the headers leave" in line]
