"""The SSIM loss of the paper (section 3.2), as fast as a fit needs it."""

from __future__ import annotations

from typing import Any

import torch
from monai.losses import SSIMLoss as MonaiSSIMLoss

from ncf.fit.losses.windows import SHIFT, Windows, shared


class SSIMLoss(MonaiSSIMLoss):
    """MONAI's `SSIMLoss`, computed by `Windows`: same value, same gradient.

    Wang et al. 2004, doi:10.1109/TIP.2003.819861.

    Args:
        spatial_dims: 3; MONAI's has others.
        stride: 1 is MONAI's; for more see `Windows`.
        windows: those of another loss, of the same sizes, to compute moments once for both; by default its own.
        options: as MONAI's, such as ``win_size`` and ``kernel_sigma``.

    Raises:
        ValueError: there are not 3 spatial dimensions, or the other loss has other windows.
    """

    def __init__(
        self, spatial_dims: int = 3, *, stride: int = 1, windows: Windows | None = None, **options: Any
    ) -> None:
        super().__init__(spatial_dims, **options)
        if spatial_dims != 3:
            raise ValueError(f"the separable SSIM is for 3 spatial dimensions, not {spatial_dims}")
        sigmas = None if self.kernel_type == "uniform" else self.kernel_sigma
        self.windows = shared(windows, Windows(self.kernel_size, sigmas, stride=stride))

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return one minus the mean SSIM.

        Args:
            input: (1, 1, W, H, D), in [0, 1].
            target: (1, 1, W, H, D), in [0, 1].
        """
        found = self.windows(input, target)
        c1, c2 = (self.k1 * self.data_range) ** 2, (self.k2 * self.data_range) ** 2
        contrast = (2 * found.cov + c2) / (found.var_x + found.var_y + c2)
        mu_x, mu_y = found.mean_x + SHIFT, found.mean_y + SHIFT
        luminance = (2 * mu_x * mu_y + c1) / (mu_x * mu_x + mu_y * mu_y + c1)
        return 1 - (luminance * contrast).mean()
