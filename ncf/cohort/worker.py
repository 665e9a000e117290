"""One pair in this process: the config's own workflow, kept ready from pair to pair.

A pair leaves only files. What comes back is its name and, if it failed, the reason.
"""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncf.core.names import REPORT_FILE
from ncf.core.notes import collected
from ncf.core.startup import load_libraries

if TYPE_CHECKING:
    from ncf.run.session import Session


@dataclass(frozen=True)
class Task:
    """What a worker needs to know, all of it small: paths and settings, no images.

    Attributes:
        pair: as JSON.
        config_files: the base first.
        overrides: as JSON.
        output_dir: where results go.
        face: who reads why a pair failed (`ncf.core.refusals.ADVICE`).
    """

    pair: str
    config_files: tuple[str, ...]
    overrides: str
    output_dir: str
    face: str = "command"

    @property
    def name(self) -> str:
        """The name of the pair."""
        return str(json.loads(self.pair)["name"])


@dataclass(frozen=True)
class Outcome:
    """How the task of a pair ended.

    Attributes:
        name: of the pair.
        reason: why there is no result; None where there is one.
        detail: of a fault of the program, its traceback.
        no_report: why a result has no report; None where it has one or none is wanted.
        no_bounds: why the error of a result has no bounds, likewise.
        said: notes and warnings about the pair, a line each.
    """

    name: str
    reason: str | None = None
    detail: str = ""
    no_report: str | None = None
    no_bounds: str | None = None
    said: Sequence[str] = ()


@dataclass(frozen=True)
class Resources:
    """What an engine may use.

    Attributes:
        workers: number of processes.
        threads: of each process.
        devices: CUDA devices, dealt out to the workers in turn; with none, workers see what this process sees.
        scheduler: address of a running Dask scheduler.
    """

    workers: int = 1
    threads: int = 1
    devices: tuple[str, ...] = ()
    scheduler: str | None = None


Call = Callable[[Task], Outcome]
Report = Callable[[Outcome], None]


def task_of(
    pair: Mapping[str, str],
    config_files: tuple[str, ...],
    overrides: Mapping[str, Any],
    output_dir: Path,
    *,
    face: str = "command",
) -> Task:
    """Return the task of registering a pair.

    Args:
        pair: paths and a name.
        config_files: the base first.
        overrides: of config entries, plain data.
        output_dir: where results go.
        face: who reads why a pair failed.
    """
    return Task(json.dumps(dict(pair)), config_files, json.dumps(dict(overrides)), str(output_dir), face)


def prepare_process(threads: int, device: str | None) -> None:
    """Set the number of threads and the device of this process. It must be called before torch is loaded.

    Args:
        threads: that the libraries may use.
        device: a CUDA device; None for all.
    """
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device


def register_pair(task: Task) -> Outcome:
    """Register the pair of a task and write its files to its folder, metrics.json last."""
    _load()
    return _collected(_register, task)


def _collected(call: Call, task: Task) -> Outcome:
    """Return the outcome of a call with the notes and warnings that it has told meanwhile."""
    with collected() as said:
        outcome = call(task)
    return replace(outcome, said=tuple(said))


def _register(task: Task) -> Outcome:
    from ncf.core.process import release_memory
    from ncf.core.refusals import explanation

    try:
        lacking = _session(task.config_files, task.overrides, task.output_dir).register_files(json.loads(task.pair))
    except Exception as error:
        told = explanation(error, face=task.face)
        fault = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        failed = Outcome(task.name, told or fault, "" if told else traceback.format_exc())
    else:
        reports, bounds = (next(iter(lines), None) for lines in (lacking.reports, lacking.bounds))
        return Outcome(task.name, no_report=reports, no_bounds=bounds)
    release_memory()  # only now are the frames of the error gone, which held the pair's images
    return failed


def report_pair(task: Task) -> Outcome:
    """Make the missing report of a pair from the saved files; nothing is registered again."""
    _load()
    _use_threads()
    return _collected(_report, task)


def _report(task: Task) -> Outcome:
    from ncf.core.process import release_memory
    from ncf.report.after import told_or_reason

    folder = Path(task.output_dir) / task.name
    with redirect_stdout(io.StringIO()):  # it prints where the page lies
        why = told_or_reason(folder)
    release_memory()
    return Outcome(task.name, no_report=why and f"{why} (by hand: ncf report {folder})")


def bound_pair(task: Task) -> Outcome:
    """Bound the error of a pair that is done, from its saved files, and make its findings or its report anew."""
    _load()
    _use_threads()
    return _collected(_bound, task)


def _bound(task: Task) -> Outcome:
    from ncf.api.trust import bounded_or_reason
    from ncf.core.process import release_memory
    from ncf.report.after import told_or_reason

    folder, no_report = Path(task.output_dir) / task.name, None
    with redirect_stdout(io.StringIO()):  # they print what they find
        why = bounded_or_reason(folder, progress=False)
        report = bool(json.loads(task.overrides).get("report", True))
        if why is None or (report and not (folder / REPORT_FILE).exists()):
            no_report = told_or_reason(folder, page=report)
    release_memory()
    return Outcome(task.name, no_report=no_report, no_bounds=why)


# the call that bounds the error of results that lack it, by the call that makes the results
BOUNDED_BY: dict[Call, Call] = {register_pair: bound_pair}
# the call that makes missing reports, by the call that makes the results; results of other calls have no reports
REPORTED_BY: dict[Call, Call] = {register_pair: report_pair}


@lru_cache(maxsize=1)
def _load() -> None:
    """Load the libraries, which takes seconds, and keep the garbage collector from their objects after every pair."""
    load_libraries()
    gc.collect()
    gc.freeze()  # once: the objects that exist now are never collected


def _use_threads() -> None:
    """Let torch use the threads that `prepare_process` set, also where an earlier task has loaded torch already."""
    import torch

    wanted = int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads()))
    if wanted != torch.get_num_threads():  # once torch is told, MKL shares even the smallest products among threads
        torch.set_num_threads(wanted)


@lru_cache(maxsize=1)
def _session(config_files: tuple[str, ...], overrides: str, output_dir: str) -> Session:
    """Return the session of a config."""
    from ncf.run.session import Session

    for name in ("ncf.fit.optimizer", "ncf.fit.initial_alignment"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # the outcome tells an error
    _use_threads()
    session = Session(config_files, {**json.loads(overrides), "output_dir": Path(output_dir), "progress": False})
    session.keep_memory()
    return session
