"""The terms of the loss: each asks one loss function about one part of the state of the fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from ncf.fit.following import AT_ALL_STEPS, Followed
from ncf.fit.guidance import GuidePoints
from ncf.fit.label_guidance import LabelGuides
from ncf.space.sampling import every_nth

SMALLEST_SHARE = 1e-3  # of the lattice; keeps the loss finite for a pair without common data


@dataclass(frozen=True)
class Sampled:
    """One state of a fit, on the lattice of one level.

    Attributes:
        warped: (1, 1, W, H, D), in [0, 1]. Where the weight is 0 it equals ``fixed``, so no loss sees a difference
            there.
        fixed: (1, 1, W, H, D), in [0, 1].
        weight: (1, 1, W, H, D), 0 to 1: where both images have data.
        field: (1, 3, W, H, D), in nodes, without the initial transform.
        control: (1, 3, w, h, d), the control values that the field is interpolated from, in control nodes, without the
            initial transform.
        visited_nodes: (1, 3, W, H, D), the nodes of the level in those of its lattice continued over the whole moving
            image.
        moving_shape: the shape of that continued lattice.
        guides: points that a person has named, or None.
        labels: what label maps ask, or None.
        followed: computes what is costly once the field has moved, and follows it until then.
    """

    warped: torch.Tensor
    fixed: torch.Tensor
    weight: torch.Tensor
    field: torch.Tensor
    control: torch.Tensor
    visited_nodes: torch.Tensor
    moving_shape: tuple[int, int, int]
    guides: GuidePoints | None = None
    labels: LabelGuides | None = None
    followed: Followed = AT_ALL_STEPS

    @cached_property
    def share(self) -> torch.Tensor:
        """The share of the lattice where both images have data, a scalar, at least `SMALLEST_SHARE`."""
        return self.weight.mean().clamp(min=SMALLEST_SHARE)

    def positions(self, every: int = 1) -> torch.Tensor:
        """Return where the map leads, in nodes of the level's lattice continued over the whole moving image.

        Args:
            every: with s, of every s-th node along each axis.

        Returns:
            (1, 3, w, h, d).
        """
        return self.visited_nodes[:, :, ::every, ::every, ::every] + every_nth(self.field, every)


class Term(nn.Module, ABC):
    """A named part of the sum: a loss of one part of the state of the fit, times its weight."""

    def __init__(self, loss: nn.Module, weight: float = 1.0) -> None:
        super().__init__()
        self.loss, self.weight = loss, weight

    def extra_repr(self) -> str:
        """Return what run.json records of the term beside its loss."""
        return f"weight={self.weight}"

    def applies(self, state: Sampled) -> bool:
        """Tell whether there is anything to judge; by default there is."""
        return True

    @abstractmethod
    def value(self, state: Sampled) -> torch.Tensor:
        """Return the loss before it is weighted, a scalar."""

    def forward(self, state: Sampled) -> torch.Tensor:
        """Return the weighted loss, a scalar."""
        return self.weight * self.value(state)


class ImageTerm(Term):
    """A loss of two images (prediction, target), per unit of overlap. Any such loss of torch or MONAI fits.

    Where data is missing the two images are equal. So the plain mean is divided by the share of the lattice that
    counts.
    """

    def value(self, state: Sampled) -> torch.Tensor:
        """Return the loss of the warped and the fixed image."""
        return self.loss(state.warped, state.fixed) / state.share


class CorrelationTerm(Term):
    """As `ImageTerm`, for losses that are -1 at best, such as MONAI's local NCC.

    The loss is first shifted so that its best is 0. Otherwise a smaller overlap would be a reward.
    """

    def value(self, state: Sampled) -> torch.Tensor:
        """Return the shifted loss of the warped and the fixed image."""
        return (1 + self.loss(state.warped, state.fixed)) / state.share


class FieldTerm(Term):
    """A loss of the displacement (1, 3, W, H, D) in nodes, such as MONAI's `BendingEnergyLoss` or `DiffusionLoss`."""

    def value(self, state: Sampled) -> torch.Tensor:
        """Return the loss of the field."""
        return self.loss(state.field)


