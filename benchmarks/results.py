"""From the lines of runs.jsonl to numbers to show: columns, means over seeds and groups, limits, contests with peers.

It reads no file except runs.jsonl itself, and makes no words: `benchmarks.table` and `benchmarks.plot` make those.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pairs import Contest, Pair

Line = Mapping[str, Any]
Key = tuple[str, str, int | None, int]

JUDGED = "ours"  # the method that limits and contests are for: our default
LARGER_IS_BETTER = ("Dice",)
COLUMNS: dict[str, tuple[tuple[str, ...], float]] = {  # where a column stands in a line, and its factor
    "TRE mm": (("tre_mm", "mean"), 1),
    "median mm": (("tre_mm", "median"), 1),
    "p95 mm": (("tre_mm", "p95"), 1),
    "max mm": (("tre_mm", "max"), 1),
    "TRE voxel": (("tre_voxel",), 1),
    "Dice": (("dice", "mean"), 1),
    "folds %": (("folding_fraction", "all"), 100),
    "folds in label %": (("folding_fraction", "in_label"), 100),
    "SDlogJ": (("sd_log_jacobian", "all"), 1),
    "s": (("seconds", "whole"), 1),
    "MiB": (("peak_mib",), 1),
    "MiB above": (("above_mib",), 1),
}
OF = " of "  # "p95 mm of wall" is the column "p95 mm" of the landmarks called wall
OF_A_SET = {"TRE mm": "mean", "median mm": "median", "p95 mm": "p95", "max mm": "max"}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of runs.jsonl, of each run the latest; a last line that was cut short is left out."""
    latest: dict[Key, dict[str, Any]] = {}
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue  # the process ended while it wrote this line; the run is done again
        latest.pop(key(line), None)
        latest[key(line)] = line
    return list(latest.values())


def key(line: Line) -> Key:
    """Return what makes two lines the same run."""
    return line["pair"], line["method"], line["seed"], line["threads"]


def value(line: Line, column: str) -> float:
    """Return the number of a column; nan where it was not measured.

    Args:
        line: of runs.jsonl.
        column: a key of `COLUMNS`, or one of `OF_A_SET`, `OF` and the name of a set of landmarks.
    """
    number, of, landmarks = column.partition(OF)
    path, factor = (("tre_mm_of", landmarks, OF_A_SET[number]), 1.0) if of else COLUMNS[column]
    found: Any = line
    for entry in path:
        found = found.get(entry) if isinstance(found, Mapping) else None
    return math.nan if found is None else factor * float(found)


def landmark_sets(lines: Iterable[Line]) -> list[str]:
    """Return the names of the sets of landmarks, in the order of their first line.

    Args:
        lines: of runs.jsonl.
    """
    return list(dict.fromkeys(name for line in lines for name in line.get("tre_mm_of") or {}))


def mean(lines: Iterable[Line], column: str) -> float:
    """Return the mean over the lines that are done; nan where none of them has the column.

    Args:
        lines: of runs.jsonl.
        column: a key of `COLUMNS`.
    """
    values = [value(line, column) for line in lines if line["status"] == "done"]
    values = [number for number in values if not math.isnan(number)]
    return sum(values) / len(values) if values else math.nan


def beyond(column: str, number: float, limits: Mapping[str, float]) -> bool:
    """Tell whether a number misses its limit.

    Args:
        column: of the number.
        number: nan where it is missing; that misses every limit.
        limits: by column.

    Returns:
        False where there is no limit.
    """
    if column not in limits:
        return False
    return not (number >= limits[column] if column in LARGER_IS_BETTER else number <= limits[column])


def missed_limits(lines: Iterable[Line], pairs: Sequence[Pair]) -> list[str]:
    """Say which limits our default misses: one sentence for each number, and for each of its runs that failed.

    Args:
        lines: of runs.jsonl.
        pairs: with their limits.
    """
    limits = {pair.name: pair.limits for pair in pairs}
    found = []
    for line in lines:
        if line["method"] != JUDGED:
            continue
        run = line["pair"] + (f", seed {line['seed']}" if line["seed"] else "")
        if line["status"] != "done":
            found.append(f"{run}: {line['status']}, {line['reason']}")
            continue
        for column, limit in limits.get(line["pair"], {}).items():
            if beyond(column, value(line, column), {column: limit}):
                found.append(f"{run}: {column} is {value(line, column):.4g}, asked is {limit:g}")
    return found


def contests(pairs: Sequence[Pair]) -> dict[str, list[Contest]]:
    """Return the contests of each group."""
    found: dict[str, list[Contest]] = {}
    for pair in pairs:
        listed = found.setdefault(pair.group or pair.name, [])
        listed.extend(contest for contest in pair.contests if contest not in listed)
    return found


def contest_lost(contest: Contest, lines: Sequence[Line]) -> bool | None:
    """Tell whether our mean over a group's lines misses what it must reach against a peer's.

    Only pairs that both have are compared.

    Args:
        contest: what is compared.
        lines: of the group.

    Returns:
        None where either mean is missing.
    """
    mine, theirs = shared(lines, JUDGED, contest.peer)
    our, other = mean(mine, contest.column), mean(theirs, contest.column)
    if math.isnan(our) or math.isnan(other):
        return None
    return our <= contest.factor * other if contest.column in LARGER_IS_BETTER else our > contest.factor * other


def shared(lines: Sequence[Line], first: str, second: str) -> tuple[list[Line], list[Line]]:
    """Return the lines of two methods that are done, on the pairs that both have done.

    Args:
        lines: of runs.jsonl.
        first: a method.
        second: another.
    """
    done = {m: [x for x in lines if x["method"] == m and x["status"] == "done"] for m in (first, second)}
    both = {x["pair"] for x in done[first]} & {x["pair"] for x in done[second]}
    return [x for x in done[first] if x["pair"] in both], [x for x in done[second] if x["pair"] in both]


def lost_contests(lines: Sequence[Line], pairs: Sequence[Pair]) -> list[str]:
    """Say which contests our default loses: one sentence for each.

    Args:
        lines: of runs.jsonl.
        pairs: with their contests.
    """
    found = []
    for group, listed in contests(pairs).items():
        here = [line for line in lines if line["group"] == group]
        for contest in listed:
            if contest_lost(contest, here):
                mine, theirs = shared(here, JUDGED, contest.peer)
                numbers = f"{mean(mine, contest.column):.4g} against {mean(theirs, contest.column):.4g}"
                found.append(f"{group}: {contest.column} is {numbers} of {contest.peer}, asked is {wish(contest)}")
    return found


def wish(contest: Contest) -> str:
    """Say what a contest asks for."""
    return "above it" if contest.column in LARGER_IS_BETTER else f"at most {contest.factor:g} times it"


def ordered(lines: Iterable[Line], what: str) -> list[str]:
    """Return the different values of an entry, in the order of their first line.

    Args:
        lines: of runs.jsonl.
        what: the entry.
    """
    return list(dict.fromkeys(line[what] for line in lines))
