"""The steps of one level, run by a MONAI trainer (an Ignite engine) of their own."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.engines import SupervisedTrainer

from ncf.fit.adam import Adam, Course, share_of_rate
from ncf.fit.objective import Objective
from ncf.fit.replay import Replayed

BAR_EVERY = 5  # iterations between two updates of the progress bar: reading a loss waits for the device


def train(
    objective: Objective,
    adam: Adam,
    *,
    iterations: int,
    rate_end: float,
    title: str,
    progress: bool,
    recorded: bool = True,
    warm_up: int = 0,
) -> dict[str, list[float]]:
    """Minimise the sum of an objective's terms; a cosine lowers the learning rates.

    Args:
        objective: evaluated once an iteration.
        adam: holds what may change, with the first learning rates; a cosine leads each to ``rate_end``. A rate of 0 (of
            two equal scans) stays.
        iterations: how many.
        rate_end: the last learning rate.
        title: of the progress bar, which only a terminal shows.
        progress: False hides the bar.
        recorded: True has a GPU replay the second step.
        warm_up: number of first iterations in which the rates rise from nothing.

    Returns:
        The value of every term at every iteration, by name.
    """
    device = objective.images.fixed.device
    shares = [partial(_share, n, iterations=iterations, rate_end=rate_end, warm_up=warm_up) for n in range(iterations)]
    course = Course(adam, shares, device)
    step = _Step(objective, adam, course)
    take = Replayed(step, device) if recorded else step
    kept: list[torch.Tensor] = []

    def iteration(engine: Engine, _: Any) -> dict[str, torch.Tensor]:
        kept.append(take())
        return {"loss": kept[-1].sum()}

    trainer = SupervisedTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=range(iterations),
        network=objective.network,
        optimizer=adam,  # type: ignore[arg-type]  # our own; only `_Step` uses it
        loss_function=objective.loss,
        iteration_update=iteration,
        decollate=False,
    )
    if progress:
        _show_progress(trainer, title)
    trainer.run()
    course.end()
    return dict(zip(step.names, torch.stack(kept, dim=1).tolist(), strict=True))


class _Step:
    """A step of a level, as a function without arguments, so that a device can replay it."""

    def __init__(self, objective: Objective, adam: Adam, course: Course) -> None:
        self.objective, self.adam, self.course = objective, adam, course
        self.names: list[str] = []  # of the terms, the same at every step

    def __call__(self) -> torch.Tensor:
        """Change the parameters; return the terms (K,) as they were before."""
        self.adam.zero_grad()
        terms = self.objective()
        self.names = list(terms)
        values = torch.stack(list(terms.values()))
        values.sum().backward()
        self.course.step()
        return values.detach()


def _share(iteration: int, rate: float, *, iterations: int, rate_end: float, warm_up: int) -> float:
    """Return the share of a group's rate that an iteration takes."""
    end = rate_end / rate if rate > 0 else 1.0
    return share_of_rate(iteration, iterations=iterations, end=end, warm_up=warm_up)


def _show_progress(trainer: Engine, title: str) -> None:
    """Attach a progress bar, which shows in a terminal, not in a log file."""
    bar = ProgressBar(desc=title, persist=False, disable=None)
    bar.attach(
        trainer,
        event_name=Events.ITERATION_COMPLETED(every=BAR_EVERY),
        output_transform=lambda output: {"loss": output["loss"].item()},
    )
