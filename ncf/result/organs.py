"""The lines about single structures in the closing lines of a registration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ncf.core.words import structure_words

MOST, LOWEST = 5, 3  # structures that are all told, and how many of more


class _Structure(NamedTuple):
    """What is told of one structure: by which the structures are sorted, the worst first, and the words."""

    rank: float
    words: str


def organ_lines(metrics: Mapping[str, Any]) -> list[str]:
    """Say of each structure its Dice before and after, or its volume where only the moving map has it.

    Of more than `MOST` structures the `LOWEST` with the lowest Dice are told, or those whose volume changes most.

    Args:
        metrics: the content of metrics.json.
    """
    by_dice, by_volume = _dice(metrics), _volumes(metrics)
    if len(by_dice) + len(by_volume) <= MOST:
        return [f"  carried     {found.words}" for found in (*by_dice, *by_volume)]
    lines = []
    for found, what in ((by_dice, "among the lowest Dice"), (by_volume, "among the most changed")):
        told = sorted(found, key=lambda one: one.rank)[:LOWEST]
        lines += [f"  carried     {one.words} ({what} of {len(found)})" for one in told]
    return lines


def _dice(metrics: Mapping[str, Any]) -> list[_Structure]:
    """Return the structures of both maps."""
    dice = metrics.get("dice", {})
    before = dice.get("before", {}).get("labels", {})
    return [
        _Structure(after, f"{structure_words(metrics, label)}: Dice {before[label]:.3f} -> {after:.3f}")
        for label, after in dice.get("after", {}).get("labels", {}).items()
        if after is not None and before.get(label) is not None
    ]


def _volumes(metrics: Mapping[str, Any]) -> list[_Structure]:
    """Return the structures of the moving map alone."""
    found = []
    for structure in metrics.get("tg132", {}).get("structures", []):
        volume = structure["volume_ml"]
        if "fixed" in volume or not {"moving", "carried"} <= set(volume):
            continue
        before, after = volume["moving"], volume["carried"]
        words = f"{structure_words(metrics, structure['label'])}: volume {before:.1f} -> {after:.1f} ml"
        found.append(_Structure(-abs(after / before - 1) if before else 0.0, words))
    return found
