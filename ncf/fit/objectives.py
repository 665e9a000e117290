"""The objective of each level of a pair, by what a config has chosen for all of them.

This room puts images, guides and lattices of a level together. It must not know optimisers or files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from ncf.fit.field import FieldSpace
from ncf.fit.guidance import on_lattice
from ncf.fit.label_guidance import on_level
from ncf.fit.levels import Level
from ncf.fit.objective import Objective
from ncf.fit.pyramid import PairImages, level_images
from ncf.fit.terms import WeightedSum
from ncf.space.sampling import Warp


@dataclass(frozen=True)
class Objectives:
    """Makes the objectives of a fit.

    Attributes:
        loss: named terms.
        warp: reads the moving image.
        interpolation: between the control nodes: 1 linear, 3 cubic B-spline.
        amp: True evaluates the network in bfloat16 on the levels that allow it (fields and images stay float32).
        least_nodes: along every axis of every level.
    """

    loss: WeightedSum
    warp: Warp
    interpolation: int = 3
    amp: bool = False
    least_nodes: int = 12

    def space(self, pair: PairImages) -> FieldSpace:
        """Return where the field of a pair lives."""
        return FieldSpace(pair.fixed_shape, pair.fixed_affine, self.interpolation, pair.initial)

    def on(self, level: Level, pair: PairImages, network: nn.Module) -> Objective:
        """Return the objective of a level.

        Args:
            level: of the schedule.
            pair: with its initial transform.
            network: positions to offsets.
        """
        images = level_images(pair, level.voxels, least=self.least_nodes)
        space = self.space(pair)
        guides = labels = None
        if pair.guide_points_mm is not None:
            guides = on_lattice(
                pair.guide_points_mm,
                images.lattice,
                pair.fixed_affine,
                initial=pair.initial,
                device=images.fixed.device,
                strength=level.guidance,
            )
        if pair.labels is not None:
            labels = on_level(
                pair.labels,
                images.lattice,
                pair.fixed_affine,
                moving_affine=pair.moving_affine,
                initial=pair.initial,
                strength=level.guidance,
            )
        return Objective(
            network,
            loss=self.loss,
            warp=self.warp,
            images=images,
            space=space,
            control=space.control(level.control_points),
            amp=self.amp and level.bfloat16,
            follow_within=level.follow_within,
            guides=guides,
            labels=labels,
        )

    def without_labels(self, level: Level, pair: PairImages, network: nn.Module) -> Objective:
        """Return the objective of a level that does not hear what labels ask.

        Args:
            level: of the schedule.
            pair: with its initial transform.
            network: positions to offsets.
        """
        return self.on(level, replace(pair, labels=None), network)
