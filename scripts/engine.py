"""The per-pair fit: a MONAI Inferer that makes fresh weights for every pair and trains them, coarse to fine.

One call is one pair; nothing of it stays behind. Networks and losses are handed in by the config; this room must not know
which ones they are, nor any file.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.inferers import Inferer
from torch import nn

from scripts.errors import PairError
from scripts.field import FieldSpace, dense_field
from scripts.geometry import translation
from scripts.losses import WeightedSum
from scripts.objective import Objective
from scripts.pyramid import PairImages, level_images
from scripts.rounding import Rounded, rounded
from scripts.sampling import Warp
from scripts.starts import Evidence, better_start
from scripts.summary import percent

logger = logging.getLogger("scripts.engine")

BAR_EVERY = 5  # iterations between two updates of the progress bar: reading a loss waits for the device
CAREFUL = 3.0  # by this the learning rate is divided at every further attempt
WORSE_BY = 1e-3  # a fit may end this much above the loss of doing nothing: identical scans start at 0
OVERLAP_KEPT = 0.5  # of the overlap at the start: a real motion loses little, a field that runs away all of it
WEIGHT_BITS, OFFSET_BITS = 16, 7  # of what is kept: docs/decisions/0016-rounding.md
VOXELS_PER_OFFSET = 27  # of the fixed scan, at least: docs/decisions/0017-small-scans.md
LEAST_OVERLAP = 1e-3  # of the fixed data: with less of it in common there is nothing to follow


@dataclass(frozen=True)
class Level:
    """One step of the fit.

    voxels: nodes of the image lattice. control_points: nodes the network is asked at. learning_rate: at its first
    iteration, from where a cosine leads to learning_rate_end (paper: 1e-3 and 1e-6). All of them positive, or ValueError.

    offset_points: nodes of a finer lattice of free offsets that are added to what the network says, fewer where the fixed
    scan is small (VOXELS_PER_OFFSET); 0: there are none. Only the last level may have them, because they belong to its
    nodes. offset_rate: their learning rate as a share of the network's, for every unit of the root mean square difference
    that the levels before have left (intensities run from 0 to 1): where the images agree up to their noise there is little
    to gain.
    """

    voxels: int
    control_points: int
    iterations: int
    learning_rate: float
    learning_rate_end: float = 1e-6
    offset_points: int = 0
    offset_rate: float = 0.0

    def __post_init__(self) -> None:
        if not min(self.voxels, self.control_points, self.iterations, self.learning_rate, self.learning_rate_end) > 0:
            raise ValueError(f"a level of a fit needs numbers above zero, got {self}")
        if min(self.offset_points, self.offset_rate) < 0 or (self.offset_points > 0) != (self.offset_rate > 0):
            raise ValueError(f"free offsets need offset_points and offset_rate, both above zero or neither, got {self}")


@dataclass(frozen=True)
class Fit:
    """What a fit leaves behind.

    field_vox: (1, 3, W, H, D) on the fixed grid, of the weights and offsets that are kept here, rounded. weights: the
    network's parameters. offsets: (1, 3, w, h, d), what is added to its output, or None. modules: names of its classes, to
    know it again by. space and control_points: what is needed to ask it again. history: one entry a level, with the losses
    of every iteration by name. attempt: 1 unless the fit diverged and was tried again. global_s: seconds that the global
    stage took. evidence: what it found against the headers, None where it left them alone.
    """

    field_vox: torch.Tensor
    weights: dict[str, Rounded]
    offsets: Rounded | None
    modules: list[str]
    space: FieldSpace
    control_points: int
    history: list[dict[str, Any]]
    attempt: int
    global_s: float = 0.0
    evidence: Evidence | None = None


def prepare_pair(
    batch: dict[str, Any], device: torch.device | str | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[PairImages, None]:
    """The preprocessed pair as (inputs, no target) for MONAI's evaluator: scaled images and weights on the device."""
    batch["seconds"] = {"reading": time.perf_counter() - batch["begun_s"]}

    def volume(key: str) -> torch.Tensor:
        return batch[key].as_tensor()[None].to(device, torch.float32, non_blocking=non_blocking)

    return PairImages(
        fixed=volume("fixed_scaled"),
        moving=volume("moving_scaled"),
        fixed_weight=volume("fixed_weight"),
        moving_weight=volume("moving_weight"),
        fixed_affine=np.asarray(batch["fixed"].affine, dtype=np.float64),
        moving_affine=np.asarray(batch["moving"].affine, dtype=np.float64),
        start=translation(batch["initial_mm"]),
    ), None


