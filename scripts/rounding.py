"""Tensors as small whole numbers and a step: what a network.pt keeps of a fit (docs/decisions/0016-rounding.md)."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Rounded(NamedTuple):
    """Whole numbers and the distance between two of them, in the unit of the tensor that they stand for."""

    codes: torch.Tensor
    step: float

    def values(self) -> torch.Tensor:
        """The float32 tensor, the same bits wherever it is asked for."""
        return self.codes.float() * self.step


def rounded(values: torch.Tensor, bits: int) -> Rounded:
    """A finite tensor of any shape to 2**bits - 1 levels around zero (2 to 16 bits), its largest size the last of them.

    The codes are int8 up to 8 bits, else int16, on the CPU; values differ by half a step at most.
    """
    values, last = values.detach().float().cpu(), 2 ** (bits - 1) - 1
    step = float(values.abs().max()) / last if values.numel() else 0.0
    codes = (values / (step or 1.0)).round()  # without a largest size all are zero
    return Rounded(codes.to(torch.int8 if bits <= 8 else torch.int16), step)
