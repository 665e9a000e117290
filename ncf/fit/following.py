"""Functions of a field that are computed once the field has moved by some part of a node, and followed until then.

Reading a scan at a million places and counting where they lie is a third of a step on the finest level. Near the end of
a fit, a step moves the field by a hundredth of a node. While it is as near as that to where a function was computed
last, the first two terms of its Taylor series are as good (docs/decisions/0029-following.md). This room must not know
what the functions are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ncf.space.trilinear import faster_on

Function = Callable[[torch.Tensor], tuple[torch.Tensor, Any]]
CHECKED = 2  # of every so many nodes along each axis the movement is looked at


@dataclass(frozen=True)
class _Known:
    """A function where it was computed last.

    Attributes:
        at_zero: its tangent at 0, a scalar or (1, 1, W, H, D); one that has a number a node depends at each on this
            node alone.
        slope: the gradient of the value's sum, (1, 3, W, H, D).
        beside: what the function returned beside its value.
    """

    at_zero: torch.Tensor
    slope: torch.Tensor
    beside: Any


class Followed:
    """Functions of a field, by name, all of them computed again where the field has moved.

    Args:
        within: how far, root mean square over the nodes that count, in nodes; 0 computes always. So do devices on
            which reading is no cost, and which would have to be waited for.
        weight: (1, 1, W, H, D), 0 for nodes that do not count; None where all do.
    """

    def __init__(self, within: float, weight: torch.Tensor | None = None) -> None:
        self.within = within
        self._weight = None if weight is None else _checked(weight)
        self._known: dict[object, _Known] = {}
        self._computed_at: torch.Tensor | None = None

    def look(self, field: torch.Tensor) -> None:
        """Decide whether functions are computed or followed at a field, until the next one is looked at.

        Args:
            field: (1, 3, W, H, D), in nodes. One without a gradient changes nothing: there everything is computed.
        """
        if not self._following(field):
            return
        some = _checked(field.detach())
        if self._computed_at is None or not self._moved(some) <= self.within:
            self._known, self._computed_at = {}, some.clone()

    def __call__(self, name: object, function: Function, at: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Return what a function returns; its value with a gradient.

        Args:
            name: of the function, always the same one.
            function: returns a value, a scalar or (1, 1, W, H, D) of which each node depends on this node of ``at``
                alone, and something beside it that has no gradient.
            at: (1, 3, W, H, D), in nodes: the field that was looked at, and something added to it.
        """
        if not self._following(at):
            return function(at)
        if name not in self._known:
            self._known[name] = _computed(function, at)
        known = self._known[name]
        return _Tangent.apply(at, known.at_zero, known.slope), known.beside

    def _following(self, at: torch.Tensor) -> bool:
        return self.within > 0 and faster_on(at) and torch.is_grad_enabled() and at.requires_grad

    def _moved(self, some: torch.Tensor) -> float:
        """Return how far the nodes that count have moved, root mean square."""
        assert self._computed_at is not None
        squares = (some - self._computed_at).square().sum(dim=1, keepdim=True)
        if self._weight is None:
            return float(squares.mean().sqrt())
        return float(((squares * self._weight).sum() / self._weight.sum()).sqrt())


AT_ALL_STEPS = Followed(0)


def _checked(volume: torch.Tensor) -> torch.Tensor:
    return volume[..., ::CHECKED, ::CHECKED, ::CHECKED]


def _computed(function: Function, at: torch.Tensor) -> _Known:
    """Compute a function and its slope."""
    leaf = at.detach().requires_grad_()
    value, beside = function(leaf)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    return _Known(_along(value.detach(), slope, leaf.detach(), back=True), slope, beside)


def _along(start: torch.Tensor, slope: torch.Tensor, at: torch.Tensor, *, back: bool = False) -> torch.Tensor:
    """Return ``start + slope * at``, summed over the axes, and over the nodes where the start is a scalar.

    ``back``: less instead of plus.
    """
    sign = -1 if back else 1
    if start.ndim == 0:
        return start + sign * torch.dot(slope.flatten(), at.flatten())
    found = torch.addcmul(start, slope[:, :1], at[:, :1], value=sign)
    for axis in range(1, at.shape[1]):
        found.addcmul_(slope[:, axis : axis + 1], at[:, axis : axis + 1], value=sign)
    return found


class _Tangent(torch.autograd.Function):
    """A tangent, whose gradient is its slope."""

    @staticmethod
    def forward(ctx: Any, at: torch.Tensor, start: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        """Return the tangent at some place."""
        ctx.save_for_backward(slope)
        return _along(start, slope, at)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the gradient with respect to the place."""
        (slope,) = ctx.saved_tensors
        return slope * grads[0], None, None
