"""Tables of numbers: what is counted, what is left out, how it reads."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from ncf.evaluate.tables import PRINTED, cell, flat, markdown, overview, save_summary, statistics, tabulated

NAN = float("nan")
CASES = [
    {"name": "a|b", "tre_mm": {"after": {"mean": 1.0}}, "folds": 0.02, "note": "x", "list": [1]},
    {"name": "c", "tre_mm": {"after": {"mean": 4.0}}, "folds": NAN, "seconds": None},
    {"name": "d", "tre_mm": {"after": {"mean": 1.0}}, "folds": 0.0},
]
COLUMNS = {"TRE mm": "tre_mm.after.mean", "folds %": "folds", "s": "seconds"}


def test_nested_numbers_become_one_level() -> None:
    assert flat(CASES[0]) == {"name": "a|b", "tre_mm.after.mean": 1.0, "folds": 0.02, "note": "x"}


def test_statistics_are_over_what_was_measured() -> None:
    found = statistics([flat(case) for case in CASES])
    assert set(found) == {"tre_mm.after.mean", "folds"}
    assert found["tre_mm.after.mean"] == pytest.approx({"mean": 2.0, "median": 1.0, "std": 2**0.5})
    assert found["folds"] == pytest.approx({"mean": 0.01, "median": 0.01, "std": 0.01})


def test_the_overview_shows_shares_in_percent_and_drops_empty_columns() -> None:
    lines = overview([flat(case) for case in CASES], COLUMNS).splitlines()
    assert lines[:4] == ["| pair | TRE mm | folds % |", "|---|---|---|", "| a/b | 1.000 | 2 |", "| c | 4.000 | - |"]
    assert lines[5:] == ["| **mean** | 2.000 | 1 |", "| **median** | 1.000 | 1 |", "| **std** | 1.414 | 1 |"]
    assert len(overview([flat(CASES[0])], COLUMNS).splitlines()) == 3  # nothing to average


@pytest.mark.parametrize(
    ("number", "text"), [(0.123456, "0.1235"), (12345.6, "12346"), (NAN, "-"), (None, "-"), ("word", "-"), (3, "3")]
)
def test_cells(number: object, text: str) -> None:
    assert cell(number) == text
    assert markdown([["a", "b"], ["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"


@pytest.mark.parametrize(
    ("numbers", "texts"),
    [
        ((0.5, 12.25, None), ["0.50", "12.25", "-"]),
        ((0.0, 0.002296, 0.0), ["0.00000", "0.00230", "0.00000"]),
        ((12345.6, 1.0, -3.0), ["12346", "1", "-3"]),
        ((0.0, 0, NAN), ["0", "0", "-"]),
    ],
)
def test_a_column_has_the_same_digits_in_every_row(numbers: Sequence[object], texts: list[str]) -> None:
    found = tabulated([{"name": str(n), "x": number} for n, number in enumerate(numbers)], {"x": "x"})  # type: ignore[dict-item]
    assert found.columns == ["x"] and [cells[0] for _, cells in found.rows] == texts
    assert [kind for kind, _ in found.statistics] == ["mean", "median", "std"]


def test_three_files_tell_the_same(tmp_path: Path) -> None:
    text = save_summary(tmp_path, "table", CASES, columns=COLUMNS, more={"tre30_mm": 3.25, "failures": ["why"]})
    told = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert told["tre30_mm"] == 3.25 and told["failures"] == ["why"] and told["cases"][1]["folds"] is None
    assert told["summary"]["folds"]["mean"] == pytest.approx(0.01)
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["tre_mm.after.mean"] for row in rows] == ["1.0", "4.0", "1.0"]
    assert (rows[0]["name"], rows[1]["folds"], rows[1]["seconds"], rows[2]["note"]) == ("a|b", "", "", "")
    saved = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert saved.startswith(overview([flat(case) for case in CASES], COLUMNS)) and "tre30 mm: 3.25" in saved
    assert saved.strip() == text.strip()


def test_of_many_pairs_the_statistics_alone_are_printed(tmp_path: Path) -> None:
    cases = [{"name": f"pair_{number}", "error": float(number)} for number in range(PRINTED + 1)]
    printed = save_summary(tmp_path, "table", cases, columns={"error": "error"}, more={})
    assert (
        "pair_7" not in printed
        and f"| {PRINTED + 1} pairs |" in printed
        and f"| **mean** | {PRINTED / 2:.2f} |" in printed
    )
    written = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert all(f"| {case['name']} |" in written for case in cases)
    assert "| pair_7 | 7.00 |" in save_summary(tmp_path, "table", cases[:PRINTED], columns={"error": "error"}, more={})
