"""The choice between the two ways to compare scans: as one contrast, or as two, such as those of CT and MR.

Between scans of one contrast, structures are brighter or darker than what lies beside them in both. Between two
contrasts some are and others are the reverse. So the sign of the correlation in small windows tells the two apart, once
the scans lie roughly on each other, and what a fit leaves is a second opinion (docs/decisions/0023-contrast.md). This
room must not know which terms or networks there are, nor any file.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from torch import nn

from ncf.core.errors import PairError
from ncf.core.names import AUTO, DEFORMABLE, DIFFERENT, MODALITIES, SAME
from ncf.core.words import percent, percent_apart
from ncf.fit.fitted import ContrastEvidence, Fit
from ncf.fit.losses.windows import Windows
from ncf.fit.optimizer import PairOptimizer
from ncf.fit.pyramid import PairImages, level_images
from ncf.space.geometry import placed
from ncf.space.grids import lattice_over
from ncf.space.sampling import PADDING_NOISE, sample, sample_data

logger = logging.getLogger(__name__)

# of scans that show one contrast: docs/decisions/0023-contrast.md has what was measured on either side
LEAST_AGREEMENT = 0.83  # with less, the signs alone tell two contrasts
SURE_AGREEMENT, MOST_BEND = 0.97, 0.05  # with less than the first and more than the second, both together do
MOST_LEFT_BEND = 0.008  # after a fit as one contrast
# share of the loss that a motion between two contrasts must remove, or the initial transform stands. Where about as
# many structures are inverted as not, as in CT and MR, scans are matched by edges alone, and it is the larger one
EARNED, EARNED_BY_EDGES = 0.1, 0.22
EDGES_ALONE = (-LEAST_AGREEMENT, 0.0)  # agreements between which this is so; below, nearly all structures are inverted
NODES, LEAST_NODES = 30_000, 12  # of the lattice on which pairs are compared
SIZE, SIGMA = 7, 1.0  # of the windows, in nodes
LEAST_CONTRAST = 5e-5  # product of both standard deviations: below it a window holds noise alone
MOSTLY = 0.9  # share of data in a window that counts
LEAST_WINDOWS = 50
BINS = 16
# DICOM modalities that say enough: two different ones are two contrasts; of one, those of MR may still differ
TELLING, ONE_CONTRAST = {"CT", "MR", "PT", "NM", "US"}, {"CT", "PT"}


@dataclass(frozen=True)
class Compared:
    """How the contrasts of a pair compare, with its initial transform.

    Attributes:
        agreement: the sum of the correlations of all small windows with contrast, divided by the sum of their sizes: 1
            where all structures agree, -1 where all are inverted.
        bend: how much more of an image's variance any function of the other one explains than a linear one, 0 to 1; the
            larger of both directions.
        explained: the variance that any function of the other image explains, 0 to 1, likewise.
    """

    agreement: float
    bend: float
    explained: float

    @property
    def same(self) -> bool:
        """Whether the scans show one contrast."""
        bent = self.agreement < SURE_AGREEMENT and self.bend > MOST_BEND
        return self.agreement >= LEAST_AGREEMENT and not bent


@torch.no_grad()
def compared(pair: PairImages, field_vox: torch.Tensor | None = None) -> Compared | None:
    """Compare the contrasts of a pair on a coarse lattice.

    Args:
        pair: lying roughly on each other by its initial transform.
        field_vox: a map to compare by instead, (1, 3, W, H, D), fixed to moving, in fixed voxels, with the initial
            transform.

    Returns:
        What was found; None where there is too little to compare.
    """
    if field_vox is not None:
        pair = replace(pair, initial=np.eye(4))
    images = level_images(pair, NODES, least=LEAST_NODES)
    nodes = lattice_over(images.lattice.shape, images.lattice.shape).points(images.fixed.device)[None]
    if field_vox is not None:
        step = torch.tensor([float(s) for s in images.lattice.step_vox]).view(1, 3, 1, 1, 1).to(nodes)
        nodes = nodes + sample(field_vox, images.lattice.points(nodes.device)[None], padding_mode="border") / step
    moving, share = sample_data(images.moving, placed(nodes, images.to_moving))
    weight = images.fixed_weight * share
    windows = Windows((SIZE,) * 3, (SIGMA,) * 3, stride=1)
    moments = windows(torch.lerp(images.fixed, moving, weight), images.fixed)
    contrast = (moments.var_x.clamp(min=0) * moments.var_y.clamp(min=0)).sqrt()
    edge = SIZE // 2
    there = (weight[..., edge:-edge, edge:-edge, edge:-edge] > MOSTLY) & (contrast > LEAST_CONTRAST)
    if int(there.sum()) < LEAST_WINDOWS:
        return None
    correlation = moments.cov[there] / contrast[there]
    seen = weight > 0.5
    x, y = (image[seen].double().cpu() for image in (images.fixed, moving))
    linear = float(torch.corrcoef(torch.stack([x, y]))[0, 1]) ** 2
    explained = max(_explained(x, y), _explained(y, x))
    return Compared(float(correlation.sum() / correlation.abs().sum()), explained - linear, explained)


def _explained(of: torch.Tensor, by: torch.Tensor) -> float:
    """Return the share of the variance of some values that the bins of others explain: the correlation ratio."""
    bins = (by.clamp(0, 1) * (BINS - 1)).round().long()
    centred = of - of.mean()
    sums, counts = (torch.zeros(BINS, dtype=of.dtype).index_add_(0, bins, v) for v in (centred, torch.ones_like(of)))
    return float((sums**2 / counts.clamp(min=1)).sum() / (centred**2).sum().clamp(min=PADDING_NOISE))


class ByContrast(Inferer):
    """Fits a pair by one of two optimizers, for scans of one contrast or of two; which one, the pair itself says.

    Args:
        same: for one contrast.
        different: for two.
        modality: ``same`` or ``different`` overrules the choice; ``auto`` asks the DICOM modalities where both are
            known and say enough, and the images otherwise.

    Raises:
        ValueError: the modality is another word.
    """

    def __init__(self, same: PairOptimizer, different: PairOptimizer, *, modality: str = AUTO) -> None:
        super().__init__()
        if modality not in MODALITIES:
            raise ValueError(f"modality is one of {', '.join(MODALITIES)}, not {modality}")
        self.same, self.different, self.modality = same, different, modality

    def __call__(  # type: ignore[override]  # as PairOptimizer
        self, inputs: PairImages, network: nn.Module, *args: Any, **kwargs: Any
    ) -> Fit:
        """Fit one pair (`ncf.fit.optimizer.PairOptimizer`).

        Args:
            inputs: the pair, on the device to fit on.
            network: positions to offsets; its weights are drawn anew.
            args: of MONAI's interface, not used.
            kwargs: of MONAI's interface, not used.

        Returns:
            The fit, with what was chosen and why.

        Raises:
            PairError: every attempt ends worse than a zero field or than a level began.
        """
        known = self.known(inputs)
        begun = None
        if known is None or known.chosen == SAME:
            begun = self.same.begin(inputs)
            known = known or chosen_by(compared(begun.pair))
        logger.info("contrast: %s (%s)", known.chosen, known.why)
        if begun is None or known.chosen != SAME:
            return self._of_two_contrasts(inputs, network, known)
        fit = replace(self.same.fit(begun, network), contrast=known)
        left = left_over(inputs, fit, known)
        return fit if left is None else self._second_opinion(inputs, network, fit, left)

    def _second_opinion(self, inputs: PairImages, network: nn.Module, first: Fit, left: Compared) -> Fit:
        """Return the fit for two contrasts if the scans explain more of each other by it, else the first one."""
        why = f"after a fit as one contrast, a curve explains {100 * left.bend:.1f} % more than a line"
        logger.info("contrast: is it different after all? (%s)", why)
        assert first.contrast is not None
        try:
            fit = self._of_two_contrasts(inputs, network, replace(first.contrast, chosen=DIFFERENT, why=why))
        except PairError as error:
            logger.info("contrast: same (as two, %s)", error)
            return first
        found = compared(inputs, fit.field_vox)
        better = found is not None and found.explained > left.explained
        logger.info(
            "contrast: %s (the scans explain %.3f of each other as one, %.3f as two)",
            DIFFERENT if better else SAME,
            left.explained,
            math.nan if found is None else found.explained,
        )
        return fit if better else first

    def _of_two_contrasts(self, inputs: PairImages, network: nn.Module, known: ContrastEvidence) -> Fit:
        """Return the fit for two contrasts, or the initial transform alone where a motion has not earned its place."""
        begun = self.different.begin(inputs)
        found = compared(begun.pair)
        if found is not None:
            known = replace(known, agreement=found.agreement, bend=found.bend)
        fit = self.different.fit(begun, network)
        known = known if found is None else earned_by(inputs, fit, known)
        if not known.moved:
            logger.info("%s; no motion is taken", unearned(known.earned or 0.0, by_edges=known.by_edges))
            still = self.different.unmoved(begun, network, history=fit.history)
            fit = replace(still, search_s=fit.search_s, search=fit.search, transform=fit.transform)
        return replace(fit, contrast=known)

    def known(self, pair: PairImages) -> ContrastEvidence | None:
        """Return the choice where it needs no look at the images, else None."""
        if self.modality != AUTO:
            return ContrastEvidence(self.modality, "as asked")
        first, second = pair.modalities
        if not {first, second} <= TELLING:
            return None
        if first != second:
            return ContrastEvidence(DIFFERENT, f"DICOM modalities {first} and {second}")
        return ContrastEvidence(SAME, f"DICOM modality {first}") if first in ONE_CONTRAST else None


def earned_by(pair: PairImages, fit: Fit, known: ContrastEvidence) -> ContrastEvidence:
    """Return as what a pair of two contrasts was compared, with whether the motion of its fit has earned its place.

    Args:
        pair: that was fitted.
        fit: of the pair.
        known: with the agreement, where it could be measured.
    """
    led = pair.guide_points_mm is not None or (pair.labels is not None and bool(pair.labels.meet))
    if known.agreement is None or led:  # a person who has led the fit answers for its motion
        return known
    by_edges = EDGES_ALONE[0] < known.agreement < EDGES_ALONE[1]
    earned = 1 - fit.history[-1].total / fit.history[-1].nothing
    return replace(known, earned=earned, moved=earned >= (EARNED_BY_EDGES if by_edges else EARNED), by_edges=by_edges)


def unearned(earned: float, *, by_edges: bool) -> str:
    """Return in words why a motion between two contrasts has not earned its place.

    Args:
        earned: share of the loss that it removed.
        by_edges: whether scans were matched by edges alone.
    """
    limit = EARNED_BY_EDGES if by_edges else EARNED
    told = f"the motion that was found removes {percent_apart(earned, limit)} of the loss"
    return f"{told}, between two such contrasts too little (the limit is {percent(limit)})"


def left_over(pair: PairImages, fit: Fit, known: ContrastEvidence) -> Compared | None:
    """Return what a fit as one contrast has left, where that may mean two; None where all is well.

    By then the scans lie on each other, so what is left tells more than before. A rigid map leaves them apart.
    """
    if known.agreement is None or fit.transform != DEFORMABLE:
        return None
    found = compared(pair, fit.field_vox)
    return found if found is not None and found.bend > MOST_LEFT_BEND else None


def chosen_by(found: Compared | None) -> ContrastEvidence:
    """Return the choice by what `compared` has found."""
    if found is None:
        return ContrastEvidence(SAME, "too little contrast to compare")
    why = f"{100 * (1 + found.agreement) / 2:.0f} % of the local contrast has the same sign in both scans"
    if found.agreement >= LEAST_AGREEMENT and not found.same:
        why += f", and a curve explains {100 * found.bend:.0f} % more than a line"
    return ContrastEvidence(SAME if found.same else DIFFERENT, why, found.agreement, found.bend)
