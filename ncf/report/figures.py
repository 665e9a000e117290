"""The pictures as PNG files, by matplotlib: three views in a picture, before and after in rows, and two plots.

The same material gives the same file. This room must not know HTML.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ncf.report import paint
from ncf.report.error_bounds import BoundScale
from ncf.report.plots import DPI, landmark_errors, loss_curves, png_of
from ncf.report.slices import Slices
from ncf.report.views import View

ROW_INCHES, TITLE_INCHES, GAP_INCHES, FOOT_INCHES = 2.4, 0.26, 0.06, 0.34
LEAST_COLUMN_INCHES, FOOT_LETTERS = 1.75, 18  # width that a title needs; letters in an inch of the last line
PAPER, INK, BLACK, LIGHT = "#ffffff", "#101418", "#101418", "#ffffff"  # light, because it is printed too
EDGES = ((0.025, 0.5), (0.975, 0.5), (0.5, 0.03), (0.5, 0.97))  # left, right, top, bottom of a panel
LETTER_BOX = {"facecolor": BLACK, "alpha": 0.6, "edgecolor": "none", "pad": 1}
FIXED, MOVING = ("#{:02x}{:02x}{:02x}".format(*colour) for colour in (paint.FIXED_LINE, paint.MOVING_LINE))


@dataclass(frozen=True)
class Panel:
    """One picture of one slice.

    Attributes:
        pixels: grey values (rows, columns), or RGB.
        lines: drawn over it; each (N, points, 2) as (x, y) in pixels, with its colour.
    """

    pixels: np.ndarray
    lines: Sequence[tuple[np.ndarray, str]] = field(default_factory=tuple)


@dataclass(frozen=True)
class Bar:
    """A colour bar.

    Attributes:
        scale: three colours.
        ticks: what stands at its beginning, middle and end.
    """

    scale: tuple[tuple[int, int, int], ...]
    ticks: tuple[str, str, str]


Draw = Callable[[Slices, int], Panel]


def pictures(
    views: Sequence[Slices],
    *,
    losses: Sequence[Mapping],
    errors_mm: Mapping[str, np.ndarray],
    bounds: BoundScale | None = None,
) -> dict[str, bytes]:
    """Draw every picture there is material for.

    Args:
        views: the three views.
        losses: of the levels, as run.json has them.
        errors_mm: of the landmarks, ``before`` and ``after``; may be empty.
        bounds: the colour bar of the bounds of the error, where there are some.

    Returns:
        PNG bytes by file name.
    """
    found = _of_every_result(views)
    if losses:  # a rigid or affine map has no levels
        found["losses.png"] = loss_curves(losses)
    if any(name.startswith("label_") for name in views[0].stacks):
        found["contours.png"] = grid(
            views, _both(_contours), foot="blue: labels of the fixed scan, orange: of the moving scan"
        )
    if bounds is not None:
        found["trust.png"] = grid(
            views,
            {"bound of the error": _trust},
            foot="bound of the error of the map (95 %), an estimate: blue is near, yellow is far off; no colour where "
            "nothing is known",
            bar=Bar(paint.TRUST_SCALE, bounds.ticks),
        )
    if errors_mm:
        found["landmarks.png"] = landmark_errors(errors_mm)
    return dict(sorted(found.items()))


def _of_every_result(views: Sequence[Slices]) -> dict[str, bytes]:
    """Draw the pictures that need scans and a map alone; PNG bytes by file name."""
    return {
        "views.png": grid(
            views,
            {"fixed": plain("fixed"), "moving, before": _moving("before"), "moving, after": _moving("after")},
            foot="the fixed scan; the moving one where its header puts it, and on the fixed grid by the map; slate "
            "blue: it has no data there",
        ),
        "difference.png": grid(
            views,
            _both(_difference),
            foot="moving minus fixed, in % of the window; slate blue: no data",
            bar=Bar(paint.DIFFERENCE_SCALE, ("-50 %", "0", "+50 %")),
        ),
        "checkerboard.png": grid(
            views, _both(_checkerboard), foot="fixed and moving scan in turn; edges should run through"
        ),
        "grid.png": grid(
            views, _both(_mesh), foot="where the map carries a regular grid of the fixed scan, on the moving scan"
        ),
        "jacobian.png": grid(
            views,
            {"volume change": _volume},
            foot="Jacobian determinant: green grows in the moving scan, violet shrinks, yellow folds; the fixed scan "
            "shines through",
            bar=Bar(paint.VOLUME_SCALE, ("0.5", "1", "2")),
            worst=True,
        ),
    }


def _both(draw: Callable[[Slices, int, str], Panel]) -> dict[str, Draw]:
    """Return a row for before and one for after."""
    return {
        "before": lambda view, number: draw(view, number, "before"),
        "after": lambda view, number: draw(view, number, "after"),
    }


def plain(name: str) -> Draw:
    """Return what draws a stack as it is.

    Args:
        name: of the stack.
    """
    return lambda view, number: Panel(view.only(name, number))


def _moving(when: str) -> Draw:
    """Return what draws the moving scan, ``before`` or ``after``, and where it has no data."""
    return lambda view, number: Panel(paint.without_data(view.only(when, number), view.nothing(when, number)))


def _difference(view: Slices, number: int, when: str) -> Panel:
    return Panel(paint.difference(view.only("fixed", number), view.only(when, number), view.nothing(when, number)))


def _checkerboard(view: Slices, number: int, when: str) -> Panel:
    return Panel(paint.checkerboard(view.only("fixed", number), view.only(when, number), view.sizes_mm))


def _mesh(view: Slices, number: int, when: str) -> Panel:
    away = view.mesh[number] * (when == "after")
    (step_across, step_down), (rows, columns) = view.mesh_steps, away.shape[1:]
    at = np.stack(np.meshgrid(np.arange(columns) * step_across, np.arange(rows) * step_down) + away, axis=-1) + 0.5
    lines = (at, MOVING), (at.swapaxes(0, 1), MOVING)
    return Panel(view.only("fixed" if when == "before" else "before", number), lines)


def _volume(view: Slices, number: int) -> Panel:
    fixed, volume = view.only("fixed", number), view.only("volume", number)
    folds = view.only("folds", number) if "folds" in view.stacks else np.zeros_like(fixed)
    return Panel(paint.volume_map(volume, folds, fixed))


def _trust(view: Slices, number: int) -> Panel:
    return Panel(paint.trust_map(view.only("bounds", number), view.only("fixed", number)))


def _contours(view: Slices, number: int, when: str) -> Panel:
    drawn = (("label_fixed", FIXED), (f"label_{when}", MOVING))
    lines = [(paint.outlines(view.only(name, number)), colour) for name, colour in drawn if name in view.stacks]
    return Panel(view.only("fixed", number), lines)


def grid(
    views: Sequence[Slices], rows: Mapping[str, Draw], *, foot: str = "", bar: Bar | None = None, worst: bool = False
) -> bytes:
    """Draw a picture of several rows, with a column for each view, in true proportions.

    Args:
        views: the columns.
        rows: what is drawn in each row, by its title.
        foot: the last line of text.
        bar: the colour bar beside it.
        worst: True shows, where something folds, the slices that hold most of it instead of the middle ones.

    Returns:
        PNG bytes.
    """
    aspects = [view.cut.shape[2] * view.sizes_mm[0] / (view.cut.shape[1] * view.sizes_mm[1]) for view in views]
    columns = [max(aspect * ROW_INCHES, LEAST_COLUMN_INCHES) for aspect in aspects]
    width = sum(columns) + GAP_INCHES * (len(views) + 1)
    row_inches = ROW_INCHES + TITLE_INCHES
    height = len(rows) * row_inches + FOOT_INCHES
    figure = Figure(figsize=(width, height), facecolor=PAPER, dpi=DPI)
    # one for the whole picture, in inches, because each axes object takes time to draw
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    axes.set_title("", y=1)  # matplotlib searches a place for a title without one, for half of the drawing time
    for r, (title, draw) in enumerate(rows.items()):
        top, left = r * row_inches + TITLE_INCHES, GAP_INCHES
        for view, aspect, column in zip(views, aspects, columns, strict=True):
            number = view.worst if worst and view.worst is not None else view.start
            across = aspect * ROW_INCHES
            _show(axes, draw(view, number), view.cut.view, (left + (column - across) / 2, top, across, ROW_INCHES))
            what: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8.5, "color": INK}
            axes.text(left + column / 2, top - TITLE_INCHES / 2, f"{title}, {view.cut.view.name}", **what)
            left += column + GAP_INCHES
    begin = 0.0 if bar is None else _colour_bar(axes, bar, height - FOOT_INCHES / 2)
    foot = _balanced(foot, int((width - begin) * FOOT_LETTERS))
    axes.text((begin + width) / 2, height - FOOT_INCHES / 2, foot, ha="center", va="center", fontsize=7.5, color=INK)
    return png_of(figure)


def _balanced(text: str, letters: int) -> str:
    """Return a text in as few lines of so many letters as it needs, all of about one length, no word alone."""
    lines = len(textwrap.wrap(text, letters))
    even = range(-(-len(text) // max(lines, 1)), letters)
    return textwrap.fill(text, next((n for n in even if len(textwrap.wrap(text, n)) == lines), letters))


def _colour_bar(axes: Axes, bar: Bar, middle: float) -> float:
    """Draw a colour bar with its numbers at the left edge, at a height, and return where it ends, in inches."""
    left, right, half = GAP_INCHES + 0.15, 1.65, 0.05
    ramp = paint.coloured(np.linspace(0, 1, 256), bar.scale)[None]
    axes.imshow(ramp, extent=(left, right, middle, middle - 2 * half), aspect="auto")
    places = np.linspace(left, right, len(bar.ticks))
    for x, tick in zip(places, bar.ticks, strict=True):
        axes.text(x, middle + half + 0.03, tick, ha="center", va="center", fontsize=7, color=INK)
    return right + 0.2


def _show(axes: Axes, panel: Panel, view: View, place: tuple[float, float, float, float]) -> None:
    """Draw a panel at a place (left, top, width, height) of the axes, with the letters at its edges."""
    left, top, width, height = place
    rows, columns = panel.pixels.shape[:2]
    look: dict[str, Any] = {
        "cmap": "gray",
        "vmin": 0,
        "vmax": paint.GREY_MAX,
        "aspect": "auto",
        "interpolation": "bilinear",
    }
    axes.imshow(panel.pixels, extent=(left, left + width, top + height, top), **look)
    frame = Rectangle((left, top), width, height, transform=axes.transData)
    for lines, colour in panel.lines:
        placed = np.asarray(lines) * (width / columns, height / rows) + (left, top)
        pen_up = np.full((len(placed), 1, 2), np.nan)
        path = np.concatenate([placed, pen_up], axis=1).reshape(-1, 2).T  # one path: thousands of lines take seconds
        axes.add_line(Line2D(*path, color=colour, linewidth=0.7)).set_clip_path(frame)
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())
    edge: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 7.5, "color": LIGHT, "bbox": LETTER_BOX}
    for letter, (x, y) in zip((view.left, view.right, view.top, view.bottom), EDGES, strict=True):
        axes.text(left + x * width, top + y * height, letter, **edge)
