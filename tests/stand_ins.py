"""What workers of a cohort do in tests instead of registering; a module of its own, so that processes can import it."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from ncf.cohort.worker import Outcome, Task
from ncf.core.files import claim_folder, save_json, sha256_of

LATE_S = 2.0


def finish(task: Task) -> Outcome:
    """A result at once; its error is the length of the name."""
    pair = json.loads(task.pair)
    folder = claim_folder(Path(task.output_dir) / task.name)
    inputs = {key: {"path": path, "sha256": sha256_of(path)} for key, path in pair.items() if key != "name"}
    save_json(folder / "run.json", {"inputs": inputs, "overrides": json.loads(task.overrides)})
    tre = {when: {"mean": n * len(task.name)} for when, n in (("before", 2.0), ("after", 1.0))}
    save_json(folder / "metrics.json", {"name": task.name, "tre_mm": tre, "seconds": {"total": 0.5}})
    return Outcome(task.name)


def finish_slowly(task: Task) -> Outcome:
    """The same after a while, with half a file lying about meanwhile."""
    folder = claim_folder(Path(task.output_dir) / task.name)
    (folder / ".0123456789ab.nii.gz").write_bytes(b"half")
    time.sleep(0.3)
    (folder / ".0123456789ab.nii.gz").unlink()
    return finish(task)


def finish_late(task: Task) -> Outcome:
    """The same after seconds; a mark tells that it was begun."""
    (claim_folder(Path(task.output_dir) / task.name) / "begun").touch()
    time.sleep(LATE_S)
    return finish(task)


def refuse_some(task: Task) -> Outcome:
    """Pairs called bad have a reason."""
    return Outcome(task.name, f"{task.name}: no good") if "bad" in task.name else finish(task)


def die_some(task: Task) -> Outcome:
    """The process of a pair called bad is killed as for its memory."""
    if "bad" in task.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return finish(task)


def die_once(task: Task) -> Outcome:
    """The first process that takes a pair called bad is killed."""
    mark = Path(task.output_dir) / "died"
    if "bad" in task.name and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return finish(task)


def process_number(task: Task) -> Outcome:
    """A result that also tells the process, its threads and its devices."""
    told = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
    time.sleep(0.2)
    outcome = finish(task)
    save_json(Path(task.output_dir) / task.name / "process.json", {"pid": os.getpid(), **told})
    return outcome


def speak(task: Task) -> Outcome:
    """A result with a note and a warning."""
    said = ("note: fixed: its origin is odd", "attempt 1 of 3: the loss rose")
    return replace(finish(task), said=said) if task.name == "bad" else finish(task)


def draw_nothing(task: Task) -> Outcome:
    """A result whose report could not be made."""
    finish(task)
    return Outcome(task.name, no_report=f"{task.name}: no ink")
