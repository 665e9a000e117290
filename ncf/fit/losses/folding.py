"""A loss that keeps a map from folding; not in the paper (docs/decisions/0003-levels.md)."""

from __future__ import annotations

import torch
from torch import nn

from ncf.space.jacobian import jacobian_of_map


class FoldingLoss(nn.Module):
    """How far a map is from keeping the orientation at every place: mean of ``max(0, floor - det J)``.

    The loss and its gradient are zero wherever volume shrinks to no less than ``floor`` of itself. So it leaves good
    maps alone.

    Args:
        floor: the determinant below which a place counts.
    """

    def __init__(self, floor: float = 0.2) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, field: torch.Tensor) -> torch.Tensor:
        """Return the loss of a displacement (1, 3, W, H, D) in nodes of its own lattice."""
        return torch.relu(self.floor - jacobian_of_map(field[0])).mean()
