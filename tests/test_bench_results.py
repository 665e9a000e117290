"""What the benchmark concludes from its lines: limits, contests, means, ratios, deviations, and its files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results as r
from benchmarks import table
from benchmarks.pairs import PAIRS, Contest, Pair
from benchmarks.plot import place_labels, points

CONTESTS = (Contest("s", "elastix", 0.5), Contest("Dice", "syn"))
PAIR = Pair("p", limits={"TRE mm": 0.5, "Dice": 0.9}, contests=CONTESTS)


def line(method: str = "ours", pair: str = "p", seed: int | None = 0, **changes: Any) -> dict[str, Any]:
    """A line of runs.jsonl: TRE 0.4 mm, Dice 0.95, no folds, 10 s, 100 MiB, unless told otherwise."""
    done = {
        "pair": pair,
        "group": pair,
        "method": method,
        "preset": "default",
        "seed": seed if method.startswith("ours") else None,
        "threads": 2,
        "date": "2026-01-02T03:04:05+00:00",
        "machine": "Linux",
        "commit": "abc1234",
        "status": "done",
        "version": "1.2",
        "device": "cpu",
        "tre_mm": {"mean": 0.4, "median": 0.3, "p95": 0.8},
        "dice": {"mean": 0.95, "labels": {"1": 0.96, "2": 0.94}},
        "folding_fraction": {"all": 0.0, "in_label": 0.0},
        "seconds": {"whole": 10.0, "fitting": 8.0},
        "peak_mib": 100.0,
    }
    return {**done, **changes}


def write(folder: Path, *lines: dict[str, Any]) -> Path:
    (folder / "runs.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("column", "number", "missed"),
    [
        ("TRE mm", 0.4, False),
        ("TRE mm", 0.5, False),
        ("TRE mm", 0.6, True),
        ("TRE mm", math.nan, True),
        ("Dice", 0.95, False),
        ("Dice", 0.85, True),
        ("s", 1e9, False),
    ],
)
def test_a_limit_is_missed_from_its_own_side(column: str, number: float, missed: bool) -> None:
    assert r.beyond(column, number, PAIR.limits) is missed


def test_limits_are_for_every_run_of_our_default_alone() -> None:
    bad: dict[str, Any] = {"tre_mm": {"mean": 0.61}}
    lines = [line(), line(seed=3, **bad), line("ours-fast", **bad), line("elastix", **bad)]
    assert r.missed_limits(lines, [PAIR]) == ["p, seed 3: TRE mm is 0.61, asked is 0.5"]
    assert r.missed_limits([line(status="failed", reason="no memory")], [PAIR]) == ["p: failed, no memory"]


@pytest.mark.parametrize(
    ("contest", "theirs", "lost"),
    [
        (CONTESTS[0], {"seconds": {"whole": 20.0}}, False),
        (CONTESTS[0], {"seconds": {"whole": 19.0}}, True),
        (CONTESTS[1], {"dice": {"mean": 0.949}}, False),
        (CONTESTS[1], {"dice": {"mean": 0.95}}, True),
        (CONTESTS[1], {"dice": None}, None),
    ],
)
def test_a_contest_is_against_a_peer_of_the_same_run(
    contest: Contest, theirs: dict[str, Any], lost: bool | None
) -> None:
    assert r.contest_lost(contest, [line(), line(contest.peer, **theirs)]) is lost
    assert r.contest_lost(contest, [line()]) is None


def test_a_group_is_judged_by_its_mean_over_the_pairs_that_both_have() -> None:
    ours = [line(pair=p, group="g", dice={"mean": d}) for p, d in (("a", 0.9), ("b", 0.8), ("c", 0.1))]
    theirs = [line("syn", p, group="g", dice={"mean": d}) for p, d in (("a", 0.7), ("b", 0.95))]
    lines = [*ours, *theirs, line("syn", "c", group="g", status="failed", reason="")]
    mine, other = r.shared(lines, "ours", "syn")
    assert (r.mean(mine, "Dice"), r.mean(other, "Dice")) == (pytest.approx(0.85), pytest.approx(0.825))
    pairs = [Pair(name, contests=CONTESTS, group="g") for name in "abc"]
    assert r.lost_contests(lines, pairs) == []
    assert r.lost_contests([*lines, line("elastix", "a", group="g", seconds={"whole": 15.0})], pairs) == [
        "g: s is 10 against 15 of elastix, asked is at most 0.5 times it"
    ]


def test_the_last_line_of_a_run_counts_and_a_torn_one_does_not(tmp_path: Path) -> None:
    failed = line("syn", status="failed", reason="killed")
    path = write(tmp_path, failed, line(), line("syn")) / "runs.jsonl"
    with path.open("a") as file:
        file.write('{"pair": "p", "meth')
    assert [(entry["method"], entry["status"]) for entry in r.read_lines(path)] == [("ours", "done"), ("syn", "done")]
    assert r.read_lines(tmp_path / "nothing.jsonl") == []


def test_the_table_marks_what_misses_its_limit() -> None:
    text = table.main_table([line(tre_mm={"mean": 0.61}), line("syn", tre_mm={"mean": 0.7})], [PAIR])
    head, rule, ours, syn = text.splitlines()
    assert head.count("|") == rule.count("|") == ours.count("|") == syn.count("|")
    assert ours.startswith("| p | ours | cpu | **0.61** (0.5) | 0.95 |")
    assert syn.startswith("| p | syn | cpu | 0.7 | 0.95 |")
    assert "TRE voxel" not in head  # nobody measured it


def test_ratios_are_ours_over_theirs() -> None:
    slow: dict[str, Any] = {
        "seconds": {"whole": 16.0},
        "peak_mib": 400.0,
        "tre_mm": {"mean": 0.5, "p95": 0.8},
        "dice": {"mean": 0.9},
    }
    text = table.ratio_table(
        [line(), line(seed=1, seconds={"whole": 6.0}), line("elastix", **slow), line("none")], [PAIR]
    )
    assert "| p | elastix | 1 | 0.50 | 0.25 | 0.80 | 1.00 | +0.0500 | s: at most 0.5 times it |" in text
    assert table.ratio_table([line()], [PAIR]) == ""
    lost = table.ratio_table([line(), line("elastix", seconds={"whole": 12.0})], [PAIR])
    assert "**s: at most 0.5 times it**" in lost


def test_the_spread_counts_seeds_and_failures() -> None:
    lines = [line(seed=s, tre_mm={"mean": t}) for s, t in enumerate((0.3, 0.4, 0.8))]
    lines.append(line(seed=3, status="failed", reason="exit status 1", tre_mm=None, seconds=None, dice=None))
    row = table.spread_table(lines, [PAIR]).splitlines()[2]
    assert row.startswith("| p | ours | 4 | 0.5 (0.3 to 0.8) | 0.95 (0.95 to 0.95) |")
    assert row.endswith("| 2 |")
    assert table.spread_table([line(), line("syn")], [PAIR]) == ""


def test_everything_is_made_again_from_the_lines_alone(tmp_path: Path) -> None:
    absent = line("fireants", status="left out", reason="FireANTs needs a CUDA device")
    others = [
        line("none", seconds=None),
        line("elastix", seconds={"whole": 30.0}),
        line("syn", dice={"mean": 0.9, "labels": {}}),
    ]
    missed = table.make(write(tmp_path, line(), *others, absent), [PAIR])
    text = (tmp_path / "table.md").read_text()
    assert missed == []
    assert "- fireants, left out: FireANTs needs a CUDA device (p)" in text
    assert "2026-01-02; Linux; 2 threads; commit abc1234" in text
    assert "| ours | 0.96 | 0.94 |" in text
    assert (tmp_path / "accuracy_time.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="error: no runs in"):
        table.make(tmp_path / "nowhere")


def test_the_plot_shows_error_or_what_dice_lacks() -> None:
    assert points([line(), line("none", seconds=None)]) == ("TRE (mm)", {"ours": (10.0, 0.4)})
    title, found = points([line(tre_mm=None)])
    assert (title, found["ours"]) == ("1 - Dice", (10.0, pytest.approx(0.05)))


def test_sets_of_landmarks_have_a_table_and_limits_of_their_own() -> None:
    pair = Pair("p", limits={"TRE mm of wall": 1.0, "max mm of wall": 5.0})
    sets = {name: {"mean": m, "median": m, "p95": m, "max": 4 * m} for name, m in {"liver": 0.5, "wall": 1.5}.items()}
    lines = [line(tre_mm_of=sets), line("syn", tre_mm_of=sets)]
    assert r.missed_limits(lines, [pair]) == [
        "p: TRE mm of wall is 1.5, asked is 1",
        "p: max mm of wall is 6, asked is 5",
    ]
    text = table.markdown(lines, [pair])
    assert "## By set of landmarks" in text and "TRE mm of liver" in text
    assert "| **1.5** (1) |" in text and "| **6** (5) |" in text
    assert "By set of landmarks" not in table.markdown([line()], [pair])


def test_labels_of_close_markers_do_not_cover_each_other() -> None:
    places = {"first": (100.0, 100.0), "second": (103.0, 104.0), "third": (101.0, 96.0)}
    middles = [(places[k][0] + dx, places[k][1] + dy) for k, (dx, dy) in place_labels(places).items()]
    apart = [(abs(a[0] - b[0]), abs(a[1] - b[1])) for a in middles for b in middles if a is not b]
    assert all(x > 20 or y > 8 for x, y in apart)  # points: the text is 8 high


def test_every_limit_and_contest_names_a_column() -> None:
    for pair in PAIRS:
        sets = [key.removeprefix("landmarks_") for key in pair.files if key.startswith("landmarks_")]
        assert set(pair.limits) <= {*r.COLUMNS, *(f"{number}{r.OF}{name}" for number in r.OF_A_SET for name in sets)}
    assert {contest.column for pair in PAIRS for contest in pair.contests} <= set(r.COLUMNS)
    assert {pair.name for pair in PAIRS} >= {"phantom", "lung_ct_real", "brain_mr"}
    assert sum(pair.group == "head_neck" for pair in PAIRS) == 12
