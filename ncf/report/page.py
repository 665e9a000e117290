"""The page of one result: measurements in words and numbers, and the slices for its script, filled into a template.

Names of files and labels come from users; the template escapes all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ncf.core.names import PICTURES
from ncf.core.words import counted, label_words, percent
from ncf.report import paint
from ncf.report.findings import Finding
from ncf.report.material import Material, windows
from ncf.report.slices import BLOCK, Slices, as_jpeg, data_uri, mesh_of, sheet_columns, sprites
from ncf.report.views import DISPLAY_AXES

TEMPLATES = Path(__file__).parent / "templates"
NOTHING, ABSENT = "-", "absent"
STILL_QUALITY = 75  # of the JPEG that each view shows until the script has drawn, or where no script runs
POSITIVE = {"L": "R", "P": "A", "I": "S"}  # the direction in which RAS mm grow along an axis of display space
CHOICES = {
    "fixed": "Fixed",
    "moving": "Moving",
    "difference": "Difference",
    "checkerboard": "Checkerboard",
    "contours": "Labels",
    "grid": "Deformed grid",
    "volume": "Volume change",
}
MADE = {"device": "device", "threads": "threads", "platform": "platform"}


def environment() -> Environment:
    """Return Jinja with escaping on; a name that a template uses and does not get is an error."""
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def page(
    material: Material,
    views: Sequence[Slices],
    *,
    findings: Sequence[Finding],
    plots: Mapping[str, bytes],
    paths: Mapping[str, Path],
) -> str:
    """Return the HTML of a result's report.

    Args:
        material: of the result.
        views: the three views, cut.
        findings: warnings and notes.
        plots: PNG files by name.
        paths: of the inputs that were read, by key.
    """
    run, metrics = material.result.run, material.result.metrics
    labelled = any(name.startswith("label_") for name in views[0].stacks)
    choices = {key: title for key, title in CHOICES.items() if labelled or key != "contours"}
    folded = any(view.worst is not None for view in views)
    return (
        environment()
        .get_template("report.html")
        .render(
            name=material.result.name,
            scans={key: paths[key].name for key in ("fixed", "moving")},
            findings=findings,
            verdict=metrics.get("verdict", {}).get("word"),
            pictures=list(choices.items()),
            views=[_view_head(view) for view in views],
            folded=folded,
            folder=PICTURES,
            windows=_windows(material),
            numbers=numbers(metrics, material),
            labels=label_rows(metrics),
            plots=_plots(plots, metrics),
            tg132=material.result.tg132,
            command=run.get("command", "not recorded by the version that made it"),
            made=_made(run, metrics, paths),
            data=_data(material, views, choices=list(choices), folded=folded),
        )
    )


def _view_head(view: Slices) -> dict[str, Any]:
    count, rows, columns = view.cut.shape
    aspect = columns * view.sizes_mm[0] / (rows * view.sizes_mm[1])
    still = as_jpeg(view.only("after", view.start), STILL_QUALITY)
    return {
        "name": view.cut.view.name,
        "count": count,
        "start": view.start,
        "aspect": round(aspect, 3),
        "still": data_uri(still, "image/jpeg"),
    }


def _data(material: Material, views: Sequence[Slices], *, choices: list[str], folded: bool) -> dict[str, Any]:
    """Return what the script needs, as plain data."""
    colours = {
        "difference": paint.DIFFERENCE_SCALE,
        "volume": paint.VOLUME_SCALE,
        "fold": paint.FOLD,
        "no_data": paint.NO_DATA,
    }
    return {
        "pictures": choices,
        "shape": material.space.shape,
        "folded": folded,
        "placed_by": "the map that the fit began with"
        if material.by_initial_transform
        else "the headers of both files",
        "checks": paint.CHECKS,
        "difference_range": paint.DIFFERENCE_RANGE,
        "shines_through": paint.SHINES_THROUGH,
        "colours": {**colours, "fixed_line": paint.FIXED_LINE, "moving_line": paint.MOVING_LINE},
        "views": [_view_data(view, uris) for view, uris in zip(views, sprites(list(views)), strict=True)],
    }


def _view_data(view: Slices, uris: Mapping[str, str]) -> dict[str, Any]:
    count, rows, columns = view.cut.shape
    own = view.cut.view
    return {
        "name": own.name,
        "stacked": own.stacked,
        "across": own.across,
        "down": own.down,
        "letters": [own.left, own.right, own.top, own.bottom],
        "axis": POSITIVE[DISPLAY_AXES[own.stacked]],
        "rows": rows,
        "columns": columns,
        "size_mm": view.sizes_mm,
        "slices": view.cut.slices.tolist(),
        "positions_mm": view.positions_mm,
        "start": view.start,
        "worst": view.worst,
        "sheet_columns": sheet_columns(count),
        "cell": [-(-rows // BLOCK) * BLOCK, -(-columns // BLOCK) * BLOCK],
        "mesh": mesh_of(view),
        "sprites": dict(uris),
    }


def _windows(material: Material) -> str:
    told = {key: f"{low:.4g} to {high:.4g}" for key, (low, high) in windows(material.result).items()}
    return told["fixed"] if told["fixed"] == told["moving"] else f"fixed {told['fixed']}, moving {told['moving']}"


def numbers(metrics: Mapping[str, Any], material: Material) -> list[tuple[str, str, str]]:
    """Return the rows of the table of numbers.

    Args:
        metrics: the content of metrics.json.
        material: of the result.

    Returns:
        What is measured, the value before and the value after, as text; a dash where there is nothing to compare.
    """
    rows = []
    if "tre_mm" in metrics:
        before, after = metrics["tre_mm"]["before"], metrics["tre_mm"]["after"]
        names = {"mean": "mean", "median": "median", "p95": "95th percentile", "max": "largest"}
        count = f" ({after['count']} landmarks)"
        rows += [
            (
                f"landmark error, {word}{count if key == 'mean' else ''}",
                number(before[key], " mm"),
                number(after[key], " mm"),
            )
            for key, word in names.items()
        ]
    if "dice" in metrics:
        dice = metrics["dice"]
        rows.append(
            (
                f"Dice, mean of {counted(len(dice['after']['labels']), 'label')}",
                number(dice["before"]["mean"]),
                number(dice["after"]["mean"]),
            )
        )
    alike = metrics["similarity"]
    rows.append(("correlation of the images", number(alike["before"]["ncc"]), number(alike["after"]["ncc"])))
    rows.append(
        ("normalised mutual information", number(alike["before"].get("nmi")), number(alike["after"].get("nmi")))
    )
    rows.append(("mean squared difference", number(alike["before"]["mse"]), number(alike["after"]["mse"])))
    folds, sd_log_j = metrics["folding_fraction"], metrics["sd_log_jacobian"]
    rows.append(("folded voxels", NOTHING, percent(folds["all"])))
    if folds.get("in_label") is not None:
        rows.append(("folded voxels in the fixed label", NOTHING, percent(folds["in_label"])))
    rows.append(("SDlogJ", NOTHING, number(sd_log_j["all"])))
    motion = material.motion
    rows.append(("displacement, mean", NOTHING, number(motion.mean_mm, " mm")))
    rows.append(("displacement, largest", NOTHING, number(motion.largest_mm, " mm")))
    rows.append(("fixed grid without moving data", NOTHING, percent(motion.outside)))
    return rows


def label_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the rows of the table of labels.

    Args:
        metrics: the content of metrics.json.

    Returns:
        Label, Dice before and Dice after, as text. Last come the labels that one of the maps lacks; they have no Dice.
    """
    if "dice" not in metrics:
        return []
    before, after = metrics["dice"]["before"]["labels"], metrics["dice"]["after"]["labels"]
    rows = [(label_words(metrics, n), number(before.get(n)), number(score)) for n, score in after.items()]
    absent = metrics["dice"].get("absent", {})
    return rows + [
        (f"{label_words(metrics, n)}, {key.replace('_', ' ')}", ABSENT, ABSENT)
        for key, labels in absent.items()
        for n in labels
    ]


