"""The results of a cohort as tables and a picture, from its folders alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ncf.cohort.plan import DONE, TRUST, Plan, failures
from ncf.evaluate.tables import Flat, flat, known, save_csv, save_summary
from ncf.result.folder import SavedResult

STEM, PICTURE, FAILURES = "cohort_table", "cohort_table.png", "failures.csv"
COLUMNS = {
    "verdict": "verdict.word",
    "TRE before mm": "tre_mm.before.mean",
    "TRE mm": "tre_mm.after.mean",
    "p95 mm": "tre_mm.after.p95",
    "Dice before": "dice.before.mean",
    "Dice": "dice.after.mean",
    "correlation before": "similarity.before.ncc",
    "correlation": "similarity.after.ncc",
    "folds %": "folding_fraction.all",
    "bound mm": f"{TRUST}.median_mm",
    "bound p95 mm": f"{TRUST}.p95_mm",
    "SDlogJ": "sd_log_jacobian.all",
    "s": "seconds.total",
}
PANELS = {
    "landmark error, mm": ("tre_mm.before.mean", "tre_mm.after.mean"),
    "Dice": ("dice.before.mean", "dice.after.mean"),
    "correlation of the images": ("similarity.before.ncc", "similarity.after.ncc"),
}
WHISKER = 1.5  # interquartile ranges: a pair beyond is named (matplotlib's own rule)
PANEL_INCHES = (3.4, 4.2)
FAILURE_COLUMNS = ("name", "reason")
WHEN = ("before", "after")
MOST_LINES = 60  # with more pairs, the two values of each are not joined by a line
FEWEST_BOXED = 5  # the quartiles of fewer pairs say nothing


def collect(plan: Plan) -> str:
    """Write the tables (Markdown, JSON, CSV), failures.csv and a picture of all pairs that are done.

    Args:
        plan: of the cohort.

    Returns:
        The Markdown table; empty where no pair is done.
    """
    cases = [numbers_of(SavedResult(plan.folder(pair))) for pair in plan.pairs if plan.state(pair) == DONE]
    failed = failures(plan)
    rows: list[Flat] = [{name: failure[name] for name in FAILURE_COLUMNS} for failure in failed]
    save_csv(plan.output_dir / FAILURES, rows, columns=FAILURE_COLUMNS)
    if not cases:
        return ""
    draw([flat(case) for case in cases], plan.output_dir / PICTURE)
    return save_summary(plan.output_dir, STEM, cases, columns=COLUMNS, more={"failures": failed})


def numbers_of(result: SavedResult) -> dict[str, Any]:
    """Return the numbers of a result for a table: metrics.json, and the bounds of its error in the body, if any."""
    trust = result.trust
    return result.metrics if trust is None else {**result.metrics, TRUST: trust.get("body", trust["everywhere"])}


def draw(rows: Sequence[Flat], path: Path) -> bool:
    """Draw the numbers of every pair before and after as box plots, with the outliers named.

    Args:
        rows: the numbers of a pair each.
        path: of the PNG.

    Returns:
        True if there was something to draw.
    """
    panels = {title: [_values(rows, name) for name in pair] for title, pair in PANELS.items()}
    panels = {title: pair for title, pair in panels.items() if all(pair)}
    if not panels:
        return False
    width, height = PANEL_INCHES
    canvas = Figure(figsize=(width * len(panels), height), layout="constrained")
    for axes, (title, pair) in zip(np.atleast_1d(canvas.subplots(1, len(panels))), panels.items(), strict=True):
        if len(pair[0]) >= FEWEST_BOXED:
            axes.boxplot([list(v.values()) for v in pair], widths=0.5, whis=WHISKER, showfliers=False)
        axes.set_xticks((1, 2), WHEN)
        axes.set_xlim(0.5, 2.5)
        shared = [name for name in pair[0] if name in pair[1]]
        if len(shared) <= MOST_LINES:
            for name in shared:
                axes.plot((1, 2), [values[name] for values in pair], color="#0072b2", lw=0.7, alpha=0.4)
        for place, values in enumerate(pair, start=1):
            axes.plot([place] * len(values), list(values.values()), "o", color="#0072b2", ms=3, alpha=0.6)
            for name in outliers(values):
                axes.annotate(name, (place, values[name]), xytext=(6, 0), textcoords="offset points", fontsize=7)
        if title.endswith("mm"):
            axes.set_ylim(bottom=0)  # the axis of an error begins at zero, so that heights compare
        axes.set_title(f"{title} ({len(pair[0])} pair{'' if len(pair[0]) == 1 else 's'})", fontsize=9)
        axes.grid(axis="y", alpha=0.3)
    canvas.savefig(path, dpi=150, metadata={"Software": None})
    return True


def _values(rows: Sequence[Flat], column: str) -> dict[str, float]:
    """Return the value of a column by the pair's name, for pairs that have one."""
    return {str(row["name"]): float(row[column]) for row in rows if known([row.get(column)])}  # type: ignore[arg-type]


def outliers(values: Mapping[str, float]) -> list[str]:
    """Return the names whose value lies beyond the whiskers of a box plot, the furthest first."""
    low, middle, high = np.percentile(list(values.values()), [25, 50, 75])
    reach = WHISKER * (high - low)
    beyond = [name for name, value in values.items() if not low - reach <= value <= high + reach]
    return sorted(beyond, key=lambda name: -abs(values[name] - middle))