class ControlTerm(Term):
    """A loss of the control values (1, 3, w, h, d) in control nodes.

    It is cheap, and it sees the border of the field of view.
    """

    def value(self, state: Sampled) -> torch.Tensor:
        """Return the loss of the control values."""
        return self.loss(state.control)


class OccupancyTerm(Term):
    """A loss of where the moving lattice is read, and of its shape: `OccupancyLoss` (weight 0.1 in the paper).

    Args:
        loss: of positions (1, 3, w, h, d) in nodes of the moving lattice, and of its shape.
        weight: factor of the loss.
        every: it is given the positions of every so many nodes along each axis.

    Raises:
        ValueError: the loss has another ``stride``.
    """

    def __init__(self, loss: nn.Module, weight: float = 1.0, *, every: int = 1) -> None:
        super().__init__(loss, weight)
        own = getattr(loss, "stride", every)
        if own != every:
            raise ValueError(f"the occupancy term takes every {every}. node, its loss wants a stride of {own}")
        self.every = every

    def value(self, state: Sampled) -> torch.Tensor:
        """Return the loss of the positions."""
        loss = state.followed(self, lambda at: (self.loss(at, state.moving_shape), None), state.positions(self.every))
        return loss[0]


class GuideTerm(Term):
    """A loss of what the field leaves of the displacements that guide points ask for, (1, 3, N, 1, 1) in mm."""

    def applies(self, state: Sampled) -> bool:
        """Tell whether there are guide points."""
        return state.guides is not None

    def value(self, state: Sampled) -> torch.Tensor:
        """Return the loss of what is left, times the strength of the level."""
        assert state.guides is not None
        return state.guides.strength * self.loss(state.guides.left_mm(state.field))


class LabelTerm(Term):
    """A loss of the shares of labels that the field brings, and of those that are wanted, both (1, K, N)."""

    def applies(self, state: Sampled) -> bool:
        """Tell whether labels are to meet."""
        return state.labels is not None and state.labels.fixed_share.numel() > 0

    def value(self, state: Sampled) -> torch.Tensor:
        """Return the loss of the shares, times the strength of the level."""
        assert state.labels is not None
        return state.labels.strength * self.loss(*state.labels.shares(state.field))


class RigidTerm(Term):
    """A loss of points of a label as they moved and as they were, both (3, N), RAS mm; the mean over the labels."""

    def applies(self, state: Sampled) -> bool:
        """Tell whether a label is to stay rigid."""
        return state.labels is not None and len(state.labels.rigid) > 0

    def value(self, state: Sampled) -> torch.Tensor:
        """Return the mean loss of the labels, times the strength of the level."""
        assert state.labels is not None
        losses = [self.loss(body.moved_mm(state.field), body.own_mm) for body in state.labels.rigid]
        return state.labels.strength * torch.stack(losses).mean()


class VolumeTerm(Term):
    """A loss of the determinants (N,) of the map at points of a label; the mean over the labels."""

    def applies(self, state: Sampled) -> bool:
        """Tell whether a label is to keep its volume."""
        return state.labels is not None and len(state.labels.volume) > 0

    def value(self, state: Sampled) -> torch.Tensor:
        """Return the mean loss of the labels, times the strength of the level."""
        assert state.labels is not None
        losses = [self.loss(body.volume_change(state.field)) for body in state.labels.volume]
        return state.labels.strength * torch.stack(losses).mean()


class WeightedSum(nn.Module):
    """The sum of named terms (paper equation 1).

    Args:
        terms: by name, at least one; None, as a config's disabled term is, counts for nothing.

    Raises:
        ValueError: there is no term.
    """

    def __init__(self, terms: Mapping[str, nn.Module | None]) -> None:
        super().__init__()
        if not terms:
            raise ValueError("the loss needs at least one term")
        self.terms = nn.ModuleDict({name: term for name, term in terms.items() if term is not None})

    def forward(self, state: Sampled) -> dict[str, torch.Tensor]:
        """Return the weighted value of each term, by name. The fit minimises their sum."""
        return {name: term(state) for name, term in self.terms.items() if not _idle(term, state)}


def _idle(term: nn.Module, state: Sampled) -> bool:
    """Tell whether a term has nothing to judge; a term of a user's own always has."""
    return isinstance(term, Term) and not term.applies(state)
