"""The path from a network to a loss: field, pyramid and objective, against formulas and nibabel."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation
from torch import nn

from ncf.fit.field import FieldSpace, dense_field
from ncf.fit.losses.occupancy import OccupancyLoss
from ncf.fit.losses.ssim import SSIMLoss
from ncf.fit.network import NCF
from ncf.fit.objective import Objective
from ncf.fit.pyramid import LevelImages, PairImages, level_images
from ncf.fit.terms import ImageTerm, OccupancyTerm, Sampled, WeightedSum
from ncf.space.geometry import translation
from ncf.space.grids import lattice_over
from ncf.space.sampling import Warp, sample

pytestmark = pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp")  # it announces torch's own grid sampler

FIELD_VOX = 2e-5  # float32: displacements of some ten voxels, a few matrix products
VALUE = 1e-5  # of intensities up to 1: float32 positions below 40 times slopes below 0.1 a voxel
BFLOAT = 0.02  # relative; bfloat16 keeps 8 bits, and a field of 1 voxel is made of a few layers
SAG = 0.01  # of intensities up to 1: two linear readings of waves as long as 30 voxels, and the level's own smoothing
Shape = tuple[int, int, int]
SHAPE, MOVING_SHAPE = (16, 14, 12), (23, 22, 26)


def posed(spacing: tuple[float, float, float], *, angles: tuple[float, float, float], shape: Shape) -> np.ndarray:
    """The affine of a rotated grid about the world's origin."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(spacing)
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


FIXED_AFFINE = posed((1.0, 1.5, 2.0), angles=(10, -20, 40), shape=SHAPE)
MOVING_AFFINE = posed((1.3, 1.2, 1.1), angles=(-5, 15, 25), shape=MOVING_SHAPE)


class Line(nn.Module):
    """An affine map at every point: what each interpolation must reproduce."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor([[0.1, -0.05, 0.02], [0.03, 0.08, -0.1], [-0.04, 0.06, 0.09]]))
        self.shift = nn.Parameter(torch.tensor([0.15, -0.2, 0.1]))

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        return torch.einsum("cd,bd...->bc...", self.matrix, grid) + self.shift.view(1, 3, 1, 1, 1)


class Seen(nn.Module):
    """A term that keeps the state it was shown."""

    state: Sampled

    def forward(self, state: Sampled) -> torch.Tensor:
        self.state = state
        return state.warped.mean()


def stirred(seed: int = 0) -> NCF:
    """A small network that no longer starts at zero."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NCF(width=16, depth=3, smooth_channels=8)
        nn.init.normal_(network.sm.last.weight, std=0.05)
    return network


def texture(points_mm: np.ndarray) -> np.ndarray:
    """A smooth image in [0, 1] at world points (..., 3)."""
    waves = np.array([[0.11, 0.05, -0.04], [-0.03, 0.09, 0.07], [0.06, -0.02, 0.10]])
    return 0.5 + np.sin(points_mm @ waves.T + [0.3, 1.1, 2.0]).sum(axis=-1) / 6


def drawn(shape: Shape, affine: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(texture(apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1)))).float()[None, None]


def pair_of(**changes) -> PairImages:
    """Two views of one texture, all of them data."""
    volumes = {"fixed": drawn(SHAPE, FIXED_AFFINE), "moving": drawn(MOVING_SHAPE, MOVING_AFFINE)}
    weights = {f"{name}_weight": torch.ones_like(image) for name, image in volumes.items()}
    affines = {"fixed_affine": FIXED_AFFINE, "moving_affine": MOVING_AFFINE, "initial": np.eye(4)}
    return PairImages(**{**volumes, **weights, **affines, **changes})


def objective_of(
    pair: PairImages,
    network: nn.Module,
    *terms: nn.Module,
    start: tuple[float, float, float] = (0.0, 0.0, 0.0),
    points: int = 10**9,
    amp: bool = False,
    within: float = 0.0,
) -> tuple[Objective, LevelImages]:
    pair = replace(pair, initial=translation(pair.fixed_affine[:3, :3] @ start))
    images, space = (
        level_images(pair, points, least=4),
        FieldSpace(pair.fixed_shape, pair.fixed_affine, 3, pair.initial),
    )
    loss = WeightedSum({str(i): term for i, term in enumerate(terms)})
    control = space.control(300)
    given = {"images": images, "space": space, "control": control, "amp": amp, "follow_within": within}
    return Objective(network, loss=loss, warp=Warp(), **given), images


def all_terms() -> tuple[nn.Module, ...]:
    return ImageTerm(nn.MSELoss()), ImageTerm(SSIMLoss(win_size=5)), OccupancyTerm(OccupancyLoss(), 0.1)


