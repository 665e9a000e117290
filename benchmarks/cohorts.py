"""What a cohort costs beyond its registrations, and how many pairs an hour a machine does: one Markdown table each.

``python -m benchmarks.cohorts [--parts engine,memory,throughput] [--output_dir D]``

- engine: `run_cohort` over 10,000 pairs whose worker only writes the two files of a result; then the same again, with
  all pairs done.
- memory: 60 small phantoms by one worker: the process's largest memory after each, and the time between two results
  beyond the registration's own.
- throughput: phantoms of a usual size by 1 worker, 2 workers, and 1 worker with 2 threads.

No reports are made, as in `benchmarks.run`.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Sequence
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import fire
import numpy as np

from benchmarks.options import chosen, words
from ncf.cohort.plan import Plan
from ncf.cohort.run import run_cohort
from ncf.cohort.worker import Call, Outcome, Resources, Task, register_pair
from ncf.core.files import claim_folder, record_of, save_json
from ncf.core.names import METRICS_FILE, PAIR_KEYS, RUN_FILE
from ncf.core.presets import config_files
from ncf.evaluate.tables import cell, markdown
from ncf.io.pair_lists import Pairs, checked

MANY, SMALL = 10_000, 60
SMALL_SIZE, USUAL_SIZE = (40, 36, 40), (112, 96, 104)
SETUPS = {"1 worker": Resources(1, 1), "2 workers": Resources(2, 1), "1 worker, 2 threads": Resources(1, 2)}
WORKED_IN = 5  # pairs after which memory is compared: by then libraries are loaded and buffers have their size


def main(
    parts: str = "engine,memory,throughput", *, pairs: int = 6, many: int = MANY, output_dir: str | None = None
) -> None:
    """Print the tables and write them to OUTPUT_DIR/table.md.

    Args:
        parts: some of engine, memory, throughput.
        pairs: number of pairs for the throughput.
        many: number of pairs for the engine.
        output_dir: where everything goes; by default a new temporary folder.
    """
    folder = Path(output_dir or tempfile.mkdtemp(prefix="ncf-cohorts-")).absolute()
    measures = {"engine": lambda: engine(folder, many), "memory": lambda: memory(folder)}
    measures["throughput"] = lambda: throughput(folder, pairs)
    wanted = chosen({name: name for name in measures}, words(parts), what="part")
    tables = []
    for name in wanted:
        tables.append(f"## {name}\n\n{measures[name]()}\n")
        print(tables[-1], flush=True)
    (claim_folder(folder) / "table.md").write_text("\n".join(tables), encoding="utf-8")
    print(f"results in {folder}")


def engine(folder: Path, many: int) -> str:
    """Measure the seconds of ``many`` pairs that are not registered, and of finding them all done.

    Args:
        folder: for scans and results.
        many: number of pairs.

    Returns:
        A Markdown table.
    """
    images = claim_folder(folder / "engine" / "scans")
    count = next(n for n in range(2, many + 2) if n * (n - 1) >= many)
    for number in range(count):
        (images / f"{number:04}.nii.gz").write_text(f"scan {number}", encoding="utf-8")
    ordered = islice(permutations(sorted(images.iterdir()), 2), many)
    rows = checked([{"fixed": str(f), "moving": str(m)} for f, m in ordered], where="engine")
    plan = Plan(rows, config_files(None), folder / "engine" / "out")
    table = [["pairs", "workers", "s", "ms a pair", "s again, all done"]]
    resources = Resources(2, 1)
    first, again = (_seconds(plan, resources, call=leave_a_result) for _ in range(2))
    return markdown([*table, [str(many), "2", cell(first), cell(1000 * first / many), cell(again)]])


def leave_a_result(task: Task) -> Outcome:
    """Write the two files that tell of a result, without a registration."""
    pair = json.loads(task.pair)
    folder = claim_folder(Path(task.output_dir) / task.name)
    save_json(folder / RUN_FILE, {"inputs": {key: record_of(pair[key]) for key in PAIR_KEYS if key in pair}})
    alike = {when: {"ncc": 0.5} for when in ("before", "after")}
    save_json(folder / METRICS_FILE, {"name": task.name, "similarity": alike, "seconds": {"total": 0.0}})
    return Outcome(task.name)


def memory(folder: Path) -> str:
    """Measure the largest resident MiB over the pairs of one worker, and what a pair takes beyond its registration."""
    plan = _phantoms(folder / "memory", SMALL, SMALL_SIZE)
    _seconds(plan, Resources(1, 1))
    peaks = [_metrics(plan, row)["peak_memory_mib"]["host"] for row in plan.pairs]
    beyond = _beyond(plan)
    table = [["pairs", f"MiB after {WORKED_IN}", "MiB after all", "s a pair beyond its own: median", "largest"]]
    numbers = [peaks[WORKED_IN - 1], peaks[-1], float(np.median(beyond)), max(beyond)]
    return markdown([*table, [str(SMALL), *map(cell, numbers)]])


def throughput(folder: Path, pairs: int) -> str:
    """Measure pairs an hour, with the start of the workers, by how the cores are used.

    Args:
        folder: for scans and results.
        pairs: number of pairs.

    Returns:
        A Markdown table.
    """
    table = [["workers", "pairs", "s", "pairs an hour", "against 1 worker"]]
    hourly: dict[str, float] = {}
    for name, resources in SETUPS.items():
        plan = _phantoms(folder / "throughput", pairs, USUAL_SIZE, name.replace(" ", "_").replace(",", ""))
        seconds = _seconds(plan, resources)
        hourly[name] = 3600 * pairs / seconds
        first = next(iter(hourly.values()))
        table.append([name, str(pairs), cell(seconds), cell(hourly[name]), cell(hourly[name] / first)])
    return markdown(table)


def _phantoms(folder: Path, count: int, size: Sequence[int], name: str = "out") -> Plan:
    """Return a cohort of phantoms, one patient each; they are written once."""
    from ncf.phantom.chest import breathing_thorax, write

    rows: Pairs = []
    for seed in range(count):
        place = folder / "scans" / f"{seed:03}"
        if not (place / "landmarks.csv").exists():
            write(breathing_thorax(tuple(size), seed=seed), claim_folder(place))
        keys = {key: place / f"{key}.nii.gz" for key in ("fixed", "moving", "fixed_label", "moving_label")}
        rows.append({"name": f"{seed:03}", **{key: str(path) for key, path in keys.items()}})
    return Plan(checked(rows, where=str(folder)), config_files(None), folder / name, {"report": False})


def _seconds(plan: Plan, resources: Resources, *, call: Call = register_pair) -> float:
    """Run a cohort and return its seconds; exit where a pair fails."""
    begun = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()) as told:
        complete = run_cohort(plan, resources=resources, progress=True, call=call)
    if not complete:
        raise SystemExit(f"error: {told.getvalue().strip().splitlines()[-2]}")
    return time.perf_counter() - begun


def _metrics(plan: Plan, row: dict[str, str]) -> dict[str, Any]:
    """Read the metrics.json of a pair."""
    return dict(json.loads((plan.folder(row) / METRICS_FILE).read_text(encoding="utf-8")))


def _beyond(plan: Plan) -> list[float]:
    """Return the seconds between two results of one worker that are not the later one's own."""
    ends = [(plan.folder(row) / METRICS_FILE).stat().st_mtime for row in plan.pairs]
    own = [_metrics(plan, row)["seconds"]["total"] for row in plan.pairs]
    return [later - earlier - s for earlier, later, s in zip(ends, ends[1:], own[1:], strict=False)]


if __name__ == "__main__":
    fire.Fire(main)
