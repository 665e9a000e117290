"""The loss terms against MONAI's own, brute force in numpy, finite differences and numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from monai import losses as monai
from torch import nn

from ncf.fit.losses.folding import FoldingLoss
from ncf.fit.losses.gradient_fields import GradientFieldLoss
from ncf.fit.losses.mind import MindLoss
from ncf.fit.losses.occupancy import OccupancyLoss, exact_occupancy, occupancy
from ncf.fit.losses.ssim import SSIMLoss
from ncf.fit.mind import mind_ssc
from ncf.fit.terms import ControlTerm, CorrelationTerm, FieldTerm, ImageTerm, OccupancyTerm, Sampled, WeightedSum
from ncf.space.sampling import sample

# MONAI 1.6.1 slices with lists in its field losses, which torch says it will not take for ever
pytestmark = pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")

SSIM_VALUE = 1e-6  # of 1, against float64: moments about 0.5 lose 2e-7 in float32
SSIM_MONAI = 5e-6  # of 1: MONAI takes variances as mean(x^2) - mean(x)^2 in float32, 2e-6 off at 11^3 voxels a window
SSIM_GRADIENT = 1e-5  # of the largest component
SPLAT = 1e-12  # visits; float64 products of three weights
NODE_ROUNDING = 1e-5  # visits; a float32 position below 16 is off by 1e-6 nodes, and eight nodes meet in a voxel
SUM_ROUNDING = 1e-6  # relative; float32 means of some thousand numbers
EPS = 1e-4  # OccupancyLoss's own, which rounds its square root at 0


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(size=shape)).float()


def nodes(*axes: torch.Tensor) -> torch.Tensor:
    """Positions (1, 3, w, h, d), float64, whose first coordinate is the first row and so on."""
    return torch.stack(torch.meshgrid(*[a.double() for a in axes], indexing="ij"))[None]


def identity(*shape: int) -> torch.Tensor:
    return nodes(*[torch.arange(n) for n in shape])


def smooth_motion(shape: tuple[int, ...], *, height: float = 0.7) -> torch.Tensor:
    """Positions (1, 3, *shape) moved by waves of ``height`` nodes, float64, none of them a whole number."""
    waves = torch.tensor([[0.9, 0.5, -0.7], [-0.4, 0.8, 0.6], [0.7, -0.3, 0.5]], dtype=torch.float64)
    at = identity(*shape)
    return at + height * torch.sin(torch.einsum("cd,bd...->bc...", waves, at) + 0.37)


@pytest.fixture(params=[1, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """That many threads for torch while a test runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


WINDOWS = [
    {},
    {"win_size": 7, "kernel_sigma": 1.0},
    {"win_size": (3, 4, 7), "kernel_sigma": (0.8, 1.5, 2.0)},
    {"kernel_type": "uniform", "win_size": 5},
    {"kernel_type": "uniform", "win_size": (7, 3, 4), "k1": 0.02, "k2": 0.05, "data_range": 2.0},
]