def test_a_step_that_is_followed_is_nearly_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    network, readings = stirred(), []
    warp_data = Warp.data
    monkeypatch.setattr(Warp, "data", lambda *given: readings.append(1) or warp_data(*given))
    slopes = []
    for within in (0.0, 0.5):
        objective, _ = objective_of(pair_of(), network, *all_terms(), within=within)
        at_start = {name: value.clone() for name, value in network.state_dict().items()}
        for _ in range(3):  # a thousandth of what the weights are moves the field by much less than half a node
            total = torch.stack(list(objective().values())).sum()
            slopes.append(torch.cat([g.flatten() for g in torch.autograd.grad(total, list(network.parameters()))]))
            with torch.no_grad():
                for weights in network.parameters():
                    weights.mul_(1.001)
        network.load_state_dict(at_start)
    assert len(readings) == 3 + 1
    exact, followed = slopes[2], slopes[5]
    assert 0 < (followed - exact).norm() < 0.05 * exact.norm() and not torch.equal(slopes[3], slopes[5])


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 1.6, 5.0)])
def test_an_affine_network_is_an_affine_field(order: int, spacing: tuple[float, float, float]) -> None:
    shape, start = (17, 13, 9), (3.0, -1.5, 0.25)
    affine = posed(spacing, angles=(20, 30, -10), shape=shape)
    space, network = FieldSpace(shape, affine, order, translation(affine[:3, :3] @ start)), Line()
    found = dense_field(network, space, space.control(400))
    sides = (np.array(space.shape) - 1) * spacing
    half = sides.max() / 2  # the unit of the network's input and output, in mm
    at = (np.indices(space.shape) * np.reshape(spacing, (3, 1, 1, 1)) - sides.reshape(3, 1, 1, 1) / 2) / half
    values = np.einsum("cd,d...->c...", network.matrix.detach().numpy(), at)
    values += network.shift.detach().numpy().reshape(3, 1, 1, 1)
    truth = values * half / np.reshape(spacing, (3, 1, 1, 1)) + np.reshape(start, (3, 1, 1, 1))
    assert found.shape == (1, 3, 17, 13, 9) and found.dtype == torch.float32 and not found.requires_grad
    np.testing.assert_allclose(found[0].numpy(), truth, atol=FIELD_VOX)
    dense = network(space.network_input(space.full(), "cpu")) * space.unit_vox((1, 1, 1), "cpu")
    np.testing.assert_allclose(space.after_initial(dense)[0].detach().numpy(), truth, atol=FIELD_VOX)


def test_the_start_follows_the_networks_own_map() -> None:
    start = posed(
        (0.9, 1.1, 1.05), angles=(12, -7, 20), shape=(5, 6, 7)
    )  # an affine map in mm, turned, sheared and moved
    space, network = FieldSpace((9, 8, 7), FIXED_AFFINE, 3, start), stirred()
    own = dense_field(network, replace(space, initial=np.eye(4)), space.control(300))[0].double().numpy()
    x = np.moveaxis(np.indices(space.shape).astype(float), 0, -1)
    moved = apply_affine(np.linalg.inv(FIXED_AFFINE) @ start @ FIXED_AFFINE, x + np.moveaxis(own, 0, -1)) - x
    found = dense_field(network, space, space.control(300))[0].numpy()
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), moved, atol=1e-3)


def test_free_offsets_are_added_to_the_networks_output_on_a_lattice_of_their_own() -> None:
    space, network = FieldSpace((9, 8, 7), FIXED_AFFINE, 1), stirred()
    control, finer = space.control(100), space.full()
    offsets = torch.randn(1, 3, *finer.shape, generator=torch.Generator().manual_seed(0))
    alone, both = (dense_field(network, space, control, offsets=o) for o in (None, offsets))
    own = offsets * space.unit_vox((1, 1, 1), "cpu")
    np.testing.assert_allclose((both - alone).numpy(), own.numpy(), atol=1e-4)


def test_a_control_lattice_on_every_voxel_is_the_network_itself() -> None:
    space, network = FieldSpace((7, 6, 5), FIXED_AFFINE, 1), stirred()
    dense = network(space.network_input(space.full(), "cpu")) * space.unit_vox((1, 1, 1), "cpu")
    assert dense.abs().max() > 0.1
    np.testing.assert_allclose(dense_field(network, space, space.full()), dense.detach(), atol=FIELD_VOX)


def test_the_control_lattice_has_four_nodes_where_it_can() -> None:
    space = FieldSpace((60, 40, 3), np.diag([1.0, 1.0, 5.0, 1.0]))
    assert space.control(10).shape == (4, 4, 3) and space.control(10**9).shape == space.shape
    assert space.full() == lattice_over(space.shape, space.shape)


