"""Checks before and after every level: is there anything to fit, and did the fit gain anything."""

from __future__ import annotations

from ncf.core.errors import PairError
from ncf.core.words import percent
from ncf.fit.objective import Objective

RISEN = 0.05  # share of its first loss by which a level may end above it: its steps do not shrink on every level
WORSE_BY = 1e-3  # a fit may end this much above the loss of a zero field: for identical scans that loss is 0
OVERLAP_KEPT = 0.5  # share of the first overlap: a real motion loses little of it, a field that runs away loses all
DRIFTED = 0.1  # share of the first overlap: with less, the field has run away; with more, something drew it out
LEAST_OVERLAP = 1e-3  # share of the fixed data: with less of it in common there is nothing to compare


class DivergedError(Exception):
    """The fit ended above where it began, off the images, or not finite. Another attempt may help."""


class DriftedError(DivergedError):
    """A good part of the images has left the overlap, as if there were a gain in it."""


def check_start(objective: Objective, title: str) -> None:
    """Raise PairError unless a level has something to compare.

    Args:
        objective: of the level.
        title: of the level, for the message.

    Raises:
        PairError: the share of the fixed data that meets moving data is not above `LEAST_OVERLAP`.
    """
    share = objective.overlap_at_rest()
    # "not >" and not "<=": where a mask holds no node the share is nan, and that must be refused too
    if not share > LEAST_OVERLAP:
        raise PairError(
            f"{title}: {percent(share)} of the fixed data meets moving data, there is nothing to compare; correct the "
            "headers, or use a larger mask",
            hint="align_centres",
        )


def check_end(objective: Objective, title: str, *, first: float) -> float:
    """Raise DivergedError unless the weights after the last step are better than a zero field and the first weights.

    Args:
        objective: of the level, after its last step.
        title: of the level, for the message.
        first: loss of its first step.

    Returns:
        The loss of a zero field.

    Raises:
        DivergedError: the loss is above that of a zero field or of the first step, or the images have lost more than
            half of their overlap.
        DriftedError: the latter, and some of it is left.
    """
    last, nothing = objective.now(), objective.at_rest()
    if not last.loss <= nothing.loss + WORSE_BY:
        raise DivergedError(f"{title} ended at a loss of {last.loss:.4g}, where doing nothing has {nothing.loss:.4g}")
    if not last.loss <= first + max(WORSE_BY, RISEN * abs(first)):
        raise DivergedError(f"{title} ended at a loss of {last.loss:.4g}, where it had begun with {first:.4g}")
    now, at_start = last.overlap, nothing.overlap
    if not now >= OVERLAP_KEPT * at_start:
        reason = DriftedError if now >= DRIFTED * at_start else DivergedError
        raise reason(f"{title} left {percent(now)} of the images in common, of {percent(at_start)} at the start")
    return nothing.loss
