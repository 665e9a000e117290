"""Teaching: a network learns a field that was found without it, so that a fit begins there.

The lattices on which it learns change from step to step. On a single one the network would learn the nodes by heart and
do as it likes between them. This room must not know images, losses of images or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from ncf.fit.adam import Adam, Course, share_of_rate
from ncf.fit.field import FieldSpace
from ncf.fit.replay import Replayed
from ncf.space.grids import Lattice


@dataclass(frozen=True)
class Teaching:
    """Fits a network to a field by Adam; a cosine lowers the learning rate to a tenth.

    Attributes:
        steps: of Adam.
        learning_rate: at the first step.
        points: about how many nodes the lattices have that take turns.
        warm_up: steps of the fit that follows in which its learning rate rises. Adam's first steps have their full
            length whatever the slope, and would undo what was taught.

    Raises:
        ValueError: a number is not above zero, or there is no lattice.
    """

    steps: int = 60
    learning_rate: float = 5e-4
    points: Sequence[int] = (800, 1000, 1200, 1400)
    warm_up: int = 12

    def __post_init__(self) -> None:
        if not self.points or not min(self.steps, self.learning_rate, *self.points) > 0 or self.warm_up < 0:
            raise ValueError(f"teaching needs steps, a learning rate and points above zero, got {self}")

    def __call__(self, network: nn.Module, space: FieldSpace, field_vox: torch.Tensor, lattice: Lattice) -> None:
        """Teach a network a field; its weights change in place.

        Args:
            network: positions to offsets, with the weights to begin with.
            space: where the field lives.
            field_vox: (1, 3, W, H, D), in fixed voxels, without the initial transform.
            lattice: of the field, over the fixed grid.
        """
        lessons = [
            (space.network_input(control, field_vox.device), space.values_of(field_vox, lattice, control))
            for control in map(space.control, self.points)
        ]
        device, adam = field_vox.device, Adam()
        adam.add(network.parameters(), self.learning_rate)
        course = Course(adam, [partial(_share, step, steps=self.steps) for step in range(self.steps)], device)

        def learn(places: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            """Take a step; return what was wrong before it."""
            adam.zero_grad()
            wrong = ((network(places) - wanted) ** 2).mean()
            wrong.backward()
            course.step()
            return wrong.detach()

        turns = [Replayed(partial(learn, *lesson), device, prepared=n > 0) for n, lesson in enumerate(lessons)]
        with torch.enable_grad():
            for step in range(self.steps):
                turns[step % len(turns)]()
        adam.zero_grad()


def _share(step: int, _: float, *, steps: int) -> float:
    """Return the share of its rate that a step takes, whatever the rate."""
    return share_of_rate(step, iterations=steps, end=0.1)
