"""The report of a series: film, curves, and a table that leads to the report of every phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ncf.cohort.plan import COMMAND, DONE, Plan, failures
from ncf.core.files import load_json, write_whole
from ncf.core.names import DOUBTFUL, REPORT_FILE
from ncf.report.made import made_rows
from ncf.report.page import NOTHING, environment, number
from ncf.report.saved_findings import saved_warnings
from ncf.report.slices import data_uri
from ncf.result.folder import SavedResult
from ncf.series.curves import curves, label_title
from ncf.series.facts import FIXED, PhaseFacts, SeriesFacts
from ncf.series.film import Frame, frames_of, save_film
from ncf.series.names import CURVES_FILE, FILM_FILE, LABELS_FOLDER, PATHS_FILE, SERIES_REPORT, SERIES_TABLE
from ncf.series.scans import SAME_FIXED

COLUMNS = {
    "TRE before mm": "tre_before_mm",
    "TRE mm": "tre_mm",
    "Dice before": "dice_before",
    "Dice": "dice",
    "correlation before": "correlation_before",
    "correlation": "correlation",
    "folds %": "folds_percent",
    "mean displacement mm": "mean_displacement_mm",
    "largest displacement mm": "max_displacement_mm",
    "bound mm": "bound_mm",
    "bound p95 mm": "bound_p95_mm",
    "time s": "seconds",
}
DIGITS = {"seconds": 1, **{key: 2 for key in COLUMNS.values() if key.endswith("_mm")}}  # of others 3


def make_series_report(plan: Plan, facts: SeriesFacts) -> None:
    """Write report.html, curves.png and film.gif of a series; the same results give the same bytes.

    Args:
        plan: of the series.
        facts: what is known of it.
    """
    frames, drawn = frames_of(plan, facts), curves(facts.phases)
    save_film(plan.output_dir / FILM_FILE, frames)
    write_whole(plan.output_dir / CURVES_FILE, lambda temporary: temporary.write_bytes(drawn))
    page = _page(plan, facts, frames=frames, drawn=drawn)
    write_whole(plan.output_dir / SERIES_REPORT, lambda temporary: temporary.write_bytes(page.encode()))


def _page(plan: Plan, facts: SeriesFacts, *, frames: Sequence[Frame], drawn: bytes) -> str:
    """Return the HTML of the report."""
    shown = {title: key for title, key in COLUMNS.items() if any(key in phase.numbers for phase in facts.phases)}
    rows = [_row(plan, phase, list(shown.values())) for phase in facts.phases if phase.name != FIXED]
    done = {row["name"] for row in rows}
    lost = [(failure["name"], failure["reason"]) for failure in failures(plan)]
    kept = load_json(plan.output_dir / plan.kept_in)
    more = [(PATHS_FILE, facts.phases[0].moved_mm is not None), (f"{LABELS_FOLDER}/", facts.label is not None)]
    return (
        environment()
        .get_template("series.html")
        .render(
            name=plan.output_dir.name,
            fixed=plan.pairs[0]["fixed"],
            count=len(plan.pairs),
            rows=rows,
            columns=list(shown),
            volumes=_volumes(facts.phases),
            timed=any(phase.time_s is not None for phase in facts.phases),
            failures=lost,
            open=[p["name"] for p in plan.pairs if p["name"] not in done and p["name"] not in dict(lost)],
            doubtful=DOUBTFUL,
            frames=[{"name": frame.name, "uri": data_uri(frame.jpeg(), "image/jpeg")} for frame in frames],
            curves=data_uri(drawn, "image/png"),
            files=[SERIES_TABLE, FILM_FILE, CURVES_FILE, *(file for file, there in more if there)],
            command=kept.get(COMMAND),
            made=_made(plan, kept["settings"]),
        )
    )


def _volumes(phases: Sequence[PhaseFacts]) -> list[tuple[str, list[str]]]:
    """Return each label with its volumes in ml, in the order of the phases."""
    labels = dict.fromkeys(label for phase in phases for label in phase.volumes_ml)
    return [(label_title(label), [_ml(phase.volumes_ml.get(label)) for phase in phases]) for label in labels]


def _ml(volume: float | None) -> str:
    return NOTHING if volume is None else f"{volume:,.1f}"


def _made(plan: Plan, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return how a series was made: its scans, files beside them, and settings."""
    first = plan.pairs[0]
    rows = [(key.replace("_", " "), first[key]) for key in SAME_FIXED if key in first]
    rows += [(pair["name"], pair["moving"]) for pair in plan.pairs]
    rows += [("points", str(plan.more["points"]))] if plan.more.get("points") else []
    return rows + made_rows(settings)


def _row(plan: Plan, phase: PhaseFacts, keys: Sequence[str]) -> dict[str, object]:
    """Return a row of the table."""
    folder = plan.output_dir / phase.name
    verdict = SavedResult(folder).metrics.get("verdict", {}) if plan.state({"name": phase.name}) == DONE else {}
    cells = [number(phase.numbers.get(key), digits=DIGITS.get(key, 3)) for key in keys]
    return {
        "name": phase.name,
        "link": f"{phase.name}/{REPORT_FILE}" if (folder / REPORT_FILE).exists() else None,
        "time": number(phase.time_s, " s"),
        "told": plan.more["told"].get(phase.name, ""),
        "begun_from": phase.begun_from or "afresh",
        "verdict": phase.verdict,
        "reasons": list(verdict.get("reasons", [])),
        "warnings": saved_warnings(folder),
        "remark": phase.remark,
        "cells": cells,
    }
