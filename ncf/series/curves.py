"""Curves of a series as a PNG: motion, points, landmark errors and volumes, phase by phase."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ncf.report.plots import DPI, png_of
from ncf.series.facts import FIXED, PhaseFacts

PANEL_INCHES = (4.4, 2.9)
FRAME = {"left": 0.075, "right": 0.985, "bottom": 0.2, "top": 0.9, "wspace": 0.22, "hspace": 0.62}
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
    figure = Figure(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows), dpi=DPI)
    panels = np.atleast_1d(figure.subplots(rows, columns, gridspec_kw=FRAME)).flatten()
    timed = all(phase.time_s is not None for phase in phases[1:])
    for axes, draw in zip(panels, drawn, strict=False):
        own = phases if draw in (_points, _volumes) and not timed else phases[1:]
        at = np.array([p.time_s for p in own], float) if timed else np.arange(len(own), dtype=float)
        draw(axes, at, own)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
        axes.title.set_fontsize(9)
        axes.legend(fontsize=7)
        axes.set_xlabel("time, s" if timed else "phase", fontsize=8)
        if not timed:
            shown = range(0, len(own), -(-len(own) // MOST_NAMES))
            axes.set_xticks(list(shown), [own[n].name[-12:] for n in shown], rotation=45, ha="right")
    for axes in panels[len(drawn) :]:
        axes.set_axis_off()
    return png_of(figure)


def _line(axes: Axes, at: np.ndarray, values: Sequence[float | None], *, label: str, color: str | None = None) -> None:
    known = np.array([np.nan if value is None else value for value in values], float)
    axes.plot(at, known, "o-", ms=3, lw=1.3, label=label, color=color)


def _motion(axes: Axes, at: np.ndarray, phases: Sequence[PhaseFacts]) -> None:
    for key, word, colour in (("mean", "mean", BLUE), ("max", "largest", GREY)):
        values = [phase.numbers.get(f"{key}_displacement_mm") for phase in phases]
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
        _line(axes, at, [phase.volumes_ml.get(label) for phase in phases], label=label)
    axes.set(title="volume of labels, ml", ylim=(0, None))