def dense_ssim(options: dict, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """SSIM of every window by its definition, in float64, with the window that MONAI's metric makes."""
    metric = monai.SSIMLoss(spatial_dims=3, **options).ssim_metric
    window = torch.ones(1, 1, *metric.kernel_size, dtype=torch.float64)
    if metric.kernel_type == "gaussian":
        for a, (n, sigma) in enumerate(zip(metric.kernel_size, metric.kernel_sigma, strict=True)):
            bell = torch.exp(-((torch.arange(n, dtype=torch.float64) - (n - 1) / 2) ** 2) / (2 * sigma**2))
            window = window * bell.view([-1 if a == axis else 1 for axis in range(3)])
    x, y = image.double(), target.double()
    mx, my, xx, yy, xy = (nn.functional.conv3d(v, window / window.sum()) for v in (x, y, x * x, y * y, x * y))
    c1, c2 = (metric.k1 * metric.data_range) ** 2, (metric.k2 * metric.data_range) ** 2
    structure = (2 * (xy - mx * my) + c2) / (xx - mx**2 + yy - my**2 + c2)
    return (2 * mx * my + c1) / (mx**2 + my**2 + c1) * structure


def dense_ssim_loss(options: dict, image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return 1 - dense_ssim(options, image, target).mean()


@pytest.mark.parametrize("options", WINDOWS, ids=str)
@pytest.mark.parametrize("shape", [(12, 13, 15), (11, 20, 11)])
def test_ssim_is_its_definition_and_monais_in_value_and_gradient(options: dict, shape: tuple[int, int, int]) -> None:
    target, results = uniform(1, 1, *shape), []
    start = 0.6 * target + 0.4 * uniform(1, 1, *shape, seed=1)
    monais = monai.SSIMLoss(spatial_dims=3, **options)
    for loss in (SSIMLoss(spatial_dims=3, **options), partial(dense_ssim_loss, options), monais):
        image = start.clone().requires_grad_()
        value = loss(image, target)
        results.append((value.item(), torch.autograd.grad(value, image)[0]))
    own, gradient = results[0]
    assert own > 0.05
    for (truth, referee), close in zip(results[1:], (SSIM_VALUE, SSIM_MONAI), strict=True):
        assert own == pytest.approx(truth, abs=close)
        assert (gradient - referee).abs().max() < SSIM_GRADIENT * referee.abs().max()


def test_ssim_keeps_its_precision_where_contrast_is_low() -> None:
    target, image = (0.45 + 0.1 * uniform(1, 1, 13, 13, 13, seed=s) for s in (0, 1))  # MONAI's own is 5e-5 off here
    assert SSIMLoss()(image, target).item() == pytest.approx(dense_ssim_loss({}, image, target).item(), abs=SSIM_VALUE)
    assert SSIMLoss()(image, image).item() == pytest.approx(0, abs=SSIM_VALUE)


def test_ssim_follows_its_target() -> None:
    loss, image = SSIMLoss(win_size=5), uniform(1, 1, 9, 9, 9)
    for seed in range(1, 30):  # each target dies before the next is made, so addresses are used again
        target = uniform(1, 1, 9, 9, 9 - seed % 2, seed=seed)
        other = image[..., seed % 2 :]
        assert loss(other, target).item() == SSIMLoss(win_size=5)(other, target).item()
        del target
    one, other = (uniform(1, 1, 9, 9, 9, seed=seed) for seed in (1, 2))
    for target in (one, other, one, one):
        assert loss(image, target).item() == SSIMLoss(win_size=5)(image, target).item()


def test_ssim_takes_the_targets_moments_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loss, (image, target) = SSIMLoss(win_size=3), (uniform(1, 1, 6, 6, 6, seed=s) for s in (0, 1))
    truth = [SSIMLoss(win_size=3)(image + i / 10, target) for i in range(3)]
    assert loss(image, target) == truth[0]
    monkeypatch.setattr(loss.windows, "_matrices", None)  # may not be asked again
    assert [loss(image + i / 10, target) for i in range(3)] == truth


@pytest.mark.parametrize(("stride", "first"), [(1, 0), (2, 0), (4, 0), (5, 1)])
def test_ssim_with_a_stride_is_the_mean_over_every_so_many_windows(stride: int, first: int) -> None:
    """13 windows fit along an axis; as many are left out before the first as after the last."""
    image, target = (uniform(1, 1, 15, 15, 15, seed=s) for s in (0, 1))
    options = {"win_size": 3, "kernel_sigma": 0.8}
    windows = dense_ssim(options, image, target)
    assert windows.shape == (1, 1, 13, 13, 13)
    truth = 1 - windows[..., first::stride, first::stride, first::stride].mean().item()
    loss = SSIMLoss(stride=stride, **options)
    assert loss(image, target).item() == pytest.approx(truth, abs=SSIM_VALUE)


def test_ssim_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="window of 11 does not fit into 10 voxels along axis 1"):
        SSIMLoss()(*[uniform(1, 1, 12, 10, 12)] * 2)
    with pytest.raises(ValueError, match="3 spatial dimensions, not 2"):
        SSIMLoss(spatial_dims=2)


def test_visits_in_whole_numbers_are_the_same_in_any_order() -> None:
    """What CUDA does, here held to the kernel of the CPU, where the two can be compared."""
    at, shape = smooth_motion((9, 8, 7), height=1.6).float(), (8, 9, 7)
    flat = at[0].flatten(1)
    found = exact_occupancy(flat, shape)
    assert found.dtype == torch.float32 and found.shape == (1, 1, *shape)
    np.testing.assert_allclose(found.numpy(), occupancy(at, shape).numpy(), atol=NODE_ROUNDING)
    shuffled = flat[:, torch.randperm(9 * 8 * 7, generator=torch.Generator().manual_seed(0))]
    assert torch.equal(exact_occupancy(shuffled, shape), found)
    assert exact_occupancy(3 + flat, (16, 16, 16)).sum().item() == pytest.approx(9 * 8 * 7, rel=1e-6)


def test_visits_are_the_brute_force_splat(threads: int) -> None:
    at, shape = smooth_motion((6, 5, 4), height=1.6), (5, 7, 4)  # some leave the image
    truth = np.zeros(shape)
    for p in at[0].reshape(3, -1).T.numpy():
        for corner in product((0, 1), repeat=3):
            voxel = np.floor(p).astype(int) + corner
            if (voxel >= 0).all() and (voxel < shape).all():
                truth[tuple(voxel)] += np.prod(1 - np.abs(p - voxel))
    found = occupancy(at, shape)
    assert found.dtype == torch.float64 and found.shape == (1, 1, *shape)
    np.testing.assert_allclose(found[0, 0].numpy(), truth, atol=SPLAT)
    assert occupancy(2 + at, (10, 9, 8)).sum().item() == pytest.approx(6 * 5 * 4, rel=SPLAT)  # inside, all are counted


@pytest.mark.parametrize("shift", [(0, 0, 0), (2, 1, 3), (-2, 3, 0)])
def test_whole_steps_visit_every_voxel_once_at_no_loss(shift: tuple[int, int, int], threads: int) -> None:
    at = (identity(9, 8, 10) + torch.tensor(shift).view(1, 3, 1, 1, 1)).float().requires_grad_()
    b = occupancy(at, (9, 8, 10))
    truth = torch.zeros(9, 8, 10)
    truth[tuple(slice(max(s, 0), n + min(s, 0)) for s, n in zip(shift, (9, 8, 10), strict=True))] = 1
    np.testing.assert_allclose(b[0, 0].detach().numpy(), truth.numpy(), atol=NODE_ROUNDING)
    loss = OccupancyLoss()(at, (9, 8, 10))
    assert loss.item() == pytest.approx(0, abs=NODE_ROUNDING)
    assert torch.autograd.grad(loss, at)[0].isfinite().all()


# 11 nodes over 9 voxels, twice as dense in the middle. Every node gives 1 - |p - v| to voxel v:
#   voxels 0, 1, 2 and 6, 7, 8: 1;  voxel 3: 1 + 1/2 (from 3.5);  4: 1/2 + 1 + 1/2;  5: 1/2 + 1
#   B = 1 1 1 1.5 2 1.5 1 1 1, its differences 0 0 .5 .5 -.5 -.5 0 0, their squares together 1
PRESSED = torch.tensor([0, 1, 2, 3, 3.5, 4, 4.5, 5, 6, 7, 8])
BY_HAND = torch.tensor([1, 1, 1, 1.5, 2, 1.5, 1, 1, 1], dtype=torch.float64)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_compression_worked_out_by_hand(axis: int) -> None:
    rows, shape = [torch.arange(5.0)] * 3, [5, 5, 5]
    rows[axis], shape[axis] = PRESSED, 9
    b = occupancy(at := nodes(*rows), size := (shape[0], shape[1], shape[2])).movedim(2 + axis, -1)
    np.testing.assert_allclose(b.numpy(), np.broadcast_to(BY_HAND.numpy(), b.shape), atol=SPLAT)
    # no margin: 5 * 5 lines of squares 1; differences: 25 lines of 8, and twice 9 * 5 lines of 4
    full = (25 * 1 / (25 * 8 + 2 * 45 * 4) + EPS**2) ** 0.5 - EPS
    assert OccupancyLoss(margin=0)(at, size).item() == pytest.approx(full, rel=1e-9)
    # a margin of 1 leaves 7 x 3 x 3 voxels: 9 lines of squares 1; differences: 9 lines of 6, and twice 21 lines of 2
    inner = (9 * 1 / (9 * 6 + 2 * 21 * 2) + EPS**2) ** 0.5 - EPS
    assert OccupancyLoss(margin=1)(at, size).item() == pytest.approx(inner, rel=1e-9)


@pytest.mark.parametrize("margin", [0, 1])
def test_the_occupancys_gradient_is_that_of_finite_differences(margin: int, threads: int) -> None:
    loss, at = OccupancyLoss(margin=margin), smooth_motion((6, 5, 6)).requires_grad_()
    assert loss(at, (6, 6, 5)).item() > 0.05
    assert torch.autograd.gradcheck(lambda p: loss(p, (6, 6, 5)), (at,))
    assert torch.autograd.gradcheck(lambda p: occupancy(p, (6, 6, 5)), (at,))


def test_the_end_of_the_field_of_view_costs_nothing_but_the_inside_does() -> None:
    still, shape = identity(9, 9, 9) + 4, (17, 17, 17)
    assert OccupancyLoss()(still, shape).item() == pytest.approx(0, abs=SPLAT / EPS)
    assert OccupancyLoss()(still + 0.3, shape).item() == pytest.approx(0, abs=SPLAT / EPS)
    assert OccupancyLoss(margin=0)(still, shape).item() > 0.1
    at_the_edge, inside = still.clone(), still.clone()
    at_the_edge[:, 0, 0] += 0.3
    inside[:, 0, 4] += 0.3
    assert OccupancyLoss()(at_the_edge, shape).item() == pytest.approx(0, abs=SPLAT / EPS)
    assert OccupancyLoss()(inside, shape).item() > 0.01
    even = nodes(torch.arange(17) / 2, torch.arange(9), torch.arange(9) / 4 + 3.0)
    assert OccupancyLoss()(even, (9, 9, 9)).item() == pytest.approx(0, abs=SPLAT / EPS)


def state_of(field: torch.Tensor, *, weight: torch.Tensor | None = None) -> Sampled:
    """A fit's state for a field (1, 3, 12, 11, 10) in nodes, its own control values, of two random images."""
    shape = (12, 11, 10)
    fixed, moving = uniform(1, 1, *shape), uniform(1, 1, *shape, seed=1)
    weight = torch.ones(1, 1, *shape) if weight is None else weight
    at = identity(*shape).float() + field
    return Sampled(
        fixed + weight * (sample(moving, at) - fixed), fixed, weight, field, field, identity(*shape).float(), shape
    )


def test_the_occupancy_of_every_nth_node_is_that_of_the_formula() -> None:
    state = state_of(field_of())
    term = OccupancyTerm(OccupancyLoss(stride=2), every=2)
    nodes = (identity(12, 11, 10).float() + state.field)[:, :, ::2, ::2, ::2] / 2
    b, own = occupancy(nodes, (6, 6, 5))[0, 0], OccupancyLoss(stride=1)(nodes, (6, 6, 5)) / 2
    assert b.sum() > 100 and term(state).item() == pytest.approx(own.item(), rel=1e-5)
    with pytest.raises(ValueError, match=r"takes every 1\. node, its loss wants a stride of 2"):
        OccupancyTerm(OccupancyLoss(stride=2))


def field_of(seed: int = 2) -> torch.Tensor:
    return (uniform(1, 3, 12, 11, 10, seed=seed) - 0.5).requires_grad_()


TERMS: dict[str, Callable[[float], nn.Module]] = {
    "mse": lambda w: ImageTerm(nn.MSELoss(), w),
    "ssim": lambda w: ImageTerm(SSIMLoss(win_size=5), w),
    "mutual information": lambda w: ImageTerm(monai.GlobalMutualInformationLoss(num_bins=16), w),
    "local correlation": lambda w: CorrelationTerm(monai.LocalNormalizedCrossCorrelationLoss(kernel_size=3), w),
    "bending": lambda w: FieldTerm(monai.BendingEnergyLoss(), w),
    "diffusion": lambda w: FieldTerm(monai.DiffusionLoss(), w),
    "occupancy": lambda w: OccupancyTerm(OccupancyLoss(), w),
    "folding": lambda w: ControlTerm(FoldingLoss(), w),
}


@pytest.mark.parametrize("term", TERMS.values(), ids=TERMS.keys())
def test_every_term_has_a_weight_and_a_gradient(term: Callable[[float], nn.Module]) -> None:
    field = field_of()
    once = term(1.0)(state_of(field))
    (slope,) = torch.autograd.grad(once, field)
    assert once.shape == () and slope.isfinite().all() and slope.abs().max() > 0
    assert term(0.25)(state_of(field)).item() == pytest.approx(once.item() / 4, rel=SUM_ROUNDING)
    assert term(0.0)(state_of(field)).item() == 0


def test_the_losses_of_a_known_field() -> None:
    x = identity(12, 11, 10).float()[:, :1]
    line, bow = (
        replace(state_of(field_of()), field=torch.cat([u, 0 * u, 0 * u], dim=1)) for u in (0.3 * x, 0.1 * x**2)
    )
    assert FieldTerm(monai.BendingEnergyLoss(), 2.0)(line).item() == pytest.approx(0, abs=SUM_ROUNDING)
    assert FieldTerm(monai.DiffusionLoss(), 2.0)(line).item() == pytest.approx(
        2 * 0.3**2 / 3, rel=1e-4
    )  # of 3 channels
    assert FieldTerm(monai.BendingEnergyLoss(), 2.0)(bow).item() == pytest.approx(2 * 0.2**2 / 3, rel=1e-4)


# x -> (a x, b y, z) has the determinant a b: 0.25 is no less than the floor of 0.2; 0.1 lacks 0.1; -0.5 lacks 0.7
@pytest.mark.parametrize(("a", "b", "lacking"), [(0.5, 0.5, 0.0), (0.5, 0.2, 0.1), (-0.5, 1.0, 0.7), (-1.0, -1.0, 0.0)])
def test_folding_counts_what_the_determinant_lacks(a: float, b: float, lacking: float) -> None:
    stretch = torch.tensor([a - 1, b - 1, 0]).view(1, 3, 1, 1, 1)
    control = (stretch * identity(6, 5, 4).float()).requires_grad_()
    term = ControlTerm(FoldingLoss(), 3.0)(replace(state_of(field_of()), control=control))
    assert term.item() == pytest.approx(3 * lacking, abs=10 * SUM_ROUNDING)
    assert (torch.autograd.grad(term, control)[0].abs().max() > 0) == (lacking > 0)


class Below(nn.L1Loss):
    """A loss that is -1 at best, as correlations are."""

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return super().forward(input, target) - 1


@pytest.mark.parametrize("share", [1.0, 0.5, 1 / 6, 0.0])
@pytest.mark.parametrize(
    ("term", "truth"), [(ImageTerm(nn.MSELoss()), 0.04), (ImageTerm(nn.L1Loss()), 0.2), (CorrelationTerm(Below()), 0.2)]
)
def test_terms_are_means_over_the_overlap(term: nn.Module, truth: float, share: float) -> None:
    weight = torch.zeros(1, 1, 12, 11, 10)
    weight[:, :, : round(12 * share)] = 1
    state = state_of(field_of(), weight=weight)
    state = replace(state, warped=state.fixed + 0.2 * weight)
    assert term(state).item() == pytest.approx(truth if share else 0, rel=20 * SUM_ROUNDING)


def test_agreement_is_no_better_on_a_smaller_overlap() -> None:
    weight, term = torch.zeros(1, 1, 12, 11, 10), TERMS["local correlation"](1.0)
    weight[:, :, :4] = 1
    for part in (weight, torch.ones_like(weight)):
        state = state_of(torch.zeros(1, 3, 12, 11, 10), weight=part)
        assert term(replace(state, warped=state.fixed)).item() == pytest.approx(0, abs=1e-4)


def test_the_sum_is_named_and_never_empty() -> None:
    state, terms = state_of(field_of()), {name: make(0.5) for name, make in TERMS.items()}
    found = WeightedSum(terms)(state)
    assert list(found) == list(TERMS) and all(torch.equal(found[name], terms[name](state)) for name in TERMS)
    with pytest.raises(ValueError, match="at least one term"):
        WeightedSum({})


def test_mind_compares_what_lies_around_a_place_and_no_contrast() -> None:
    image, target = (uniform(1, 1, 12, 14, 13, seed=s) for s in (0, 1))
    loss = MindLoss(pool=2)
    coarse = [v[0, 0, :12, :14, :12].reshape(6, 2, 7, 2, 6, 2).mean((1, 3, 5))[None, None] for v in (image, target)]
    truth = (mind_ssc(coarse[0]) - mind_ssc(coarse[1])).square().mean()
    assert loss(image, target).item() == pytest.approx(truth.item(), rel=1e-5) and truth > 0.01
    assert loss(target, target).item() == 0
    for other in (1 - 0.5 * target, 0.2 + 0.3 * target):
        assert loss(other, target).item() < 1e-6  # a gain of any sign is free
    assert loss(image, image).item() == 0  # another target: its own descriptors
    exact, start = MindLoss(pool=1, distance=2), image[..., :6, :6, :6].double().requires_grad_()
    small = target[..., :6, :6, :6].double()
    gradient = torch.autograd.grad(exact(start, small), start)[0]
    way = uniform(1, 1, 6, 6, 6, seed=2).double() - 0.5
    step = 1e-5
    slope = (exact(start + step * way, small) - exact(start - step * way, small)) / (2 * step)
    assert (gradient * way).sum().item() == pytest.approx(slope.item(), rel=1e-3)
    with pytest.raises(ValueError, match="at least 1"):
        MindLoss(pool=0)


def test_gradient_fields_are_compared_by_their_directions() -> None:
    image, target = (uniform(1, 1, 9, 8, 7, seed=s).double() for s in (0, 1))
    edge, loss = 0.05, GradientFieldLoss(0.05)
    fields = [np.stack(np.gradient(v[0, 0].numpy()))[:, 1:-1, 1:-1, 1:-1] for v in (image, target)]
    product = (fields[0] * fields[1]).sum(axis=0) + edge**2
    truth = 1 - np.mean(product**2 / np.prod([(f**2).sum(axis=0) + edge**2 for f in fields], axis=0))
    assert loss(image, target).item() == pytest.approx(truth, rel=1e-12) and truth > 0.3
    assert loss(target, target).item() == pytest.approx(0, abs=1e-12)
    flat = torch.full_like(target, 0.3)
    assert loss(flat, flat).item() == pytest.approx(0, abs=1e-12)  # nothing to compare costs nothing
    ramp = nodes(*[torch.arange(n) for n in (9, 8, 7)])[:, :1] / 8  # gradients well above the edge parameter
    assert GradientFieldLoss(1e-3)(1 - 0.5 * ramp, ramp).item() < 1e-3
    start, way, step = image.requires_grad_(), uniform(1, 1, 9, 8, 7, seed=2).double() - 0.5, 1e-6
    gradient = torch.autograd.grad(loss(start, target), start)[0]
    slope = (loss(image + step * way, target) - loss(image - step * way, target)) / (2 * step)
    assert (gradient * way).sum().item() == pytest.approx(slope.item(), rel=1e-5)
    with pytest.raises(ValueError, match="above zero"):
        GradientFieldLoss(0)
