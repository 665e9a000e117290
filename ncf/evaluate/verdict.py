"""The verdict about a result: good, or doubtful and why. What is worse than doing nothing is refused before.

It is decided by what no fit minimises: an independent comparison of places (`ncf.evaluate.evidence`), how much the
scans overlap, how much the map changes volumes, whether an image looks like a mask, and landmarks and labels where
there are some. docs/decisions/0024-verdict.md has the pairs by which the limits were set. A good result may still be
wrong somewhere: the verdict is about the whole.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, cast

import torch
from monai.transforms import Transform

from ncf.core.names import DIFFERENT, DOUBTFUL, GOOD, IMAGES
from ncf.core.words import apart, percent, percent_apart
from ncf.evaluate.evidence import Evidence, evidence_of
from ncf.fit.contrast import unearned
from ncf.fit.fitted import Fit
from ncf.pair.keys import Pair
from ncf.pair.prepare import pair_images

LEAST_RECOGNISED = 0.5
LEAST_SHARED, LEAST_PEAK = 1.14, 0.17  # for two contrasts whose places look too different to be recognised
LEAST_OVERLAP, SMALL_OVERLAP, SURE_RECOGNISED = 0.2, 0.4, 0.9  # a small overlap asks for more that is recognised
MOST_SPREAD = 0.42
MOST_FOLDS = 1e-3
MASK_VALUES = 64  # a scan has more different values, a map of labels hardly so many
MASK_VOXELS = 2**18  # that are looked at
FURTHER_APART = "landmarks are further apart than before"
TRE_MORE_MM, DICE_LESS = 0.1, 0.01  # a smaller loss of landmarks or labels is rounding


class Judged(Transform):
    """Adds ``verdict`` to the metrics of a measured pair."""

    def __call__(self, data: Pair) -> Pair:
        """Judge a measured pair.

        Returns:
            A new dictionary. ``metrics["verdict"]`` has ``word`` (`GOOD` or `DOUBTFUL`), ``reasons`` in words, and the
            ``evidence`` (`ncf.evaluate.evidence.Evidence`).
        """
        fit, begun = data["pred"], time.perf_counter()
        found = evidence_of(pair_images(data, fit.field_vox.device), fit.field_vox)
        masks = {
            key: count
            for key in IMAGES
            if (count := different_values(data[key].as_tensor())) <= MASK_VALUES  # type: ignore[literal-required]
        }
        reasons = [*_about_scans(masks), *against_map(found, fit), *against_given(data["metrics"])]
        verdict = {"word": DOUBTFUL if reasons else GOOD, "reasons": reasons, "evidence": asdict(found)}
        seconds = {**data["metrics"]["seconds"], "judging": time.perf_counter() - begun}
        return cast(Pair, {**data, "metrics": {**data["metrics"], "verdict": verdict, "seconds": seconds}})


def different_values(image: torch.Tensor) -> int:
    """Count the different values of an image, in a sample of its voxels where it has many."""
    values = image.reshape(-1)
    return len(values[:: max(1, values.numel() // MASK_VOXELS)].unique())


def _about_scans(masks: Mapping[str, int]) -> Iterator[str]:
    for key, count in masks.items():
        yield f"the {key} scan has only {count} different values, as a mask or a label map has"


def against_map(found: Evidence, fit: Fit) -> Iterator[str]:
    """Yield what speaks against a map, in words.

    Args:
        found: measures of the map.
        fit: that gave it.
    """
    if fit.contrast is not None and fit.contrast.by_edges and not fit.contrast.moved:
        yield (
            "structures are bright in one scan and dark in the other, and "
            f"{unearned(fit.contrast.earned or 0.0, by_edges=True)}, so no motion was taken"
        )
    two = fit.contrast is not None and fit.contrast.chosen == DIFFERENT
    told = "places of the fixed scan are found where the map leads"
    small = found.overlap < SMALL_OVERLAP and not found.recognised >= SURE_RECOGNISED
    if math.isnan(found.recognised):
        yield "there is too little contrast where both scans have data to check the map"
    elif two and found.recognised < LEAST_RECOGNISED:
        if not found.shared >= LEAST_SHARED:
            yield (
                "of two contrasts, the scans tell little of each other (normalised mutual information "
                f"{apart(found.shared, LEAST_SHARED)}, right maps have {LEAST_SHARED} and more)"
            )
        if not found.peak >= LEAST_PEAK:
            lost = percent_apart(found.peak, LEAST_PEAK)
            yield (
                "of two contrasts, the scans fit hardly better where the map leads than beside it (there they lose "
                f"{lost} of their mutual information, after right maps {percent(LEAST_PEAK)} and more)"
            )
    elif found.recognised < LEAST_RECOGNISED:
        share = percent_apart(found.recognised, LEAST_RECOGNISED)
        yield f"only {share} of the {told}; right maps reach {percent(LEAST_RECOGNISED)} and more"
    if found.overlap < LEAST_OVERLAP or small:
        yield f"only {percent(found.overlap)} of the fixed scan meets the moving scan"
    if found.spread > MOST_SPREAD:
        yield f"volumes change very unevenly (standard deviation of the logarithm {found.spread:.2f})"
    if found.folds > MOST_FOLDS:
        yield f"the map folds in {percent(found.folds)} of what both scans show"


def against_given(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield what landmarks and labels say against a map, in words.

    Args:
        metrics: of the pair.
    """
    if "tre_mm" in metrics:
        before, after = (metrics["tre_mm"][when]["mean"] for when in ("before", "after"))
        if after > before + TRE_MORE_MM:
            yield f"{FURTHER_APART} ({before:.1f} mm before, {after:.1f} mm after)"
    if "dice" in metrics:
        before, after = (metrics["dice"][when]["mean"] for when in ("before", "after"))
        if before is not None and after is not None and after < before - DICE_LESS:
            yield f"labels overlap less than before (Dice {before:.3f} before, {after:.3f} after)"
