"""The page of one result: measurements in words and numbers, and the slices for its script, filled into a template.

Names of files and labels come from users; the template escapes all of them.
"""

from __future__ import annotations

import base64
import gzip
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from ncf.core.names import PICTURES
from ncf.core.words import counted, label_words, percent
from ncf.report.error_bounds import LIMITS, bound_rows
from ncf.report.material import Material, windows
from ncf.report.saved_findings import WARNING, Finding
from ncf.report.scene import Scene
from ncf.report.slices import as_jpeg, data_uri
from ncf.report.tg132_table import tg132_table

TEMPLATES = Path(__file__).parent / "templates"
NIIVUE = Path(__file__).parent / "vendor" / "niivue" / "niivue.umd.js"
NOTHING, ABSENT = "-", "absent"
STILL_QUALITY = 78  # of the JPEGs of the print
CHOICES = {
    "fixed": "Fixed",
    "warped": "Warped",
    "before": "Before",
    "blend": "Blend",
    "swipe": "Swipe",
    "difference": "Difference",
    "checkerboard": "Checkerboard",
    "volume": "Jacobian",
    "trust": "Trust",
}
# the pictures of the print, by what they are called there; the first six that there are
STILLS = {
    "views": ("Scans", "Fixed; moving, before; moving, after. Slate blue: no data."),
    "difference": ("Difference", "Moving minus fixed: blue is darker, red brighter, white equal."),
    "checkerboard": ("Checkerboard", "Fixed and moving in turn; edges run through where the map is right."),
    "contours": ("Labels", "Outlines: fixed in blue, moving in orange."),
    "jacobian": ("Jacobian determinant", "Green grows in the moving scan, violet shrinks, yellow folds."),
    "trust": ("Trust", "Bound of the error (95 %), an estimate: blue is near, yellow far off; see below the numbers."),
    "grid": ("Deformed grid", "A regular grid of the fixed scan, carried by the map; crossing lines are folds."),
    "landmarks": ("Landmark errors", "Every point before and after, in mm."),
    "losses": ("Loss by level", "Compare within a level only."),
}
PRINTED = 6
SERVED_POLICY = "; connect-src 'self'"
MADE = {"device": "device", "threads": "threads", "platform": "platform"}


def environment() -> Environment:
    """Return Jinja with escaping on; a name that a template uses and does not get is an error."""
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def page(
    material: Material,
    *,
    findings: Sequence[Finding],
    plots: Mapping[str, bytes],
    paths: Mapping[str, Path],
    scene: Scene,
) -> str:
    """Return the HTML of a result's report.

    Args:
        material: of the result.
        findings: warnings and notes.
        plots: PNG files by name.
        paths: of the inputs that were read, by key.
        scene: what the viewer shows.
    """
    run, metrics = material.result.run, material.result.metrics
    choices = {key: title for key, title in CHOICES.items() if key != "trust" or "trust" in scene.told["volumes"]}
    return (
        environment()
        .get_template("report.html")
        .render(
            name=material.result.name,
            policy=SERVED_POLICY if scene.served else "",
            scans={key: paths[key].name for key in ("fixed", "moving")},
            findings=findings,
            warnings=sum(finding.level == WARNING for finding in findings),
            verdict=metrics.get("verdict", {}).get("word"),
            pictures=list(choices.items()),
            folder=PICTURES,
            windows=_windows(material),
            numbers=numbers(metrics, material),
            limits=LIMITS if material.bounds else "",
            labels=label_rows(metrics),
            plots=_plots(plots, metrics),
            tg132=tg132_table(material.result.tg132),
            stills=_stills(plots),
            command=run.get("command", "not recorded by the version that made it"),
            made=_made(run, metrics, paths),
            scene=scene.told,
            niivue=viewer_code(),
        )
    )


def viewer_code() -> str:
    """Return NiiVue for the page: gzip, base64; the same bytes every time."""
    return base64.b64encode(gzip.compress(NIIVUE.read_bytes(), mtime=0)).decode()


def _stills(plots: Mapping[str, bytes]) -> list[dict[str, str]]:
    """Return the pictures of the print as JPEG."""
    found: list[dict[str, str]] = []
    for name, (title, text) in STILLS.items():
        if f"{name}.png" in plots and len(found) < PRINTED:
            pixels = np.asarray(Image.open(io.BytesIO(plots[f"{name}.png"])).convert("RGB"))
            found.append({"title": title, "text": text, "uri": data_uri(as_jpeg(pixels, STILL_QUALITY), "image/jpeg")})
    return found


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
    told = bound_rows(material.result.trust if material.bounds else None)
    return rows + [(words, NOTHING, number(value, " mm")) for words, value in told]


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
