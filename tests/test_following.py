"""What is followed along its slope between two computations."""

from __future__ import annotations

import pytest
import torch

from ncf.fit.following import Followed


@pytest.mark.parametrize("whole", [True, False])
def test_a_function_is_computed_at_every_nth_call_and_followed_between(whole: bool) -> None:
    calls = []

    def function(at: torch.Tensor) -> torch.Tensor:
        calls.append(at)
        squares = (at * at).sum(dim=1, keepdim=True)
        return squares.sum() if whole else squares

    followed, start = Followed(3), torch.rand(1, 3, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    for step in range(7):
        at = (start + 0.01 * step).requires_grad_()
        begun = start + 0.01 * (step - step % 3)
        value = followed("it", function, at)
        exact = (begun * begun + 2 * begun * (at.detach() - begun)).sum(dim=1, keepdim=True)  # Taylor's first terms
        torch.testing.assert_close(value.detach(), exact.sum() if whole else exact)
        (slope,) = torch.autograd.grad(value.sum(), at)
        torch.testing.assert_close(slope, 2 * begun)
    assert len(calls) == 3
    with torch.no_grad():  # whoever wants no gradient wants the value
        assert torch.equal(followed("it", function, at), function(at))
    assert len(calls) == 5


def test_functions_are_told_apart_and_one_that_is_always_computed_keeps_its_graph() -> None:
    at = torch.ones(1, 3, 1, 1, 1, requires_grad=True)
    followed = Followed(2)
    assert followed("a", torch.sum, at).item() == 3 and followed("b", lambda x: 2 * x.sum(), at).item() == 6
    value = Followed(1)("a", lambda x: (x**3).sum(), at)
    (slope,) = torch.autograd.grad(value, at, create_graph=True)
    assert torch.autograd.grad(slope.sum(), at)[0].unique().item() == 6
