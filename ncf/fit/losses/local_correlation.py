"""The squared local correlation of two images in small windows, whatever their contrasts."""

from __future__ import annotations

import torch
from torch import nn

from ncf.fit.losses.windows import Windows, shared


class LocalCorrelationLoss(nn.Module):
    """The share of the target's variance that no linear function of the input explains, as mean over all windows.

    It is one minus the squared correlation of a window (Avants et al. 2008, doi:10.1016/j.media.2007.06.004), except
    that windows without contrast in the target count for nothing. A window may have any gain of contrast, also a
    negative one, so the images may come from two modalities. MONAI's `LocalNormalizedCrossCorrelationLoss` compares in
    the same way, in every window (docs/decisions/0018-modalities.md).

    Args:
        win_size: side of the Gaussian windows, in voxels.
        kernel_sigma: standard deviation of the Gaussian windows, in voxels.
        stride: see `Windows`.
        noise: variance of intensities (in 0 to 1) below which a window holds nothing to compare.
        windows: those of another loss, of the same sizes, to compute moments once for both; by default its own.

    Raises:
        ValueError: the other loss has other windows.
    """

    def __init__(
        self,
        win_size: int = 7,
        kernel_sigma: float = 1.0,
        *,
        stride: int = 1,
        noise: float = 5e-5,
        windows: Windows | None = None,
    ) -> None:
        super().__init__()
        self.windows = shared(windows, Windows((win_size,) * 3, (kernel_sigma,) * 3, stride=stride))
        self.noise = noise

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss, 0 to 1.

        Args:
            input: (1, 1, W, H, D), in [0, 1].
            target: (1, 1, W, H, D), in [0, 1].
        """
        found = self.windows(input, target)
        # rounding errors may leave the variances of flat windows a little below zero
        explained = found.cov * found.cov / (found.var_x.clamp(min=0) + self.noise)
        var_y = found.var_y.clamp(min=0)
        return ((var_y - explained) / (var_y + self.noise)).mean()

    def extra_repr(self) -> str:
        """Return what run.json records of the loss; the rest are settings of the config."""
        return f"noise={self.noise}"
