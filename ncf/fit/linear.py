"""Rigid and affine maps by the fit's own loss, for a registration that shall not bend anything.

The parameters are those of a map about the middle of the fixed scan. The loss is that of the network's fit, on the same
levels, so a rigid, an affine and a free registration of a pair can be compared. This room must not know networks or
files.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from ncf.core.names import AFFINE, RIGID
from ncf.fit.adam import Adam, share_of_rate
from ncf.fit.fitted import LevelRecord
from ncf.fit.levels import Level
from ncf.fit.objective import Objective
from ncf.fit.pyramid import PairImages
from ncf.fit.safety import OVERLAP_KEPT
from ncf.space.geometry import to_mm
from ncf.space.grids import half_extent_mm

logger = logging.getLogger(__name__)

PARAMETERS = {RIGID: 6, AFFINE: 12}  # shift and rotation; with the logarithm of a stretch


@dataclass(frozen=True)
class LinearFit:
    """Fits a rigid or affine map by Adam, level by level.

    Attributes:
        iterations: steps on each level.
        rate: learning rate on the first level; parameters are in half longest sides of the fixed scan, and in radians.
        falling: factor of the rate from level to level.
    """

    iterations: int = 60
    rate: float = 0.02
    falling: float = 0.3

    def __call__(
        self, pair: PairImages, objectives: Mapping[str, Objective], *, kind: str
    ) -> tuple[np.ndarray, list[LevelRecord]]:
        """Fit a map that comes before the pair's initial transform.

        Args:
            pair: the pair, with the initial transform to begin with.
            objectives: of the levels, coarse first.
            kind: `RIGID` or `AFFINE`.

        Returns:
            4x4, RAS mm, fixed to fixed: the new initial transform is the pair's own times this. It is the identity
            where no step has lowered the loss of the last level without leaving the images. And how each level went.
        """
        nothing = torch.zeros(PARAMETERS[AFFINE])
        best, history, rate = nothing, [], self.rate
        for name, objective in objectives.items():
            at = time.perf_counter()
            shown = _Shown(pair, objective)
            best, losses, first = self._improved(shown, best, rate=rate, free=PARAMETERS[kind])
            shape = objective.images.lattice.shape
            history.append(LevelRecord(name, shape, time.perf_counter() - at, losses, first))
            logger.info(
                "%s map, level %s: loss %.4f by the initial transform, now %.4f", kind, name, first, history[-1].total
            )
            rate *= self.falling
        return shown.as_mm(best), history

    def _improved(
        self, shown: _Shown, start: torch.Tensor, *, rate: float, free: int
    ) -> tuple[torch.Tensor, dict[str, list[float]], float]:
        """Return the best parameters of a level, its terms at every step, and the loss of no map at all.

        The last entries of the terms are those of the best parameters. A step that leaves less than `OVERLAP_KEPT` of
        what the initial transform has in common is none: the loss counts only what is in common.
        """
        steps: list[dict[str, float]] = []
        best = torch.zeros_like(start)
        terms, whole = shown.terms(best)
        first = least = sum(value.item() for value in terms.values())
        told = {name: value.item() for name, value in terms.items()}
        parameters = start.clone().requires_grad_()
        adam = Adam()
        adam.add([parameters], rate)
        for iteration in range(self.iterations):
            adam.zero_grad()
            terms, common = shown.terms(parameters)
            total = torch.stack(list(terms.values())).sum()
            steps.append({name: value.item() for name, value in terms.items()})
            if total.item() < least and common >= OVERLAP_KEPT * whole:
                least, best, told = total.item(), parameters.detach().clone(), steps[-1]
            total.backward()
            assert parameters.grad is not None
            parameters.grad[free:] = 0  # Adam leaves what has no gradient where it is
            adam.step(share_of_rate(iteration, iterations=self.iterations, end=1 / 30))
        return best, {name: [*(step[name] for step in steps), value] for name, value in told.items()}, first


class _Shown:
    """A pair on one level, as a function of the parameters of a map about the middle of the fixed scan."""

    def __init__(self, pair: PairImages, objective: Objective) -> None:
        self.objective = objective
        lattice = objective.images.lattice
        device = objective.images.fixed.device
        self.half_mm = half_extent_mm(pair.fixed_shape, pair.fixed_affine)
        self.centre_mm = to_mm((np.array(pair.fixed_shape)[None] - 1) / 2, pair.fixed_affine)[0]
        points_mm = to_mm(lattice.points().reshape(3, -1).T.numpy(), pair.fixed_affine) - self.centre_mm
        self.points = torch.as_tensor(points_mm.T / self.half_mm, dtype=torch.float32, device=device)
        to_nodes = np.linalg.inv(lattice.affine(pair.fixed_affine))[:3, :3] * self.half_mm
        self.to_nodes = torch.as_tensor(to_nodes, dtype=torch.float32, device=device)

    def terms(self, parameters: torch.Tensor) -> tuple[dict[str, torch.Tensor], float]:
        """Return the terms for parameters (12,), and how much of the fixed data meets moving data."""
        matrix, shift = _matrix(parameters)
        matrix, shift = matrix.to(self.points), shift.to(self.points)
        moved = self.to_nodes @ ((matrix - torch.eye(3).to(matrix)) @ self.points + shift[:, None])
        return self.objective.of_displacement(moved.view(1, 3, *self.objective.images.lattice.shape))

    def as_mm(self, parameters: torch.Tensor) -> np.ndarray:
        """Return the map as a 4x4 affine in RAS mm."""
        matrix, shift = _matrix(parameters.detach().double())
        found = np.eye(4)
        found[:3, :3] = matrix.numpy()
        found[:3, 3] = self.centre_mm + self.half_mm * shift.numpy() - found[:3, :3] @ self.centre_mm
        return found


def _matrix(parameters: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the matrix (3, 3) and the shift (3,) of parameters (12,): a stretch, then a turn, then a shift."""
    x, y, z = parameters[3:6].unbind()
    a, b, c, d, e, f = parameters[6:].unbind()
    nothing = torch.zeros_like(x)
    turn = [torch.stack(row) for row in ((nothing, -z, y), (z, nothing, -x), (-y, x, nothing))]
    stretch = [torch.stack(row) for row in ((a, d, e), (d, b, f), (e, f, c))]
    return torch.linalg.matrix_exp(torch.stack(turn)) @ torch.linalg.matrix_exp(torch.stack(stretch)), parameters[:3]


def levels_of(levels: Mapping[str, Level]) -> dict[str, Level]:
    """Return the levels that a rigid or affine map needs: a few parameters are known before the finest one.

    Nothing is followed on them: the best step is chosen by its loss.

    Args:
        levels: of the network's fit, coarse first.
    """
    names = list(levels)
    return {name: replace(levels[name], follow_within=0.0) for name in names[: max(1, len(names) - 1)]}
