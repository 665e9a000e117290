"""The steps of one level, run by a MONAI trainer (an Ignite engine) of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler

from ncf.fit.objective import Objective

BAR_EVERY = 5  # iterations between two updates of the progress bar: reading a loss waits for the device


def train(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    *,
    iterations: int,
    rate_end: float,
    title: str,
    progress: bool,
    warm_up: int = 0,
) -> dict[str, list[float]]:
    """Minimise the sum of an objective's terms; a cosine lowers the learning rates.

    Loshchilov and Hutter 2016, doi:10.48550/arXiv.1608.03983.

    Args:
        objective: evaluated once an iteration.
        optimizer: holds what may change, with the first learning rates; a cosine leads each to ``rate_end``.
        iterations: how many.
        rate_end: the last learning rate.
        title: of the progress bar, which only a terminal shows.
        progress: False hides the bar.
        warm_up: number of first iterations in which the rates rise from nothing.

    Returns:
        The value of every term at every iteration, by name.
    """
    schedule = learning_rates(optimizer, iterations=iterations, rate_end=rate_end, warm_up=warm_up)
    # MONAI's annotation uses torch's old name for a scheduler
    by_iteration = LrScheduleHandler(schedule, print_lr=False, epoch_level=False)  # type: ignore[arg-type]
    kept: list[dict[str, torch.Tensor]] = []

    def step(engine: Engine, _: Any) -> dict[str, torch.Tensor]:
        optimizer.zero_grad(set_to_none=True)
        terms = objective()
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        optimizer.step()
        kept.append({name: value.detach() for name, value in terms.items()})
        return {"loss": total.detach()}

    trainer = SupervisedTrainer(
        device=objective.images.fixed.device,
        max_epochs=1,
        train_data_loader=range(iterations),
        network=objective.network,
        optimizer=optimizer,
        loss_function=objective.loss,
        iteration_update=step,
        train_handlers=[by_iteration],
        decollate=False,
    )
    if progress:
        _show_progress(trainer, title)
    trainer.run()
    return {name: torch.stack([terms[name] for terms in kept]).tolist() for name in kept[0]}


def learning_rates(
    optimizer: torch.optim.Optimizer, *, iterations: int, rate_end: float, warm_up: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the schedule of an optimiser's learning rates.

    Args:
        optimizer: with the first rate of every group; one of 0 (two equal scans) stays.
        iterations: how many.
        rate_end: the last rate of every group.
        warm_up: number of first iterations in which the rates rise.
    """
    first = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
    ends = [rate_end / rate if rate > 0 else 1.0 for rate in first]
    shares: list[Callable[[int], float]] = [
        partial(share_of_rate, iterations=iterations, end=end, warm_up=warm_up) for end in ends
    ]
    return torch.optim.lr_scheduler.LambdaLR(optimizer, shares)


def share_of_rate(iteration: int, *, iterations: int, end: float, warm_up: int) -> float:
    """Return the learning rate of an iteration as a share of the first: a cosine, which rises first where asked.

    Args:
        iteration: from 0.
        iterations: how many there are.
        end: the share that the cosine ends with.
        warm_up: number of first iterations in which the rate rises linearly to that of the cosine.
    """
    cosine = end + (1 - end) * (1 + math.cos(math.pi * iteration / iterations)) / 2
    return cosine * min(1.0, (iteration + 1) / (warm_up + 1))


def _show_progress(trainer: Engine, title: str) -> None:
    """Attach a progress bar, which shows in a terminal, not in a log file."""
    bar = ProgressBar(desc=title, persist=False, disable=None)
    bar.attach(
        trainer,
        event_name=Events.ITERATION_COMPLETED(every=BAR_EVERY),
        output_transform=lambda output: {"loss": output["loss"].item()},
    )
