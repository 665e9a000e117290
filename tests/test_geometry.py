"""The conventions of space against formulas, nibabel and scipy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine, voxel_sizes
from scipy.interpolate import BSpline, make_interp_spline
from scipy.spatial.transform import Rotation

from ncf.space import geometry as g
from ncf.space import grids, interpolation
from ncf.space.jacobian import jacobian_of_map
from tests.grids import OBLIQUE, SHAPE, SPACING, each_affine, posed, random, world

EXACT = 1e-10  # mm or voxels; float64 sums of a few products below 1000
ROUNDING = 2e-6  # of values about 1: float32 weights and a dozen sums


@each_affine
def test_millimetres_are_nibabels_and_lead_back(affine: np.ndarray) -> None:
    points = 40 * random(20, 3)
    np.testing.assert_allclose(g.spacing_mm(affine), voxel_sizes(affine), atol=EXACT)
    np.testing.assert_allclose(g.to_mm(points, affine), apply_affine(affine, points), atol=EXACT)
    np.testing.assert_allclose(g.to_vox(g.to_mm(points, affine), affine), points, atol=EXACT)
    np.testing.assert_array_equal(points @ g.RAS_TO_LPS, points * [-1.0, -1.0, 1.0])


@each_affine
def test_a_displacement_is_the_difference_of_two_points(affine: np.ndarray) -> None:
    field, start = random(3, 4, 3, 2), random(3, 4, 3, 2, seed=1)
    moved, at = (apply_affine(affine, p.reshape(3, -1).T).T.reshape(p.shape) for p in (start + field, start))
    in_mm = g.field_to_mm(torch.from_numpy(field)[None], affine)
    np.testing.assert_allclose(in_mm[0].numpy(), moved - at, atol=EXACT)
    np.testing.assert_allclose(g.field_to_vox(in_mm, affine)[0].numpy(), field, atol=EXACT)


@pytest.mark.parametrize("nodes", [(2, 3, 4), (9, 7, 6), (5, 4, 2)])
def test_a_lattice_has_its_corners_on_the_corners(nodes: tuple[int, int, int]) -> None:
    lattice = grids.lattice_over(SHAPE, nodes)
    truth = np.stack(np.meshgrid(*[np.linspace(0, n - 1, m) for n, m in zip(SHAPE, nodes, strict=True)], indexing="ij"))
    assert lattice.points().dtype == torch.float32
    np.testing.assert_allclose(lattice.points().numpy(), truth, atol=ROUNDING * max(SHAPE))
    index = np.stack(np.meshgrid(*[np.arange(m) for m in nodes], indexing="ij"))
    by_affine = apply_affine(lattice.affine(OBLIQUE), np.moveaxis(index, 0, -1))
    np.testing.assert_allclose(np.moveaxis(by_affine, -1, 0), world(lattice, OBLIQUE), atol=ROUNDING * 40)
    assert grids.lattice_over((1, 5, 5), (1, 5, 3)) == grids.Lattice((1, 5, 3), (0.0, 0.0, 0.0), (1.0, 1.0, 2.0))


@pytest.mark.parametrize("budget", [300, 2_000, 60_000, 250_000])
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((64, 64, 64), (1.0, 1.0, 1.0)), ((192, 160, 224), (1.5, 1.5, 1.0)), ((512, 512, 30), (0.7, 0.7, 10.0))],
)
def test_a_budget_is_spent_evenly_in_mm(shape: tuple[int, ...], spacing: tuple[float, ...], budget: int) -> None:
    nodes = grids.nodes_for_budget(shape, spacing, budget)
    free = [a for a in range(3) if nodes[a] < shape[a]]
    assert all(2 <= m <= n for m, n in zip(nodes, shape, strict=True))
    assert np.prod(nodes) <= budget < np.prod([m + (a in free) for a, m in enumerate(nodes)]) or not free
    extent = (np.array(shape) - 1) * spacing
    # nodes are whole numbers, so one step in mm lies within half an interval of every axis; where voxels ran out, the
    # step may be any finer one
    coarsest = min(e / (m - 1.5) for e, m in zip(extent, nodes, strict=True))
    assert all(extent[a] / (nodes[a] - 0.5) <= coarsest * (1 + 1e-9) for a in free)


def test_thick_slices_are_not_refined_and_least_holds() -> None:
    assert grids.nodes_for_budget((512, 512, 30), (0.7, 0.7, 10.0), 10**9) == (512, 512, 30)
    assert grids.nodes_for_budget((512, 512, 30), (0.7, 0.7, 10.0), 10**6)[2] == 30
    assert grids.nodes_for_budget((200, 200, 9), (1.0, 1.0, 1.0), 500, least=12)[2] == 9
    assert min(grids.nodes_for_budget((200, 200, 20), (1.0, 1.0, 1.0), 500, least=12)) == 12


@each_affine
@pytest.mark.parametrize("nodes", [(9, 7, 6), (4, 4, 4)])
def test_the_moving_lattice_covers_the_moving_image_and_no_more(
    affine: np.ndarray, nodes: tuple[int, int, int]
) -> None:
    moving_shape, level = (12, 5, 8), grids.lattice_over(SHAPE, nodes)
    around = grids.lattice_over_moving(level, OBLIQUE, moving_affine=affine, moving_shape=moving_shape)
    corners = np.array(list(product(*[(0, n - 1) for n in moving_shape])))
    at = apply_affine(np.linalg.inv(around.affine(OBLIQUE)), apply_affine(affine, corners))
    last = np.array(around.shape) - 1
    assert around.step_vox == level.step_vox
    assert (at.min(axis=0) >= -1e-5).all() and (at.min(axis=0) < 1).all()
    assert (at.max(axis=0) <= last + 1e-5).all()  # the code forgives a millionth of a node
    assert (at.max(axis=0) > last - 1).all() or (last == 1).any()
    offset = grids.offset_between(level, around)
    np.testing.assert_allclose(offset, np.round(offset), atol=1e-9)  # no node between the level's
    own, other = (lat.affine(OBLIQUE) for lat in (level, around))
    np.testing.assert_allclose(apply_affine(other, [offset]), apply_affine(own, [[0, 0, 0]]), atol=EXACT)


def test_steps_along_an_axis_are_those_that_lie_along_it() -> None:
    own, steps = posed(np.eye(3)), np.array([3.0, 1.5, 0.5])
    spacing = g.spacing_mm(own)
    straight = own @ np.diag([*steps, 1.0])
    np.testing.assert_allclose(grids.step_along(own, straight), steps, atol=EXACT)
    swapped = straight[:, [1, 0, 2, 3]]  # the same points, their axes in another order
    np.testing.assert_allclose(grids.step_along(own, swapped), steps, atol=EXACT)
    turned = own.copy()
    turned[:3, :3] = own[:3, :3] / spacing @ Rotation.from_euler("z", 45, degrees=True).as_matrix() @ np.diag(steps)
    along = np.sqrt((steps[0] ** 2 + steps[1] ** 2) / 2)
    np.testing.assert_allclose(grids.step_along(own, turned) * spacing, [along, along, steps[2]], atol=EXACT)


@each_affine
def test_coordinates_keep_distances_in_mm(affine: np.ndarray) -> None:
    lattice, half = grids.lattice_over(SHAPE, (5, 4, 3)), grids.half_extent_mm(SHAPE, affine)
    assert half == pytest.approx(max((np.array(SHAPE) - 1) * SPACING) / 2)
    found = grids.isotropic_coordinates(lattice, SHAPE, affine)
    truth = world(lattice, affine) - apply_affine(affine, (np.array(SHAPE) - 1) / 2).reshape(3, 1, 1, 1)
    own = np.einsum("cd,c...->d...", affine[:3, :3] / SPACING, truth)  # along the array's own axes
    np.testing.assert_allclose(found.numpy() * half, own, atol=1e-5)
    assert found.abs().max() == pytest.approx(1.0)


@pytest.mark.parametrize("source", [2, 3, 8])
def test_interpolation_is_numpys_and_scipys(source: int) -> None:
    row, at = random(source), np.linspace(0, source - 1, 41)
    linear, cubic = (
        interpolation.interpolation_matrix(source, torch.from_numpy(at), order=k).numpy() @ row for k in (1, 3)
    )
    np.testing.assert_allclose(linear, np.interp(at, np.arange(source), row), atol=ROUNDING)
    beyond = np.concatenate([[2 * row[0] - row[1]], row, [2 * row[-1] - row[-2]]])  # one node more on either side
    spline = BSpline(np.arange(-3.0, source + 3), beyond, 3)
    np.testing.assert_allclose(cubic, spline(at), atol=ROUNDING)


@pytest.mark.parametrize("source", [4, 5, 40])
def test_a_spline_through_the_samples_is_scipys_natural_one(source: int) -> None:
    row, at = random(source), np.linspace(0, source - 1, 57)
    truth = make_interp_spline(np.arange(source), row, k=3, bc_type="natural")(at)
    found = interpolation.cardinal_matrix(source, torch.from_numpy(at)).numpy() @ row
    np.testing.assert_allclose(found, truth, atol=5 * ROUNDING)


@pytest.mark.parametrize("source", [1, 2])
def test_a_spline_through_one_or_two_samples_is_their_line(source: int) -> None:
    at = torch.linspace(0, source - 1, 5)
    row = torch.arange(3.0, 3.0 + source)
    np.testing.assert_allclose(interpolation.cardinal_matrix(source, at) @ row, 3.0 + at, atol=5 * ROUNDING)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("source", [1, 2, 5])
def test_interpolation_keeps_lines_to_the_ends_and_beyond(order: int, source: int) -> None:
    at = torch.linspace(0, source - 1, 23) if source == 1 else torch.linspace(-0.5, source - 0.5, 23)
    line = interpolation.interpolation_matrix(source, at, order=order) @ (2.0 * torch.arange(source) - 3.0)
    np.testing.assert_allclose(line.numpy(), 2.0 * at.numpy() - 3.0, atol=5 * ROUNDING)
    with pytest.raises(ValueError, match=r"1 \(linear\) or 3"):
        interpolation.interpolation_matrix(4, torch.zeros(2), order=2)


@pytest.mark.parametrize("order", [1, 3])
def test_an_affine_field_is_upsampled_exactly(order: int) -> None:
    control, fine = grids.Lattice((4, 5, 4), (-1.0, 0.5, 0.0), (3.5, 1.6, 2.0)), grids.lattice_over(SHAPE, SHAPE)
    matrix, shift = torch.from_numpy(random(3, 3)).float(), torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1, 1)
    coarse, truth = (torch.einsum("cd,dwhk->cwhk", matrix, lat.points()) + shift for lat in (control, fine))
    found = interpolation.Upsampler(control, fine, order=order)(coarse[None])
    np.testing.assert_allclose(found[0].numpy(), truth.numpy(), atol=ROUNDING * 30)


def test_separable_applies_one_matrix_an_axis() -> None:
    volume, parts = torch.from_numpy(random(2, 3, 4, 5, 6)), [torch.from_numpy(random(n + 1, n)) for n in (4, 5, 6)]
    truth = torch.einsum("bcijk,xi,yj,zk->bcxyz", volume, *parts)
    np.testing.assert_allclose(interpolation.separable(volume, parts).numpy(), truth.numpy(), atol=EXACT)


@pytest.mark.parametrize("shape", [(2, 3, 4), (5, 2, 2), (7, 6, 5)])
def test_the_jacobian_is_that_of_torchs_differences(shape: tuple[int, int, int]) -> None:
    field = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    rows = torch.stack([torch.stack(torch.gradient(u, dim=(0, 1, 2))) for u in field])  # [channel, axis]
    whole = (rows + torch.eye(3)[:, :, None, None, None]).permute(2, 3, 4, 0, 1)
    torch.testing.assert_close(jacobian_of_map(field), torch.linalg.det(whole), atol=1e-5, rtol=1e-5)
