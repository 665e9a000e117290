"""Tensors as small whole numbers and a step: what a network.pt keeps of a fit (docs/decisions/0016-rounding.md)."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Rounded(NamedTuple):
    """A tensor as whole numbers and one step.

    Attributes:
        codes: the whole numbers, int8 or int16.
        step: the distance between two neighbouring numbers, in the unit of the tensor.
    """

    codes: torch.Tensor
    step: float

    def values(self) -> torch.Tensor:
        """Return the float32 tensor. It has the same bits on every device."""
        return self.codes.float() * self.step


def rounded(values: torch.Tensor, bits: int) -> Rounded:
    """Round a tensor to 2**bits - 1 levels around zero.

    Args:
        values: finite numbers, of any shape. The largest absolute value becomes the outermost level.
        bits: 2 to 16.

    Returns:
        The rounded tensor on the CPU, with codes in int8 up to 8 bits and else in int16. It differs from ``values`` by
        half a step at most.
    """
    values, last = values.detach().float().cpu(), 2 ** (bits - 1) - 1
    step = float(values.abs().max()) / last if values.numel() else 0.0
    codes = (values / (step or 1.0)).round()  # the step is 0 where all values are zero
    return Rounded(codes.to(torch.int8 if bits <= 8 else torch.int16), step)
