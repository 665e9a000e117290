"""What the benchmark prints: which number misses which limit, and that pairs without files are left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.pairs import PAIRS, Pair
from benchmarks.run import COLUMNS, beyond, main, table

RUN = {"pair": "p", "seed": 3, **dict.fromkeys(COLUMNS, 0.5)}


@pytest.mark.parametrize(
    ("column", "value", "missed"),
    [("TRE mm", 0.4, False), ("TRE mm", 0.6, True), ("Dice", 0.6, False), ("Dice", 0.4, True), ("s", 1e9, False)],
)
def test_a_limit_is_missed_from_its_own_side(column: str, value: float, missed: bool) -> None:
    assert beyond(column, value, {"TRE mm": 0.5, "Dice": 0.5}) is missed


def test_the_table_marks_what_misses_its_limit() -> None:
    lines = table([RUN], {"p": {"TRE mm": 0.25}}).splitlines()
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|") == len(COLUMNS) + 3
    assert lines[2].startswith("| p | 3 | 0.5 | **0.5** (0.25) | 0.5 |")


def test_every_limit_names_a_column() -> None:
    assert {column for pair in PAIRS for column in pair.limits} <= set(COLUMNS)
    assert {pair.name for pair in PAIRS} >= {"phantom", "lung_ct_real"}


def test_a_pair_without_its_files_says_so() -> None:
    assert Pair("p", {"fixed": Path("nowhere.nii.gz")}).missing == [Path("nowhere.nii.gz")]


def test_an_unknown_pair_is_one_line() -> None:
    with pytest.raises(SystemExit, match="error: no pair nothing; there are: phantom"):
        main(pairs="nothing")
