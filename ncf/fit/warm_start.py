"""A fit that begins with the network of a neighbour: another moving scan that was registered to the same fixed one.

Phases of a breath or of a heart beat differ little, so what was found for one is nearly right for the next: no initial
transform, no search and no teaching are needed, and fewer steps. The free offsets are not taken over: they hold the
noise of the neighbour too (docs/decisions/0028-series.md). A start that is no better than none is left alone. This room
must not know which scans are neighbours, nor any file.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from torch import nn

from ncf.core.names import DEFORMABLE, DIFFERENT, SAME
from ncf.fit.contrast import ByContrast, chosen_by, compared, earned_by, left_over
from ncf.fit.field import FieldSpace, dense_field
from ncf.fit.fitted import ContrastEvidence, Fit, StartEvidence
from ncf.fit.levels import Level
from ncf.fit.optimizer import PairOptimizer
from ncf.fit.pyramid import PairImages
from ncf.fit.rounding import Rounded
from ncf.fit.safety import DivergedError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WarmStart:
    """What a fit takes over from its neighbour.

    Attributes:
        neighbour: its name.
        weights: of its network, as it keeps them.
        initial: its initial transform (`ncf.fit.pyramid.PairImages`).
        control_points: nodes at which its network was asked last.
    """

    neighbour: str
    weights: Mapping[str, Rounded]
    initial: np.ndarray
    control_points: int

    @classmethod
    def of(cls, fit: Fit, neighbour: str) -> WarmStart | None:
        """Return the start that a fit offers; None where it has no network to offer, as a rigid one.

        Args:
            fit: of the neighbour.
            neighbour: its name.
        """
        if fit.transform != DEFORMABLE:
            return None
        return cls(neighbour, fit.weights, fit.space.initial, fit.control_points)

    def load(self, network: nn.Module) -> None:
        """Give a network these weights."""
        network.load_state_dict({name: kept.values() for name, kept in self.weights.items()}, strict=False)


class FromNeighbour(Inferer):
    """Fits a pair from its neighbour's network where it has one that helps, and otherwise as if it had none.

    Args:
        fresh: fits a pair without a neighbour.
        share: of the iterations of every level, for a fit that begins with a neighbour's network.

    Raises:
        ValueError: the share is not above 0 and at most 1.
    """

    def __init__(self, fresh: ByContrast, *, share: float) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share is a part of the iterations, above 0 and at most 1, got {share}")
        self.fresh, self.share = fresh, share

    def __call__(  # type: ignore[override]  # as PairOptimizer
        self, inputs: PairImages, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Fit:
        """Fit one pair.

        Args:
            inputs: the pair, on the device to fit on; perhaps with a start.
            network: positions to offsets; its weights are replaced.
            args: of MONAI's interface, not used.
            kwargs: of MONAI's interface, not used.

        Returns:
            The fit, with how its start compares, where it had one.

        Raises:
            PairError: every attempt ends worse than a zero field or than a level began.
        """
        start: WarmStart | None = inputs.start
        if start is None or self.fresh.same.transform != DEFORMABLE:
            return self.fresh(inputs, network)
        at = time.perf_counter()
        fit, evidence = self._continued(inputs, start, network)
        evidence = replace(evidence, seconds=time.perf_counter() - at)
        logger.info("start: the network of %s %s", start.neighbour, evidence.why)
        if fit is None:
            fit = self.fresh(replace(inputs, start=None), network)
        return replace(fit, start=evidence)

    def _continued(self, inputs: PairImages, start: WarmStart, network: nn.Module) -> tuple[Fit | None, StartEvidence]:
        """Return the fit that begins with a start, None where it is of no use; and what was compared."""
        pair = replace(inputs, initial=start.initial, start=None)
        known = self._contrast(inputs, pair, start, network)
        optimizer = self.fresh.same if known.chosen == SAME else self.fresh.different
        nothing, found = self._losses(optimizer, inputs, pair, network)
        evidence = StartEvidence(
            start.neighbour, nothing, found, taken=False, why="is worse than no motion; left alone"
        )
        if not found < nothing:
            return None, evidence
        shorter = copy.copy(optimizer)
        shorter.levels = {name: shortened(level, self.share) for name, level in optimizer.levels.items()}
        try:
            with torch.enable_grad():
                fit = shorter.coarse_to_fine(pair, network, attempt=1, taught=True)
        except DivergedError as stop:
            return None, replace(evidence, why=f"led nowhere ({stop}); the fit begins without it")
        if known.chosen == DIFFERENT:
            known = earned_by(inputs, fit, known)
        if not known.moved or (known.chosen == SAME and left_over(inputs, fit, known) is not None):
            why = "led to a motion that has not earned its place; the fit begins without it"
            return None, replace(evidence, why=why)
        return replace(fit, contrast=known), replace(evidence, taken=True, why="is where the fit begins")

    def _contrast(self, inputs: PairImages, pair: PairImages, start: WarmStart, network: nn.Module) -> ContrastEvidence:
        """Return as what the pair is compared; the network gets the weights of the start."""
        start.load(network)
        network.to(pair.fixed.device)
        known = self.fresh.known(inputs)
        if known is not None and known.chosen == SAME:
            return known
        space = FieldSpace(pair.fixed_shape, pair.fixed_affine, self.fresh.same.objectives.interpolation, pair.initial)
        found = compared(inputs, dense_field(network, space, space.control(start.control_points)))
        if known is None or found is None:
            return known or chosen_by(found)
        return replace(known, agreement=found.agreement, bend=found.bend)

    @staticmethod
    @torch.no_grad()
    def _losses(
        optimizer: PairOptimizer, inputs: PairImages, pair: PairImages, network: nn.Module
    ) -> tuple[float, float]:
        """Return the loss of no motion by the headers, and that of the start, on the first level."""
        first = next(iter(optimizer.levels.values()))
        objectives = optimizer.objectives
        nothing = objectives.without_labels(first, inputs, network).of_doing_nothing()
        found = objectives.without_labels(first, pair, network)()
        return sum(v.item() for v in nothing.values()), sum(v.item() for v in found.values())


def shortened(level: Level, share: float) -> Level:
    """Return a level with a share of its iterations, at least one.

    Args:
        level: of a schedule.
        share: above 0, at most 1.
    """
    return replace(level, iterations=max(1, round(share * level.iterations)))
