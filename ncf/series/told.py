"""What is told of a whole series: its table, paths of points, labels on every phase, the report, and a few lines."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ncf.cohort.plan import DONE, Plan, failures
from ncf.core.files import write_whole
from ncf.core.words import counted
from ncf.series.facts import FIXED, NUMBERS, PhaseFacts, series_facts
from ncf.series.names import SERIES_TABLE


def tell_series(plan: Plan) -> list[str]:
    """Write series.tsv, paths.csv, the labels on every phase, and the report.

    Args:
        plan: of `ncf.series.run.plan_of`.

    Returns:
        Lines for a person: a table of the phases, and what their starts were.
    """
    if not any(plan.state(pair) == DONE for pair in plan.pairs):
        return []
    facts = series_facts(plan)
    columns = list(dict.fromkeys(label for phase in facts.phases for label in phase.volumes_ml))
    _save_table(plan, facts.phases, columns)
    if plan.reports:
        from ncf.series.page import make_series_report

        make_series_report(plan, facts)
    lines = [_line(phase) for phase in facts.phases if phase.name != FIXED]
    return lines + [phase.remark for phase in facts.phases if phase.remark]


def _line(phase: PhaseFacts) -> str:
    """Return a phase in one line."""
    words = [phase.name, phase.verdict or "no verdict"]
    if "tre_mm" in phase.numbers:
        words.append(f"landmarks {phase.numbers['tre_before_mm']:.2f} -> {phase.numbers['tre_mm']:.2f} mm")
    if "dice" in phase.numbers:
        words.append(f"Dice {phase.numbers['dice_before']:.3f} -> {phase.numbers['dice']:.3f}")
    words.append(f"moves {phase.numbers['mean_displacement_mm']:.1f} mm on average")
    if "bound_mm" in phase.numbers:
        words.append(f"error bound {phase.numbers['bound_mm']:.1f} mm (95 %, in half of the body)")
    if phase.moved_mm is not None:
        words.append(f"{counted(len(phase.moved_mm), 'point')} {phase.moved_mm.mean():.1f} mm")
    words.append(f"from {phase.begun_from}" if phase.begun_from else "afresh")
    return ", ".join([*words, f"{phase.numbers['seconds']:.1f} s"])


def _save_table(plan: Plan, phases: Sequence[PhaseFacts], labels: Sequence[str]) -> None:
    """Write series.tsv: a row for the fixed scan and each phase, also for those that failed."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    volumes = [f"volume_ml:{label}" for label in labels]
    writer.writerow(["phase", "time_s", "told", "begun_from", "verdict", *NUMBERS, *volumes])
    by_name = {phase.name: phase for phase in phases}
    lost = {failure["name"] for failure in failures(plan)}
    for name in [FIXED, *(pair["name"] for pair in plan.pairs)]:
        phase = by_name.get(name, PhaseFacts(name, verdict="failed" if name in lost else "open"))
        cells = [_shown(phase.numbers.get(number)) for number in NUMBERS]
        cells += [_shown(phase.volumes_ml.get(label)) for label in labels]
        told = plan.more["told"].get(name, "")
        writer.writerow([name, _shown(phase.time_s), told, phase.begun_from, phase.verdict, *cells])
    path = Path(plan.output_dir) / SERIES_TABLE
    write_whole(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8", newline=""))


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
