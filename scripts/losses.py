"""The loss terms of the paper (section 3.2) that MONAI lacks or has too slowly, and their weighted, named sum.

A term sees one `Sampled` state of the fit and returns a number. Nothing here knows networks, levels or files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from scripts.geometry import jacobian_of_map
from scripts.visits import visits

LEAST_OVERLAP = 1e-3  # share of the lattice; keeps a pair without any common data finite


@dataclass(frozen=True)
class Sampled:
    """One moment of a fit, on one level's lattice.

    warped, fixed: (1, 1, W, H, D) in [0, 1]; where the weight is 0 they are equal, so that no loss sees a difference.
    weight: (1, 1, W, H, D), 0 to 1: where both images have data. field: (1, 3, W, H, D) in nodes.
    control: (1, 3, w, h, d), the control values the field is interpolated from, in control nodes, less the start.
    positions: (1, 3, W, H, D), where the map leads, in nodes of the level's lattice continued over all of the moving image;
    moving_shape: the shape of that lattice.
    """

    warped: torch.Tensor
    fixed: torch.Tensor
    weight: torch.Tensor
    field: torch.Tensor
    control: torch.Tensor
    positions: torch.Tensor
    moving_shape: tuple[int, int, int]


class OccupancyLoss(nn.Module):
    """Root mean square of the differences of the occupancy along x, y and z (paper section 3.2), pooled over the axes.

    ``sqrt(mean(d^2))`` over all differences d of neighbouring voxels of B. A difference that touches a visit of the outer
    ``margin`` nodes of the field is left out: there B falls to zero because the field of view ends, not because of the map.

    Args:
        stride: 1 is the paper. With s, every s-th node along each axis visits voxels s times as large, at 1/s^3 of the cost;
            the differences are divided by s, so that an even change of volume gives the same loss.
    """

    def __init__(self, margin: int = 2, stride: int = 1, eps: float = 1e-4) -> None:
        super().__init__()
        self.margin = margin
        self.stride = stride
        self.eps = eps

    def forward(self, positions: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
        """The loss of positions (1, 3, w, h, d), in voxels of a moving lattice of ``shape``."""
        s = self.stride
        if s > 1:
            positions = positions[:, :, ::s, ::s, ::s] / s
            shape = ((shape[0] - 1) // s + 1, (shape[1] - 1) // s + 1, (shape[2] - 1) // s + 1)
        b = visits(positions, shape)
        free = self._edge(positions.detach(), shape) <= 0
        total, count = b.new_zeros(()), b.new_zeros(())
        for axis in range(2, 5):
            keep = free.narrow(axis, 1, b.shape[axis] - 1) & free.narrow(axis, 0, b.shape[axis] - 1)
            difference = torch.diff(b, dim=axis) * keep
            total = total + (difference * difference).sum()
            count = count + keep.sum()
        return (torch.sqrt(total / count.clamp(min=1) + self.eps**2) - self.eps) / s

    def _edge(self, positions: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
        """Visits of the outer nodes alone (those at two faces count twice: only "visited or not" is asked)."""
        m = self.margin
        if m == 0:
            return positions.new_zeros(1, 1, *shape)
        faces = [(axis, start) for axis in range(2, 5) for start in (0, positions.shape[axis] - m)]
        outer = torch.cat([positions.narrow(axis, start, m).flatten(2) for axis, start in faces], dim=2)
        return visits(outer[..., None, None], shape)


class FoldingLoss(nn.Module):
    """How far a map is from keeping every place's orientation: mean of ``max(0, floor - det J)``; not in the paper.

    Zero, gradient included, wherever volume shrinks to no less than ``floor`` of itself, so it leaves good maps alone.
    """

    def __init__(self, floor: float = 0.2) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, field: torch.Tensor) -> torch.Tensor:
        """The loss of a displacement (1, 3, W, H, D) in nodes of its own lattice."""
        return torch.relu(self.floor - jacobian_of_map(field[0])).mean()


class Term(nn.Module, ABC):
    """A named part of the sum: a loss, asked of one aspect of the state of the fit, times its weight."""

    def __init__(self, loss: nn.Module, weight: float = 1.0) -> None:
        super().__init__()
        self.loss, self.weight = loss, weight

    def extra_repr(self) -> str:
        """What run.json records of it beside its loss."""
        return f"weight={self.weight}"

    @abstractmethod
    def value(self, state: Sampled) -> torch.Tensor:
        """The loss before it is weighted, a scalar."""

    def forward(self, state: Sampled) -> torch.Tensor:
        return self.weight * self.value(state)


class ImageTerm(Term):
    """A loss of two images (prediction, target), per unit of overlap; any such loss of torch or MONAI.

    Where data is missing the two images are equal, so the plain mean is divided by the share of the lattice that counts.
    """

    def value(self, state: Sampled) -> torch.Tensor:
        return self.loss(state.warped, state.fixed) / state.weight.mean().clamp(min=LEAST_OVERLAP)


class CorrelationTerm(Term):
    """As `ImageTerm`, for losses that are -1 at best (MONAI's local NCC): shifted to 0 first, so overlap is no reward."""

    def value(self, state: Sampled) -> torch.Tensor:
        return (1 + self.loss(state.warped, state.fixed)) / state.weight.mean().clamp(min=LEAST_OVERLAP)


class FieldTerm(Term):
    """A loss of the displacement (1, 3, W, H, D) in nodes, such as MONAI's `BendingEnergyLoss` or `DiffusionLoss`."""

    def value(self, state: Sampled) -> torch.Tensor:
        return self.loss(state.field)


class ControlTerm(Term):
    """A loss of the control values (1, 3, w, h, d) in control nodes: cheap, and it sees the border of the field of view."""

    def value(self, state: Sampled) -> torch.Tensor:
        return self.loss(state.control)


class OccupancyTerm(Term):
    """A loss of where the moving lattice was read, and of its shape: `OccupancyLoss` (the paper weighs it 0.1)."""

    def value(self, state: Sampled) -> torch.Tensor:
        return self.loss(state.positions, state.moving_shape)


class WeightedSum(nn.Module):
    """The sum of named terms (paper equation 1)."""

    def __init__(self, terms: Mapping[str, nn.Module]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("the loss needs at least one term")
        self.terms = nn.ModuleDict(dict(terms))

    def forward(self, state: Sampled) -> dict[str, torch.Tensor]:
        """The weighted value of each term, by name; their sum is what is minimised."""
        return {name: term(state) for name, term in self.terms.items()}
