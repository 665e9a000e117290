"""What is followed along its slope until the field has moved."""

from __future__ import annotations

import pytest
import torch

from ncf.fit.following import AT_ALL_STEPS, CHECKED, Followed


@pytest.mark.parametrize("whole", [True, False])
def test_a_function_is_computed_once_the_field_has_moved_and_followed_until_then(whole: bool) -> None:
    calls = []

    def function(at: torch.Tensor) -> torch.Tensor:
        calls.append(at)
        squares = (at * at).sum(dim=1, keepdim=True)
        return squares.sum() if whole else squares

    step = 0.04  # of each node along each axis: its length is 0.069 nodes
    followed, start = Followed(0.15), torch.rand(1, 3, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    for number in range(7):
        at = (start + step * number).requires_grad_()
        begun = start + step * (number - number % 3)  # a third step would be 0.21 nodes from where it was computed
        value = followed("it", function, at)
        exact = (begun * begun + 2 * begun * (at.detach() - begun)).sum(dim=1, keepdim=True)  # Taylor's first terms
        torch.testing.assert_close(value.detach(), exact.sum() if whole else exact)
        (slope,) = torch.autograd.grad(value.sum(), at)
        torch.testing.assert_close(slope, 2 * begun)
    assert len(calls) == 3
    with torch.no_grad():  # whoever wants no gradient wants the value
        assert torch.equal(followed("it", function, at), function(at))
    assert len(calls) == 5


def test_what_is_no_number_has_moved() -> None:
    calls, followed = [], Followed(1.0)
    for value in (0.0, float("nan"), 0.0):
        at = torch.full((1, 3, CHECKED, CHECKED, CHECKED), value, requires_grad=True)
        followed("it", lambda x: calls.append(x) or x.sum(), at)
    assert len(calls) == 3


def test_functions_are_told_apart_and_one_that_is_always_computed_keeps_its_graph() -> None:
    at = torch.ones(1, 3, 1, 1, 1, requires_grad=True)
    followed = Followed(0.5)
    assert followed("a", torch.sum, at).item() == 3 and followed("b", lambda x: 2 * x.sum(), at).item() == 6
    value = AT_ALL_STEPS("a", lambda x: (x**3).sum(), at)
    (slope,) = torch.autograd.grad(value, at, create_graph=True)
    assert torch.autograd.grad(slope.sum(), at)[0].unique().item() == 6
