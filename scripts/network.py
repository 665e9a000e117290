"""The two modules of NCF (paper section 3.1): a coordinate MLP (CCM) and a small 3D CNN (SM) behind it.

The network turns positions into offsets and knows nothing else: no images, no units, no levels.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn


class Sine(nn.Module):
    """``sin(omega * x)``, the activation of SIREN (Sitzmann et al. 2020, arXiv:2006.09661)."""

    def __init__(self, omega: float = 30.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.omega * x)


class CCM(nn.Module):
    """Coarse Correspondence Module: a coordinate MLP, one shared function of position (paper: 5 layers).

    Args:
        depth: number of linear layers, the last one included. width: hidden features.
        activation: a module shared by all hidden layers; a `Sine` brings its own initialisation.
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
        """Fresh weights from torch's random state (SIREN's scheme behind a sine, torch's own otherwise)."""
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, nn.Linear)
            layer.reset_parameters()
            if isinstance(self.activation, Sine):
                fan = layer.in_features
                bound = 1 / fan if i == 0 else math.sqrt(6 / fan) / self.activation.omega
                nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Coarse offsets (..., 3) of positions (..., 3)."""
        for layer in self.layers[:-1]:
            points = self.activation(layer(points))
        return self.layers[-1](points)


class SM(nn.Module):
    """Smooth Module: two 3D convolutions with a ReLU between; the last starts at zero, so the first field is 0.

    Edges are replicated: zeros there would pull the field to zero along the border of the image.
    """

    def __init__(self, channels: int = 64, kernel_size: int = 3) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"the kernel needs a centre: an odd kernel_size, not {kernel_size}")
        pad = kernel_size // 2
        self.first = nn.Conv3d(3, channels, kernel_size, padding=pad, padding_mode="replicate")
        self.activation = nn.ReLU()
        self.last = nn.Conv3d(channels, 3, kernel_size, padding=pad, padding_mode="replicate")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fresh weights; the last convolution is zero (identity start)."""
        self.first.reset_parameters()
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, offsets: torch.Tensor) -> torch.Tensor:
        """Smoothed offsets (B, 3, W, H, D) of coarse ones of the same shape."""
        return self.last(self.activation(self.first(offsets)))


class NCF(nn.Module):
    """Neural Correspondence Field: positions (B, 3, W, H, D) -> offsets of the same shape and unit (paper figure 2)."""

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 5,
        activation: nn.Module | None = None,
        smooth_channels: int = 64,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        self.ccm = CCM(depth, width, activation)
        self.sm = SM(smooth_channels, kernel_size)

    def reset_parameters(self) -> None:
        """Fresh weights for another pair, from torch's random state."""
        self.ccm.reset_parameters()
        self.sm.reset_parameters()

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        coarse = self.ccm(grid.movedim(1, -1)).movedim(-1, 1)
        return self.sm(coarse.contiguous())
