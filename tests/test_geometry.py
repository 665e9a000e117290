"""The conventions of space against formulas, nibabel, scipy and MONAI's own Warp."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
import torch
from monai.networks.blocks import Warp as MonaiWarp
from nibabel.affines import apply_affine, voxel_sizes
from scipy.interpolate import BSpline
from scipy.ndimage import gaussian_filter1d, map_coordinates
from scipy.spatial.transform import Rotation

from scripts import geometry as g

pytestmark = pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp")  # it announces torch's own grid sampler

EXACT = 1e-10  # mm or voxels; float64 sums of a few products below 1000
ROUNDING = 2e-6  # of values about 1: float32 weights and a dozen sums
POSITION_VOX = 2e-5  # float32 positions below 32, scaled to [-1, 1] and back
READ = 5e-5  # that position error times a slope of about 2 a voxel
ATTENUATION = 2e-3  # of 1: what cutting a Gaussian at 3 sigma (0.3 % of its weight) can change of a sine

SPACING = np.array([0.7, 1.6, 2.5])
SHAPE = (9, 7, 6)


def posed(matrix: np.ndarray) -> np.ndarray:
    """An affine with `SPACING` whose axes are the columns of a rotation or reflection, off the world's origin."""
    affine = np.eye(4)
    affine[:3, :3] = matrix @ np.diag(SPACING)
    affine[:3, 3] = (-31.0, 12.5, 7.25)
    return affine


AFFINES = {
    "ras": posed(np.eye(3)),
    "lps": posed(np.diag([-1.0, -1.0, 1.0])),
    "permuted": posed(np.eye(3)[[2, 0, 1]] * [1.0, -1.0, 1.0]),
    "oblique": posed(Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()),
}
OBLIQUE = AFFINES["oblique"]
each_affine = pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def points_inside(shape: tuple[int, ...], *, beyond: float = 0.0) -> np.ndarray:
    """Positions (3, 5, 4, 3) all over an image of ``shape`` and ``beyond`` voxels outside."""
    draw = np.random.default_rng(3).uniform(size=(3, 5, 4, 3))
    return draw * (np.reshape(shape, (3, 1, 1, 1)) - 1 + 2 * beyond) - beyond


def world(lattice: g.Lattice, affine: np.ndarray) -> np.ndarray:
    """RAS mm (3, *shape) of a lattice's nodes, by nibabel."""
    return np.moveaxis(apply_affine(affine, np.moveaxis(lattice.points().double().numpy(), 0, -1)), -1, 0)


