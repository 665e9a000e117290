"""Curves of a series as a PNG: motion, points, landmark errors and volumes, phase by phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncf.report.plots import DPI, png_of
from ncf.series.facts import FIXED, PhaseFacts

PLOT_INCHES = (3.4, 2.0)
LEFT, RIGHT, TOP, BOTTOM = 0.55, 1.3, 0.35, 0.75  # inches around a plot; the legend stands to its right
LEGEND_LETTERS = 16
MOST_LINES = 8  # of more points, the median and the range are drawn
MOST_NAMES = 12  # phases named at an axis
BLUE, GREY = "#0072b2", "#888888"


def curves(phases: Sequence[PhaseFacts]) -> bytes:
    """Draw the numbers of a series over time, or over its phases where a time is missing.

    Args:
        phases: the fixed scan first.

    Returns:
        PNG bytes.
    """
    drawn: list[Callable[[Axes, np.ndarray, Sequence[PhaseFacts]], None]] = [_motion]
    drawn += [_points] if phases[0].moved_mm is not None else []
    drawn += [_errors] if any("tre_mm" in phase.numbers for phase in phases) else []
    drawn += [_volumes] if phases[0].volumes_ml else []
    columns = min(2, len(drawn))
    rows = -(-len(drawn) // columns)
    figure, panels = _panels(rows, columns)
    timed = all(phase.time_s is not None for phase in phases[1:])
    for axes, draw in zip(panels, drawn, strict=False):
        own = phases[1:] if timed else phases  # the fixed scan has no time
        at = np.array([p.time_s for p in own], float) if timed else np.arange(len(own), dtype=float)
        draw(axes, at, own)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
        axes.title.set_fontsize(9)
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.03), frameon=False)
        axes.set_xlabel("time, s" if timed else "phase", fontsize=8)
        if not timed:
            shown = range(0, len(own), -(-len(own) // MOST_NAMES))
            axes.set_xticks(list(shown), [own[n].name[-12:] for n in shown], rotation=45, ha="right")
    for axes in panels[len(drawn) :]:
        axes.set_axis_off()
    return png_of(figure)


def _panels(rows: int, columns: int) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes, row by row, each with room for a legend beside it."""
    wide, high = PLOT_INCHES[0] + LEFT + RIGHT, PLOT_INCHES[1] + TOP + BOTTOM
    figure = Figure(figsize=(wide * columns, high * rows), dpi=DPI)
    found = []
    for row in range(rows):
        for column in range(columns):
            left, bottom = column * wide + LEFT, (rows - 1 - row) * high + BOTTOM
            box = (left / wide / columns, bottom / high / rows, PLOT_INCHES[0] / wide / columns)
            found.append(figure.add_axes((*box, PLOT_INCHES[1] / high / rows)))
    return figure, np.array(found, dtype=object)


def label_title(label: str) -> str:
    """Return how a label is called where others have names too: its name, or its number after the word label."""
    return f"label {label}" if label.isdecimal() else label


def _line(axes: Axes, at: np.ndarray, values: Sequence[float | None], *, label: str, color: str | None = None) -> None:
    known = np.array([np.nan if value is None else value for value in values], float)
    axes.plot(at, known, "o-", ms=3, lw=1.3, label=label, color=color)


def _motion(axes: Axes, at: np.ndarray, phases: Sequence[PhaseFacts]) -> None:
    for key, word, colour in (("mean", "mean", BLUE), ("max", "largest", GREY)):
        values = [0.0 if p.name == FIXED else p.numbers.get(f"{key}_displacement_mm") for p in phases]
        _line(axes, at, values, label=word, color=colour)
    axes.set(title="displacement, mm", ylim=(0, None))


def _points(axes: Axes, at: np.ndarray, phases: Sequence[PhaseFacts]) -> None:
    nothing = phases[-1].moved_mm
    assert nothing is not None
    moved = np.array([np.zeros_like(nothing) if p.name == FIXED else p.moved_mm for p in phases], float)
    if moved.shape[1] <= MOST_LINES:
        for number in range(moved.shape[1]):
            _line(axes, at, moved[:, number].tolist(), label=f"point {number + 1}")
    else:
        _line(axes, at, np.median(moved, axis=1).tolist(), label=f"median of {moved.shape[1]} points", color=BLUE)
        axes.fill_between(at, moved.min(axis=1), moved.max(axis=1), alpha=0.2, color=BLUE, label="all points")
    axes.set(title="points: distance from the fixed scan, mm", ylim=(0, None))


def _errors(axes: Axes, at: np.ndarray, phases: Sequence[PhaseFacts]) -> None:
    for key, word, colour in (("tre_before_mm", "before", GREY), ("tre_mm", "after", BLUE)):
        _line(axes, at, [phase.numbers.get(key) for phase in phases], label=word, color=colour)
    axes.set(title="landmark error, mm", ylim=(0, None))


def _volumes(axes: Axes, at: np.ndarray, phases: Sequence[PhaseFacts]) -> None:
    labels = list(dict.fromkeys(label for phase in phases for label in phase.volumes_ml))
    for label in labels[:MOST_LINES]:
        title = label_title(label)[:LEGEND_LETTERS]
        _line(axes, at, [phase.volumes_ml.get(label) for phase in phases], label=title)
    axes.set(title="volume of labels, ml", ylim=(0, None))
