"""Registers the pairs with the command line, each in a process of its own, and prints one table.

``python -m benchmarks.run [--pairs phantom,lung_ct_real] [--seeds 0,1,2] [--threads 2] [--preset NAME] [--output_dir D]``

Seconds are of the whole command, start of Python included; memory is the process's peak as the system accounts it. A
number beyond its limit is marked. One JSON line a run goes to ``<output_dir>/runs.jsonl``.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import fire
import nibabel as nib
import numpy as np

from benchmarks.pairs import PAIRS, Pair
from scripts.geometry import spacing_mm

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = (
    "TRE before",
    "TRE mm",
    "median mm",
    "p95 mm",
    "TRE voxel",
    "Dice before",
    "Dice",
    "folds %",
    "folds in label %",
    "s",
    "MiB",
)
LARGER_IS_BETTER = ("Dice",)


def register(pair: Pair, *, seed: int, threads: int, preset: str | None, output_dir: Path) -> dict[str, Any]:
    """One line of the table: what one run of the command line reached; raises CalledProcessError when it failed."""
    name = f"{pair.name}_seed{seed}"
    command = [sys.executable, "-m", "scripts", "register", "--progress=false", f"--seed={seed}", f"--name={name}"]
    command += [f"--output_dir={output_dir}", *([f"--preset={preset}"] if preset else [])]
    command += [f"--{key}={path}" for key, path in pair.files.items()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return {
        "pair": pair.name,
        "seed": seed,
        "threads": threads,
        "preset": preset or "default",
        **_columns(output_dir / name),
        "s": seconds,
        "MiB": usage.ru_maxrss / 1024,
    }


def _columns(folder: Path) -> dict[str, float]:
    metrics = json.loads((folder / "metrics.json").read_text())
    tre = metrics["tre_mm"]["after"]
    voxel = float(np.prod(spacing_mm(nib.Nifti1Image.from_filename(folder / "warped.nii.gz").affine)) ** (1 / 3))
    return {
        "TRE before": metrics["tre_mm"]["before"]["mean"],
        "TRE mm": tre["mean"],
        "median mm": tre["median"],
        "p95 mm": tre["p95"],
        "TRE voxel": tre["mean"] / voxel,
        "Dice before": metrics["dice"]["before"]["mean"],
        "Dice": metrics["dice"]["after"]["mean"],
        "folds %": 100 * metrics["folded_share"]["all"],
        "folds in label %": 100 * metrics["folded_share"]["in_label"],
    }


def beyond(column: str, value: float, limits: dict[str, float]) -> bool:
    """Whether a value misses its pair's limit; False where there is none."""
    if column not in limits:
        return False
    return value < limits[column] if column in LARGER_IS_BETTER else value > limits[column]


def table(runs: Sequence[dict[str, Any]], limits: dict[str, dict[str, float]]) -> str:
    """The runs as Markdown; what misses its limit is bold with the limit behind it."""
    lines = ["| pair | seed | " + " | ".join(COLUMNS) + " |", "|---" * (2 + len(COLUMNS)) + "|"]
    for run in runs:
        cells = []
        for column in COLUMNS:
            text = f"{run[column]:.4g}"
            limit = limits[run["pair"]]
            cells.append(f"**{text}** ({limit[column]:g})" if beyond(column, run[column], limit) else text)
        lines.append(f"| {run['pair']} | {run['seed']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(
    pairs: str = "", seeds: str = "0", threads: int = 2, preset: str | None = None, output_dir: str | None = None
) -> None:
    """Nothing; prints the table and exits with status 1 when a limit is missed."""
    wanted = [p for p in PAIRS if not pairs or p.name in _words(pairs)]
    unknown = set(_words(pairs)) - {p.name for p in PAIRS}
    if unknown:
        sys.exit(f"error: no pair {', '.join(sorted(unknown))}; there are: {', '.join(p.name for p in PAIRS)}")
    folder = Path(output_dir or tempfile.mkdtemp(prefix="ncf-benchmark-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for pair in wanted:
        if pair.missing:
            print(f"{pair.name}: left out, {pair.missing[0]} is not there")
            continue
        for seed in _words(seeds):
            runs.append(register(pair, seed=int(seed), threads=threads, preset=preset, output_dir=folder))
            with (folder / "runs.jsonl").open("a") as lines:
                lines.write(json.dumps(runs[-1]) + "\n")
            print(table(runs[-1:], {p.name: p.limits for p in PAIRS}).splitlines()[-1], flush=True)
    print(f"\n{date.today()}, {platform.machine()}, {os.cpu_count()} cores, {threads} threads; results in {folder}")
    print("Bold: beyond its limit, which stands behind it.\n")
    print(table(runs, {p.name: p.limits for p in PAIRS}))
    if any(beyond(c, run[c], p.limits) for run in runs for p in PAIRS if p.name == run["pair"] for c in COLUMNS):
        sys.exit(1)


def _words(text: object) -> list[str]:
    """The entries of a comma-separated option; Fire hands ``0,1`` over as a tuple and ``0`` as a number."""
    parts = text if isinstance(text, (tuple, list)) else str(text).split(",")
    return [str(part).strip() for part in parts if str(part).strip()]


if __name__ == "__main__":
    fire.Fire(main)
