"""The choice between the two ways to compare scans: as one contrast, or as two, such as those of CT and MR.

Between scans of one contrast, structures are brighter or darker than what lies beside them in both. Between two
contrasts some are and others are the reverse. So the sign of the correlation in small windows tells the two apart, once
the scans lie roughly on each other (docs/decisions/0023-contrast.md). This room must not know losses, networks or
files.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from monai.inferers import Inferer
from torch import nn

from ncf.core.names import AUTO, DIFFERENT, MODALITIES, SAME
from ncf.fit.fitted import ContrastEvidence, Fit
from ncf.fit.losses.windows import Windows
from ncf.fit.optimizer import PairOptimizer
from ncf.fit.pyramid import PairImages, level_images
from ncf.space.geometry import placed
from ncf.space.grids import lattice_over
from ncf.space.sampling import PADDING_NOISE, sample

logger = logging.getLogger(__name__)

LEAST_AGREEMENT = 0.85  # 0.91 to 1.00 on pairs of one contrast, below 0.8 on CT and MR, CT and PET: decision 0023
NODES, LEAST_NODES = 30_000, 12  # of the lattice on which pairs are compared
SIZE, SIGMA = 7, 1.0  # of the windows, in nodes
LEAST_CONTRAST = 5e-5  # product of both standard deviations: below it a window holds noise alone
MOSTLY = 0.9  # share of data in a window that counts
LEAST_WINDOWS = 50
ONE_CONTRAST = {"CT", "PT"}  # DICOM modalities whose scans have the same contrast; those of MR may differ


def agreement_of_contrast(pair: PairImages) -> float | None:
    """Measure how far the contrasts of a pair agree, place by place, with its initial transform.

    Args:
        pair: lying roughly on each other.

    Returns:
        The sum of the correlations of all windows with contrast, divided by the sum of their sizes: 1 where all
        structures agree, -1 where all are inverted; None where there is too little to compare.
    """
    images = level_images(pair, NODES, least=LEAST_NODES)
    nodes = lattice_over(images.lattice.shape, images.lattice.shape).points()[None].to(images.fixed)
    read = sample(images.moving, placed(nodes, images.to_moving))
    weight = images.fixed_weight * read[:, 1:].clamp(0, 1)
    moving = read[:, :1] / read[:, 1:].clamp(min=PADDING_NOISE)
    windows = Windows((SIZE,) * 3, (SIGMA,) * 3, stride=1)
    moments = windows(images.fixed + weight * (moving - images.fixed), images.fixed)
    contrast = (moments.var_x.clamp(min=0) * moments.var_y.clamp(min=0)).sqrt()
    edge = SIZE // 2
    inner = weight[..., edge:-edge, edge:-edge, edge:-edge]
    there = (inner > MOSTLY) & (contrast > LEAST_CONTRAST)
    if int(there.sum()) < LEAST_WINDOWS:
        return None
    correlation = moments.cov[there] / contrast[there]
    return float(correlation.sum() / correlation.abs().sum())


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
            PairError: no attempt ends better than a zero field.
        """
        known = self._known(inputs)
        if known is not None and known.chosen == DIFFERENT:
            return replace(self.different(inputs, network), contrast=known)
        begun = self.same.begin(inputs)
        evidence = known or _measured(begun.pair)
        logger.info("contrast: %s (%s)", evidence.chosen, evidence.why)
        if evidence.chosen == SAME:
            return replace(self.same.fit(begun, network), contrast=evidence)
        return replace(self.different(inputs, network), contrast=evidence)

    def _known(self, pair: PairImages) -> ContrastEvidence | None:
        """Return the choice where it needs no look at the images."""
        if self.modality != AUTO:
            return ContrastEvidence(self.modality, "as asked")
        first, second = pair.modalities
        if not first or not second:
            return None
        if first != second:
            return ContrastEvidence(DIFFERENT, f"DICOM modalities {first} and {second}")
        return ContrastEvidence(SAME, f"DICOM modality {first}") if first in ONE_CONTRAST else None


def _measured(pair: PairImages) -> ContrastEvidence:
    """Return the choice by the images of a pair with its initial transform."""
    found = agreement_of_contrast(pair)
    if found is None:
        return ContrastEvidence(SAME, "too little contrast to compare")
    alike = found >= LEAST_AGREEMENT
    why = f"contrasts agree by {found:.2f}; one contrast has at least {LEAST_AGREEMENT}"
    return ContrastEvidence(SAME if alike else DIFFERENT, why, found)
