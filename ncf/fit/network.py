"""The two modules of NCF (paper section 3.1): a coordinate MLP (CCM) and a small 3D CNN (SM) behind it.

The network turns positions into offsets and knows nothing else: no images, no units, no levels. The method is that of
Zhou, Yuan, Ehrlich and Qi, Neural Correspondence Field (docs/paper.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from ncf.fit.convolution import ReplicatedConv3d

# the features of more would not stay in a processor's cache, nor in memory that is kept; a GPU needs many at a time
POINTS_AT_A_TIME, POINTS_ON_GPU = 2**14, 2**18
NODES_AT_A_TIME = 1_000_000  # some 6 GB of what a gradient needs; of more nodes, features are computed twice, not kept


class Sine(nn.Module):
    """``sin(omega * x)``, the activation of sine networks (Sitzmann et al. 2020, doi:10.48550/arXiv.2006.09661)."""

    def __init__(self, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the sine of every entry."""
        return torch.sin(self.omega * x)

    def after(self, layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
        """Return the sine of a layer's output; it is the layer's few weights that are scaled, not its many outputs."""
        return torch.sin(F.linear(x, self.omega * layer.weight, self.omega * layer.bias))


class CCM(nn.Module):
    """Coarse Correspondence Module: a coordinate MLP, one function for all positions (paper: 5 layers).

    Args:
        depth: number of linear layers, with the last one.
        width: number of hidden features.
        activation: one module for all hidden layers; a `Sine` brings its own initial weights.

    Raises:
        ValueError: there are fewer than 2 layers.
    """

    def __init__(self, depth: int = 5, width: int = 128, activation: nn.Module | None = None) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError(f"a coordinate MLP has at least 2 layers, not {depth}")
        self.activation = Sine() if activation is None else activation
        sizes = [3] + [width] * (depth - 1) + [3]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's random state: behind a sine as its authors do, else as torch does."""
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            layer.reset_parameters()
            if isinstance(self.activation, Sine):
                fan = layer.in_features
                bound = 1 / fan if i == 0 else math.sqrt(6 / fan) / self.activation.omega
                nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Return coarse offsets (..., 3) of positions (..., 3)."""
        count = points[..., 0].numel()
        if count <= _at_a_time(points):
            return self._at_once(points)
        flat = points.flatten(0, -2)
        if count > NODES_AT_A_TIME and torch.is_grad_enabled() and not points.requires_grad:
            return _InPieces.apply(flat, self._at_once, *self.parameters()).view(*points.shape[:-1], 3)
        parts = [self._at_once(part) for part in flat.split(_at_a_time(flat))]
        return torch.cat(parts).view(*points.shape[:-1], 3)

    def _at_once(self, points: torch.Tensor) -> torch.Tensor:
        """Return coarse offsets (..., 3) of positions (..., 3), all of them in one piece."""
        for layer in self.layers[:-1]:
            if isinstance(self.activation, Sine) and isinstance(layer, nn.Linear):
                points = self.activation.after(layer, points)
            else:
                points = self.activation(layer(points))
        return self.layers[-1](points)


def _at_a_time(points: torch.Tensor) -> int:
    return POINTS_AT_A_TIME if points.device.type == "cpu" else POINTS_ON_GPU


class _InPieces(torch.autograd.Function):
    """A function of points, piece by piece; no features are kept, the gradient computes them once more.

    Nothing else is allocated between the features of one piece and those of the next: else the C library could not use
    the same memory for both, and would need that of all.
    """

    @staticmethod
    def forward(
        ctx: Any, points: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor], *parameters: torch.Tensor
    ) -> torch.Tensor:
        """Return the values (N, 3) of points (N, 3)."""
        device = points.device.type
        ctx.function = function
        ctx.precision = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        ctx.save_for_backward(points, *parameters)
        found = torch.empty_like(points)
        size = _at_a_time(points)
        for some, kept in zip(points.split(size), found.split(size), strict=True):
            kept.copy_(function(some))
        return found

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient with respect to the parameters."""
        points, *parameters = ctx.saved_tensors
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        size = _at_a_time(points)
        for some, grad in zip(points.split(size), grads[0].split(size), strict=True):
            device, dtype, enabled = ctx.precision
            with torch.enable_grad(), torch.autocast(device, dtype, enabled=enabled):
                value = ctx.function(some)
            for total, slope in zip(sums, torch.autograd.grad(value, parameters, grad.to(value.dtype)), strict=True):
                total.add_(slope)
        return None, None, *sums


class SM(nn.Module):
    """Smooth Module: two 3D convolutions with a ReLU between; the last begins at zero, so the first field is 0.

    Edges are replicated. Zeros there would pull the field to zero along the border of the image.

    Args:
        channels: number of hidden channels.
        kernel_size: side of the kernels in nodes, an odd number.

    Raises:
        ValueError: the kernel has no centre.
    """

    def __init__(self, channels: int = 64, kernel_size: int = 3) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"the kernel needs a centre: an odd kernel_size, not {kernel_size}")
        self.reach = 2 * (kernel_size // 2)  # planes beside a plane on which its offsets depend
        self.first = ReplicatedConv3d(3, channels, kernel_size)
        self.activation = nn.ReLU()
        self.last = ReplicatedConv3d(channels, 3, kernel_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights from torch's random state; the last convolution gets zeros, so the first field is 0."""
        self.first.reset_parameters()
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, offsets: torch.Tensor) -> torch.Tensor:
        """Return smoothed offsets (B, 3, W, H, D) of coarse ones of the same shape."""
        return self.last(self.activation(self.first(offsets)))


class NCF(nn.Module):
    """Neural Correspondence Field: positions (B, 3, W, H, D) to offsets of the same shape and unit (paper figure 2).

    Args:
        width: hidden features of the CCM.
        depth: linear layers of the CCM.
        omega: of its sines.
        smooth_channels: hidden channels of the SM.
        kernel_size: of the SM.
        activation: used instead of the sines.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 5,
        omega: float = 30.0,
        smooth_channels: int = 64,
        kernel_size: int = 3,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.ccm = CCM(depth, width, Sine(omega) if activation is None else activation)
        self.sm = SM(smooth_channels, kernel_size)

    def reset_parameters(self) -> None:
        """Draw new weights for another pair, from torch's random state."""
        self.ccm.reset_parameters()
        self.sm.reset_parameters()

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        """Return the offsets of positions, both (B, 3, W, H, D); of many, slab by slab, with the same gradient."""
        coarse = self.ccm(grid.movedim(1, -1)).movedim(-1, 1).contiguous()
        planes = max(1, NODES_AT_A_TIME * grid.shape[2] // grid[0, 0].numel())
        if planes >= grid.shape[2]:
            return self.sm(coarse)
        slabs = [(first, min(first + planes, grid.shape[2])) for first in range(0, grid.shape[2], planes)]
        if not torch.is_grad_enabled():
            return torch.cat([self._smoothed(coarse, *slab) for slab in slabs], dim=2)
        from torch.utils.checkpoint import checkpoint

        kept = [
            checkpoint(self._smoothed, coarse, *slab, use_reentrant=False, preserve_rng_state=False) for slab in slabs
        ]
        return torch.cat(kept, dim=2)

    def _smoothed(self, coarse: torch.Tensor, first: int, end: int) -> torch.Tensor:
        """Return the offsets of some planes along W; the convolutions see those beside them."""
        low, high = max(0, first - self.sm.reach), min(coarse.shape[2], end + self.sm.reach)
        return self.sm(coarse[:, :, low:high])[:, :, first - low : end - low]