@pytest.fixture(params=[1, 2, 3, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """That many threads for torch while a test runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@each_affine
def test_millimetres_are_nibabels_and_lead_back(affine: np.ndarray) -> None:
    points = random(20, 3) * 40
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
    lattice = g.lattice_over(SHAPE, nodes)
    truth = np.stack(np.meshgrid(*[np.linspace(0, n - 1, m) for n, m in zip(SHAPE, nodes, strict=True)], indexing="ij"))
    assert lattice.points().dtype == torch.float32
    np.testing.assert_allclose(lattice.points().numpy(), truth, atol=ROUNDING * max(SHAPE))
    index = np.stack(np.meshgrid(*[np.arange(m) for m in nodes], indexing="ij"))
    by_affine = apply_affine(lattice.affine(OBLIQUE), np.moveaxis(index, 0, -1))
    np.testing.assert_allclose(np.moveaxis(by_affine, -1, 0), world(lattice, OBLIQUE), atol=ROUNDING * 40)


def test_one_voxel_is_one_node() -> None:
    assert g.lattice_over((1, 5, 5), (1, 5, 3)) == g.Lattice((1, 5, 3), (0.0, 0.0, 0.0), (1.0, 1.0, 2.0))


@pytest.mark.parametrize("budget", [300, 2_000, 60_000, 250_000])
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((64, 64, 64), (1.0, 1.0, 1.0)), ((192, 160, 224), (1.5, 1.5, 1.0)), ((512, 512, 30), (0.7, 0.7, 10.0))],
)
def test_a_budget_is_spent_evenly_in_mm(shape: tuple[int, ...], spacing: tuple[float, ...], budget: int) -> None:
    nodes = g.nodes_for_budget(shape, spacing, budget)
    free = [a for a in range(3) if nodes[a] < shape[a]]
    assert all(2 <= m <= n for m, n in zip(nodes, shape, strict=True))
    assert np.prod(nodes) <= budget < np.prod([m + (a in free) for a, m in enumerate(nodes)]) or not free
    extent = (np.array(shape) - 1) * spacing
    # nodes come in whole numbers, so one step in mm lies within half an interval of every axis; where voxels ran out, the
    # step may be any finer one
    coarsest = min(e / (m - 1.5) for e, m in zip(extent, nodes, strict=True))
    assert all(extent[a] / (nodes[a] - 0.5) <= coarsest * (1 + 1e-9) for a in free)


def test_thick_slices_are_not_refined_and_least_holds() -> None:
    assert g.nodes_for_budget((512, 512, 30), (0.7, 0.7, 10.0), 10**9) == (512, 512, 30)
    assert g.nodes_for_budget((512, 512, 30), (0.7, 0.7, 10.0), 10**6)[2] == 30
    assert g.nodes_for_budget((200, 200, 9), (1.0, 1.0, 1.0), 500, least=12)[2] == 9
    assert min(g.nodes_for_budget((200, 200, 20), (1.0, 1.0, 1.0), 500, least=12)) == 12


@each_affine
@pytest.mark.parametrize("nodes", [(9, 7, 6), (4, 4, 4)])
def test_the_moving_lattice_covers_the_moving_image_and_no_more(affine: np.ndarray, nodes: tuple[int, int, int]) -> None:
    moving_shape, level = (12, 5, 8), g.lattice_over(SHAPE, nodes)
    around = g.lattice_over_moving(level, OBLIQUE, affine, moving_shape)
    corners = np.array(list(product(*[(0, n - 1) for n in moving_shape])))
    at = apply_affine(np.linalg.inv(around.affine(OBLIQUE)), apply_affine(affine, corners))
    last = np.array(around.shape) - 1
    assert around.step_vox == level.step_vox
    np.testing.assert_allclose(at.min(axis=0), 0, atol=1e-9)
    assert (at.max(axis=0) <= last + 1e-5).all()  # the code forgives a millionth of a node
    assert (at.max(axis=0) > last - 1).all() or (last == 1).any()
    offset = g.offset_between(level, around)
    own, other = (lat.affine(OBLIQUE) for lat in (level, around))
    np.testing.assert_allclose(apply_affine(other, [offset]), apply_affine(own, [[0, 0, 0]]), atol=EXACT)


@each_affine
def test_coordinates_keep_distances_in_mm(affine: np.ndarray) -> None:
    lattice, half = g.lattice_over(SHAPE, (5, 4, 3)), g.half_extent_mm(SHAPE, affine)
    assert half == pytest.approx(max((np.array(SHAPE) - 1) * SPACING) / 2)
    found = g.isotropic_coordinates(lattice, SHAPE, affine)
    truth = world(lattice, affine) - apply_affine(affine, (np.array(SHAPE) - 1) / 2).reshape(3, 1, 1, 1)
    directions = affine[:3, :3] / SPACING  # orthonormal: lengths along the array's own axes
    np.testing.assert_allclose(found.numpy() * half, np.einsum("cd,c...->d...", directions, truth), atol=1e-5)
    assert found.abs().max() == pytest.approx(1.0)


@pytest.mark.parametrize("source", [2, 3, 8])
def test_interpolation_is_numpys_and_scipys(source: int) -> None:
    row, at = random(source), np.linspace(0, source - 1, 41)
    linear, cubic = (g.interpolation_matrix(source, torch.from_numpy(at), order=k).numpy() @ row for k in (1, 3))
    np.testing.assert_allclose(linear, np.interp(at, np.arange(source), row), atol=ROUNDING)
    beyond = np.concatenate([[2 * row[0] - row[1]], row, [2 * row[-1] - row[-2]]])  # one node more on either side
    spline = BSpline(np.arange(-3.0, source + 3), beyond, 3)
    np.testing.assert_allclose(cubic, spline(at), atol=ROUNDING)


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("source", [1, 2, 5])
def test_interpolation_keeps_lines_to_the_ends_and_beyond(order: int, source: int) -> None:
    at = torch.linspace(0, source - 1, 23) if source == 1 else torch.linspace(-0.5, source - 0.5, 23)
    line = g.interpolation_matrix(source, at, order=order) @ (2.0 * torch.arange(source) - 3.0)
    np.testing.assert_allclose(line.numpy(), 2.0 * at.numpy() - 3.0, atol=5 * ROUNDING)
    with pytest.raises(ValueError, match=r"1 \(linear\) or 3"):
        g.interpolation_matrix(4, torch.zeros(2), order=2)


@pytest.mark.parametrize("order", [1, 3])
def test_an_affine_field_is_upsampled_exactly(order: int) -> None:
    control, fine = g.lattice_over(SHAPE, (4, 5, 4)), g.lattice_over(SHAPE, SHAPE)
    matrix, shift = torch.from_numpy(random(3, 3)).float(), torch.tensor([1.0, -2.0, 0.5]).view(3, 1, 1, 1)
    coarse, truth = (torch.einsum("cd,dwhk->cwhk", matrix, lat.points()) + shift for lat in (control, fine))
    found = g.Upsampler(control, fine, order=order)(coarse[None])
    np.testing.assert_allclose(found[0].numpy(), truth.numpy(), atol=ROUNDING * 30)


def test_separable_applies_one_matrix_an_axis() -> None:
    volume, parts = torch.from_numpy(random(2, 3, 4, 5, 6)), [torch.from_numpy(random(n + 1, n)) for n in (4, 5, 6)]
    truth = torch.einsum("bcijk,xi,yj,zk->bcxyz", volume, *parts)
    np.testing.assert_allclose(g.separable(volume, parts).numpy(), truth.numpy(), atol=EXACT)


@pytest.mark.parametrize("sigma", [0.3, 0.87, 1.0, 2.4])
def test_the_gaussian_is_scipys(sigma: float) -> None:
    row = random(15)
    truth = gaussian_filter1d(row, sigma, mode="constant", radius=max(1, int(np.ceil(3 * sigma))))
    np.testing.assert_allclose(g.gaussian_matrix(15, sigma).numpy() @ row, truth, atol=ROUNDING)
    assert torch.equal(g.gaussian_matrix(4, 0.0), torch.eye(4))


@pytest.mark.parametrize(("padding", "scipys"), [("zeros", "grid-constant"), ("border", "nearest")])
@pytest.mark.parametrize(("mode", "order"), [("bilinear", 1), ("nearest", 0)])
def test_an_image_is_read_as_scipy_reads_it(padding: str, scipys: str, mode: str, order: int, threads: int) -> None:
    image, at = random(2, *SHAPE), points_inside(SHAPE, beyond=1.3)
    found = g.sample(torch.from_numpy(image)[None], torch.from_numpy(at)[None], mode=mode, padding_mode=padding)
    truth = np.stack([map_coordinates(channel, at, order=order, mode=scipys) for channel in image])
    assert found.shape == (1, 2, 5, 4, 3)
    np.testing.assert_allclose(found[0].numpy(), truth, atol=EXACT)


def test_threads_change_no_bit_and_share_the_points(threads: int) -> None:
    image, at = torch.from_numpy(random(1, 1, *SHAPE)).float(), torch.from_numpy(points_inside(SHAPE)).float()[None]
    parts = g.threaded(g.normalised(at, SHAPE)).shape[0]
    assert parts == threads  # 60 points: every number of threads up to 4 divides them
    found = g.sample(image, at)
    torch.set_num_threads(1)
    assert torch.equal(g.sample(image, at), found)


def test_normalised_has_corners_at_one_and_turns_the_axes() -> None:
    corners = torch.tensor([[0.0, 0.0], [0.0, 6.0], [0.0, 0.0]]).view(1, 3, 2, 1, 1)
    grid = g.normalised(corners, (9, 7, 1))
    assert grid[0, :, 0, 0].tolist() == [[-1.0, -1.0, -1.0], [-1.0, 1.0, -1.0]]
    assert g.normalised(torch.tensor([8.0, 0, 0]).view(1, 3, 1, 1, 1), (9, 7, 1)).flatten().tolist() == [-1, -1, 1]


@each_affine
def test_moving_positions_follow_the_formula(affine: np.ndarray) -> None:
    field = random(3, *SHAPE)
    found = g.moving_positions(torch.from_numpy(field).float()[None], fixed_affine=OBLIQUE, moving_affine=affine)
    at = np.moveaxis(np.indices(SHAPE) + field, 0, -1)
    truth = apply_affine(np.linalg.inv(affine), apply_affine(OBLIQUE, at))
    np.testing.assert_allclose(found[0].numpy(), np.moveaxis(truth, -1, 0), atol=POSITION_VOX)


def on_lattice(image: np.ndarray, weight: np.ndarray, lattice: g.Lattice, affine: np.ndarray) -> list[np.ndarray]:
    """Image and weight (*lattice.shape) of an image on its own ``affine``, the lattice being in `OBLIQUE` voxels."""
    own, share = (torch.from_numpy(v).float()[None, None] for v in (image, weight))
    return [v[0, 0].numpy() for v in g.image_on_lattice(own, share, lattice, affine=affine, fixed_affine=OBLIQUE)]


@each_affine
def test_a_constant_stays_whatever_the_padding_holds(affine: np.ndarray) -> None:
    weight = (random(14, 13, 12) > 0.3).astype(float)
    image = np.where(weight > 0, 0.625, 1e6 * random(14, 13, 12, seed=1))
    value, share = on_lattice(image, weight, g.Lattice((6, 6, 6), (-2.0, -1.5, -1.0), (1.7, 1.3, 1.9)), affine)
    assert (share > 0.01).sum() > 5 and share.min() >= 0 and share.max() <= 1
    np.testing.assert_allclose(value[share > 0.01], 0.625, atol=ROUNDING * 10)
    assert (value[share == 0] == 0).all()


@pytest.mark.parametrize("step", [(1.0, 1.0, 1.0), (2.5, 1.5, 1.2), (1.3, 2.6, 0.6)])
def test_a_plane_on_an_oblique_grid_lands_where_the_formula_says(step: tuple[float, float, float]) -> None:
    shape, slope = (34, 22, 18), np.array([0.021, -0.013, 0.017])
    affine = posed(Rotation.from_euler("zyx", [65, 10, -25], degrees=True).as_matrix())
    own = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    centre = g.to_vox(apply_affine(affine, (np.array(shape) - 1) / 2)[None], OBLIQUE)[0]
    lattice = g.Lattice((4, 4, 4), tuple((centre - 1.5 * np.array(step)).tolist()), step)
    value, share = on_lattice(own @ slope, np.ones(shape), lattice, affine)
    np.testing.assert_allclose(share, 1.0, atol=ROUNDING)
    np.testing.assert_allclose(value, np.einsum("c,c...->...", slope, world(lattice, OBLIQUE)), atol=ROUNDING * 10)


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_a_wave_is_damped_as_a_gaussian_damps_it(ratio: int) -> None:
    shape, wave = (61, 13, 13), 0.35  # radians a voxel
    image = np.broadcast_to(np.sin(wave * np.arange(61)).reshape(-1, 1, 1), shape)
    lattice = g.Lattice((15, 1, 1), (9.0, 6.0, 6.0), (float(ratio), float(ratio), float(ratio)))
    value, _ = on_lattice(image.copy(), np.ones(shape), lattice, OBLIQUE)
    sigma = 0.5 * np.sqrt(ratio**2 - 1)  # voxels
    truth = np.exp(-((wave * sigma) ** 2) / 2) * np.sin(wave * (9 + ratio * np.arange(15)))
    np.testing.assert_allclose(value[:, 0, 0], truth, atol=ATTENUATION if ratio > 1 else POSITION_VOX)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_warp_is_monais(padding: str, mode: str) -> None:
    image, upstream = (torch.from_numpy(random(1, 2, *SHAPE, seed=s)) for s in (0, 1))
    results = []
    for warp in (g.Warp(mode, padding), MonaiWarp(mode, padding)):
        field = torch.from_numpy(random(1, 3, *SHAPE, seed=2) * 1.5).requires_grad_()
        warped = warp(image, field)
        (slope,) = torch.autograd.grad((warped * upstream).sum(), field)
        results.append((warped.detach().numpy(), slope.numpy()))
    for own, monais in zip(*results, strict=True):
        np.testing.assert_allclose(own, monais, atol=EXACT)


def test_warp_on_another_lattice_with_an_offset_is_a_shift() -> None:
    warp, image = g.Warp(), torch.from_numpy(random(1, 1, 11, 10, 9)).float()
    still = torch.zeros(1, 3, 4, 5, 3)
    assert torch.allclose(warp(image, still, (2.0, 3.0, 5.0)), image[:, :, 2:6, 3:8, 5:8], atol=READ)
    assert torch.allclose(warp(image, still), image[:, :, :4, :5, :3], atol=READ)  # the offset is not kept
    moved = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1, 1) + torch.zeros(1, 3, 3, 4, 2)
    truth = (image[:, :, 1:4, 1:5, 5:7] + image[:, :, 1:4, 1:5, 6:8]) / 2
    assert torch.allclose(warp(image, moved, (0.0, 3.0, 5.0)), truth, atol=READ)  # nor the shape
    assert warp.positions(moved, (0.0, 3.0, 5.0))[0, :, 2, 1, 1].tolist() == [3.0, 2.0, 6.5]
