"""Robustness of a registration: a pair disturbed in one way after another, our method beside peers, as one table.

``python -m benchmarks.robustness [--pairs phantom,lung_ct_real] [--methods ours,elastix] [--cases NAME,NAME]``

OUTPUT_DIR holds runs.jsonl, as `benchmarks.run` writes it, table.md and logs/. Runs that are done there are not run
again.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import fire

from benchmarks.disturb import DISTURBANCES, read_scans, write_scans
from benchmarks.methods import Method, Settings, known, run_one
from benchmarks.options import chosen, python, words
from benchmarks.pairs import PAIRS, PHANTOM_SIZE, Pair, with_phantom
from benchmarks.results import Line, key, read_lines, value
from benchmarks.table import RUNS, TABLE
from ncf.evaluate.tables import NOTHING, cell
from ncf.evaluate.tables import markdown as rows

UNDISTURBED = next(iter(DISTURBANCES))
HOW = (
    "TRE in mm of the undisturbed anatomy, and how much more it is than the same method's on the undisturbed pair. The "
    "cut pairs have the landmarks that both scans still show. `--align_centres` is our option; "
    "others are called as always."
)


def main(
    pairs: str = "phantom,lung_ct_real",
    methods: str = "ours,elastix",
    *,
    cases: str = "",
    threads: int = 2,
    device: str = "auto",
    output_dir: str | None = None,
    peers_python: str | None = None,
    phantom_size: str | None = None,
) -> None:
    """Print the table and write it.

    Args:
        pairs: names as for `benchmarks.run`.
        methods: names as for `benchmarks.run`.
        cases: names of `benchmarks.disturb.DISTURBANCES`; by default all.
        threads: as for `benchmarks.run`.
        device: as for `benchmarks.run`.
        output_dir: as for `benchmarks.run`.
        peers_python: as for `benchmarks.run`.
        phantom_size: as for `benchmarks.run`.
    """
    asked = chosen({case: case for case in DISTURBANCES}, words(cases) or list(DISTURBANCES), what="case")
    wanted = chosen({pair.name: pair for pair in PAIRS}, words(pairs), what="pair")
    programs = chosen(known(), words(methods), what="method")
    folder = Path(output_dir or tempfile.mkdtemp(prefix="ncf-robustness-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    size = tuple(int(n) for n in words(phantom_size)) if phantom_size else PHANTOM_SIZE
    settings = Settings(folder, threads, device, python(peers_python))
    for pair in wanted:
        if pair.missing:
            print(f"{pair.name}: left out, {pair.missing[0]} is not there")
            continue
        _measure(with_phantom(pair, folder / "phantom", size=size), asked, methods=programs, settings=settings)
    table = robustness_table(read_lines(folder / RUNS))
    (folder / TABLE).write_text(f"{table}\n\n{HOW}\n", encoding="utf-8")
    print(f"\n{table}\n\nresults in {folder}")


def _measure(pair: Pair, cases: Sequence[str], *, methods: Sequence[Method], settings: Settings) -> None:
    """Do every run that is not done yet, and write its line to runs.jsonl as soon as it has ended."""
    path = settings.output_dir / RUNS
    scans = read_scans(pair.files)
    for case in cases:
        name = f"{pair.name}_{case}"
        done = {key(line) for line in read_lines(path) if line["status"] == "done"}
        missing = [m for m in methods if (name, m.name, 0 if m.seeded else None, settings.threads) not in done]
        if not missing:
            continue
        disturbance, place = DISTURBANCES[case], settings.output_dir / "case"
        files = write_scans(disturbance.change(scans), place)
        disturbed = Pair(name, files, group=pair.name, align_centres=disturbance.align_centres)
        for method in missing:
            line = run_one(method, disturbed, seed=0 if method.seeded else None, settings=settings)
            line |= {"case": case, **_at_true_size(line, disturbance.size)}
            with path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(line) + "\n")
            print(f"{name}, {method.name}: {_told(line)}", flush=True)
        shutil.rmtree(place)


def _at_true_size(line: Line, size: float) -> dict[str, Any]:
    """Return the errors of a line, in mm of the moving scan, as if that scan had its true size."""
    if "tre_mm" not in line:
        return {}
    errors = {name: number if name == "count" else number / size for name, number in line["tre_mm"].items()}
    return {"tre_mm": errors, "tre_voxel": line["tre_voxel"] / size}


def robustness_table(lines: Iterable[Line]) -> str:
    """Return a Markdown table: a row for each pair and case; for each method errors, their growth, Dice and folds."""
    by_run = {(line["group"], line["case"], line["method"]): line for line in lines}
    groups, methods = (list(dict.fromkeys(run[i] for run in by_run)) for i in (0, 2))
    heads = ("TRE mm", "p95 mm", "+ %", "Dice", "folds %")
    table = [["pair", "case", *(f"{method}: {head}" for method in methods for head in heads)]]
    for group in groups:
        for case in dict.fromkeys(run[1] for run in by_run if run[0] == group):
            row = [group, case]
            for method in methods:
                row += _cells(by_run.get((group, case, method)), by_run.get((group, UNDISTURBED, method)))
            table.append(row)
    return rows(table)


def _cells(line: Line | None, undisturbed: Line | None) -> list[str]:
    """Return the numbers of one run; a run that did not end well has its status in place of the first number."""
    if line is None or line["status"] != "done":
        return [NOTHING if line is None else line["status"], *[NOTHING] * 4]
    base = math.nan if undisturbed is None else value(undisturbed, "TRE mm")
    more = 100 * (value(line, "TRE mm") / base - 1)
    growth = NOTHING if math.isnan(more) else f"{more:+.0f}"
    numbers = [value(line, column) for column in ("TRE mm", "p95 mm", "Dice", "folds %")]
    return [cell(numbers[0]), cell(numbers[1]), growth, cell(numbers[2]), cell(numbers[3])]


def _told(line: Line) -> str:
    """Say the result of one run."""
    return (
        f"TRE {cell(value(line, 'TRE mm'))} mm" if line["status"] == "done" else f"{line['status']}, {line['reason']}"
    )


if __name__ == "__main__":
    fire.Fire(main)