def test_the_field_of_a_level_is_that_of_the_whole_grid() -> None:
    shape, lattice, blank = (17, 13, 9), lattice_over((17, 13, 9), (9, 7, 5)), torch.zeros(1, 2, 9, 7, 5)
    images = LevelImages(lattice, blank[:, :1], blank[:, :1], blank, np.eye(4), lattice, (0.0, 0.0, 0.0))
    network, seen, space = stirred(), Seen(), FieldSpace(shape, FIXED_AFFINE, 3)
    control = space.control(150)
    loss = WeightedSum({"seen": seen})
    Objective(network, loss=loss, warp=Warp(), images=images, space=space, control=control, amp=False)()
    whole = dense_field(network, space, control)[..., ::2, ::2, ::2]  # every node of the level is a voxel
    assert whole.std() > 0.1
    np.testing.assert_allclose(2 * seen.state.field.detach(), whole, atol=FIELD_VOX)
    own = torch.stack(torch.meshgrid(*[torch.arange(n) for n in lattice.shape], indexing="ij"))
    np.testing.assert_allclose((seen.state.positions() - own).detach(), whole / 2, atol=FIELD_VOX)
    nodes = network(space.network_input(control, "cpu")) * space.unit_vox(control.step_vox, "cpu")
    np.testing.assert_allclose(seen.state.control.detach(), nodes.detach(), atol=FIELD_VOX)


@pytest.mark.parametrize("points", [10**9, 800])
def test_a_level_reads_the_moving_image_where_the_field_points(points: int) -> None:
    seen = Seen()
    objective, images = objective_of(pair_of(), Line(), seen, points=points)
    objective()
    state, step = seen.state, np.array(images.lattice.step_vox)
    moved = images.lattice.points() + (state.field * torch.tensor(step).view(1, 3, 1, 1, 1)).detach().float()[0]
    truth = texture(apply_affine(FIXED_AFFINE, np.moveaxis(moved.numpy(), 0, -1)))
    nodes = np.moveaxis(np.indices(images.lattice.shape) + state.field[0].detach().numpy(), 0, -1)
    at = apply_affine(images.to_moving, nodes)
    read = sample(images.moving, torch.from_numpy(np.moveaxis(at, -1, 0)).float()[None])[:, 1:]
    np.testing.assert_allclose(state.weight, (images.fixed_weight * read).detach(), atol=VALUE)
    sure = ((images.fixed_weight > 0.99) & (state.weight > 0.99))[0, 0]
    assert sure.sum() > 0.1 * sure.numel()
    warped, fixed = (image[0, 0].detach().numpy() for image in (state.warped, state.fixed))
    assert np.abs(warped - truth)[sure].max() < SAG and np.abs(fixed - truth)[sure].max() > 5 * SAG


def test_every_visit_is_counted_on_the_levels_own_nodes_continued() -> None:
    seen = Seen()
    objective, images = objective_of(pair_of(), Line(), seen, points=800)
    objective()
    nodes = np.indices(images.lattice.shape) + seen.state.field[0].detach().numpy()
    own, continued = (lattice.affine(FIXED_AFFINE) for lattice in (images.lattice, images.visited))
    truth = apply_affine(np.linalg.solve(continued, own), np.moveaxis(nodes, 0, -1))
    np.testing.assert_allclose(np.moveaxis(seen.state.positions()[0].detach().numpy(), 0, -1), truth, atol=FIELD_VOX)


def test_fixed_nodes_with_less_than_half_their_data_do_not_count() -> None:
    weight = torch.ones(1, 1, *SHAPE)
    weight[:, :, :5] = 0
    found = level_images(pair_of(fixed_weight=weight), 300, least=4).fixed_weight[0, 0]
    assert ((found == 0) | (found >= 0.5)).all() and found[0].max() == 0 and found.max() > 0.9


def test_of_doing_nothing_is_where_every_fit_begins() -> None:
    for start in ((0.0, 0.0, 0.0), (2.5, -1.25, 0.5)):
        objective, _ = objective_of(pair_of(), NCF(width=8), *all_terms(), start=start, points=1500)
        first, nothing = objective(), objective.of_doing_nothing()
        assert list(first) == list(nothing) == ["0", "1", "2"]
        for name in first:
            assert first[name].item() == pytest.approx(nothing[name].item(), rel=VALUE, abs=VALUE)
            assert first[name].requires_grad and not nothing[name].requires_grad


def test_the_loss_reaches_every_weight_of_the_network() -> None:
    network = stirred()
    objective, _ = objective_of(pair_of(), network, *all_terms(), points=1500)
    for name in ("0", "1", "2"):
        slopes = torch.autograd.grad(objective()[name], list(network.parameters()))
        assert all(slope.isfinite().all() and slope.abs().max() > 0 for slope in slopes), name


