"""The steps of one level, run by a MONAI trainer (an Ignite engine) of their own."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.engines import SupervisedTrainer

from ncf.fit.adam import Adam, share_of_rate
from ncf.fit.objective import Objective

BAR_EVERY = 5  # iterations between two updates of the progress bar: reading a loss waits for the device


def train(
    objective: Objective,
    adam: Adam,
    *,
    iterations: int,
    rate_end: float,
    title: str,
    progress: bool,
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
        warm_up: number of first iterations in which the rates rise from nothing.

    Returns:
        The value of every term at every iteration, by name.
    """
    kept: list[dict[str, torch.Tensor]] = []

    def step(engine: Engine, _: Any) -> dict[str, torch.Tensor]:
        adam.zero_grad()
        terms = objective()
        total = torch.stack(list(terms.values())).sum()
        total.backward()
        adam.step(
            lambda rate: share_of_rate(
                len(kept), iterations=iterations, end=rate_end / rate if rate > 0 else 1.0, warm_up=warm_up
            )
        )
        kept.append({name: value.detach() for name, value in terms.items()})
        return {"loss": total.detach()}

    trainer = SupervisedTrainer(
        device=objective.images.fixed.device,
        max_epochs=1,
        train_data_loader=range(iterations),
        network=objective.network,
        optimizer=adam,  # type: ignore[arg-type]  # our own; only `step` below uses it
        loss_function=objective.loss,
        iteration_update=step,
        decollate=False,
    )
    if progress:
        _show_progress(trainer, title)
    trainer.run()
    return {name: torch.stack([terms[name] for terms in kept]).tolist() for name in kept[0]}


def _show_progress(trainer: Engine, title: str) -> None:
    """Attach a progress bar, which shows in a terminal, not in a log file."""
    bar = ProgressBar(desc=title, persist=False, disable=None)
    bar.attach(
        trainer,
        event_name=Events.ITERATION_COMPLETED(every=BAR_EVERY),
        output_transform=lambda output: {"loss": output["loss"].item()},
    )
