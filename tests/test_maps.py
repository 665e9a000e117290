"""Maps of space against their formulas: both directions, what is known, warped volumes, and the network's own map."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from ncf.space.geometry import to_mm, to_vox
from ncf.space.mapping import PIECE_VOXELS, SpatialMap, slabs
from ncf.space.preimages import CLOSE_VOX
from ncf.space.resampling import Reader, warp
from tests.maps import DIRECTIONS, MOVING, SHAPE, SPACING, fixed_grid, grid, moving_image, points_in, smooth_map

BACK_MM = (
    2 * CLOSE_VOX * max(SPACING)
)  # how far a point may end from itself: the solver's tolerance over the map's slope
EXACT_MM = 1e-4  # float32 displacements of some mm
READ = 1e-3  # HU: float32 weights on values to 800


@pytest.mark.parametrize("name", DIRECTIONS)
def test_points_go_there_and_back(name: str) -> None:
    mapping = smooth_map(name).composed(pre_transform=np.diag([1.02, 0.98, 1.01, 1.0]), post_transform=DIRECTION_SHIFT)
    points = points_in(SHAPE, mapping.grid.affine, margin=4)
    moved, known = mapping.to_moving(points)
    home, found = mapping.to_reference(moved)
    assert known.all() and found.all()
    assert np.linalg.norm(home - points, axis=1).max() < BACK_MM
    assert np.linalg.norm(moved - points, axis=1).min() > 1000 * BACK_MM


DIRECTION_SHIFT = np.array([[1.0, 0.1, 0, 4], [-0.1, 1.0, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1]])


def test_between_voxels_the_field_is_linear_and_both_transforms_have_their_places() -> None:
    mapping = smooth_map("permuted").composed(
        pre_transform=np.diag([1.02, 0.98, 1.01, 1.0]), post_transform=DIRECTION_SHIFT
    )
    points = points_in(SHAPE, mapping.grid.affine, margin=4)
    at = to_vox(to_mm(points, mapping.pre_transform), mapping.grid.affine)
    u = np.stack([map_coordinates(channel, at.T, order=1) for channel in mapping.field.double().numpy()], axis=1)
    truth = to_mm(to_mm(at + u, mapping.grid.affine), DIRECTION_SHIFT)
    np.testing.assert_allclose(mapping.to_moving(points)[0], truth, atol=EXACT_MM)


def test_the_range_ends_half_a_voxel_beyond_the_outer_voxels() -> None:
    mapping, middle = smooth_map("ras"), (np.array(SHAPE) - 1) / 2
    for axis in range(3):
        at = np.repeat(middle[None], 4, axis=0)
        at[:, axis] = [-0.6, -0.4, SHAPE[axis] - 0.6, SHAPE[axis] - 0.4]
        points = to_mm(at, mapping.grid.affine)
        moved, known = mapping.to_moving(points)
        assert known.tolist() == [False, True, True, False]
        assert mapping.to_reference(moved)[1].tolist() == known.tolist()
    nothing = np.zeros((0, 3))
    assert len(mapping.to_moving(nothing)[1]) == len(mapping.to_reference(nothing)[1]) == 0


def test_a_fold_is_not_known() -> None:
    field = torch.zeros(3, 12, 8, 8)
    field[0] = -1.5 * torch.relu(torch.arange(12.0) - 5).clamp(max=3)[:, None, None]  # x + u turns back between 5 and 8
    mapping = SpatialMap(field, grid(DIRECTIONS["ras"], (12, 8, 8), (1.0, 1.0, 1.0)))
    at = np.array([[2.0, 3.0, 3.0], [4.9, 3.0, 3.0], [40.0, 3.0, 3.0]])
    home, known = mapping.to_reference(to_mm(at, mapping.grid.affine))
    moved, _ = mapping.to_moving(home[known])
    assert known[0] and not known[2]
    np.testing.assert_allclose(moved, to_mm(at, mapping.grid.affine)[known], atol=BACK_MM)


def test_a_volume_is_read_once_through_the_map_on_any_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ncf.space.mapping.PIECE_VOXELS", 500)
    mapping, image = smooth_map("oblique"), moving_image()
    for onto in (mapping.grid, grid(DIRECTIONS["permuted"], (9, 17, 12), (5.0, 3.0, 4.0))):
        points = to_mm(np.indices(onto.shape).reshape(3, -1).T, onto.affine)
        moved, known = mapping.to_moving(points)
        at = to_vox(moved, MOVING.affine)
        inside = known & ((at > -0.5) & (at < np.array(MOVING.shape) - 0.5)).all(axis=1)
        read = map_coordinates(image.astype(np.float64), at.T, order=1, mode="nearest")
        truth = np.where(inside, read, image.min()).reshape(onto.shape)
        found = warp(mapping, torch.from_numpy(image), moving=MOVING.affine, reference=onto, mode="bilinear").numpy()
        differs = ~np.isclose(found, truth, atol=READ * 20)  # float32 positions at steep places
        assert differs.mean() < 2e-3 and inside.mean() > 0.02  # a voxel on the very edge may fall either way
    assert not inside.all()


def test_soft_labels_are_the_largest_share() -> None:
    label = torch.from_numpy(np.random.default_rng(2).choice([0, 3, 7], size=(9, 8, 7))).float()
    at = torch.from_numpy(np.random.default_rng(3).uniform(size=(3, 40)) * [[9.0], [8.0], [7.0]] - 1.0)
    shares = [map_coordinates((label == v).double().numpy(), at.numpy(), order=1, mode="nearest") for v in (0, 3, 7)]
    truth = np.array([0, 3, 7])[np.argmax(shares, axis=0)]
    outside = ((at <= -0.5) | (at >= torch.tensor([[8.5], [7.5], [6.5]]))).any(dim=0).numpy()
    found = Reader(label[None, None], "soft")(at.float().view(1, 3, -1, 1, 1)).flatten().numpy()
    assert outside.any() and not outside.all()
    assert found.tolist() == np.where(outside, 0, truth).tolist()
    with pytest.raises(ValueError, match="mode is one of bilinear"):
        Reader(label[None, None], "lanczos")


def test_slabs_cover_every_plane_once() -> None:
    for shape in ((7, 3, 3), (5, 2048, 1024), (300, 100, 100)):
        planes = [
            n for piece in slabs(fixed_grid("ras").__class__(shape, np.eye(4))) for n in range(piece.start, piece.stop)
        ]
        assert planes == list(range(shape[0]))
        step = next(iter(slabs(fixed_grid("ras").__class__(shape, np.eye(4))))).stop
        assert step * shape[1] * shape[2] <= max(PIECE_VOXELS, shape[1] * shape[2])
