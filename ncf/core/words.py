"""Numbers in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


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
