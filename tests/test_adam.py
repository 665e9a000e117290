"""Adam and its rates are those of torch."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
import torch

from ncf.fit.adam import Adam, Course, share_of_rate


def test_every_step_is_torchs_to_the_last_bit() -> None:
    random = torch.Generator().manual_seed(0)
    first = [torch.randn(shape, generator=random) for shape in ((5, 4), (7,), (1, 3, 4, 5, 6))]
    own, theirs = ([p.clone().requires_grad_() for p in first] for _ in range(2))
    adam = Adam()
    adam.add(own[:2], 1e-3)
    torchs = torch.optim.Adam([{"params": theirs[:2], "lr": 1e-3}])
    for number in range(12):
        if number == 4:  # offsets join later
            adam.add(own[2:], 0.2)
            torchs.add_param_group({"params": theirs[2:], "lr": 0.2})
        adam.zero_grad()
        torchs.zero_grad()
        for parameters in (own, theirs):
            known = parameters[: 2 if number < 4 else 3]
            sum(((p - 0.3) ** 2 * (1 + number % 3)).sum() for p in known).backward()  # type: ignore[union-attr]
        adam.step()
        torchs.step()
        for a, b in zip(own, theirs, strict=True):
            assert torch.equal(a, b)


def test_steps_whose_numbers_lie_on_the_device_are_those_of_the_host() -> None:
    first, found = torch.linspace(-1, 1, 24).view(2, 3, 4), []
    for aside in (False, True):
        own = [first.clone().requires_grad_(), (first + 1).requires_grad_()]
        adam = Adam()
        adam.add(own[:1], 1e-2)
        for number in range(2):  # offsets join later; moments go on
            if number == 1:
                adam.add(own[1:], 0.2)
            shares = [partial(lambda rate, share: share * (1 + rate), share=s) for s in (1.0, 0.7, 0.2)]
            course = Course(adam, shares, torch.device("cpu"), aside=aside)
            for _ in range(3):
                adam.zero_grad()
                sum(((p - 0.3) ** 2).sum() for p in own[: number + 1]).backward()  # type: ignore[union-attr]
                course.step()
            course.end()
        found.append([*own, *(known.steps for group in adam.groups for known in group.moments.values())])
    (a, b, *steps), (c, d, *others) = found
    torch.testing.assert_close(a, c, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(b, d, rtol=1e-6, atol=1e-6)
    assert steps == others == [6, 3] and (a - first).abs().max() > 0.01


def test_rates_fall_as_torchs_cosine_and_rise_first() -> None:
    adam = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 9, eta_min=0.03)
    for iteration in range(9):
        rate = adam.param_groups[0]["lr"]
        plain = share_of_rate(iteration, iterations=9, end=0.1)
        assert 0.3 * plain == pytest.approx(rate)
        rising = share_of_rate(iteration, iterations=9, end=0.1, warm_up=3)
        assert rising == pytest.approx(plain * min(1, (iteration + 1) / 4))
        adam.step()
        schedule.step()


def test_what_has_no_rate_or_no_gradient_stays_where_it_is() -> None:
    offsets, idle = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
    adam = Adam()
    adam.add([offsets], 0.0)
    adam.add([idle], 1.0)
    for share in (1.0, lambda rate: 0.5 * rate):
        offsets.sum().backward()
        adam.step(share)
    assert offsets.tolist() == [0, 0] and idle.tolist() == [1, 1]


def test_a_fit_does_not_load_torchs_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from ncf.fit.adam import Adam\n"
        "p = torch.zeros(3, requires_grad=True)\n"
        "adam = Adam()\n"
        "adam.add([p], 1.0)\n"
        "(p - 1).square().sum().backward()\n"
        "adam.step()\n"
        "assert p.tolist() != [0, 0, 0]\n"
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0
