"""From runs.jsonl to table.md and accuracy_time.png, at any time, without a run.

``python -m benchmarks.table OUTPUT_DIR``
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import fire

from benchmarks.pairs import PAIRS, Contest, Pair
from benchmarks.plot import draw
from benchmarks.results import (
    COLUMNS,
    JUDGED,
    OF,
    OF_A_SET,
    Line,
    beyond,
    contest_lost,
    contests,
    landmark_sets,
    lost_contests,
    mean,
    missed_limits,
    ordered,
    read_lines,
    shared,
    value,
    wish,
)
from ncf.evaluate.tables import NOTHING, cell
from ncf.evaluate.tables import markdown as rows

RUNS, TABLE, PLOT = "runs.jsonl", "table.md", "accuracy_time.png"
RATIOS = ("s", "MiB", "TRE mm", "p95 mm")  # ours over theirs, below 1 is better
SPREAD = ("TRE mm", "Dice", "folds %", "s")
HOW = (
    "TRE, Dice, folds and SDlogJ (standard deviation of the logarithm of the Jacobian determinant) are of one "
    "independent evaluation of each method's field in mm (`benchmarks/evaluate.py`). Seconds and MiB are of the whole "
    "process, start and imports included; MiB above is what ours needs beyond a process that has loaded the same "
    "libraries and the pair. Where there are several seeds, numbers are means over them, and a limit is missed when "
    "one of them misses it. Bold: missed; for a number, its limit stands behind it."
)


def main_table(lines: Sequence[Line], pairs: Sequence[Pair]) -> str:
    """Return the main table: a row for each pair and method, and for each method the means of a group of several pairs.

    Args:
        lines: of runs.jsonl.
        pairs: with their limits.
    """
    limits = {pair.name: pair.limits for pair in pairs}
    used = [column for column in COLUMNS if any(not math.isnan(value(line, column)) for line in lines)]
    table = [["pair", "method", "device", *used]]
    for group in ordered(lines, "group"):
        here = [line for line in lines if line["group"] == group]
        names = ordered(here, "pair")
        for name in names:
            own = [line for line in here if line["pair"] == name]
            table += [_row(name, m, own, columns=used, limits=limits.get(name, {})) for m in ordered(own, "method")]
        if len(names) > 1:
            for m in ordered(here, "method"):
                done = {line["pair"] for line in here if line["method"] == m and line["status"] == "done"}
                table.append(_row(f"**{group}, mean of {len(done)}**", m, here, columns=used, limits={}))
    return rows(table)


def _row(
    title: str, method: str, lines: Sequence[Line], *, columns: Sequence[str], limits: dict[str, float]
) -> list[str]:
    """Return the cells of one method's runs; only our default has limits."""
    runs = [line for line in lines if line["method"] == method]
    done = [line for line in runs if line["status"] == "done"]
    if not done:
        return [title, method, runs[0]["status"], *[NOTHING] * len(columns)]
    asked = limits if method == JUDGED else {}
    cells = []
    for column in columns:
        worst = any(beyond(column, value(line, column), asked) for line in done)
        text = cell(mean(done, column))
        cells.append(f"**{text}** ({asked[column]:g})" if worst else text)
    short = f" ({len(done)} of {len(runs)})" if len(done) < len(runs) else ""
    return [title, method, (done[0].get("device") or NOTHING) + short, *cells]


def ratio_table(lines: Sequence[Line], pairs: Sequence[Pair]) -> str:
    """Compare our default with every other method on the same pairs: ours over theirs, and for Dice ours less theirs.

    Args:
        lines: of runs.jsonl.
        pairs: with their contests.

    Returns:
        A Markdown table; empty where there is nothing to compare.
    """
    asked = contests(pairs)
    table = [
        ["pair", "ours against", "pairs", *(f"{c}: ours / theirs" for c in RATIOS), "Dice: ours - theirs", "asked"]
    ]
    for group in ordered(lines, "group"):
        here = [line for line in lines if line["group"] == group]
        for method in ordered(here, "method"):
            mine, theirs = shared(here, JUDGED, method)
            if method == JUDGED or not mine:
                continue
            numbers = [f"{_ratio(mine, theirs, column):.2f}" for column in RATIOS]
            numbers.append(f"{mean(mine, 'Dice') - mean(theirs, 'Dice'):+.4f}")
            numbers = [NOTHING if "nan" in number else number for number in numbers]
            wishes = [_asked(contest, here) for contest in asked.get(group, []) if contest.peer == method]
            table.append([group, method, str(len(ordered(mine, "pair"))), *numbers, "; ".join(wishes) or NOTHING])
    return rows(table) if len(table) > 1 else ""


def _asked(contest: Contest, lines: Sequence[Line]) -> str:
    """Say what a contest asks for, bold where it is lost."""
    text = f"{contest.column}: {wish(contest)}"
    return f"**{text}**" if contest_lost(contest, lines) else text


def _ratio(mine: Sequence[Line], theirs: Sequence[Line], column: str) -> float:
    """Return mean over mean; nan where either was not measured or theirs is 0."""
    below = mean(theirs, column)
    return mean(mine, column) / below if below else math.nan


