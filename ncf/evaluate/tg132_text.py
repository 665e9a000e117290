"""The page of task group 132 as text: aligned tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ncf.evaluate.tables import cell, markdown

TITLE = "AAPM TG-132 (doi:10.1002/mp.12256, table III)"
HEAD = ("test", "structure", "measured", "limit", "result")
BEFORE_AFTER = {"MDA mm": "mda_mm", "HD95 mm": "hd95_mm", "centroid shift mm": "centroid_shift_mm"}
BURDEN = {"volume ml": "volume_ml", "mean": "mean", "volume x mean": "volume_times_mean"}
PLACES = ("moving", "carried", "fixed")
WHOLE = "all"


def as_markdown(name: str, found: Mapping[str, Any]) -> str:
    """Return the page of a result.

    Args:
        name: of the result.
        found: what `ncf.evaluate.tg132.judged_by_tg132` returns.

    Returns:
        The rows with their limits and results; then distances before and after, and volumes and uptake, by structure.
    """
    counts = ", ".join(f"{number} {word.replace('_', ' ')}" for word, number in found["counts"].items())
    rows = [[row["test"], row["structure"] or WHOLE, row["told"], row["limit"], row["result"]] for row in found["rows"]]
    parts = [f"# {name}: {TITLE}", f"{counts}.", aligned([HEAD, *rows])]
    apart = [entry for entry in found["structures"] if "hd95_mm" in entry]
    if apart:
        head = ["structure", *(f"{title} {when}" for title in BEFORE_AFTER for when in ("before", "after"))]
        parts += ["## Before and after", aligned([head, *map(_before_after, apart)])]
    if found["structures"]:
        head = ["structure", *(f"{title} {place}" for title in BURDEN for place in PLACES)]
        parts += ["## Volume and uptake", aligned([head, *map(_burden, found["structures"])])]
    return "\n\n".join(parts) + "\n"


def _before_after(entry: Mapping[str, Any]) -> list[str]:
    return [
        entry["name"],
        *(cell(entry[key].get(when)) for key in BEFORE_AFTER.values() for when in ("before", "after")),
    ]


def _burden(entry: Mapping[str, Any]) -> list[str]:
    return [entry["name"], *(cell(entry[key].get(place)) for key in BURDEN.values() for place in PLACES)]


def aligned(cells: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose columns are padded, to be read as it is.

    Args:
        cells: rows of texts; the first one is the head.
    """
    rows = [list(row) for row in cells]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return markdown([[text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in rows])
