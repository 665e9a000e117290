"""The per-pair fit: a MONAI Inferer that draws new weights for every pair and trains them, coarse to fine.

One call is one pair, and nothing of it remains. The config hands in networks and losses. This room must not know which
ones they are, nor any file.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn

from ncf.core.errors import PairError
from ncf.core.names import DEFORMABLE, TRANSFORMS
from ncf.fit.adam import Adam
from ncf.fit.background import without_background
from ncf.fit.finish import finished, without_motion
from ncf.fit.fitted import Fit, LevelRecord, SearchEvidence
from ncf.fit.guidance import corrected
from ncf.fit.initial_transform import Begun, begun
from ncf.fit.levels import schedule
from ncf.fit.linear import LinearFit, levels_of
from ncf.fit.objectives import Objectives
from ncf.fit.pyramid import PairImages
from ncf.fit.safety import DivergedError, DriftedError, check_end, check_start
from ncf.fit.teaching import Teaching
from ncf.fit.terms import WeightedSum
from ncf.fit.training import train
from ncf.space.grids import Lattice
from ncf.space.sampling import Warp

logger = logging.getLogger(__name__)

Found = tuple[torch.Tensor, Lattice]  # a field in fixed voxels, without the initial transform, and its lattice

CAREFUL = 3.0  # every further attempt divides the learning rates by this
MOST_DIFFERENCE = 0.1  # between two contrasts the difference says nothing of how far there is to go
VOXELS_PER_OFFSET = 27  # at least so many voxels of the fixed scan: docs/decisions/0017-small-scans.md


def start_afresh(network: nn.Module, seed: int) -> None:
    """Give the network its first weights again: on the CPU, and the same for the same seed, whatever came before.

    They are drawn on the CPU, so that they do not depend on the device. torch's own random state is left as it was.

    Args:
        network: has a ``reset_parameters``.
        seed: of the weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network.cpu().reset_parameters()  # type: ignore[operator]


