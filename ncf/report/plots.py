"""Plots as PNG files: landmark errors, and the loss by level. The same numbers give the same file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ncf.report.findings import totals

DPI = 100
PLOT_INCHES = (6.4, 3.0)
# given here, because a layout engine draws three times
PLOT_FRAME = {"left": 0.09, "right": 0.985, "bottom": 0.15, "top": 0.9, "wspace": 0.24}
ROOM = 1.22  # of an axis over its highest value, for the legend above all points
PNG_LEVEL = 4  # of zlib: takes a third of the time of the usual 6, and files are a few percent larger


def landmark_errors(errors_mm: Mapping[str, np.ndarray]) -> bytes:
    """Plot every landmark's error before and after, sorted by the error after.

    Args:
        errors_mm: ``before`` and ``after``, each (N,), in mm.

    Returns:
        PNG bytes.
    """
    figure = Figure(figsize=PLOT_INCHES, dpi=DPI)
    left, right = figure.subplots(1, 2, gridspec_kw=PLOT_FRAME)
    order = np.argsort(errors_mm["after"], kind="stable")
    for when, colour, mark in (("before", "#888888", "."), ("after", "#0072b2", "o")):
        left.plot(np.arange(1, len(order) + 1), errors_mm[when][order], mark, color=colour, ms=3.5, label=when)
        ranks = (np.arange(len(order)) + 1) / len(order)
        right.step(np.sort(errors_mm[when]), 100 * ranks, color=colour, where="post", label=when)
    worst = int(order[-1])
    told = f"worst: {worst + 1}"
    left.annotate(
        told,
        (len(order), errors_mm["after"][worst]),
        fontsize=7,
        ha="right",
        xytext=(-4, 4),
        textcoords="offset points",
    )
    highest = max(float(values.max()) for values in errors_mm.values())
    left.set(xlabel="landmark, best first", ylabel="error, mm", ylim=(0, ROOM * (highest or 1.0)))
    right.set(xlabel="error, mm", ylabel="landmarks below it, %", xlim=(0, None), ylim=(0, ROOM * 100))
    right.set_yticks(range(0, 101, 20))
    for axes in (left, right):
        _tidy(axes)
    return png_of(figure)


def loss_curves(levels: Sequence[Mapping]) -> bytes:
    """Plot the loss terms at every iteration, one panel for each level.

    Args:
        levels: as run.json has them.

    Returns:
        PNG bytes.
    """
    figure = Figure(figsize=PLOT_INCHES, dpi=DPI)
    panels = np.atleast_1d(
        figure.subplots(1, len(levels), sharey=True, gridspec_kw=PLOT_FRAME | {"right": 0.8, "top": 0.85})
    )
    for axes, level in zip(panels, levels, strict=False):
        axes.plot(totals(level["losses"]), color="black", lw=1.6, label="sum")
        for name, values in level["losses"].items():
            axes.plot(values, lw=1.1, label=name)
        axes.set_title(f"level {level['level']}\n{' x '.join(map(str, level['shape']))}", fontsize=8)
        axes.set_xlabel("iteration", fontsize=8)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=7)
    panels[0].set_ylabel("loss (weighted)", fontsize=8)
    panels[-1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.03), frameon=False)
    return png_of(figure)


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)
    axes.legend(fontsize=7, loc="upper left", ncols=2, frameon=False)


def png_of(figure: Figure) -> bytes:
    """Return the PNG of a figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    file = io.BytesIO()
    Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).save(file, "PNG", compress_level=PNG_LEVEL)
    return file.getvalue()
