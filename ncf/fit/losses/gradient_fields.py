"""The difference of two images' normalised gradient fields: edges shall be parallel, whatever their heights."""

from __future__ import annotations

import torch
from torch import nn


class GradientFieldLoss(nn.Module):
    """One minus the squared cosine between the gradients of two images, as mean over all inner voxels.

    Haber and Modersitzki 2006, doi:10.1007/11866763_89. Here the edge parameter is in the product of the gradients too,
    so that two flat images cost nothing. A gain of any height is free, and one of either sign where gradients are well
    above the edge parameter; weaker ones cost less where their signs agree.

    Args:
        edge: gradient, in intensities (0 to 1) a voxel, below which there is nothing to compare.

    Raises:
        ValueError: the edge parameter is not above zero.
    """

    def __init__(self, edge: float = 0.02) -> None:
        super().__init__()
        if not edge > 0:
            raise ValueError(f"the edge parameter must be above zero, got {edge}")
        self.edge = edge

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss, 0 to 1.

        Args:
            input: (1, 1, W, H, D), in [0, 1].
            target: (1, 1, W, H, D), in [0, 1].
        """
        own, other, noise = _gradients(input), _gradients(target), self.edge**2
        product = (own * other).sum(dim=0) + noise
        heights = ((own * own).sum(dim=0) + noise) * ((other * other).sum(dim=0) + noise)
        return 1 - (product * product / heights).mean()

    def extra_repr(self) -> str:
        """Return what run.json records of the loss."""
        return f"edge={self.edge}"


def _gradients(image: torch.Tensor) -> torch.Tensor:
    """Return central differences of an image (1, 1, W, H, D) a voxel, (3, 1, 1, W - 2, H - 2, D - 2)."""
    found = []
    for axis in range(2, 5):
        apart = (image.narrow(axis, 2, image.shape[axis] - 2) - image.narrow(axis, 0, image.shape[axis] - 2)) / 2
        for other in {2, 3, 4} - {axis}:
            apart = apart.narrow(other, 1, image.shape[other] - 2)
        found.append(apart)
    return torch.stack(found)
