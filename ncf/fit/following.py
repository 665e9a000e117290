"""Functions of a field that are computed at every n-th step and followed along their slope between.

Reading a scan at a million places and counting where they lie cost half of a step on the finest level, where a step
moves them by a small part of a voxel. Between two readings the first two terms of their Taylor series are as good
(docs/decisions/0029-following.md). This room must not know what the functions are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

Function = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class _Known:
    """A function where it was computed last.

    Attributes:
        start: its tangent at 0, a scalar or (1, 1, W, H, D); one that has a number a node depends at each on this node
            alone.
        slope: the gradient of the value's sum, (1, 3, W, H, D).
        calls: so far.
    """

    start: torch.Tensor
    slope: torch.Tensor
    calls: int = 1


class Followed:
    """Functions of a field, by name, each computed at every n-th call that asks for a gradient.

    Args:
        every: n; 1 computes always.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._known: dict[object, _Known] = {}

    def __call__(self, name: object, function: Function, at: torch.Tensor) -> torch.Tensor:
        """Return the value of a function, with a gradient.

        Args:
            name: of the function, always the same one.
            function: gives a scalar, or (1, 1, W, H, D) of which each node depends on this node of ``at`` alone.
            at: (1, 3, W, H, D). Without a gradient, the function is computed.
        """
        if self.every == 1 or not (torch.is_grad_enabled() and at.requires_grad):
            return function(at)
        known = self._known.get(name)
        if known is None or known.calls % self.every == 0:
            known = self._known[name] = _computed(function, at, calls=0 if known is None else known.calls)
        known.calls += 1
        return _Tangent.apply(at, known.start, known.slope)


AT_ALL_STEPS = Followed(1)


def _computed(function: Function, at: torch.Tensor, *, calls: int) -> _Known:
    """Compute a function and its slope."""
    leaf = at.detach().requires_grad_()
    value = function(leaf)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    return _Known(_along(value.detach(), -slope, leaf.detach()), slope, calls)


def _along(start: torch.Tensor, slope: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Return ``start + slope * at``, summed over the axes, and over the nodes where the start is a scalar."""
    if start.ndim == 0:
        return start + torch.dot(slope.flatten(), at.flatten())
    found = torch.addcmul(start, slope[:, :1], at[:, :1])
    for axis in range(1, at.shape[1]):
        found.addcmul_(slope[:, axis : axis + 1], at[:, axis : axis + 1])
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
