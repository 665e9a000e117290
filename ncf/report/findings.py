"""The findings about a result: what a reader must know, in plain words, as warnings and notes. No pictures, no HTML.

A threshold is where we would look twice ourselves. Each stands here with its reason. A page without a finding still
does not say that a registration is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ncf.core.names import DEFORMABLE, SAME
from ncf.core.words import label_words, percent, place_words, structure_words
from ncf.evaluate.trust import LARGE_MM
from ncf.evaluate.verdict import FURTHER_APART
from ncf.fit.contrast import unearned
from ncf.report.facts import Facts
from ncf.report.saved_findings import NOTE, WARNING, Finding
from ncf.space.geometry import size_and_turn, spacing_mm

LARGE_FOLDING_FRACTION = 1e-4  # folding fraction: below this only single voxels fold, often at the border of the grid
OUTSIDE_SHARE = 0.05  # of the fixed grid: a breath carries about 3 % of a chest scan out of its counterpart
STRONG_SHARE = 0.01  # of the voxels change their volume more than threefold: no large region of soft tissue does
LEAST_NCC = 0.7  # for one modality: the brains of two people reach 0.9, two chests 0.95
NCC_LOST = 1e-3  # of the correlation: a smaller loss is rounding, or the scans were alike before
SAME_CONTRAST = {"photometric", "ssim"}  # terms of a loss that want equal intensities
NMI_LOST = 1e-3  # of the normalised mutual information, which is 1 to 2
LEAST_DICE = 0.5  # mean of all labels: small structures of two people reach 0.6
DICE_LOST = 0.01  # of one label: a smaller loss is rounding at its surface
LARGE_TRE_VOX = 3.0  # 95th percentile of the landmark error, in the largest side of a voxel
# share with a large bound of the error: of a label more than an edge; tissue without contrast is a fifth of a chest
LARGE_IN_LABEL, LARGE_IN_BODY = 0.1, 0.25
FAR_TRE_VOX = 10.0  # error of a single landmark: it was placed wrongly, or the fit has lost that region
STILL_FALLING = 0.05  # share of the last level's gain in its last tenth; the cosine schedule leaves 0 to 1 % there
TENTH = 10
SMALL_TURN_DEGREES = 3.0  # with a larger turn, the shift at the origin of the headers says nothing
TILTED_DEGREES = 10.0  # with a larger tilt, the letters at the edges are only roughly true
TOLD_LABELS = 5


def findings_of(facts: Facts) -> list[Finding]:
    """Return all findings about a result, warnings first."""
    metrics, run = facts.result.metrics, facts.result.run
    voxel_mm = float(spacing_mm(facts.space.grid.affine).max())
    found = [
        *_doubts(metrics),
        *_folds(metrics, int(np.prod(facts.space.grid.shape))),
        *(_likeness(metrics) if _compares_intensities(run) else _shared(metrics, run)),
        *_landmarks(metrics, voxel_mm, worst=_worst(facts)),
        *_labels(metrics),
        *_bounds(facts),
        *_motion(facts),
        *_fit(metrics, run.get("losses", [])),
        *_start(run.get("initial_transform") if run.get("transform", DEFORMABLE) == DEFORMABLE else None),
        *_files(facts),
    ]
    return sorted(found, key=lambda finding: finding.level != WARNING)


def _doubts(metrics: Mapping[str, Any]) -> Iterator[Finding]:
    for reason in metrics.get("verdict", {}).get("reasons", []):
        yield Finding(WARNING, f"The result is doubtful: {reason}.")


def _folds(metrics: Mapping[str, Any], voxels: int) -> Iterator[Finding]:
    share = metrics["folding_fraction"]["all"]
    inside = metrics["folding_fraction"].get("in_label")
    if not share:
        return
    grave = share > LARGE_FOLDING_FRACTION or bool(inside)
    where = f", {percent(inside)} of the fixed label" if inside is not None else ""
    yield Finding(
        WARNING if grave else NOTE,
        f"The map folds: in {round(share * voxels):,} voxels ({percent(share)} of all{where}) it turns space inside "
        "out. No anatomy does that; do not use the map there. The picture “Jacobian” marks them in yellow.",
    )


def _likeness(metrics: Mapping[str, Any]) -> Iterator[Finding]:
    before, after = (metrics["similarity"][when]["ncc"] for when in ("before", "after"))
    if before is not None and after is not None and after < before - NCC_LOST:
        yield Finding(
            WARNING, f"The scans are less alike than before: correlation {before:.3f} before, {after:.3f} after."
        )
    elif after is None or after < LEAST_NCC:
        told = "cannot be computed" if after is None else f"is only {after:.2f}"
        yield Finding(
            WARNING,
            f"A large difference is left: the correlation of the images {told} after registration "
            f"(above {LEAST_NCC} is usual for two scans of one contrast; for two contrasts, modality=different).",
        )


def _compares_intensities(run: Mapping[str, Any]) -> bool:
    """Tell whether the fit wanted equal intensities; a fit for two contrasts does not."""
    contrast, losses = run.get("contrast"), run.get("losses", [])
    if contrast is not None:
        return bool(contrast["chosen"] == SAME)
    return not losses or bool(SAME_CONTRAST & set(losses[-1]["losses"]))


def _shared(metrics: Mapping[str, Any], run: Mapping[str, Any]) -> Iterator[Finding]:
    before, after = (metrics["similarity"][when].get("nmi") for when in ("before", "after"))
    if before is not None and after is not None and after < before - NMI_LOST:
        told = f"normalised mutual information {before:.3f} before, {after:.3f} after"
        yield Finding(WARNING, f"The scans have less in common than before: {told}.")
    contrast = run.get("contrast") or {}
    if not contrast.get("moved", True) and not contrast.get("by_edges"):  # by edges, the verdict says it
        told = unearned(contrast["earned"], by_edges=False)
        yield Finding(NOTE, f"No motion was taken: {told}. The initial transform stands.")
    yield Finding(
        NOTE,
        "The fit left the contrasts free, as two modalities want it: correlation and the difference pictures tell "
        "little here; look at the checkerboard and the outlines.",
    )


def _worst(facts: Facts) -> str:
    """Name the landmark with the largest error, by its row in the file."""
    after = facts.errors_mm.get("after", np.empty(0))
    return f"Landmark {int(after.argmax()) + 1}" if after.size else "One landmark"


def _landmarks(metrics: Mapping[str, Any], voxel_mm: float, *, worst: str) -> Iterator[Finding]:
    if "tre_mm" not in metrics or not metrics["tre_mm"]["after"]["count"]:
        return
    before, after = metrics["tre_mm"]["before"], metrics["tre_mm"]["after"]
    told = any(reason.startswith(FURTHER_APART) for reason in metrics.get("verdict", {}).get("reasons", []))
    if after["mean"] > before["mean"] and not told:
        yield Finding(
            WARNING, f"Landmarks are further apart than before: {before['mean']:.2f} mm, now {after['mean']:.2f} mm."
        )
    if after["p95"] > LARGE_TRE_VOX * voxel_mm:
        yield Finding(
            WARNING,
            f"A large landmark error is left: 5 % of the points miss by more than {after['p95']:.1f} mm "
            f"(a voxel is up to {voxel_mm:.3g} mm).",
        )
    if after["max"] > FAR_TRE_VOX * voxel_mm:
        yield Finding(
            WARNING, f"{worst} misses by {after['max']:.1f} mm, more than {FAR_TRE_VOX:.0f} voxels; look at it."
        )


def _labels(metrics: Mapping[str, Any]) -> Iterator[Finding]:
    if "dice" not in metrics:
        return
    before, after = metrics["dice"]["before"], metrics["dice"]["after"]
    absent = metrics["dice"].get("absent", {})
    if not after["labels"] and not all(absent.get(key) for key in ("not_in_moving", "not_in_fixed")):
        return  # one of the maps holds no label at all
    if not any(after["labels"].values()):
        by = "names" if "label_names" in metrics else "numbers"
        what = f"No label overlaps its counterpart after registration; Dice compares equal {by}"
        yield Finding(WARNING, f"{what}: do both maps call the same organs by the same {by}?")
    elif after["mean"] < LEAST_DICE:
        yield Finding(WARNING, f"Labels overlap poorly after registration: mean Dice {after['mean']:.2f}.")
    lost = {
        label: (before["labels"][label], dice)
        for label, dice in after["labels"].items()
        if dice is not None and before["labels"].get(label) is not None and dice < before["labels"][label] - DICE_LOST
    }
    worst = sorted(lost, key=lambda label: lost[label][1] - lost[label][0])[:TOLD_LABELS]
    if worst:
        told = ", ".join(
            f"{label_words(metrics, label)} ({lost[label][0]:.2f} to {lost[label][1]:.2f})" for label in worst
        )
        more = f" and {len(lost) - len(worst)} more" if len(lost) > len(worst) else ""
        who = f"Label {told} fits" if len(lost) == 1 else f"Labels {told}{more} fit"
        level = WARNING if after["mean"] < (before["mean"] or 0) else NOTE
        yield Finding(level, f"{who} worse than before (Dice).")


def _bounds(facts: Facts) -> Iterator[Finding]:
    """Say where bounds of the error are large: in the body, and in labels, the worst first."""
    trust = facts.result.trust
    if trust is None:
        return
    metrics, body, largest = facts.result.metrics, trust.get("body", trust["everywhere"]), trust.get("largest")
    shares = {label: told["large_share"] or 0.0 for label, told in trust["structures"].items()}
    worst = sorted((n for n in shares if shares[n] > LARGE_IN_LABEL), key=lambda n: -shares[n])
    places = [f"{percent(shares[n])} of {structure_words(metrics, n)}" for n in worst[:TOLD_LABELS]]
    places += [f"much of {len(worst) - TOLD_LABELS} more labels"] if len(worst) > TOLD_LABELS else []
    if (body["large_share"] or 0.0) > LARGE_IN_BODY:
        places.insert(0, f"{percent(body['large_share'])} of the {'body' if 'body' in trust else 'scan'}")
    if places:
        at = f"{largest['bound_mm']:.1f} mm, is at {place_words(largest['at_mm'])}" if largest else ""
        where = f" The largest one, {at}." if at else ""
        yield Finding(
            WARNING,
            f"The error of the map may be large: its bound (95 %) is above {LARGE_MM:.0f} mm in {', '.join(places)}."
            f"{where} The picture “Trust” shows the bounds.",
        )


def _motion(facts: Facts) -> Iterator[Finding]:
    motion = facts.motion
    if motion.outside > OUTSIDE_SHARE:
        yield Finding(
            WARNING,
            f"The field of view is cut: {percent(motion.outside)} of the fixed grid has its counterpart outside the "
            "moving scan. Nothing was compared there, and warped.nii.gz holds its lowest value there.",
        )
    if motion.below + motion.above > STRONG_SHARE:
        yield Finding(
            NOTE,
            f"Strong local change of volume: {percent(motion.below)} of the voxels shrink below a third, "
            f"{percent(motion.above)} grow beyond three times.",
        )


def _fit(metrics: Mapping[str, Any], losses: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    if metrics.get("attempts", 1) > 1:
        yield Finding(NOTE, f"The fit diverged at first; this is attempt {metrics['attempts']}, with smaller steps.")
    if losses and (still := still_falling(totals(losses[-1]["losses"]))) > STILL_FALLING:
        yield Finding(
            NOTE,
            f"The iteration limit was hit while the loss was still falling ({percent(still)} of what the last level "
            "gained came in its last tenth); more iterations may fit better.",
        )


def totals(terms: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Return the loss of every iteration, the sum of all terms.

    Args:
        terms: values at every iteration, by name.
    """
    return np.sum([np.asarray(values, dtype=np.float64) for values in terms.values()], axis=0)


