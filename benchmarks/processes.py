"""One command in a process of its own, with a given number of threads: its wall time and its peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAUNCH = Path(__file__).with_name("launch.py")
THREAD_COUNTS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        seconds: wall time.
        peak_mib: peak memory in MiB.
        status: exit status.
        last_line: the last line that it printed.
    """

    seconds: float
    peak_mib: float
    status: int
    last_line: str


def environment(*, threads: int, device: str) -> dict[str, str]:
    """Return this process's variables, with the number of threads that every library may use.

    Args:
        threads: that number.
        device: cpu hides all GPUs.
    """
    counts = dict.fromkeys(THREAD_COUNTS, str(threads))
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
    return {**os.environ, **counts, **hidden, "PYTHONPATH": str(ROOT)}


def measured(command: Sequence[str | Path], *, log: Path, threads: int, device: str = "auto") -> Outcome:
    """Run a command and return its outcome.

    It runs in a folder of its own, which is removed with whatever it leaves there. So the paths that it is given must
    be absolute.

    Args:
        command: with its arguments.
        log: file for what it prints.
        threads: that every library may use.
        device: auto, or cpu.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = [sys.executable, "-I", "-S", str(LAUNCH), str(report), *map(str, command)]
        with log.open("w", encoding="utf-8") as out:
            variables = environment(threads=threads, device=device)
            subprocess.run(words, stdout=out, stderr=subprocess.STDOUT, env=variables, cwd=folder, check=False)
        found = json.loads(report.read_text())
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return Outcome(**found, last_line=lines[-1] if lines else "")
