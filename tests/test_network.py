"""The network: its size by hand, its start at the identity, its seeds, and the activations that SIREN promises."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from ncf.fit.convolution import ReplicatedConv3d, sum_of_copies, sum_of_shifts
from ncf.fit.network import CCM, NCF, SM, Sine

HIDDEN_STD = 0.5**0.5  # of an arcsine distribution on [-1, 1], which SIREN's initialisation keeps from layer to layer
STD_BAND = 0.05  # a layer of 128 units is a sample: its spread scatters by a few hundredths between seeds
FLOAT32 = 1e-6  # of values about 0.1: convolutions of a few hundred products


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """A known random state for a test, the old one after it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def bytes_of(module: nn.Module) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in module.parameters())


def stirred(network: NCF) -> NCF:
    """The same network after some training, as it were: no weight at its start."""
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return network


def test_the_papers_network_has_60870_parameters() -> None:
    # CCM, 3 -> 128 -> 128 -> 128 -> 128 -> 3, weights and biases of every layer:
    #   3 * 128 + 128 = 512;  three times 128 * 128 + 128 = 16512, so 49536;  128 * 3 + 3 = 387;  together 50435
    # SM, kernels of 3 * 3 * 3 = 27:
    #   3 * 64 * 27 + 64 = 5248;  64 * 3 * 27 + 3 = 5187;  together 10435
    # 50435 + 10435 = 60870
    network = NCF()
    assert (size(network.ccm), size(network.sm), size(network)) == (50435, 10435, 60870)


def test_every_size_can_be_chosen() -> None:
    # 2 -> depth 3, width 8: 3*8+8 + 8*8+8 + 8*3+3 = 131; SM of 4 channels, 5*5*5 = 125: 3*4*125+4 + 4*3*125+3 = 3007
    network = NCF(width=8, depth=3, activation=nn.ReLU(), smooth_channels=4, kernel_size=5)
    assert size(network) == 131 + 3007
    assert network(torch.rand(1, 3, 4, 5, 6)).shape == (1, 3, 4, 5, 6)
    assert size(CCM(depth=2, width=8)) == 3 * 8 + 8 + 8 * 3 + 3


@pytest.mark.parametrize("shape", [(4, 4, 4), (5, 3, 7), (1, 9, 2)])
def test_offsets_have_the_shape_of_positions(shape: tuple[int, int, int]) -> None:
    grid = torch.rand(1, 3, *shape)
    found = stirred(NCF(width=16))(grid)
    assert found.shape == grid.shape and found.dtype == torch.float32 and found.isfinite().all() and found.std() > 0


def test_the_first_field_is_zero_and_again_after_a_reset() -> None:
    network, grid = NCF(), torch.rand(1, 3, 4, 5, 6) * 2 - 1
    assert torch.equal(network(grid), torch.zeros_like(grid))
    assert not torch.equal(stirred(network)(grid), torch.zeros_like(grid))
    network.reset_parameters()
    assert torch.equal(network(grid), torch.zeros_like(grid))


def test_the_first_step_can_leave_zero() -> None:
    network = NCF(width=16)
    (slope,) = torch.autograd.grad(network(torch.rand(1, 3, 4, 4, 4)).sum(), network.sm.last.weight)
    assert slope.abs().max() > 0


@pytest.mark.parametrize("activation", [Sine(), nn.ReLU()], ids=["sine", "relu"])
def test_a_seed_makes_the_same_weights_whatever_came_before(activation: nn.Module) -> None:
    torch.manual_seed(7)
    fresh = NCF(width=16, activation=activation)
    torch.manual_seed(7)
    used = stirred(NCF(width=16, activation=activation))
    assert bytes_of(used) != bytes_of(fresh)
    torch.manual_seed(7)
    fresh.reset_parameters()
    torch.manual_seed(7)
    used.reset_parameters()
    assert bytes_of(used) == bytes_of(fresh)
    torch.manual_seed(8)
    used.reset_parameters()
    assert bytes_of(used) != bytes_of(fresh)


def test_layers_act_on_points_and_on_neighbourhoods() -> None:
    grid = torch.rand(1, 3, 7, 7, 7)
    other = grid.clone()
    other[..., 3, 3, 3] += 0.1
    network = stirred(NCF(width=16))
    pointwise = (network.ccm(other.movedim(1, -1)) - network.ccm(grid.movedim(1, -1))).abs().sum(-1)[0] > 0
    assert pointwise.sum() == 1 and pointwise[3, 3, 3]
    reach = (network(other) - network(grid)).abs().sum(1)[0] > FLOAT32
    assert reach[1:6, 1:6, 1:6].any() and not reach[[0, 6]].any() and not reach[:, [0, 6]].any()


