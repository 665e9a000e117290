"""The table of verdicts: which pairs it has, and what it counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from benchmarks import verdicts
from ncf.phantom.chest import breathing_thorax, write

LINES = [
    {"kind": "right", "name": "a", "word": "good"},
    {"kind": "right", "name": "b", "word": "doubtful"},
    {"kind": "other organ", "name": "c", "word": "refused"},
]


def test_every_kind_has_its_row() -> None:
    rows = verdicts.verdict_table(LINES).splitlines()
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in (rows[0], *rows[2:])] == [
        ["pairs", "good", "doubtful", "refused"],
        ["right (2)", "1", "1", "0"],
        ["other organ (1)", "0", "0", "1"],
    ]


def test_wrong_pairs_are_many_and_none_is_there_twice() -> None:
    cases = list(verdicts.cases())
    counts = Counter(case.kind for case in cases)
    assert len({(case.kind, case.name) for case in cases}) == len(cases)
    assert counts["other organ"] >= 40 and counts["right"] >= 20 and counts["label map"] and counts["other region"]


@pytest.mark.slow
def test_a_pair_gets_its_word_and_a_wrong_one_none(tmp_path: Path) -> None:
    files = write(breathing_thorax((40, 36, 38), seed=0), tmp_path)
    scans = {key: Path(files[key]) for key in ("fixed", "moving")}
    label = {"fixed": scans["fixed"], "moving": Path(files["moving_label"])}
    words = [
        verdicts.verdict_of(verdicts.Case("x", "x", lambda place, of=of: of), tmp_path / "case", threads=1)
        for of in (scans, label, {**scans, "moving": tmp_path / "missing.nii.gz"})
    ]
    assert [word["word"] for word in words[1:]] == ["doubtful", "refused"] and words[0]["word"] == "good"
    assert "missing.nii.gz" in words[2]["reasons"][0] and not (tmp_path / "case").exists()
