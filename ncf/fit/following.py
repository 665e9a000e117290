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

Function = Callable[[torch.Tensor], torch.Tensor]
CHECKED = 2  # of every so many nodes along each axis the movement is looked at


@dataclass
class _Known:
    """A function where it was computed last.

    Attributes:
        at: some of the nodes of which it is a function, (1, 3, w, h, d).
        start: its tangent at 0, a scalar or (1, 1, W, H, D); one that has a number a node depends at each on this node
            alone.
        slope: the gradient of the value's sum, (1, 3, W, H, D).
    """

    at: torch.Tensor
    start: torch.Tensor
    slope: torch.Tensor


class Followed:
    """Functions of a field, by name, each computed again where the field has moved.

    Args:
        within: how far, root mean square over the nodes, in nodes; 0 computes always, and so do devices other than the
            CPU, which would have to be waited for.
    """

    def __init__(self, within: float) -> None:
        self.within = within
        self._known: dict[object, _Known] = {}

    def __call__(self, name: object, function: Function, at: torch.Tensor) -> torch.Tensor:
        """Return the value of a function, with a gradient.

        Args:
            name: of the function, always the same one.
            function: gives a scalar, or (1, 1, W, H, D) of which each node depends on this node of ``at`` alone.
            at: (1, 3, W, H, D), in nodes. Without a gradient, the function is computed.
        """
        wanted = torch.is_grad_enabled() and at.requires_grad
        if self.within == 0 or at.device.type != "cpu" or not wanted:
            return function(at)
        known, near = self._known.get(name), at.detach()[..., ::CHECKED, ::CHECKED, ::CHECKED]
        if known is None or not _moved(known.at, near) <= self.within:
            known = self._known[name] = _computed(function, at, near)
        return _Tangent.apply(at, known.start, known.slope)


AT_ALL_STEPS = Followed(0)


def _moved(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return how far nodes (1, 3, w, h, d) have moved, root mean square."""
    return float((second - first).square().sum(dim=1).mean().sqrt())


def _computed(function: Function, at: torch.Tensor, near: torch.Tensor) -> _Known:
    """Compute a function and its slope."""
    leaf = at.detach().requires_grad_()
    value = function(leaf)
    (slope,) = torch.autograd.grad(value.sum(), leaf)
    return _Known(near.clone(), _along(value.detach(), -slope, leaf.detach()), slope)


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
