"""elastix in a process of its own, called as a cohort's worker calls it; its field lies where one of ours would lie."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

from ncf.cohort.worker import Outcome, Task
from ncf.core.errors import PairError
from ncf.core.files import claim_folder, load_json, record_of, save_json
from ncf.core.names import FIELD_FILE, METRICS_FILE, PAIR_KEYS, RUN_FILE

SOURCES = Path(__file__).resolve().parents[2]  # the checkout; an installed library has no benchmarks
REPORT = "elastix.json"


def check_sources() -> None:
    """Raise PairError unless the folder of the benchmarks, which knows how to call elastix, lies beside the library.

    Raises:
        PairError: it does not.
    """
    if not (SOURCES / "benchmarks" / "peers").is_dir():
        raise PairError(
            "elastix is called by the folder benchmarks, which is not installed; run this in a clone of the sources"
        )


def register_by_elastix(task: Task) -> Outcome:
    """Register one pair by elastix.

    Args:
        task: its overrides name the ``python`` that has itk-elastix.
    """
    pair, begun = json.loads(task.pair), time.perf_counter()
    folder = claim_folder(Path(task.output_dir) / task.name)
    python, threads = json.loads(task.overrides)["python"], os.environ.get("OMP_NUM_THREADS", "1")
    files = [pair["fixed"], pair["moving"], str(folder / FIELD_FILE), str(folder / REPORT)]
    command = [python, "-m", "benchmarks.peers", "elastix", *files, threads, "default"]
    ended = subprocess.run(command, cwd=SOURCES, capture_output=True, text=True, check=False)
    if ended.returncode:
        lines = (ended.stderr or ended.stdout).strip().splitlines() or [f"elastix ended with status {ended.returncode}"]
        return Outcome(task.name, lines[-1])
    inputs = {key: record_of(path) for key, path in pair.items() if key in PAIR_KEYS}
    save_json(folder / RUN_FILE, {"inputs": inputs, "peer": load_json(folder / REPORT)})
    save_json(folder / METRICS_FILE, {"name": task.name, "seconds": {"total": time.perf_counter() - begun}})
    return Outcome(task.name)