def test_the_data_weight_gets_no_gradient() -> None:
    seen = Seen()
    objective, _ = objective_of(pair_of(), Line(), seen, start=(4.0, 0.0, 0.0))
    objective()
    assert seen.state.warped.requires_grad and seen.state.field.requires_grad
    assert not seen.state.weight.requires_grad and not seen.state.fixed.requires_grad
    assert 0 < seen.state.weight.mean() < 1


@pytest.mark.parametrize("start", [0.0, 0.5, 3.3])
def test_equal_constants_are_equal_wherever_there_is_data(start: float) -> None:
    one, weight = torch.full((1, 1, *SHAPE), 0.7), torch.ones(1, 1, *SHAPE)
    weight[..., 7:] = 0
    pair = pair_of(fixed=one, moving=one, moving_weight=weight, moving_affine=FIXED_AFFINE)
    for points in (10**9, 800):
        seen = Seen()
        objective_of(pair, NCF(width=8), seen, start=(start, start, -start), points=points)[0]()
        assert 0 < seen.state.weight.mean() < 0.7
        assert (seen.state.warped - seen.state.fixed).abs().max() < VALUE


@pytest.mark.parametrize("points", [10**9, 1000])
def test_what_the_fixed_padding_holds_changes_nothing(points: int) -> None:
    weight = torch.ones(1, 1, *SHAPE)
    weight[:, :, :5], weight[..., 9:] = 0, 0
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=SHAPE) * 100).float()[None, None]
    own = drawn(SHAPE, FIXED_AFFINE)
    values = []
    for fixed in (own, torch.where(weight > 0, own, noise)):
        pair = pair_of(fixed=fixed, fixed_weight=weight)
        values.append(objective_of(pair, stirred(), *all_terms(), points=points)[0]())
    assert all(values[0][name].item() == values[1][name].item() for name in values[0])


def test_where_the_fixed_weight_is_zero_its_nodes_change_nothing() -> None:
    objective, images = objective_of(pair_of(), stirred(), ImageTerm(nn.MSELoss()), OccupancyTerm(OccupancyLoss(), 0.1))
    images.fixed_weight[:, :, 4:9] = 0
    before = objective()
    images.fixed[:, :, 4:9] += 5
    after = objective()
    assert all(before[name].item() == pytest.approx(after[name].item(), rel=VALUE) for name in before)
    images.fixed[:, :, 10] += 5
    assert objective()["0"].item() > 2 * before["0"].item()


def test_content_beyond_the_fixed_field_of_view_is_brought_in() -> None:
    affine, moving = np.diag([1.5, 1.0, 2.0, 1.0]), drawn((24, 8, 8), FIXED_AFFINE)
    ones = torch.ones_like(moving)
    pair = PairImages(moving[:, :, :8], moving, ones[:, :, :8], ones, affine, affine, np.eye(4))
    seen = Seen()
    objective, images = objective_of(pair, NCF(width=8), seen, start=(13.0, 0.0, 0.0))
    objective()
    assert images.visited.shape == (24, 8, 8) and images.offset == pytest.approx((13, 0, 0))
    np.testing.assert_array_equal(images.moving[:, :1], moving)  # the voxels themselves
    assert seen.state.weight.min() > 0.999 and seen.state.moving_shape == (24, 8, 8)
    np.testing.assert_allclose(seen.state.warped.detach(), moving[:, :, 13:21], atol=VALUE)


def test_the_overlap_is_the_share_of_fixed_data_that_meets_moving_data() -> None:
    pair = pair_of(
        moving=drawn(SHAPE, FIXED_AFFINE), moving_weight=torch.ones(1, 1, *SHAPE), moving_affine=FIXED_AFFINE
    )
    network = Line()
    with torch.no_grad():  # the field is 6 voxels of the second axis everywhere, on top of a start of 4 of the first
        network.matrix.zero_()
        network.shift.copy_(torch.tensor([0.0, 6 * 1.5 / 11.0, 0.0]))  # in units of half the longest side, 22 mm
    objective, images = objective_of(pair, network, Seen(), start=(4.0, 0.0, 0.0))
    assert objective.at_rest().overlap == objective.overlap_at_rest() == pytest.approx(12 / 16, rel=VALUE)
    assert objective.now().overlap == pytest.approx(12 / 16 * 8 / 14, rel=VALUE)
    images.fixed_weight[:, :, 8:] = 0  # all of what is left meets data at the start
    assert objective.overlap_at_rest() == pytest.approx(1, rel=VALUE)


def test_half_precision_is_for_the_network_alone() -> None:
    states = []
    for amp in (False, True):
        seen = Seen()
        value = objective_of(pair_of(), stirred(), seen, points=800, amp=amp)[0]()["0"]
        assert value.dtype == seen.state.field.dtype == seen.state.warped.dtype == torch.float32
        states.append(seen.state.field.detach())
    assert 0 < (states[0] - states[1]).abs().max() < BFLOAT * states[0].abs().max()