def number(value: float | None, unit: str = "", *, digits: int | None = None) -> str:
    """Write a number and its unit; a dash for what could not be measured.

    Args:
        value: None for what could not be measured.
        unit: with its leading space.
        digits: behind the point; by default 2 with a unit, else 3.
    """
    if value is None:
        return NOTHING
    digits = (2 if unit else 3) if digits is None else digits
    return f"{value:,.0f}{unit}" if abs(value) >= 1000 else f"{value:.{digits}f}{unit}"


def _plots(plots: Mapping[str, bytes], metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    found = []
    if "landmarks.png" in plots:
        tre = metrics["tre_mm"]
        alt = (
            f"Error of each of {tre['after']['count']} landmarks, and the share of landmarks below an error: mean "
            f"{number(tre['before']['mean'], ' mm')} before, {number(tre['after']['mean'], ' mm')} after."
        )
        found.append({"title": "Landmark errors", "uri": data_uri(plots["landmarks.png"], "image/png"), "alt": alt})
    if "losses.png" not in plots:
        return found
    alt = (
        "The terms of the loss at every iteration, weighted, and their sum, by level from coarse to fine. A finer "
        "level sees more detail, so its loss may be higher than the last one's: compare within a level."
    )
    found.append({"title": "Loss by level", "uri": data_uri(plots["losses.png"], "image/png"), "alt": alt})
    return found


def _made(run: Mapping[str, Any], metrics: Mapping[str, Any], paths: Mapping[str, Path]) -> list[tuple[str, str]]:
    rows = [(key, str(path)) for key, path in paths.items()]
    rows += [(f"SHA-256 of {key}", run["inputs"][key]["sha256"]) for key in paths if key in run["inputs"]]
    rows.append(("bundle", str(run["config"].get("bundle_version", NOTHING))))
    rows.append(("seed", str(run["config"].get("seed", NOTHING))))
    rows.append(("versions", ", ".join(f"{name} {told}" for name, told in run["versions"].items())))
    rows += [(word, str(run[key])) for key, word in MADE.items() if key in run]
    seconds, memory = metrics.get("seconds", {}), metrics.get("peak_memory_mib", {}).get("host")
    rows.append(("time", number(seconds.get("total"), " s", digits=1)))
    rows.append(("peak memory", number(memory, " MiB", digits=0)))
    return rows
