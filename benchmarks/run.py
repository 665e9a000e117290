"""Runs methods on pairs, each run in a process of its own, and writes one JSON line for each run, a table and a plot.

``python -m benchmarks.run [--pairs phantom,lung_ct_real] [--methods ours,elastix] [--seeds 0,1,2] [--output_dir D]``

Everything lies in OUTPUT_DIR: runs.jsonl, table.md, accuracy_time.png, logs/. The exit status is 1 when our default
misses a limit. The peers are other programs: requirements-peers.txt says how to install them; those that are not there
are left out.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire

from benchmarks import table
from benchmarks.methods import OURS, Method, Settings, by_default, known, loaded_mib, run_one
from benchmarks.options import chosen, flag, python, words
from benchmarks.pairs import PAIRS, PHANTOM_SIZE, Pair, read_dataset, with_phantom
from benchmarks.results import COLUMNS, Line, beyond, key, read_lines, value

__all__ = ["COLUMNS", "beyond", "main", "perform", "register"]

Plan = list[tuple[Pair, Method, int | None]]


def main(
    pairs: str = "",
    methods: str = "",
    *,
    seeds: str = "0",
    threads: int = 2,
    device: str = "auto",
    output_dir: str | None = None,
    dataset: str | None = None,
    peers_python: str | None = None,
    keep_fields: bool | str = False,
    resume: bool | str = False,
    phantom_size: str | None = None,
) -> None:
    """Run the methods, print the table and write it; exit with status 1 when our default misses a limit.

    Args:
        pairs: names, comma-separated; by default all whose files are there (with DATASET: all of it).
        methods: names, comma-separated; by default ours, ours-fast where there is such a preset, none and all peers.
        seeds: of our methods; the others are run once.
        threads: that every library may use.
        device: auto (each program's own choice) or cpu, which hides all GPUs.
        output_dir: where everything goes; by default a new temporary folder.
        dataset: any list of pairs, see docs/cohorts.md.
        peers_python: the Python that has the peers installed; by default this one.
        keep_fields: true keeps every field and result in OUTPUT_DIR/runs.
        resume: true skips the runs that are done in OUTPUT_DIR/runs.jsonl; those left out or failed are tried again.
        phantom_size: voxels of the phantom, such as 64,56,60; it is made once for each OUTPUT_DIR.
    """
    if device not in ("auto", "cpu"):
        sys.exit(f"error: --device is auto or cpu, got {device!r}")
    folder = Path(output_dir or tempfile.mkdtemp(prefix="ncf-benchmark-")).absolute()
    everything = _offered(dataset)
    plan = _plan(everything, words(pairs), methods=words(methods), seeds=[int(seed) for seed in words(seeds)])
    if (folder / table.RUNS).exists() and not flag("resume", resume):
        sys.exit(f"error: {folder / table.RUNS} is there already; add to it with --resume=true or name another folder")
    settings = Settings(folder, threads, device, python(peers_python), flag("keep_fields", keep_fields))
    folder.mkdir(parents=True, exist_ok=True)
    size = tuple(int(n) for n in words(phantom_size)) if phantom_size else PHANTOM_SIZE
    perform(plan, settings=settings, phantom_size=size)
    missed = table.make(folder, everything)
    print(f"\n{(folder / table.TABLE).read_text(encoding='utf-8')}\nresults in {folder}")
    if missed:
        sys.exit(1)


def perform(plan: Plan, *, settings: Settings, phantom_size: Sequence[int] = PHANTOM_SIZE) -> None:
    """Do each run of the plan that is not done yet, and write its line to runs.jsonl as soon as it has ended.

    Args:
        plan: all runs in their order.
        settings: of all runs.
        phantom_size: voxels of the phantom.
    """
    path = settings.output_dir / table.RUNS
    done = {key(line) for line in read_lines(path) if line["status"] == "done"}
    loaded: dict[str, float | None] = {}  # MiB by pair
    # the line of a program that cannot run here: it is not tried again for every pair
    absent: dict[str, dict[str, Any]] = {}
    for number, (pair, method, seed) in enumerate(plan, start=1):
        if (pair.name, method.name, seed, settings.threads) in done:
            continue
        pair = with_phantom(pair, settings.output_dir / "phantom", size=phantom_size)
        if method.program in absent:
            line = absent[method.program] | {"pair": pair.name, "group": pair.group or pair.name}
            line |= {"method": method.name, "preset": method.preset}
        else:
            line = run_one(method, pair, seed=seed, settings=settings)
        if line["status"] == "left out":
            absent[method.program] = line
        if method.seeded and line["status"] == "done":
            if pair.name not in loaded:
                loaded[pair.name] = loaded_mib(pair.files, settings=settings)
            base = loaded[pair.name]
            line |= {"loaded_mib": base, "above_mib": None if base is None else line["peak_mib"] - base}
        with path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line) + "\n")
        print(f"[{number}/{len(plan)}] {progress(line)}", flush=True)


def register(pair: Pair, *, seed: int, threads: int, preset: str | None, output_dir: Path) -> dict[str, float]:
    """Run our method once, for a test of one pair, and return its numbers, those with a limit too, by column.

    Args:
        pair: has files, or is the phantom.
        seed: of the network's first weights.
        threads: that every library may use.
        preset: of our method.
        output_dir: where everything goes.

    Returns:
        nan for what was not measured.
    """
    method = known()[OURS if preset is None else f"{OURS}-{preset}"]
    line = run_one(method, pair, seed=seed, settings=Settings(output_dir, threads))
    return {column: value(line, column) for column in (*COLUMNS, *pair.limits)}


def progress(line: Line) -> str:
    """Say the result of one run in one line."""
    name = f"{line['pair']} {line['method']}" + (f" seed {line['seed']}" if line["seed"] else "")
    if line["status"] != "done":
        return f"{name}: {line['status']}, {line['reason']}"
    told = [f"{column} {table.cell(value(line, column))}" for column in ("TRE mm", "Dice", "folds %", "s", "MiB")]
    return f"{name}: {', '.join(text for text in told if not text.endswith(table.NOTHING))}"


def _offered(dataset: str | None) -> list[Pair]:
    """Return the pairs there are to choose from; exit with one line for a dataset that cannot be understood."""
    if dataset is None:
        return PAIRS
    try:
        return read_dataset(Path(dataset).absolute())
    except ValueError as error:
        sys.exit(f"error: {error}")


def _plan(offered: Sequence[Pair], names: Sequence[str], *, methods: Sequence[str], seeds: Sequence[int]) -> Plan:
    """Return all runs in their order, pair by pair; pairs without their files are named and left out."""
    pairs = chosen({pair.name: pair for pair in offered}, names or [p.name for p in offered], what="pair")
    table_of_methods = known()
    wanted = chosen(table_of_methods, methods or by_default(), what="method")
    plan: Plan = []
    for pair in pairs:
        if pair.missing:
            print(f"{pair.name}: left out, {pair.missing[0]} is not there")
            continue
        plan += [(pair, method, seed) for method in wanted for seed in (seeds if method.seeded else [None])]
    return plan


if __name__ == "__main__":
    fire.Fire(main)
