"""A loss of the distance that is left between points that a person has named."""

from __future__ import annotations

import torch
from torch import nn


class GuidePointsLoss(nn.Module):
    """The mean distance that is left, in mm; within about ``slack_mm`` it flattens, as a point is clicked no better.

    Args:
        slack_mm: distance at which the slope is 0.7 of what it is far away.
    """

    def __init__(self, slack_mm: float = 2.0) -> None:
        super().__init__()
        self.slack_mm = slack_mm

    def forward(self, left_mm: torch.Tensor) -> torch.Tensor:
        """Return the loss of (1, 3, N, 1, 1), what is left along each axis, in mm; 0 at best."""
        return (torch.sqrt((left_mm**2).sum(dim=1) + self.slack_mm**2) - self.slack_mm).mean()

    def extra_repr(self) -> str:
        """Return what run.json records of the loss."""
        return f"slack_mm={self.slack_mm}"
