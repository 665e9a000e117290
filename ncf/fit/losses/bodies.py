"""Losses of how a part of the body moves: it should stay rigid, or keep its volume."""

from __future__ import annotations

import torch
from torch import nn

LEAST_VOLUME = 0.05  # of a place: below it the logarithm would grow without end


class RigidityLoss(nn.Module):
    """The mean squared distance, in mm^2, between points as they moved and the rigid motion that fits them best.

    The rigid motion is the least-squares one (Kabsch 1976, doi:10.1107/S0567739476001873). It is found anew at every
    step and has no gradient of its own: at the best fit its share of the gradient is zero.
    """

    def forward(self, moved_mm: torch.Tensor, own_mm: torch.Tensor) -> torch.Tensor:
        """Return the loss of moved points (3, N) and where they came from (3, N)."""
        moved = moved_mm - moved_mm.mean(dim=1, keepdim=True)
        own = own_mm - own_mm.mean(dim=1, keepdim=True)
        with torch.no_grad():
            u, _, v = torch.linalg.svd((moved @ own.T).double().cpu())
            u[:, -1] *= torch.sign(torch.linalg.det(u @ v))
            turn = (u @ v).to(moved)
        return ((moved - turn @ own) ** 2).sum(dim=0).mean()


class VolumeLoss(nn.Module):
    """The mean squared logarithm of the change of volume."""

    def forward(self, det: torch.Tensor) -> torch.Tensor:
        """Return the loss of determinants (N,)."""
        return (torch.log(det.clamp(min=LEAST_VOLUME)) ** 2).mean()
