"""Tensors in whole steps: how far they are from what they stand for, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch

from ncf.fit.rounding import Rounded, rounded


@pytest.mark.parametrize(("bits", "kind"), [(2, torch.int8), (7, torch.int8), (8, torch.int8), (16, torch.int16)])
def test_values_are_half_a_step_away_at_most(bits: int, kind: torch.dtype) -> None:
    values = torch.randn(3, 500, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kept = rounded(values, bits)
    assert kept.codes.dtype == kind and kept.codes.abs().max() == 2 ** (bits - 1) - 1
    assert kept.step == pytest.approx(float(values.detach().abs().max()) / (2 ** (bits - 1) - 1))
    found = kept.values()
    assert found.dtype == torch.float32 and found.shape == values.shape and not found.requires_grad
    assert (found - values).abs().max() <= 0.5001 * kept.step
    assert torch.equal(Rounded(*tuple(kept)).values(), found)


@pytest.mark.parametrize("values", [torch.zeros(2, 3), torch.zeros(0)])
def test_nothing_stays_nothing(values: torch.Tensor) -> None:
    assert torch.equal(rounded(values, 7).values(), values)