@pytest.mark.parametrize(("channels", "size"), [((3, 8), 3), ((8, 3), 3), ((2, 2), 5), ((4, 1), 1)])
def test_the_convolution_is_torchs_own(channels: tuple[int, int], size: int) -> None:
    own = ReplicatedConv3d(*channels, size)
    torchs = nn.Conv3d(*channels, size, padding=size // 2, padding_mode="replicate")
    torchs.load_state_dict(own.state_dict())
    upstream, results = torch.rand(1, channels[1], 6, 5, 7), []
    for convolution in (own, torchs):
        x = (torch.rand(1, channels[0], 6, 5, 7, generator=torch.Generator().manual_seed(0)) - 0.5).requires_grad_()
        found = convolution(x)
        slopes = torch.autograd.grad((found * upstream).sum(), [x, *convolution.parameters()])
        results.append([found.detach(), *slopes])
    for mine, its in zip(*results, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_sums_in_one_operation_are_those_axis_by_axis(size: int) -> None:
    """What a GPU does, held to what a processor does."""
    volumes, copies = torch.randn(size**3, 2, 9, 8, 7), torch.randn(3, size**3, 5, 4, 6)
    for function, some in ((sum_of_shifts, volumes), (sum_of_copies, copies)):
        by_axis, at_once = (function(some, size, at_once=flag) for flag in (False, True))
        assert by_axis.shape == (
            (2, 10 - size, 9 - size, 8 - size) if some is volumes else (3, 4 + size, 3 + size, 5 + size)
        )
        torch.testing.assert_close(at_once, by_axis, rtol=1e-5, atol=1e-5)


def test_slab_by_slab_is_the_whole_in_value_and_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    network, grid = NCF(width=16, smooth_channels=8), torch.rand(1, 3, 11, 5, 4) * 2 - 1
    nn.init.normal_(network.sm.last.weight)
    found = []
    for nodes in (10**6, 60, 20, 1):  # all, three planes, one plane, less than one plane at a time
        monkeypatch.setattr("ncf.fit.network.NODES_AT_A_TIME", nodes)
        monkeypatch.setattr("ncf.fit.network.POINTS_AT_A_TIME", min(nodes, 37))
        out = network(grid)
        with torch.no_grad():
            torch.testing.assert_close(network(grid), out.detach(), rtol=0, atol=10 * FLOAT32)
        found.append([out.detach(), *torch.autograd.grad((out**2).sum(), list(network.parameters()))])
    for other in found[1:]:
        for mine, its in zip(found[0], other, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


def test_pieces_are_as_exact_in_half_precision_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    network, grid = CCM(width=16), torch.rand(40, 3) * 2 - 1
    found = []
    monkeypatch.setattr("ncf.fit.network.POINTS_AT_A_TIME", 7)
    for nodes in (10**6, 20):
        monkeypatch.setattr("ncf.fit.network.NODES_AT_A_TIME", nodes)
        with torch.autocast("cpu", torch.bfloat16):
            out = network(grid)
        found.append([out.detach().float(), *torch.autograd.grad((out.float() ** 2).sum(), list(network.parameters()))])
    for mine, its in zip(*found, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-2, atol=1e-2)
    exact = torch.autograd.grad((network(grid) ** 2).sum(), list(network.parameters()))
    apart = [(a - b).norm() for a, b in zip(found[1][1:], exact, strict=True)]
    assert max(apart) > 0  # the gradient was computed in half precision, too


def test_a_constant_is_constant_to_the_edge() -> None:
    smooth = SM(channels=8)
    nn.init.normal_(smooth.last.weight)
    found = smooth(torch.full((1, 3, 5, 6, 4), 0.3))
    assert (found - found.mean(dim=(2, 3, 4), keepdim=True)).abs().max() < 10 * FLOAT32


@pytest.mark.parametrize("omega", [10.0, 30.0])
def test_sine_layers_keep_their_spread_as_siren_promises(omega: float) -> None:
    seen = []

    class Watched(Sine):
        def after(self, layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
            out = super().after(layer, x)
            torch.testing.assert_close(out, self(layer(x)), rtol=1e-4, atol=1e-4)
            seen.append(out.std().item())
            return out

    ccm = CCM(depth=8, width=128, activation=Watched(omega))
    ccm(torch.rand(4000, 3) * 2 - 1)
    # Weights U(-b, b) with b = sqrt(6 / 128) / omega make omega w x normal; its variance is 128 omega^2 b^2 / 3 = 2
    # times the mean square of x. torch's biases U(-1, 1) / sqrt(128) add omega^2 / 384. The sine of N(0, v) has the
    # variance (1 - e^-2v) / 2.
    truth = [HIDDEN_STD]
    while len(truth) < 7:
        truth.append(math.sqrt((1 - math.exp(-2 * (2 * truth[-1] ** 2 + omega**2 / 384))) / 2))
    assert seen == pytest.approx(truth, abs=STD_BAND)
    assert omega < 30 or seen == pytest.approx([HIDDEN_STD] * 7, abs=STD_BAND)
    bounds = [1 / 3] + [math.sqrt(6 / 128) / omega] * 7  # hundreds of uniform numbers come within 2 % of their bound
    largest = [p.abs().max().item() for name, p in ccm.named_parameters() if name.endswith("weight")]
    assert largest == pytest.approx(bounds, rel=0.02)


def test_sine_is_the_sine_of_omega_x() -> None:
    x = torch.linspace(-1, 1, 9)
    assert torch.equal(Sine(4.0)(x), torch.sin(4.0 * x))


def test_what_has_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 layers, not 1"):
        CCM(depth=1)
    with pytest.raises(ValueError, match="odd kernel_size, not 4"):
        SM(kernel_size=4)
