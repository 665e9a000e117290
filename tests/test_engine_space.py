"""The fit in space: where it begins, what it may not see, and motion beyond the fixed field of view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ncf.fit.field import dense_field
from ncf.fit.fitted import Fit
from ncf.fit.network import NCF
from ncf.fit.pyramid import PairImages
from ncf.phantom.chest import PhantomPair, breathing_thorax
from ncf.space.geometry import translation
from tests.fits import GENTLE, bytes_of, images_of, left_mm, level, optimizer

SHAPE, MOVING_SHAPE = (32, 32, 32), (40, 42, 44)
FOUND = 0.5  # of the motion's mean length may be left after 40 coarse iterations; seen 0.28 to 0.36
FOUND_OUTSIDE = 0.6  # the same where the partner lies outside the fixed field of view; seen 0.23
FAR_MM = 40.0
SHIFTED_VOX = 0.05  # positions 40 voxels away are rounded otherwise, and Adam's first steps follow signs; seen 0.02
GRIDS_MM = 1.5  # two grids of the moving image are two samples with noise of their own, 10 mm apart; seen 0.9


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


@pytest.fixture(scope="module")
def chest() -> PhantomPair:
    return breathing_thorax(SHAPE, seed=1)


@pytest.fixture(scope="module")
def fitted(chest: PhantomPair) -> Fit:
    """40 iterations: the motion is found as far as a lattice of 4000 nodes shows it."""
    return optimizer(level(40))(images_of(chest), NCF())


def test_a_start_displacement_is_where_the_field_begins(chest: PhantomPair) -> None:
    away = np.array([400.0, -300.0, 250.0])
    far = chest.moving_affine.copy()
    far[:3, 3] += away
    there = optimizer(GENTLE)(images_of(chest, moving_affine=far, initial=translation(away)), NCF())
    here = optimizer(GENTLE)(images_of(chest), NCF())
    shift = away / np.diag(chest.affine)[:3]
    own = there.field_vox[0].numpy() - shift[:, None, None, None]
    assert np.abs(own).max() > 3 * SHIFTED_VOX
    np.testing.assert_allclose(own, here.field_vox[0].numpy(), atol=SHIFTED_VOX)
    np.testing.assert_array_equal(there.space.initial, translation(away))


def test_free_offsets_belong_to_the_last_level_and_are_part_of_the_field(chest: PhantomPair) -> None:
    with pytest.raises(ValueError, match="free offsets belong to the nodes of the last level"):
        optimizer(level(2, offset_points=500, offset_rate=15.0), level(2))
    for wrong in ({"offset_rate": 15.0}, {"offset_points": 500}, {"offset_points": 500, "offset_rate": -1.0}):
        with pytest.raises(ValueError, match="both above zero or neither"):
            optimizer(level(2, **wrong))
    network = NCF()
    fit = optimizer(level(6), level(12, offset_points=900, offset_rate=15.0))(images_of(chest), network)
    control, finer = (fit.space.control(n) for n in (fit.control_points, 900))
    assert fit.offsets is not None
    offsets = fit.offsets.values()
    assert offsets.shape == (1, 3, *finer.shape) and offsets.abs().max() > 0
    again = dense_field(network, fit.space, control, offsets=offsets)
    assert torch.equal(fit.field_vox, again) and not torch.equal(again, dense_field(network, fit.space, control))
    assert optimizer(level(6), level(12))(images_of(chest), NCF()).offsets is None


def test_offsets_are_three_voxels_apart_at_least(chest: PhantomPair) -> None:
    images = images_of(chest)
    offsets = optimizer(level(1), level(1, offset_points=10**6, offset_rate=15.0))(images, NCF()).offsets
    assert offsets is not None
    apart = [voxels / nodes for voxels, nodes in zip(images.fixed.shape[2:], offsets.codes.shape[2:], strict=True)]
    assert np.prod(apart) == pytest.approx(27, rel=0.2)


def test_offsets_move_less_where_the_images_agree_already(chest: PhantomPair) -> None:
    images = images_of(chest)
    alike, unlike, more = (
        replace(images, moving=images.fixed + share * (images.moving - images.fixed)) for share in (0.1, 4.0, 8.0)
    )
    rescaled = replace(images, moving=0.1 + 0.8 * images.fixed)
    moved = []
    still = level(1, learning_rate=1e-9)  # the network does not move, the offsets do
    for pair in (images, alike, unlike, more, rescaled):
        found = optimizer(still, {**still, "offset_points": 900, "offset_rate": 1e6})(pair, NCF()).offsets
        assert found is not None
        moved.append(
            float(found.values().abs().median())
        )  # Adam's first step is the learning rate, whatever the gradient
    assert moved[1] == pytest.approx(0.1**2 * moved[0], rel=0.03)
    assert (
        moved[3] == pytest.approx(moved[2]) and moved[2] > moved[0]
    )  # so unlike that it says nothing of how far there is to go
    assert moved[4] < 1e-3 * moved[0]


def test_the_initial_alignment_says_where_a_fit_begins(chest: PhantomPair) -> None:
    seen = []

    def far(pair: PairImages) -> PairImages:
        seen.append(pair)
        return replace(pair, initial=translation([FAR_MM, 0.0, 0.0]))

    pair = images_of(chest, moving_affine=translation([FAR_MM, 0.0, 0.0]) @ chest.moving_affine)
    fit = optimizer(level(2, learning_rate=1e-9), initial_alignment=far)(pair, NCF())
    assert len(seen) == 1 and seen[0] is pair and fit.alignment_s > 0
    assert fit.evidence is not None and fit.evidence.taken
    moved = fit.field_vox[0] - FAR_MM / float(chest.affine[0, 0]) * torch.eye(3)[0].view(3, 1, 1, 1)
    assert moved.abs().max() < SHIFTED_VOX


def test_a_start_that_is_worse_than_the_headers_is_left(chest: PhantomPair) -> None:
    fit = optimizer(
        level(2, learning_rate=1e-9), initial_alignment=lambda p: replace(p, initial=translation([FAR_MM, 0, 0]))
    )(images_of(chest), NCF())
    assert fit.evidence is not None and not fit.evidence.taken
    assert fit.field_vox.abs().max() < SHIFTED_VOX


def test_what_a_mask_leaves_out_counts_for_nothing(chest: PhantomPair) -> None:
    pair = images_of(chest)
    mask = torch.ones_like(pair.fixed)
    mask[..., 20:] = 0
    other = torch.where(mask == 0, torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)), pair.fixed)
    whole, masked, changed, seen = (
        bytes_of(optimizer(GENTLE)(replace(pair, fixed=fixed, fixed_weight=weight), NCF()))
        for fixed, weight in (
            (pair.fixed, torch.ones_like(mask)),
            (pair.fixed, mask),
            (other, mask),
            (other, torch.ones_like(mask)),
        )
    )
    assert masked == changed and len({whole, masked, seen}) == 3


def test_what_lies_outside_the_fixed_field_of_view_is_brought_in(chest: PhantomPair) -> None:
    cut, affine = 8, chest.affine.copy()
    affine[:3, 3] += cut * affine[:3, 2]
    part = replace(chest, fixed=chest.fixed[..., cut:], fixed_label=chest.fixed_label[..., cut:], affine=affine)
    part = replace(part, field_vox=chest.field_vox[..., cut:])
    outside = (part.field_vox[2] + np.arange(SHAPE[2] - cut) < 0) & (part.fixed_label > 0)
    assert outside.sum() > 200
    fit = optimizer(level(40))(images_of(part), NCF())
    missed, motion = left_mm(fit, part, outside)
    assert missed < FOUND_OUTSIDE * motion


def test_the_motion_is_found_on_any_moving_grid(chest: PhantomPair, fitted: Fit) -> None:
    turned = Rotation.from_euler("xyz", [12, -9, 15], degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turned @ [[0, -1, 0], [0, 0, 1], [1, 0, 0]] @ np.diag([10.0, 11.0, 9.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(MOVING_SHAPE) - 1) / 2  # the chest's centre is the world's origin
    turned_chest = breathing_thorax(SHAPE, seed=1, moving_shape=MOVING_SHAPE, moving_affine=affine)
    fit = optimizer(level(40))(images_of(turned_chest), NCF())
    missed, motion = left_mm(fitted, chest, chest.fixed_label > 0)
    assert missed < FOUND * motion
    assert left_mm(fit, turned_chest, chest.fixed_label > 0)[0] < missed + GRIDS_MM
