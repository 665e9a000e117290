"""Numbers in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MOST_MORE = 5  # decimals by which a number is told apart from a limit


def counted(number: int, thing: str) -> str:
    """Write a number of things: 1 label, 2 labels."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def percent(share: float | None) -> str:
    """Write a fraction of 1 in percent.

    From 10 % on there are no decimals, below there are two significant digits. None becomes "nothing".
    """
    if share is None:
        return "nothing"
    return f"{100 * share:.0f} %" if 100 * abs(share) >= 10 else f"{100 * share:.2g} %"


def apart(value: float, limit: float, digits: int = 2) -> str:
    """Write a number that misses a limit, with as many decimals as keep it apart from the limit as it is written.

    Args:
        value: another number than the limit.
        limit: written with ``digits``.
        digits: decimals at least.
    """
    written = f"{limit:.{digits}f}"
    more = range(digits, digits + MOST_MORE)
    return next((told for n in more if float(told := f"{value:.{n}f}") != float(written)), f"{value:g}")


def percent_apart(share: float, limit: float) -> str:
    """Write a fraction of 1 as `percent` does, with more decimals where it would read as a limit that it misses.

    Args:
        share: another number than the limit.
        limit: a fraction of 1 too.
    """
    told = percent(share)
    return told if told != percent(limit) else f"{apart(100 * share, 100 * limit, 1)} %"


def place_words(mm: Sequence[float]) -> str:
    """Write a point in RAS mm with the patient's own directions, as radiology does: L 33.1, P 20.0, S 100.2 mm."""
    letters = (("L", "R"), ("P", "A"), ("I", "S"))
    told = (f"{pair[int(v >= 0)]} {abs(v):.1f}" for pair, v in zip(letters, mm, strict=True))
    return f"{', '.join(told)} mm"


def label_words(metrics: Mapping[str, Any], label: int | str) -> str:
    """Return how a label is told to a person: its name, or its number where it has none.

    Args:
        metrics: the content of metrics.json.
        label: its number.
    """
    return str(metrics.get("label_names", {}).get(str(label), label))


def structure_words(metrics: Mapping[str, Any], label: int | str) -> str:
    """Return how a label is told in a sentence: its name, or ``label`` and its number where it has none.

    Args:
        metrics: the content of metrics.json.
        label: its number.
    """
    told = label_words(metrics, label)
    return f"label {told}" if told == str(label) else told