class PairOptimizer(Inferer):
    """Fits a network to one pair by Adam (Kingma and Ba 2014, doi:10.48550/arXiv.1412.6980).

    Args:
        loss: named terms.
        warp: reads the moving image.
        levels: entries of `Level` by name, coarse first. Adam's moments are carried from level to level.
        initial_alignment: finds another initial transform for a pair; None keeps that of the headers.
        search: finds large motion, which the network is then taught; None begins every fit with a zero field.
        teaching: how; by default `Teaching`'s own numbers.
        transform: ``rigid`` or ``affine`` fits such a map in place of a network.
        linear: how; by default `LinearFit`'s own numbers.
        seed: of the network's first weights.
        interpolation: between the control nodes: 1 linear, 3 cubic B-spline.
        amp: True evaluates the network in bfloat16 on the levels that allow it (fields and images stay float32).
        recorded: True has a GPU replay the second step of a level instead of being asked for every one
            (`ncf.fit.replay`). A loss that changes from step to step by itself needs False.
        attempts: number of tries before a diverging pair is given up, each with a third of the learning rates of the
            one before.
        least_nodes: along every axis of every level.
        progress: False hides the progress bars.

    Raises:
        ValueError: the levels are no schedule (`ncf.fit.levels.schedule`), or the transform is another word.
    """

    def __init__(
        self,
        *,
        loss: WeightedSum,
        warp: Warp,
        levels: Mapping[str, Mapping[str, Any]],
        initial_alignment: Callable[[PairImages], PairImages] | None = None,
        search: Callable[[PairImages], Found] | None = None,
        teaching: Teaching | None = None,
        transform: str = DEFORMABLE,
        linear: LinearFit | None = None,
        seed: int = 0,
        interpolation: int = 3,
        amp: bool = False,
        recorded: bool = True,
        attempts: int = 3,
        least_nodes: int = 12,
        progress: bool = True,
    ) -> None:
        super().__init__()
        self.objectives = Objectives(loss, warp, interpolation, amp, least_nodes)
        self.initial_alignment = initial_alignment
        self.search, self.teaching = search, Teaching() if teaching is None else teaching
        if transform not in TRANSFORMS:
            raise ValueError(f"transform is one of {', '.join(TRANSFORMS)}, not {transform}")
        self.transform, self.linear = transform, LinearFit() if linear is None else linear
        self.levels = schedule(levels)
        self.seed, self.attempts, self.progress, self.recorded = seed, attempts, progress, recorded

    def __call__(  # type: ignore[override]  # MONAI writes "tensor"; an evaluator hands over whatever was prepared
        self, inputs: PairImages, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Fit:
        """Fit one pair.

        Args:
            inputs: the pair, on the device to fit on.
            network: positions to offsets; its weights are drawn anew.
            args: of MONAI's interface, not used.
            kwargs: of MONAI's interface, not used.

        Returns:
            The fit, with the time and the evidence of its initial transform.

        Raises:
            PairError: every attempt ends worse than a zero field or than a level began.
        """
        return self.fit(self.begin(inputs), network)

    def begin(self, inputs: PairImages) -> Begun:
        """Find the initial transform of a pair.

        Args:
            inputs: the pair, on the device to fit on.
        """
        first = next(iter(self.levels.values()))
        return begun(
            inputs,
            self.initial_alignment,
            loss=self.objectives.loss,
            warp=self.objectives.warp,
            points=first.voxels,
            least=self.objectives.least_nodes,
        )

    def fit(self, start: Begun, network: nn.Module) -> Fit:
        """Fit a pair from its initial transform.

        Args:
            start: of `begin`.
            network: positions to offsets; its weights are drawn anew.

        Returns:
            The fit, with the time and the evidence of its initial transform.

        Raises:
            PairError: every attempt ends worse than a zero field or than a level began.
        """
        start.tell()  # here and not in `begin`: of two that were begun, one is fitted
        if self.transform != DEFORMABLE:
            return self._linear(start, network)
        pair, reason = start.pair, ""
        at = time.perf_counter()
        found, compared = self._searched(pair, network.to(pair.fixed.device))
        search_s = time.perf_counter() - at
        attempt, whole = 1, True
        while attempt <= self.attempts:
            try:
                fit, taught_s = self._tried(pair, network, found, attempt=attempt)
                fit = replace(fit, alignment_s=start.seconds, evidence=start.evidence, background=whole)
                return replace(fit, search_s=search_s + taught_s, search=compared)
            except DivergedError as stop:
                reason, drifted = str(stop), isinstance(stop, DriftedError)
                logger.warning("attempt %d of %d: %s", attempt, self.attempts, reason)
            body = without_background(pair) if whole and drifted else None
            if body is not None:  # it was what lies around the patient that gained by leaving
                pair, whole = body, False
                logger.warning("once more, with the body of the fixed scan and without what lies around it")
                continue
            attempt += 1
            if found is not None and compared is not None:  # the search may have
                found, compared = None, replace(compared, taken=False)
        raise PairError(
            f"no registration found in {self.attempts} attempts: {reason}. Nothing was written. "
            "Check that both scans show the same anatomy; a mask or a lower learning_rate may help",
            hint="two_modalities",
        )

    def _tried(self, pair: PairImages, network: nn.Module, found: Found | None, *, attempt: int) -> tuple[Fit, float]:
        """Return the fit of one attempt, from first weights on, and the seconds of its teaching."""
        with torch.enable_grad():
            start_afresh(network, self.seed)
            network.to(pair.fixed.device)
            at = time.perf_counter()
            if found is not None:
                self.teaching(network, self.objectives.space(pair), *found)
            seconds = time.perf_counter() - at
            return self.coarse_to_fine(pair, network, attempt=attempt, taught=found is not None), seconds

    def _linear(self, start: Begun, network: nn.Module) -> Fit:
        """Return a rigid or affine fit: a network that gives a zero field, after the map that was found."""
        pair = start.pair
        network.to(pair.fixed.device)
        with torch.enable_grad():
            levels = {name: self.objectives.on(level, pair, network) for name, level in levels_of(self.levels).items()}
            check_start(next(iter(levels.values())), f"{self.transform} map")
            found, history = self.linear(pair, levels, kind=self.transform)
        moved = replace(start, pair=replace(pair, initial=pair.initial @ found))
        return replace(self.unmoved(moved, network, history=history), transform=self.transform)

    def unmoved(self, start: Begun, network: nn.Module, *, history: list[LevelRecord]) -> Fit:
        """Return the initial transform of a pair as a fit: its network gives a zero field.

        Args:
            start: of `begin`.
            network: its weights become zero.
            history: of what was tried.
        """
        last = list(self.levels.values())[-1]
        network.to(start.pair.fixed.device)
        fit = without_motion(network, self.objectives.space(start.pair), last, history=history)
        return replace(fit, alignment_s=start.seconds, evidence=start.evidence)

    def _searched(self, pair: PairImages, network: nn.Module) -> tuple[Found | None, SearchEvidence | None]:
        """Return what a search finds, if it beats no motion by the loss of the fit; and what was compared."""
        if self.search is None:
            return None, None
        found = self.search(pair)
        if pair.guide_points_mm is not None:
            found = corrected(*found, pair.guide_points_mm, affine=pair.fixed_affine, initial=pair.initial), found[1]
        first = next(iter(self.levels.values()))
        # what labels ask may forbid the motion that was found as it is, but the fit bends it
        objective = self.objectives.without_labels(first, pair, network)
        nothing, own = (
            sum(value.item() for value in terms.values())
            for terms in (objective.of_doing_nothing(), objective.of_field(*found))
        )
        compared = SearchEvidence(nothing, own, own < nothing)
        logger.info(
            "search: loss %.3f without motion, %.3f with the motion that was found; it is %s",
            nothing,
            own,
            "taught to the network" if compared.taken else "left alone",
        )
        return found if compared.taken else None, compared

    def coarse_to_fine(self, pair: PairImages, network: nn.Module, *, attempt: int, taught: bool) -> Fit:
        """Run one attempt from the network's present weights; raise DivergedError where it ends worse than it began.

        ``taught``: the weights hold a motion, so the first steps are small. Later attempts (from 1) are more careful.
        """
        space = self.objectives.space(pair)
        adam = Adam()
        weights = adam.add(network.parameters(), 0.0)
        history, offsets, level = [], None, None
        for number, (name, level) in enumerate(self.levels.items(), start=1):
            at = time.perf_counter()
            objective = self.objectives.on(level, pair, network)
            rate, end = (r / CAREFUL ** (attempt - 1) for r in (level.learning_rate, level.learning_rate_end))
            weights.rate = rate
            title = f"level {number} of {len(self.levels)} ({name})"
            check_start(objective, title)
            if level.offset_points:
                own_rate = rate * level.offset_rate * min(objective.difference(), MOST_DIFFERENCE) ** 2
                most = math.prod(space.shape) // VOXELS_PER_OFFSET
                offsets = objective.free_offsets(space.control(min(level.offset_points, most)))
                adam.add([offsets], own_rate)
            losses = train(
                objective,
                adam,
                iterations=level.iterations,
                rate_end=end,
                title=title,
                progress=self.progress,
                recorded=self.recorded,
                warm_up=self.teaching.warm_up if taught and number == 1 else 0,
            )
            seconds = time.perf_counter() - at
            nothing = check_end(objective, title, first=sum(values[0] for values in losses.values()))
            history.append(LevelRecord(name, objective.images.lattice.shape, seconds, losses, nothing))
            _tell(title, history[-1])
        assert level is not None
        return finished(network, space, level, offsets=offsets, history=history, attempt=attempt)


def _tell(title: str, record: LevelRecord) -> None:
    """Log the first and the last loss of a level, and its seconds."""
    first, last = (sum(values[i] for values in record.losses.values()) for i in (0, -1))
    nodes = " x ".join(map(str, record.shape))
    logger.info("%s, %s nodes: loss %.4f -> %.4f, %.1f s", title, nodes, first, last, record.seconds)
