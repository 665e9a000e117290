"""The rows of task group 132 as the page shows them: one line a test, and all rows with what failed first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from ncf.evaluate.tg132 import CONSISTENCY, CONSISTENCY_COMMAND, DICE_ROW, FAIL, JACOBIAN, MDA, NOT_MEASURED, PASS, TRE

MOST_ROWS = 12  # more are folded up below a line for each test
ORDER = (FAIL, NOT_MEASURED, PASS)
# by which number of a test one row is worse than another, and whether a larger one is
WORSE = {TRE: ("mean", True), MDA: ("mda_mm", True), DICE_ROW: ("dice", False)}
WORSE |= {JACOBIAN: ("min", False), CONSISTENCY: ("mean", True)}


def tg132_table(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what the page shows of a result by task group 132.

    Args:
        found: what `ncf.evaluate.tg132.judged_by_tg132` returns; None for a result without it.

    Returns:
        ``counts``; ``rows``, failed ones first; and ``tests``, the worst row of each test with the results of all
        rows of that test, empty where there are at most `MOST_ROWS` rows.
    """
    if found is None:
        return None
    rows = sorted(found["rows"], key=lambda row: row["result"] != FAIL)
    return {
        "counts": found["counts"],
        "rows": [_shown(row) for row in rows],
        "tests": list(_tests(found["rows"])) if len(rows) > MOST_ROWS else [],
    }


def _tests(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a line for each test."""
    for _, same in groupby(rows, key=lambda row: row["test"]):
        own = list(same)
        if len(own) == 1:
            yield _shown(own[0])
            continue
        results = [row["result"] for row in own]
        worst = min(own, key=_passes)
        line = _shown(worst)
        told = [(f"{results.count(word)} {word}", word == FAIL) for word in ORDER if word in results]
        yield {**line, "structure": f"{line['structure']}, the worst of {len(own)}", "results": told}


def _passes(row: Mapping[str, Any]) -> float:
    """Return how well a row does among those of its test; the least of all for one without a number."""
    key, larger = WORSE[row["test"]]
    value = row["measured"].get(key)
    if value is None:
        return float("-inf")
    return -value if larger else value


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row, with the command apart that its words end with."""
    told, command = row["told"], ""
    if told.endswith(CONSISTENCY_COMMAND):
        told, command = told.removesuffix(CONSISTENCY_COMMAND), CONSISTENCY_COMMAND
    return {
        "test": row["test"],
        "structure": row["structure"] or "all",
        "told": told,
        "command": command,
        "limit": row["limit"],
        "results": [(row["result"], row["result"] == FAIL)],
    }
