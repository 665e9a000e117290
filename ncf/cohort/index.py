"""The index page of a cohort: a sortable table of numbers with links to each report, failures, and the box plots.

It is made from the output folder alone: cohort.json says which pairs there are, each folder how its pair went.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ncf.cohort.collect import COLUMNS, FEWEST_BOXED, PANELS, PICTURE, STEM, numbers_of, outliers
from ncf.cohort.plan import COHORT_FILE, COMMAND, FAILURE_FILE
from ncf.core.files import encoded, load_json, write_whole
from ncf.core.names import GOOD, INDEX_FILE, METRICS_FILE, PICTURES, REPORT_FILE
from ncf.evaluate.tables import Flat, flat, known, tabulated
from ncf.report.made import made_rows
from ncf.report.page import environment
from ncf.report.saved_findings import saved_warnings
from ncf.report.slices import as_jpeg, data_uri
from ncf.result.folder import SavedResult

THUMBNAIL_OF, THUMBNAIL_PIXELS, THUMBNAIL_QUALITY = "checkerboard.png", 190, 60
TABLES = (
    f"{STEM}.csv",
    f"{STEM}.json",
    f"{STEM}.md",
    "failures.csv",
    "evaluation.csv",
    "evaluation.json",
    "evaluation.md",
)


def is_cohort(folder: Path) -> bool:
    """Tell whether ``ncf cohort`` wrote into this folder."""
    return (folder / COHORT_FILE).exists()


def make_index(folder: str | Path) -> Path:
    """Write index.html from the files in a cohort's folder; the same files give the same bytes.

    Args:
        folder: of the cohort.

    Returns:
        The path of index.html.
    """
    folder = Path(folder)
    told = load_json(folder / COHORT_FILE)
    names = [str(pair["name"]) for pair in told["pairs"]]
    complete = [name for name in names if (folder / name / METRICS_FILE).exists()]
    done = {name: {**flat(numbers_of(SavedResult(folder / name))), "name": name} for name in complete}
    failed = {
        n: load_json(folder / n / FAILURE_FILE) for n in names if n not in done and (folder / n / FAILURE_FILE).exists()
    }
    table = tabulated(list(done.values()), COLUMNS)
    keys = [COLUMNS[title] for title in table.columns]
    picture = folder / PICTURE
    text = (
        environment()
        .get_template("index.html")
        .render(
            name=folder.name,
            columns=table.columns,
            rows=[_row(row, done[row[0]], keys=keys, folder=folder) for row in table.rows],
            far_out=_far_out(done, folder),
            summary=table.statistics,
            failures=[(name, str(record.get("reason", ""))) for name, record in failed.items()],
            open=[name for name in names if name not in done and name not in failed],
            count=len(names),
            picture=data_uri(picture.read_bytes(), "image/png") if done and picture.exists() else None,
            tables=[name for name in TABLES if (folder / name).exists()],
            command=told.get(COMMAND),
            settings=made_rows(told["settings"]),
        )
    )
    write_whole(folder / INDEX_FILE, lambda temporary: temporary.write_bytes(encoded(text)))
    return folder / INDEX_FILE


def _far_out(done: Mapping[str, Flat], folder: Path) -> list[tuple[str, list[tuple[str, str | None, str]]]]:
    """Return, for each number after registration, the pairs that lie far out: name, link and value."""
    found = []
    for title, (_, after) in PANELS.items():
        values = {}
        for name, numbers in done.items():
            value = numbers.get(after)
            if isinstance(value, (int, float)) and known([value]):
                values[name] = float(value)
        far = [
            (name, f"{name}/{REPORT_FILE}" if (folder / name / REPORT_FILE).exists() else None, f"{values[name]:.3g}")
            for name in (outliers(values) if len(values) >= FEWEST_BOXED else [])
        ]
        found += [(title, far)] if far else []
    return found


def _thumbnail(path: Path) -> str | None:
    """Return a small copy of a picture as a data URI; None where it is not there."""
    if not path.exists():
        return None
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    return data_uri(as_jpeg(np.asarray(small), THUMBNAIL_QUALITY), "image/jpeg")


def _sorted_by(value: float | str | None) -> str:
    """Return the number by which a cell is sorted; of the verdicts, good comes first."""
    if isinstance(value, str):
        return "0" if value == GOOD else "1"
    return repr(float(value)) if value is not None and known([value]) else ""


def _row(row: tuple[str, list[str]], numbers: Flat, *, keys: Iterable[str], folder: Path) -> dict[str, Any]:
    """Return name, link and cells of a pair, each cell with the value that it is sorted by."""
    name, shown = row
    values = map(numbers.get, keys)
    sorted_by = [_sorted_by(value) for value in values]
    reported = (folder / name / REPORT_FILE).exists()
    return {
        "name": name,
        "link": f"{name}/{REPORT_FILE}" if reported else None,
        "thumbnail": _thumbnail(folder / name / PICTURES / THUMBNAIL_OF),
        "warnings": saved_warnings(folder / name),
        "cells": list(zip(shown, sorted_by, strict=True)),
    }