class DivergedError(Exception):
    """The fit ended above where it began, off the images, or not finite; another attempt may help."""


def start_afresh(network: nn.Module, seed: int) -> None:
    """Nothing; the network has its first weights again, on the CPU and the same ones for a seed, whatever came before.

    They are drawn on the CPU, so that they do not depend on the device; torch's own random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network.cpu().reset_parameters()  # type: ignore[operator]


def _check_start(objective: Objective, title: str) -> None:
    """Nothing; raises PairError where a level has nothing to compare."""
    share, _ = objective.overlap()
    if not share > LEAST_OVERLAP:  # not "<=", which the nan of a mask without a node would pass
        raise PairError(
            f"{title}: {percent(share)} of the fixed data meets moving data, there is nothing to compare; correct the "
            "headers, pass --align_centres true to start with both centres together, or use a larger mask"
        )


def _check_end(objective: Objective, title: str) -> None:
    """Nothing; raises DivergedError unless the weights after the last step are better than doing nothing."""
    with torch.no_grad():
        last = sum(value.item() for value in objective().values())
    nothing = sum(value.item() for value in objective.of_doing_nothing().values())
    if not last <= nothing + WORSE_BY:
        raise DivergedError(f"{title} ended at a loss of {last:.4g}, where doing nothing has {nothing:.4g}")
    at_start, now = objective.overlap()
    if not now >= OVERLAP_KEPT * at_start:
        raise DivergedError(f"{title} left {percent(now)} of the images in common, of {percent(at_start)} at the start")


class PairOptimizer(Inferer):
    """Fits the network to one pair and returns a `Fit`.

    Args:
        loss: named terms. warp: reads the moving image. global_stage: gives the pair another ``start``.
        levels: mappings with the entries of `Level`, coarse first; Adam's moments are carried from level to level.
        seed: of the fresh weights. interpolation: 1 linear, 3 cubic B-spline, between the control nodes.
        amp: bfloat16 for the network (fields and images stay float32). attempts: tries before a diverging pair is given
            up, each with a third of the learning rates of the last. least_nodes: along every axis of every level.
    """

    def __init__(
        self,
        *,
        loss: WeightedSum,
        warp: Warp,
        levels: Sequence[Mapping[str, Any]],
        global_stage: Callable[[PairImages], PairImages] | None = None,
        seed: int = 0,
        interpolation: int = 3,
        amp: bool = False,
        attempts: int = 3,
        least_nodes: int = 12,
        progress: bool = True,
    ) -> None:
        super().__init__()
        self.loss, self.warp, self.global_stage = loss, warp, global_stage
        self.levels = [Level(**level) for level in levels]
        if not self.levels:
            raise ValueError("a fit needs at least one level")
        if any(level.offset_points for level in self.levels[:-1]):
            raise ValueError("free offsets belong to the nodes of the last level, an earlier one has them too")
        self.seed, self.interpolation, self.amp = seed, interpolation, amp
        self.attempts, self.least_nodes, self.progress = attempts, least_nodes, progress

    def __call__(  # type: ignore[override]  # MONAI writes "tensor"; an evaluator hands over whatever was prepared
        self, inputs: PairImages, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Fit:
        """The fit of one pair; raises PairError when no attempt ends better than doing nothing."""
        reason = ""
        begun = time.perf_counter()
        inputs, evidence = self._start(inputs)
        global_s = time.perf_counter() - begun
        for attempt in range(1, self.attempts + 1):
            try:
                with torch.enable_grad():
                    start_afresh(network, self.seed)
                    fit = self._fit(inputs, network.to(inputs.fixed.device), attempt=attempt)
                    return replace(fit, global_s=global_s, evidence=evidence)
            except DivergedError as stop:
                reason = str(stop)
                logger.warning("attempt %d of %d: %s", attempt, self.attempts, reason)
        raise PairError(
            f"no registration found in {self.attempts} attempts: {reason}. "
            "Nothing was written. Check that both scans show the same anatomy; two modalities want --preset=multimodal; "
            "a mask or a lower learning_rate may help"
        )

    def _start(self, pair: PairImages) -> tuple[PairImages, Evidence | None]:
        """The pair as the fit begins with it, and what spoke for or against a map that the search has found."""
        found = pair if self.global_stage is None else self.global_stage(pair)
        if found is pair:
            return pair, None
        points = self.levels[0].voxels
        chosen, evidence = better_start(pair, found, loss=self.loss, warp=self.warp, points=points, least=self.least_nodes)
        logger.info(
            "start: loss %.3f by the headers, %.3f by the map that was found (size %.2f, turn %.1f degrees); %s",
            evidence.headers,
            evidence.found,
            evidence.size,
            evidence.turn_degrees,
            "it is taken" if evidence.taken else "the headers are kept",
        )
        return chosen, evidence

    def _fit(self, pair: PairImages, network: nn.Module, *, attempt: int) -> Fit:
        space = FieldSpace(pair.fixed_shape, pair.fixed_affine, self.interpolation, pair.start)
        optimizer = torch.optim.Adam(network.parameters())
        history, offsets = [], None
        for number, level in enumerate(self.levels, start=1):
            begun = time.perf_counter()
            images = level_images(pair, level.voxels, least=self.least_nodes)
            control = space.control(level.control_points)
            objective = Objective(
                network, loss=self.loss, warp=self.warp, images=images, space=space, control=control, amp=self.amp
            )
            rate, end = (r / CAREFUL ** (attempt - 1) for r in (level.learning_rate, level.learning_rate_end))
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] = rate
            title = f"level {number} of {len(self.levels)}"
            _check_start(objective, title)
            if level.offset_points:
                own_rate = rate * level.offset_rate * objective.difference()
                most = math.prod(space.shape) // VOXELS_PER_OFFSET
                offsets = objective.free_offsets(space.control(min(level.offset_points, most)))
                optimizer.add_param_group({"params": [offsets], "lr": own_rate, "initial_lr": own_rate})
            losses = self._train(objective, optimizer, iterations=level.iterations, rate_end=end, title=title)
            first, last = (sum(values[i] for values in losses.values()) for i in (0, -1))
            seconds = time.perf_counter() - begun
            logger.info("%s, %s nodes: loss %.4f -> %.4f, %.1f s", title, _times(images.lattice.shape), first, last, seconds)
            _check_end(objective, title)
            history.append({"level": number, "shape": images.lattice.shape, "seconds": seconds, "losses": losses})
        weights = {name: rounded(value, WEIGHT_BITS) for name, value in network.named_parameters()}
        network.load_state_dict({name: kept.values() for name, kept in weights.items()}, strict=False)  # buffers stay
        kept_offsets = None if offsets is None else rounded(offsets, OFFSET_BITS)
        return Fit(
            field_vox=dense_field(network, space, control, offsets=None if kept_offsets is None else kept_offsets.values()),
            weights=weights,
            offsets=kept_offsets,
            modules=[type(module).__name__ for module in network.modules()],
            space=space,
            control_points=level.control_points,
            history=history,
            attempt=attempt,
        )

    def _train(
        self, objective: Objective, optimizer: torch.optim.Optimizer, *, iterations: int, rate_end: float, title: str
    ) -> dict[str, list[float]]:
        """The value of every term at every iteration of one level, which is run here by an engine of its own."""
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations, eta_min=rate_end)
        # MONAI's annotation has torch's old name for a scheduler
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
            loss_function=self.loss,
            iteration_update=step,
            train_handlers=[by_iteration],
            decollate=False,
        )
        if self.progress:
            bar = ProgressBar(desc=title, persist=False, disable=None)  # None: only in a terminal, not in a log file
            bar.attach(
                trainer,
                event_name=Events.ITERATION_COMPLETED(every=BAR_EVERY),
                output_transform=lambda output: {"loss": output["loss"].item()},
            )
        trainer.run()
        return {name: torch.stack([terms[name] for terms in kept]).tolist() for name in kept[0]}


def _times(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape)
