"""Growth of time and memory with the size of a scan: our method on the phantom at several sizes, one Markdown table.

``python -m benchmarks.growth [--sizes 96x96x104,144x144x156] [--threads 2] [--preset NAME] [--output_dir D]``
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire

from benchmarks.methods import Method, Settings, known, loaded_mib, run_one
from benchmarks.pairs import Pair, with_phantom
from benchmarks.results import read_lines, value
from benchmarks.table import RUNS, TABLE
from ncf.evaluate.tables import cell
from ncf.evaluate.tables import markdown as rows

SIZES = "96x96x104,144x144x156,192x192x208,240x240x260,288x288x312"
MILLION = 1e6


def main(
    sizes: str = SIZES,
    *,
    threads: int = 2,
    preset: str = "default",
    output_dir: str | None = None,
    device: str = "auto",
) -> None:
    """Print and write a table of seconds by stage and peak MiB, each also for a million voxels.

    The lines of runs.jsonl are as in a benchmark. Sizes that are done in OUTPUT_DIR/runs.jsonl are not run again.

    Args:
        sizes: of the phantom, comma-separated.
        threads: that every library may use.
        preset: of our method.
        output_dir: where everything goes; by default a new temporary folder.
        device: auto, or cpu.
    """
    method = known().get("ours" if preset == "default" else f"ours-{preset}")
    if method is None:
        sys.exit(f"error: no preset {preset!r}; there are: {', '.join(m.preset for m in known().values() if m.seeded)}")
    wanted = {text: _size(text) for text in (sizes if isinstance(sizes, (tuple, list)) else str(sizes).split(","))}
    folder = Path(output_dir or tempfile.mkdtemp(prefix="ncf-growth-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    settings = Settings(folder, threads, device)
    done = {line["pair"]: line for line in read_lines(folder / RUNS)}
    for text, size in wanted.items():
        if done.get(text, {}).get("status") != "done":
            done[text] = measure(text, size, method=method, settings=settings)
            with (folder / RUNS).open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(done[text]) + "\n")
        print(f"{text}: {done[text]['status']}", flush=True)
    table = growth_table([(done[text], math.prod(size) / MILLION) for text, size in wanted.items()])
    (folder / TABLE).write_text(table + "\n", encoding="utf-8")
    print(f"\n{table}\n\nresults in {folder}")
    if any(done[text]["status"] != "done" for text in wanted):
        sys.exit(1)


def measure(name: str, size: Sequence[int], *, method: Method, settings: Settings) -> dict[str, Any]:
    """Run one size, and return its line with the memory that libraries and pair alone take.

    Args:
        name: of the size.
        size: voxels along the axes.
        method: ours, with a preset.
        settings: of the run.
    """
    pair = with_phantom(Pair(name), settings.output_dir / f"phantom_{name}", size=size)
    line = run_one(method, pair, seed=0, settings=settings)
    loaded = loaded_mib(pair.files, settings=settings) if line["status"] == "done" else None
    if loaded is not None:
        line |= {"loaded_mib": loaded, "above_mib": line["peak_mib"] - loaded}
    return line


def growth_table(lines: Sequence[tuple[dict[str, Any], float]]) -> str:
    """Return a Markdown table.

    Args:
        lines: of runs.jsonl, each with its million voxels.
    """
    stages = list(dict.fromkeys(stage for line, _ in lines for stage in line.get("seconds", {})))
    per_voxel = ("s / Mvoxel", "MiB / Mvoxel", "MiB above / Mvoxel")
    table = [
        ["size", "Mvoxel", *(f"{stage}, s" for stage in stages), "MiB", "MiB above", *per_voxel, "TRE mm", "status"]
    ]
    for line, millions in lines:
        seconds = [cell(line.get("seconds", {}).get(stage, math.nan)) for stage in stages]
        numbers = [value(line, column) for column in ("s", "MiB", "MiB above")]
        each = [cell(number / millions) for number in numbers]
        told = line["status"] if line["status"] == "done" else f"{line['status']}: {line['reason']}"
        memory = [cell(number) for number in numbers[1:]]
        table.append([line["pair"], cell(millions), *seconds, *memory, *each, cell(value(line, "TRE mm")), told])
    return rows(table)


def _size(text: str) -> tuple[int, ...]:
    """Return 96x96x104 as three numbers; exit with one line for anything else."""
    parts = str(text).split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        sys.exit(f"error: a size is three whole numbers such as 96x96x104, got {text!r}")
    return tuple(int(part) for part in parts)


if __name__ == "__main__":
    fire.Fire(main)
