"""Reading between voxels against formulas, scipy and MONAI's own Warp."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from monai.networks.blocks import Warp as MonaiWarp
from nibabel.affines import apply_affine
from scipy.ndimage import gaussian_filter1d, map_coordinates
from scipy.spatial.transform import Rotation

from ncf.space import geometry as g
from ncf.space import grids, sampling, smoothing, trilinear
from tests.grids import OBLIQUE, SHAPE, each_affine, points_inside, random

pytestmark = pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp")  # it announces torch's own grid sampler

EXACT = 1e-10  # mm or voxels; float64 sums of a few products below 1000
ROUNDING = 2e-6  # of values about 1: float32 weights and a dozen sums
POSITION_VOX = 2e-5  # float32 positions below 32, scaled to [-1, 1] and back
READ = 5e-5  # that position error times a slope of about 2 a voxel
ATTENUATION = 2e-3  # of 1: what cutting a Gaussian at 3 sigma (0.3 % of its weight) can change of a sine


@pytest.fixture(params=[1, 2, 3, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """That many threads for torch while a test runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("sigma", [0.3, 0.87, 1.0, 2.4])
def test_the_gaussian_is_scipys(sigma: float) -> None:
    row = random(15)
    truth = gaussian_filter1d(row, sigma, mode="constant", radius=max(1, int(np.ceil(3 * sigma))))
    np.testing.assert_allclose(smoothing.gaussian_matrix(15, sigma).numpy() @ row, truth, atol=ROUNDING)
    assert torch.equal(smoothing.gaussian_matrix(4, 0.0), torch.eye(4))


@pytest.mark.parametrize(("padding", "scipys"), [("zeros", "grid-constant"), ("border", "nearest")])
@pytest.mark.parametrize(("mode", "order"), [("bilinear", 1), ("nearest", 0)])
def test_an_image_is_read_as_scipy_reads_it(padding: str, scipys: str, mode: str, order: int, threads: int) -> None:
    image, at = random(2, *SHAPE), points_inside(SHAPE, beyond=1.3)
    found = sampling.sample(torch.from_numpy(image)[None], torch.from_numpy(at)[None], mode=mode, padding_mode=padding)
    truth = np.stack([map_coordinates(channel, at, order=order, mode=scipys) for channel in image])
    assert found.shape == (1, 2, 5, 4, 3)
    np.testing.assert_allclose(found[0].numpy(), truth, atol=EXACT)


def test_threads_change_no_bit_and_share_the_points(threads: int) -> None:
    image, at = torch.from_numpy(random(1, 1, *SHAPE)).float(), torch.from_numpy(points_inside(SHAPE)).float()[None]
    assert (
        len(sampling.threaded(sampling.normalised(at, SHAPE))) == threads
    )  # 60 points: all numbers up to 4 divide them
    found = sampling.sample(image, at)
    torch.set_num_threads(1)
    assert torch.equal(sampling.sample(image, at), found)
    with pytest.raises(ValueError, match=r"one image is read at a time, not shape \(2, 1, 9"):
        sampling.sample(torch.cat([image, image]), at)


