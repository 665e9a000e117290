"""A plot of accuracy against time, one panel for each group of pairs, one marker for each method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.results import Line, mean, ordered

PANELS_A_ROW = 3
PANEL_INCHES = (4.3, 3.4)
COLOURS = {  # one colour for a family of methods; colour-blind people can tell them apart (Okabe and Ito)
    "ours": "#0072B2",
    "elastix": "#D55E00",
    "syn": "#009E73",
    "convexadam": "#CC79A7",
    "greedy": "#56B4E9",
    "fireants": "#E69F00",
}
SHAPES = ("o", "s", "D", "^", "v")  # of the methods of one family
MARGINS = (0.08, 0.3)  # share of an axis's width, beyond its outermost markers
TICK_GAP = 0.1  # least share of an axis between two ticks
LOG_FROM = 4  # heights are logarithmic where the largest error is more than so many times the least
TIMES = (1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600, 7200, 14400, 36000)  # seconds that may have a tick
ERRORS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10, 20, 30, 50)  # mm, or 1 - Dice
FONT_POINTS, LETTER_POINTS, MARKER_POINTS = 8.0, 5.2, 4.5  # height of text, width of a letter, half a marker
INNER_POINTS = (0.84 * 72 * PANEL_INCHES[0], 0.78 * 72 * PANEL_INCHES[1])  # a panel's inside, about

Box = tuple[float, float, float, float]  # middle, then half the width and the height, in points


def draw(lines: Sequence[Line], path: Path) -> None:
    """Draw the plot, unless no run took time.

    Args:
        lines: of runs.jsonl.
        path: of the picture.
    """
    groups = [g for g in ordered(lines, "group") if points([line for line in lines if line["group"] == g])[1]]
    if not groups:
        return
    across = min(PANELS_A_ROW, len(groups))
    down = math.ceil(len(groups) / across)
    figure = Figure(figsize=(PANEL_INCHES[0] * across, PANEL_INCHES[1] * down), facecolor="white", layout="constrained")
    cells = figure.subplots(down, across, squeeze=False).ravel()
    for cell, group in zip(cells, groups, strict=False):
        _panel(cell, group, [line for line in lines if line["group"] == group])
    for cell in cells[len(groups) :]:
        cell.set_axis_off()
    figure.savefig(path, dpi=150)


def points(lines: Sequence[Line]) -> tuple[str, dict[str, tuple[float, float]]]:
    """Return what the height is, TRE in mm or 1 - Dice without landmarks, and (seconds, height) of each method.

    Methods that took no time are left out.

    Args:
        lines: of one group.
    """
    what = "TRE mm" if not math.isnan(mean(lines, "TRE mm")) else "Dice"
    found = {}
    for method in ordered(lines, "method"):
        own = [line for line in lines if line["method"] == method]
        seconds, height = mean(own, "s"), mean(own, what)
        if not math.isnan(seconds + height):
            found[method] = (seconds, height if what == "TRE mm" else 1 - height)
    return ("TRE (mm)" if what == "TRE mm" else "1 - Dice"), found


def _panel(axes: Any, group: str, lines: Sequence[Line]) -> None:
    """Draw the panel of one group."""
    title, found = points(lines)
    pairs = len(ordered(lines, "pair"))
    axes.set_title(group + (f" (mean of {pairs} pairs)" if pairs > 1 else ""), fontsize=10, loc="left")
    axes.set_xlabel("seconds, whole process", fontsize=8)
    axes.set_ylabel(title, fontsize=8)
    _scale(axes.xaxis, [x for x, _ in found.values()], TIMES, margins=MARGINS)
    heights = [y for _, y in found.values()]
    if max(heights) > LOG_FROM * min(heights) > 0:
        _scale(axes.yaxis, heights, ERRORS, margins=(0.1, 0.1))
    else:
        axes.set_ylim(0, 1.12 * max(heights) or 1)  # from 0, so that heights can be compared
    places = axes.transAxes.inverted().transform(axes.transData.transform(list(found.values()))) * INNER_POINTS
    offsets = place_labels(dict(zip(found, map(tuple, places), strict=True)))
    family = {method: method.partition("-")[0] for method in found}
    for method, point in found.items():
        alike = [other for other in found if family[other] == family[method]]
        colour, weight = COLOURS.get(family[method], "black"), "bold" if family[method] == "ours" else "normal"
        shape = SHAPES[alike.index(method) % len(SHAPES)]
        axes.plot(*point, shape, color=colour, markersize=7, markeredgecolor="white", markeredgewidth=0.8, zorder=3)
        how = {"textcoords": "offset points", "ha": "center", "va": "center", "fontsize": FONT_POINTS}
        axes.annotate(method, point, offsets[method], color=colour, fontweight=weight, **how)
    axes.grid(True, which="major", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _scale(axis: Any, values: Sequence[float], ticks: Sequence[float], *, margins: tuple[float, float]) -> None:
    """Make an axis logarithmic, with plain numbers at its ticks and room for labels at both ends."""
    logs = [math.log10(value) for value in values]
    width = max(max(logs) - min(logs), 0.5)
    low, high = 10 ** (min(logs) - margins[0] * width), 10 ** (max(logs) + margins[1] * width)
    axis.axes.set(**{f"{axis.axis_name}scale": "log", f"{axis.axis_name}lim": (low, high)})
    inside: list[float] = []
    for tick in ticks:  # only those that are far enough from the one before
        if low <= tick <= high and (not inside or math.log(tick / inside[-1]) > math.log(high / low) * TICK_GAP):
            inside.append(tick)
    axis.set_ticks(inside, [f"{tick:g}" for tick in inside])
    axis.set_ticks([], minor=True)


def place_labels(places: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Return how far the middle of each label lies from its marker: on the first side where it covers nothing else.

    Args:
        places: of the markers in points, by label.

    Returns:
        In points, by label.
    """
    taken = [(x, y, MARKER_POINTS, MARKER_POINTS) for x, y in places.values()]
    found = {}
    for label, (x, y) in places.items():
        wide, high = LETTER_POINTS * len(label) / 2, 0.6 * FONT_POINTS
        aside, above = wide + 1.4 * MARKER_POINTS, high + 1.2 * MARKER_POINTS
        sides = [(aside, 0.0), (-aside, 0.0), (0.0, above), (0.0, -above)]
        sides += [(dx, k * above) for k in (1, -1, 2, -2, 3, -3, 4, 5) for dx in (aside, -aside, 0.0)]
        clear = (side for side in sides if not _covers((x + side[0], y + side[1], wide, high), taken))
        dx, dy = next(clear, sides[0])
        taken.append((x + dx, y + dy, wide, high))
        found[label] = (dx, dy)
    return found


def _covers(box: Box, others: Sequence[Box]) -> bool:
    """Tell whether a box overlaps any of the others or leaves the panel."""
    x, y, wide, high = box
    if x < wide or x > INNER_POINTS[0] - wide or y < high:
        return True
    return any(abs(x - a) < wide + c and abs(y - b) < high + d for a, b, c, d in others)
