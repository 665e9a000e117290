"""The two modules of NCF (paper section 3.1): a coordinate MLP (CCM) and a small 3D CNN (SM) behind it.

The network turns positions into offsets and knows nothing else: no images, no units, no levels. The method is that of
Zhou, Yuan, Ehrlich and Qi, Neural Correspondence Field (docs/paper.md).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


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
        for layer in self.layers[:-1]:
            if isinstance(self.activation, Sine) and isinstance(layer, nn.Linear):
                points = self.activation.after(layer, points)
            else:
                points = self.activation(layer(points))
        return self.layers[-1](points)


class ReplicatedConv3d(nn.Conv3d):
    """torch's `Conv3d` with replicated edges as a matrix product over shifted copies: same value, same gradient.

    On lattices of a few thousand nodes torch's own is slow on the CPU, and on CUDA the gradient of its padding differs
    from run to run. The product is taken on the side with fewer channels.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, padding_mode="replicate")

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return (1, out_channels, W, H, D) of an input (1, in_channels, W, H, D)."""
        shape, size = input.shape[2:], self.kernel_size[0]
        padded = input[0]
        for axis in range(1, 4):
            first, last = (padded.narrow(axis, i, 1) for i in (0, padded.shape[axis] - 1))
            padded = torch.cat([first] * (size // 2) + [padded] + [last] * (size // 2), dim=axis)
        shifts = list(itertools.product(range(size), repeat=3))
        kernel = self.weight.flatten(2)  # (out, in, size^3)
        if self.in_channels <= self.out_channels:
            copies = torch.stack([_from(padded, shift, shape) for shift in shifts], dim=1)
            found = kernel.flatten(1) @ copies.flatten(0, 1).flatten(1)
        else:
            products = kernel.permute(2, 0, 1).flatten(0, 1) @ padded.flatten(1)
            parts = products.view(len(shifts), self.out_channels, *padded.shape[1:]).unbind(0)
            found = torch.stack([_from(p, s, shape) for p, s in zip(parts, shifts, strict=True)]).sum(dim=0).flatten(1)
        assert self.bias is not None
        return (found + self.bias[:, None]).view(1, self.out_channels, *shape)


def _from(volume: torch.Tensor, first: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """Return the part (C, *shape) of a volume (C, W, H, D) that begins at an index."""
    for axis, (start, length) in enumerate(zip(first, shape, strict=True), start=1):
        volume = volume.narrow(axis, start, length)
    return volume


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
        """Return the offsets of positions, both (B, 3, W, H, D)."""
        coarse = self.ccm(grid.movedim(1, -1)).movedim(-1, 1)
        return self.sm(coarse.contiguous())
