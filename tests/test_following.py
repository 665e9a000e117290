"""What is followed along its slope until the field has moved."""

from __future__ import annotations

import pytest
import torch

from ncf.fit.following import AT_ALL_STEPS, CHECKED, Followed
from ncf.space import trilinear

STEP = 0.04  # of each node along each axis: its length is 0.069 nodes


@pytest.mark.parametrize("whole", [True, False])
def test_a_function_is_computed_once_the_field_has_moved_and_followed_until_then(whole: bool) -> None:
    calls = []

    def function(at: torch.Tensor) -> tuple[torch.Tensor, int]:
        calls.append(at)
        squares = (at * at).sum(dim=1, keepdim=True)
        return squares.sum() if whole else squares, len(calls)

    followed, start = Followed(0.15), torch.rand(1, 3, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    for number in range(7):
        at = (start + STEP * number).requires_grad_()
        begun = start + STEP * (number - number % 3)  # a third step would be 0.21 nodes from where it was computed
        followed.look(at)
        value, beside = followed("it", function, at)
        exact = (begun * begun + 2 * begun * (at.detach() - begun)).sum(dim=1, keepdim=True)  # Taylor's first terms
        torch.testing.assert_close(value.detach(), exact.sum() if whole else exact)
        (slope,) = torch.autograd.grad(value.sum(), at)
        torch.testing.assert_close(slope, 2 * begun)
        assert beside == number // 3 + 1  # of the same computation
    assert len(calls) == 3
    with torch.no_grad():  # whoever wants no gradient wants the value, and changes nothing
        followed.look(at + 1)
        assert torch.equal(followed("it", function, at + 1)[0], function(at + 1)[0])
    followed.look(at)
    assert followed("it", function, at)[1] == 3


def field(value: float) -> torch.Tensor:
    return torch.full((1, 3, CHECKED, CHECKED, CHECKED), value, requires_grad=True)


def test_what_is_no_number_has_moved() -> None:
    calls: list[torch.Tensor] = []
    followed = Followed(1.0)
    for value in (0.0, float("nan"), 0.0):
        followed.look(field(value))
        followed("it", lambda x: (x.sum(), calls.append(x)), field(value))
    assert len(calls) == 3


def test_nodes_without_data_do_not_count_as_still() -> None:
    weight, calls = torch.zeros(1, 1, 2 * CHECKED, 1, 1), []
    weight[0, 0, 0] = 1
    still, moved = (torch.zeros(1, 3, 2 * CHECKED, 1, 1) for _ in range(2))
    moved[0, 0, 0] = 0.12  # one of two nodes that are looked at: 0.085 in the mean over both
    for known, times in ((None, 1), (weight, 2)):
        calls.clear()
        followed = Followed(0.1, known)
        for at in (still, moved):
            followed.look(at.clone().requires_grad_())
            followed("it", lambda x: (x.sum(), calls.append(x)), at.clone().requires_grad_())
        assert len(calls) == times


def test_where_reading_is_no_cost_everything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.Tensor] = []
    monkeypatch.setattr(trilinear, "DEVICES", ("elsewhere",))
    followed = Followed(1.0)
    for _ in range(3):
        followed.look(field(0.0))
        followed("it", lambda x: (x.sum(), calls.append(x)), field(0.0))
    assert len(calls) == 3


def test_functions_are_told_apart_and_one_that_is_always_computed_keeps_its_graph() -> None:
    at, followed = torch.ones(1, 3, 1, 1, 1, requires_grad=True), Followed(0.5)
    followed.look(at)
    assert followed("a", lambda x: (x.sum(), None), at)[0].item() == 3
    assert followed("b", lambda x: (2 * x.sum(), None), at)[0].item() == 6
    value, _ = AT_ALL_STEPS("a", lambda x: ((x**3).sum(), None), at)
    (slope,) = torch.autograd.grad(value, at, create_graph=True)
    assert torch.autograd.grad(slope.sum(), at)[0].unique().item() == 6