def test_normalised_has_corners_at_one_and_turns_the_axes() -> None:
    corners = torch.tensor([[0.0, 0.0], [0.0, 6.0], [0.0, 0.0]]).view(1, 3, 2, 1, 1)
    grid = sampling.normalised(corners, (9, 7, 1))
    assert grid[0, :, 0, 0].tolist() == [[-1.0, -1.0, -1.0], [-1.0, 1.0, -1.0]]
    assert sampling.normalised(torch.tensor([8.0, 0, 0]).view(1, 3, 1, 1, 1), (9, 7, 1)).flatten().tolist() == [
        -1,
        -1,
        1,
    ]


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("shape", [SHAPE, (5, 1, 6), (1, 1, 9), (2, 2, 2)], ids=str)
def test_values_and_slopes_are_those_of_torchs_own_sampler(
    padding: str, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the image too, on its outer voxels, and along an axis of one voxel; in pieces as in one."""
    image, wanted = torch.from_numpy(random(1, 2, *shape)), torch.from_numpy(random(2, 600, seed=2))
    at = torch.from_numpy(random(3, 600, seed=1)) * (torch.tensor(shape).view(3, 1) + 4) - 2.5
    on_voxels = (
        at[:, :60].round() if padding == "zeros" else at[:, :60]
    )  # torch's border has no slope on the outer ones
    at = torch.cat([on_voxels, at[:, 60:]], dim=1)
    grid = sampling.normalised(at[None], shape).view(1, -1, 1, 1, 3).requires_grad_()
    truth = torch.nn.functional.grid_sample(image, grid, padding_mode=padding, align_corners=True).view(2, -1)
    (of_grid,) = torch.autograd.grad((truth * wanted).sum(), grid)
    steps = torch.tensor([2 / max(n - 1, 1) for n in shape]).view(3, 1)
    for size, few in ((2**15, 4), (7, 10**6), (600, 0)):  # those beyond the image with the others, or alone
        monkeypatch.setattr(trilinear, "POINTS_AT_A_TIME", size)
        monkeypatch.setattr(trilinear, "FEW", few)
        places = at.clone().requires_grad_()
        found = trilinear.read_linear(image[0], places, border=padding == "border")
        (slope,) = torch.autograd.grad((found * wanted).sum(), places)
        np.testing.assert_allclose(found.detach().numpy(), truth.detach().numpy(), atol=EXACT)
        np.testing.assert_allclose(slope.numpy(), (of_grid.view(-1, 3).T.flip(0) * steps).numpy(), atol=EXACT)


@pytest.mark.parametrize("device_is_faster", [True, False])
def test_the_average_of_data_is_that_of_both_channels_divided(
    device_is_faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = torch.Generator().manual_seed(0)
    weight, values, at = (torch.rand(1, *n, generator=draw, dtype=torch.float64) for n in [SHAPE, SHAPE, (3, 50, 4, 3)])
    weight = (1.5 * weight - 0.5).clamp(min=0)
    image = torch.cat([values * weight, weight])[None]
    at = (at * (torch.tensor(SHAPE).view(1, 3, 1, 1, 1) + 2) - 1.5).requires_grad_()
    total, share = sampling.sample(image, at).split(1, dim=1)
    truth = total / share.clamp(min=sampling.PADDING_NOISE)
    there = share.detach() > 0.05
    assert 0.3 < there.float().mean() < 1
    (slope,) = torch.autograd.grad((truth * there).sum(), at)
    monkeypatch.setattr(sampling, "faster_on", lambda _: device_is_faster)
    average, found = sampling.sample_data(image, at)
    (own_slope,) = torch.autograd.grad((average * there).sum(), at)
    assert not found.requires_grad and (found >= 0).all() and (found <= 1).all()
    np.testing.assert_allclose(found, share.detach(), atol=EXACT)
    np.testing.assert_allclose((average * there).detach(), (truth * there).detach(), atol=EXACT)
    np.testing.assert_allclose(own_slope, slope, atol=1e-9)
    warp = sampling.Warp()
    field = (at - torch.stack(torch.meshgrid(*[torch.arange(n) for n in (50, 4, 3)], indexing="ij"))).detach()
    warped, _ = warp.data(image, field)
    np.testing.assert_allclose(warped * there, (average * there).detach(), atol=1e-9)


def test_data_read_by_two_threads_is_that_of_one(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.addfinalizer(lambda: torch.set_num_threads(1))
    monkeypatch.setattr(trilinear, "LEAST_OF_A_THREAD", 2**14)
    monkeypatch.setattr(trilinear, "MOST_OF_A_THREAD", 2**15)
    draw = torch.Generator().manual_seed(0)
    image, at = torch.rand(1, 2, *SHAPE, generator=draw), 7 * torch.rand(1, 3, 50, 40, 50, generator=draw)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        places = at.clone().requires_grad_()
        average, weight = sampling.sample_data(image, places)
        found.append([average.detach(), weight, *torch.autograd.grad(average.sum(), places)])
        with torch.inference_mode():
            assert torch.equal(sampling.sample_data(image, at)[0], average.detach())
    assert at[0, 0].numel() > 2 * trilinear.MOST_OF_A_THREAD
    assert torch.get_num_threads() == 2  # and so have threads to come; those that read have one each
    assert ThreadPoolExecutor(1).submit(torch.get_num_threads).result() == 2
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_a_warp_for_data_has_no_other_modes() -> None:
    with pytest.raises(ValueError, match="data is read linearly"):
        sampling.Warp(mode="nearest").data(torch.ones(1, 2, *SHAPE), torch.zeros(1, 3, *SHAPE))


def test_every_nth_node_and_its_gradient() -> None:
    volume = torch.from_numpy(random(2, 5, 4, 7)).requires_grad_()
    assert sampling.every_nth(volume, 1) is volume
    assert torch.equal(sampling.every_nth(volume, 3), volume[..., ::3, ::3, ::3])
    assert torch.autograd.gradcheck(lambda v: sampling.every_nth(v, 2), (volume,))


def test_where_a_position_is_no_number_nothing_is_read() -> None:
    image, at = torch.from_numpy(random(1, *SHAPE)), torch.full((3, 3), 1.5, dtype=torch.float64)
    at[1, 1] = torch.nan
    assert trilinear.read_linear(image, at, border=False).isnan().tolist() == [[False, True, False]]


def test_an_image_that_is_fitted_itself_has_a_gradient() -> None:
    image = torch.ones(1, 1, *SHAPE, requires_grad=True)
    at = torch.from_numpy(points_inside(SHAPE)).float()[None]
    (found,) = torch.autograd.grad(sampling.sample(image, at).sum(), image)
    assert found.sum().item() == pytest.approx(at[0, 0].numel(), rel=1e-5)


@each_affine
def test_moving_positions_follow_the_formula(affine: np.ndarray) -> None:
    field = random(3, *SHAPE)
    found = sampling.moving_positions(torch.from_numpy(field).float()[None], fixed_affine=OBLIQUE, moving_affine=affine)
    at = np.moveaxis(np.indices(SHAPE) + field, 0, -1)
    truth = apply_affine(np.linalg.inv(affine), apply_affine(OBLIQUE, at))
    np.testing.assert_allclose(found[0].numpy(), np.moveaxis(truth, -1, 0), atol=POSITION_VOX)


def on_lattice(
    image: np.ndarray, weight: np.ndarray, lattice: grids.Lattice, step: Sequence[float]
) -> list[np.ndarray]:
    """Image and weight, both (*lattice.shape), on a lattice of the image."""
    own, share = (torch.from_numpy(v).float()[None, None] for v in (image, weight))
    return [v[0, 0].numpy() for v in smoothing.image_on_lattice(own, share, lattice, step_vox=step)]


def test_a_constant_stays_whatever_the_padding_holds() -> None:
    weight = (random(14, 13, 12) > 0.3).astype(float)
    image = np.where(weight > 0, 0.625, 1e6 * random(14, 13, 12, seed=1))
    value, share = on_lattice(
        image, weight, grids.Lattice((9, 8, 6), (-2.0, -1.5, -1.0), (1.7, 1.3, 1.9)), (1.7, 1.3, 1.9)
    )
    assert (share > 0.01).sum() > 5 and share.min() >= 0 and share.max() <= 1
    np.testing.assert_allclose(value[share > 0.01], 0.625, atol=ROUNDING * 10)
    assert (value[share == 0] == 0).all()


@pytest.mark.parametrize("step", [(1.0, 1.0, 1.0), (2.5, 1.5, 1.2), (1.3, 2.6, 0.6)])
def test_a_plane_stays_a_plane(step: tuple[float, float, float]) -> None:
    shape, slope = (34, 22, 18), np.array([0.021, -0.013, 0.017])
    plane = np.einsum("c,c...->...", slope, np.indices(shape))
    lattice = grids.Lattice((4, 4, 4), (12.3, 8.0, 6.5), step)
    value, share = on_lattice(plane, np.ones(shape), lattice, step)
    np.testing.assert_allclose(share, 1.0, atol=ROUNDING)
    np.testing.assert_allclose(value, np.einsum("c,c...->...", slope, lattice.points().numpy()), atol=ROUNDING * 10)


def test_nodes_on_voxels_with_nothing_to_smooth_are_the_voxels() -> None:
    image = random(*SHAPE)
    value, share = on_lattice(image, np.ones(SHAPE), grids.lattice_over(SHAPE, SHAPE), (0.4, 1.0, 0.9))
    assert np.array_equal(value, image.astype(np.float32)) and (share == 1).all()


def test_reading_is_linear_and_ends_at_the_ends() -> None:
    row, at = np.array([2.0, 5.0, 3.0]), np.array([-1.0, -0.25, 0.0, 0.5, 1.75, 2.0, 2.5, 3.0])
    read = smoothing.reading_matrix(3, at).numpy() @ row
    np.testing.assert_allclose(read, [0, 1.5, 2, 3.5, 3.5, 3, 1.5, 0], atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_a_wave_is_damped_as_a_gaussian_damps_it(ratio: int, axis: int) -> None:
    wave = 0.35  # radians a voxel
    shape, nodes, origin, step = (
        np.roll(v, axis).tolist() for v in ([61, 13, 13], [15, 1, 1], [9.0, 6.0, 6.0], [float(ratio), 1.0, 1.0])
    )
    image = np.sin(wave * np.indices(shape)[axis])
    value, _ = on_lattice(image, np.ones(shape), grids.Lattice(tuple(nodes), tuple(origin), tuple(step)), step)
    sigma = 0.3 * np.sqrt(ratio**2 - 1)  # voxels
    truth = np.exp(-((wave * sigma) ** 2) / 2) * np.sin(wave * (9 + ratio * np.arange(15)))
    np.testing.assert_allclose(value.ravel(), truth, atol=ATTENUATION if ratio > 1 else POSITION_VOX)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_warp_is_monais(padding: str, mode: str) -> None:
    image, upstream = (torch.from_numpy(random(1, 2, *SHAPE, seed=s)) for s in (0, 1))
    results = []
    for warp in (sampling.Warp(mode, padding), MonaiWarp(mode, padding)):
        field = torch.from_numpy(random(1, 3, *SHAPE, seed=2) * 1.5).requires_grad_()
        warped = warp(image, field)
        (slope,) = torch.autograd.grad((warped * upstream).sum(), field)
        results.append((warped.detach().numpy(), slope.numpy()))
    for own, monais in zip(*results, strict=True):
        np.testing.assert_allclose(own, monais, atol=EXACT)


@each_affine
def test_warp_reads_where_the_placement_says(affine: np.ndarray) -> None:
    image, field = torch.from_numpy(random(2, 11, 10, 9)), torch.from_numpy(random(3, 4, 5, 3) * 1.5)
    placement = np.linalg.solve(affine, affine @ g.translation([3.0, 2.0, 4.0]) @ np.diag([1.2, 0.8, 0.7, 1.0]))
    placement[:3, :3] = placement[:3, :3] @ Rotation.from_euler("zyx", [10, -5, 8], degrees=True).as_matrix()
    at = np.moveaxis(apply_affine(placement, np.moveaxis(np.indices((4, 5, 3)) + field.numpy(), 0, -1)), -1, 0)
    truth = sampling.sample(image[None], torch.from_numpy(at)[None])
    np.testing.assert_allclose(sampling.Warp()(image[None], field[None], placement), truth, atol=EXACT)


def test_warp_keeps_nothing_of_another_call() -> None:
    warp, image = sampling.Warp(), torch.from_numpy(random(1, 1, 11, 10, 9)).float()
    still = torch.zeros(1, 3, 4, 5, 3)
    assert torch.allclose(warp(image, still, g.translation([2, 3, 5])), image[:, :, 2:6, 3:8, 5:8], atol=READ)
    assert torch.allclose(warp(image, still), image[:, :, :4, :5, :3], atol=READ)
    moved = torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1, 1) + torch.zeros(1, 3, 3, 4, 2)
    truth = (image[:, :, 1:4, 1:5, 5:7] + image[:, :, 1:4, 1:5, 6:8]) / 2
    assert torch.allclose(warp(image, moved, g.translation([0, 3, 5])), truth, atol=READ)
    assert torch.allclose(warp(image[:, :, :8], still), image[:, :, :4, :5, :3], atol=READ)
