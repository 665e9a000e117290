"""Numbers in words."""

from __future__ import annotations

from collections.abc import Mapping
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


def label_words(metrics: Mapping[str, Any], label: int | str) -> str:
    """Return how a label is told to a person: its name, or its number where it has none.

    Args:
        metrics: the content of metrics.json.
        label: its number.
    """
    return str(metrics.get("label_names", {}).get(str(label), label))
