"""Losses of two images by what small windows of them have in common: SSIM, and the squared local correlation.

Both take the moments of Gaussian windows in three 1D passes. Nothing here knows weights, fields or levels.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch
from monai.losses import SSIMLoss as MonaiSSIMLoss

from scripts.geometry import separable


class Moments(NamedTuple):
    """Means, variances and the covariance of input (x) and target (y) in every window, (1, 1, w, h, d).

    The means are about `SSIMLoss.SHIFT`.
    """

    mean_x: torch.Tensor
    mean_y: torch.Tensor
    var_x: torch.Tensor
    var_y: torch.Tensor
    cov: torch.Tensor


class SSIMLoss(MonaiSSIMLoss):
    """MONAI's `SSIMLoss` in three 1D passes, with the target's moments computed once; same value, same gradient.

    A Gaussian (or box) window is a product of three 1D windows, so a dense 11x11x11 convolution becomes three small
    matrix products. Moments are taken about 0.5, which leaves variances as they are and keeps float32 exact enough.

    Args:
        stride: 1 is MONAI's. With s, the mean is over every s-th window along each axis, at about 1/s of the cost:
            neighbouring windows share most of their voxels (docs/decisions/0012-ssim-stride.md).
    """

    SHIFT = 0.5  # middle of a data range of 1; variances do not depend on it, their rounding error does

    def __init__(self, spatial_dims: int = 3, *, stride: int = 1, **options) -> None:
        super().__init__(spatial_dims, **options)
        self.stride = stride
        if spatial_dims != 3:
            raise ValueError(f"the separable windows are for 3 spatial dimensions, not {spatial_dims}")
        self._target: weakref.ref[torch.Tensor] | None = None
        self._of_target: tuple[torch.Tensor, torch.Tensor] | None = None
        self._passes: list[torch.Tensor] = []

    def _window(self, axis: int) -> torch.Tensor:
        size = self.kernel_size[axis]
        if self.kernel_type == "uniform":
            return torch.full((size,), 1.0 / size)
        span = torch.arange((1 - size) / 2, (1 + size) / 2)  # as monai.metrics.regression._gaussian_kernel
        gauss = torch.exp(-((span / self.kernel_sigma[axis]) ** 2) / 2)
        return gauss / gauss.sum()

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

    def _prepare(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._target is None or self._target() is not target or self._of_target is None:
            with torch.no_grad():
                self._passes = self._matrices(target)
                shifted = target - self.SHIFT
                mu = separable(shifted, self._passes)
                self._of_target = mu, separable(shifted * shifted, self._passes) - mu * mu
            self._target = weakref.ref(target)
        return self._of_target

    def moments(self, input: torch.Tensor, target: torch.Tensor) -> Moments:
        """Of input and target, both (1, 1, W, H, D)."""
        mu_y, var_y = self._prepare(target)
        x, y = input - self.SHIFT, target - self.SHIFT
        mu_x, mu_xx, mu_xy = separable(torch.cat([x, x * x, x * y], dim=1), self._passes).split(1, dim=1)
        cov = mu_xy - mu_x * mu_y
        return Moments(mu_x, mu_y, mu_xx - mu_x * mu_x, var_y, cov)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """1 - mean SSIM of input and target, both (1, 1, W, H, D)."""
        found = self.moments(input, target)
        c1, c2 = (self.k1 * self.data_range) ** 2, (self.k2 * self.data_range) ** 2
        contrast = (2 * found.cov + c2) / (found.var_x + found.var_y + c2)
        mu_x, mu_y = found.mean_x + self.SHIFT, found.mean_y + self.SHIFT
        luminance = (2 * mu_x * mu_y + c1) / (mu_x * mu_x + mu_y * mu_y + c1)
        return 1 - (luminance * contrast).mean()


class LocalCorrelationLoss(SSIMLoss):
    """The share of the target's variance in a window that no linear function of the input explains, mean of all windows.

    One minus the squared correlation of the window, but that windows without contrast in the target count for nothing. A
    window may have any gain of contrast, a negative one too, so the images may come from two modalities.

    Args:
        noise: variance of intensities (in 0 to 1) below which a window holds nothing to compare.
        others: as for `SSIMLoss`, of which the windows are.
    """

    def __init__(self, spatial_dims: int = 3, *, noise: float = 5e-5, **options) -> None:
        super().__init__(spatial_dims, **options)
        self.noise = noise

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss, 0 to 1, of input and target, both (1, 1, W, H, D)."""
        found = self.moments(input, target)
        # rounding may leave variances of flat windows a little below zero
        explained = found.cov * found.cov / (found.var_x.clamp(min=0) + self.noise)
        var_y = found.var_y.clamp(min=0)
        return ((var_y - explained) / (var_y + self.noise)).mean()