def still_falling(loss: np.ndarray) -> float:
    """Return how much of a level's gain came in its last tenth.

    Args:
        loss: of every iteration.

    Returns:
        0 to 1; 0 where there are too few iterations to tell.
    """
    last = len(loss) // TENTH
    gained = loss[0] - loss[-1]
    return float((loss[-1 - last] - loss[-1]) / gained) if last and gained > 0 else 0.0


def _start(start: Any) -> Iterator[Finding]:
    if start is None:
        return
    matrix = np.asarray(start, dtype=np.float64)
    size, turn = size_and_turn(matrix)
    if np.array_equal(matrix, np.eye(4)):
        return
    shift = f"shift {np.linalg.norm(matrix[:3, 3]):.1f} mm, " if turn < SMALL_TURN_DEGREES else ""
    yield Finding(
        NOTE,
        "The headers left the scans far apart; the fit began from another position "
        f"({shift}turn {turn:.1f} degrees, size {100 * size:.0f} %). Check that it is the right one.",
    )


def _files(facts: Facts) -> Iterator[Finding]:
    for key in facts.changed:
        yield Finding(
            WARNING, f"The file of {key} is not what was registered: it has changed since, or another was named."
        )
    for key in facts.lost:
        yield Finding(NOTE, f"The file of {key} is not there any more; what it would show is missing here.")
    if facts.by_initial_transform:
        yield Finding(NOTE, "By their headers the scans do not overlap; “before” shows where the fit began instead.")
    if facts.space.tilt_degrees > TILTED_DEGREES:
        yield Finding(
            NOTE,
            f"The fixed grid is tilted by up to {facts.space.tilt_degrees:.0f} degrees; slices follow it, and the "
            "letters at their edges name the nearest direction.",
        )
