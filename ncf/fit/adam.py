"""Adam, and the cosine that lowers its learning rates.

torch's own optimisers load torch's compiler when the first of them is made, 1.4 to 2.5 s of a command that takes ten
(docs/decisions/0015-start.md). A test holds this one to torch's, bit by bit. Nothing of images or networks here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

MEMORY = (0.9, 0.999)  # of the mean of the slopes, and of their squares
SMALLEST = 1e-8


@dataclass
class _Moments:
    """What is remembered of the slopes of one parameter."""

    mean: torch.Tensor
    square: torch.Tensor
    steps: int = 0


@dataclass
class Group:
    """Parameters with one learning rate.

    Attributes:
        parameters: tensors with a gradient.
        rate: at the first step of a course (`share_of_rate`).
    """

    parameters: list[torch.Tensor]
    rate: float
    moments: dict[int, _Moments] = field(default_factory=dict)


class Adam:
    """Adam (Kingma and Ba 2014, doi:10.48550/arXiv.1412.6980), with torch's default constants."""

    def __init__(self) -> None:
        self.groups: list[Group] = []

    def add(self, parameters: Iterable[torch.Tensor], rate: float) -> Group:
        """Add parameters, and return their group, whose rate may be set anew at any time.

        Args:
            parameters: tensors with a gradient.
            rate: their learning rate; with 0 they stay where they are.
        """
        self.groups.append(Group(list(parameters), rate))
        return self.groups[-1]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.groups:
            for parameter in group.parameters:
                parameter.grad = None

    @torch.no_grad()
    def step(self, share: Callable[[float], float] | float = 1.0) -> None:
        """Change every parameter that has a gradient.

        Args:
            share: of each group's rate, or a function that gives it for a rate.
        """
        for group in self.groups:
            rate = group.rate * (share(group.rate) if callable(share) else share)
            for number, parameter in enumerate(group.parameters):
                if parameter.grad is not None:
                    _change(parameter, parameter.grad, _of(group, number, parameter), rate)


class Course:
    """Steps of Adam, with the learning rate of each known from the beginning.

    Args:
        adam: takes the steps; every parameter must have a gradient at each.
        shares: of each group's rate, for every step: a function of the rate.
        device: of the parameters.
        aside: True keeps all numbers of all steps on the device, so that the host has no part in a step and it can be
            recorded (`ncf.fit.replay`); by default so on a GPU.
    """

    def __init__(
        self,
        adam: Adam,
        shares: Sequence[Callable[[float], float]],
        device: torch.device,
        *,
        aside: bool | None = None,
    ) -> None:
        self.adam, self.shares, self._taken = adam, shares, 0
        self._lengths: torch.Tensor | None = None
        if device.type == "cuda" if aside is None else aside:
            rows = [_lengths(group, [group.rate * share(group.rate) for share in shares]) for group in adam.groups]
            self._lengths = torch.tensor(rows, dtype=torch.float64).to(device, torch.float32)  # (groups, steps, 2)
            self._next = torch.zeros(1, dtype=torch.int64, device=device)

    @torch.no_grad()
    def step(self) -> None:
        """Change every parameter."""
        if self._lengths is None:
            self.adam.step(self.shares[self._taken])
            self._taken += 1
            return
        now = self._lengths.index_select(1, self._next)[:, 0]
        for group, (scale, stride) in zip(self.adam.groups, now, strict=True):
            for number, parameter in enumerate(group.parameters):
                assert parameter.grad is not None
                known = _of(group, number, parameter)
                _remember(known, parameter.grad)
                parameter.addcmul_(known.mean / (known.square.sqrt() * scale).add_(SMALLEST), stride)
        self._next += 1

    def end(self) -> None:
        """Let Adam know of the steps, for those that another course takes after them."""
        if self._lengths is not None:
            for group in self.adam.groups:
                for known in group.moments.values():
                    known.steps += len(self.shares)


def share_of_rate(iteration: int, *, iterations: int, end: float, warm_up: int = 0) -> float:
    """Return the learning rate of an iteration as a share of the first: a cosine, which rises first where asked.

    Loshchilov and Hutter 2016, doi:10.48550/arXiv.1608.03983.

    Args:
        iteration: from 0.
        iterations: how many there are.
        end: the share that the cosine ends with.
        warm_up: number of first iterations in which the rate rises linearly to that of the cosine.
    """
    cosine = end + (1 - end) * (1 + math.cos(math.pi * iteration / iterations)) / 2
    return cosine * min(1.0, (iteration + 1) / (warm_up + 1))


def _of(group: Group, number: int, parameter: torch.Tensor) -> _Moments:
    if number not in group.moments:
        group.moments[number] = _Moments(torch.zeros_like(parameter), torch.zeros_like(parameter))
    return group.moments[number]


def _change(parameter: torch.Tensor, slope: torch.Tensor, known: _Moments, rate: float) -> None:
    """Take a step against the mean slope, as long as the rate where slopes agree."""
    known.steps += 1
    _remember(known, slope)
    seen = [1 - memory**known.steps for memory in MEMORY]
    height = (known.square.sqrt() / math.sqrt(seen[1])).add_(SMALLEST)
    parameter.addcdiv_(known.mean, height, value=-rate / seen[0])


def _remember(known: _Moments, slope: torch.Tensor) -> None:
    known.mean.lerp_(slope, 1 - MEMORY[0])
    known.square.mul_(MEMORY[1]).addcmul_(slope, slope, value=1 - MEMORY[1])


def _lengths(group: Group, rates: Sequence[float]) -> list[tuple[float, float]]:
    """Return for each step what the root of the mean square is multiplied by, and the way along the mean slope."""
    taken = max((known.steps for known in group.moments.values()), default=0)
    seen = [[1 - memory ** (taken + number) for memory in MEMORY] for number in range(1, len(rates) + 1)]
    return [(1 / math.sqrt(square), -rate / mean) for rate, (mean, square) in zip(rates, seen, strict=True)]
