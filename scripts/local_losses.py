"""Losses of two images by what small windows of them have in common: SSIM, and the squared local correlation.

Both take the moments of windows in three 1D passes. Nothing here knows weights, fields or levels.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.losses import SSIMLoss as MonaiSSIMLoss
from torch import nn

from scripts.geometry import separable

SHIFT = 0.5  # middle of a data range of 1: variances about it are the same, their rounding error is smaller


class Moments(NamedTuple):
    """Means less SHIFT, variances and the covariance of input (x) and target (y) in every window, (1, 1, w, h, d)."""

    mean_x: torch.Tensor
    mean_y: torch.Tensor
    var_x: torch.Tensor
    var_y: torch.Tensor
    cov: torch.Tensor


class Windows:
    """Moments of two images in windows, by three 1D passes, with the target's computed once.

    A Gaussian (or box) window is a product of three 1D windows, so a dense 11x11x11 convolution becomes three small
    matrix products.

    Args:
        sizes: voxels along the three axes. sigmas: of Gaussians; None for boxes. stride: with s, only every s-th window
            along each axis is looked at, at about 1/s of the cost: neighbouring windows share most of their voxels
            (docs/decisions/0012-ssim-stride.md).
    """

    def __init__(self, sizes: Sequence[int], sigmas: Sequence[float] | None, *, stride: int) -> None:
        self.sizes, self.sigmas, self.stride = tuple(sizes), sigmas, stride
        self._target: weakref.ref[torch.Tensor] | None = None
        self._of_target: tuple[torch.Tensor, torch.Tensor] | None = None
        self._passes: list[torch.Tensor] = []

    def __call__(self, input: torch.Tensor, target: torch.Tensor) -> Moments:
        """Of input and target, both (1, 1, W, H, D)."""
        mu_y, var_y = self._prepare(target)
        x, y = input - SHIFT, target - SHIFT
        mu_x, mu_xx, mu_xy = separable(torch.cat([x, x * x, x * y], dim=1), self._passes).split(1, dim=1)
        cov = mu_xy - mu_x * mu_y
        return Moments(mu_x, mu_y, mu_xx - mu_x * mu_x, var_y, cov)

    def _prepare(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._target is None or self._target() is not target or self._of_target is None:
            with torch.no_grad():
                self._passes = self._matrices(target)
                shifted = target - SHIFT
                mu = separable(shifted, self._passes)
                self._of_target = mu, separable(shifted * shifted, self._passes) - mu * mu
            self._target = weakref.ref(target)
        return self._of_target

    def _matrices(self, target: torch.Tensor) -> list[torch.Tensor]:
        """One (places, n) banded matrix an axis: the window at every ``stride``-th place where it fits."""
        found = []
        for a, n in enumerate(target.shape[2:]):
            window = self._window(a)
            places = n - len(window) + 1
            if places < 1:
                raise ValueError(f"SSIM window of {len(window)} does not fit into {n} voxels along axis {a}")
            first = torch.arange((places - 1) % self.stride // 2, places, self.stride)
            matrix = torch.zeros(len(first), n)
            for k, w in enumerate(window):
                matrix[torch.arange(len(first)), first + k] = w
            found.append(matrix.to(target))
        return found

    def _window(self, axis: int) -> torch.Tensor:
        size = self.sizes[axis]
        if self.sigmas is None:
            return torch.full((size,), 1.0 / size)
        span = torch.arange((1 - size) / 2, (1 + size) / 2)  # as monai.metrics.regression._gaussian_kernel
        gauss = torch.exp(-((span / self.sigmas[axis]) ** 2) / 2)
        return gauss / gauss.sum()


class SSIMLoss(MonaiSSIMLoss):
    """MONAI's `SSIMLoss` by `Windows`; same value, same gradient.

    Args:
        stride: 1 is MONAI's; more, see `Windows`.
    """

    def __init__(self, spatial_dims: int = 3, *, stride: int = 1, **options) -> None:
        super().__init__(spatial_dims, **options)
        if spatial_dims != 3:
            raise ValueError(f"the separable SSIM is for 3 spatial dimensions, not {spatial_dims}")
        sigmas = None if self.kernel_type == "uniform" else self.kernel_sigma
        self.windows = Windows(self.kernel_size, sigmas, stride=stride)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """1 - mean SSIM of input and target, both (1, 1, W, H, D)."""
        found = self.windows(input, target)
        c1, c2 = (self.k1 * self.data_range) ** 2, (self.k2 * self.data_range) ** 2
        contrast = (2 * found.cov + c2) / (found.var_x + found.var_y + c2)
        mu_x, mu_y = found.mean_x + SHIFT, found.mean_y + SHIFT
        luminance = (2 * mu_x * mu_y + c1) / (mu_x * mu_x + mu_y * mu_y + c1)
        return 1 - (luminance * contrast).mean()


class LocalCorrelationLoss(nn.Module):
    """The share of the target's variance in a window that no linear function of the input explains, mean of all windows.

    One minus the squared correlation of the window, but that windows without contrast in the target count for nothing. A
    window may have any gain of contrast, a negative one too, so the images may come from two modalities. MONAI's
    `LocalNormalizedCrossCorrelationLoss` compares so too, in every window (docs/decisions/0018-modalities.md).

    Args:
        win_size, kernel_sigma: of Gaussian windows, in voxels. stride: see `Windows`. noise: variance of intensities (in 0
            to 1) below which a window holds nothing to compare.
    """

    def __init__(self, win_size: int = 7, kernel_sigma: float = 1.0, *, stride: int = 1, noise: float = 5e-5) -> None:
        super().__init__()
        self.windows = Windows((win_size,) * 3, (kernel_sigma,) * 3, stride=stride)
        self.noise = noise

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss, 0 to 1, of input and target, both (1, 1, W, H, D)."""
        found = self.windows(input, target)
        # rounding may leave variances of flat windows a little below zero
        explained = found.cov * found.cov / (found.var_x.clamp(min=0) + self.noise)
        var_y = found.var_y.clamp(min=0)
        return ((var_y - explained) / (var_y + self.noise)).mean()

    def extra_repr(self) -> str:
        """What run.json records of it; the rest are knobs of the config."""
        return f"noise={self.noise}"