def spread_table(lines: Sequence[Line], pairs: Sequence[Pair]) -> str:
    """Return mean, least and largest over the seeds, and how many runs missed a limit or failed.

    Args:
        lines: of runs.jsonl.
        pairs: with their limits.

    Returns:
        A Markdown table; empty for one seed.
    """
    table = [["pair", "method", "seeds", *(f"{column}: mean (least to largest)" for column in SPREAD), "failures"]]
    for name in ordered(lines, "pair"):
        for method in ordered([line for line in lines if line["pair"] == name], "method"):
            runs = [line for line in lines if (line["pair"], line["method"]) == (name, method)]
            if len(runs) < 2:
                continue
            cells = []
            for column in SPREAD:
                values = [v for v in (value(line, column) for line in runs) if not math.isnan(v)]
                ends = f"{cell(mean(runs, column))} ({cell(min(values))} to {cell(max(values))})" if values else NOTHING
                cells.append(ends)
            failures = sum(bool(missed_limits([line], pairs)) or line["status"] != "done" for line in runs)
            table.append([name, method, str(len(runs)), *cells, str(failures)])
    return rows(table) if len(table) > 1 else ""


def labels_table(lines: Sequence[Line]) -> str:
    """Return Dice of each label, mean over a group's pairs, for groups with 2 to 12 labels.

    A table of 45 labels would not be read.
    """
    parts = []
    for group in ordered(lines, "group"):
        here = [line for line in lines if line["group"] == group and line["status"] == "done" and "dice" in line]
        names = sorted({name for line in here for name in line["dice"]["labels"]}, key=int)
        if not 2 <= len(names) <= 12:
            continue
        table = [[f"{group}: Dice of label", *names]]
        for method in ordered(here, "method"):
            scores = [line["dice"]["labels"] for line in here if line["method"] == method]
            found = [[score[name] for score in scores if name in score] for name in names]
            table.append([method, *(cell(sum(s) / len(s)) if s else NOTHING for s in found)])
        parts.append(rows(table))
    return "\n\n".join(parts)


def landmarks_table(lines: Sequence[Line], pairs: Sequence[Pair]) -> str:
    """Return the errors of each set of landmarks, for pairs that have several.

    Args:
        lines: of runs.jsonl.
        pairs: with their limits.
    """
    limits = {pair.name: pair.limits for pair in pairs}
    parts = []
    for name in ordered(lines, "pair"):
        here = [line for line in lines if line["pair"] == name]
        sets = landmark_sets(here)
        if not sets:
            continue
        columns = [f"{number}{OF}{landmarks}" for landmarks in sets for number in OF_A_SET]
        table = [["pair", "method", "device", *columns]]
        table += [_row(name, m, here, columns=columns, limits=limits.get(name, {})) for m in ordered(here, "method")]
        parts.append(rows(table))
    return "\n\n".join(parts)


def left_out(lines: Sequence[Line]) -> str:
    """List each method and reason that has no numbers, with its pairs."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line["status"] != "done":
            found.setdefault((line["method"], f"{line['status']}: {line['reason']}"), []).append(line["pair"])
    listed = [(method, reason, sorted(set(names))) for (method, reason), names in found.items()]
    return "\n".join(f"- {method}, {reason} ({', '.join(names)})" for method, reason, names in listed)


def markdown(lines: Sequence[Line], pairs: Sequence[Pair]) -> str:
    """Return the whole of table.md.

    Args:
        lines: of runs.jsonl.
        pairs: with their limits and contests.
    """
    missed = [*missed_limits(lines, pairs), *lost_contests(lines, pairs)]
    told = {what: ", ".join(str(v) for v in ordered(lines, what)) for what in ("machine", "commit", "threads")}
    days = ", ".join(sorted({line["date"][:10] for line in lines}))
    versions = sorted({f"{x['method']} {x['version']}" for x in lines if x.get("version")})
    parts = [
        "# Benchmark",
        f"{days}; {told['machine']}; {told['threads']} threads; commit {told['commit']}; {', '.join(versions)}.",
        HOW,
        main_table(lines, pairs),
    ]
    sections = {
        "Against each peer, in the same run": ratio_table(lines, pairs),
        "Spread over seeds": spread_table(lines, pairs),
        "By set of landmarks": landmarks_table(lines, pairs),
        "Dice by label": labels_table(lines),
        "Limits missed": "\n".join(f"- {sentence}" for sentence in missed),
        "Without numbers": left_out(lines),
    }
    parts += [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    return "\n\n".join(parts) + "\n"


def make(folder: Path, pairs: Sequence[Pair] = tuple(PAIRS)) -> list[str]:
    """Write table.md and the plot; exit with one line if there are no runs.

    Args:
        folder: has runs.jsonl.
        pairs: with their limits and contests.

    Returns:
        A sentence for each limit and each contest that was missed.
    """
    lines = read_lines(folder / RUNS)
    if not lines:
        sys.exit(f"error: no runs in {folder / RUNS}; make some with python -m benchmarks.run --output_dir={folder}")
    (folder / TABLE).write_text(markdown(lines, pairs), encoding="utf-8")
    draw(lines, folder / PLOT)
    return [*missed_limits(lines, pairs), *lost_contests(lines, pairs)]


def main(output_dir: str) -> None:
    """Write table.md and accuracy_time.png again and print the table; exit with status 1 when a limit is missed.

    Args:
        output_dir: has runs.jsonl.
    """
    missed = make(Path(output_dir))
    print((Path(output_dir) / TABLE).read_text(encoding="utf-8"))
    if missed:
        sys.exit(1)


if __name__ == "__main__":
    fire.Fire(main)
