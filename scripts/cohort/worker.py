"""One pair in this process: the config's own workflow, kept warm from pair to pair.

What a pair leaves behind is files alone; what comes back is its name and, if it failed, the reason.
"""

from __future__ import annotations

import gc
import io
import json
import os
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from scripts.datasets import with_paths
from scripts.startup import load_libraries


@dataclass(frozen=True)
class Task:
    """What a worker needs to know, all of it small: paths and settings, no images. pair, overrides: as JSON."""

    pair: str
    config_files: tuple[str, ...]
    overrides: str
    output_dir: str

    @property
    def name(self) -> str:
        """The pair's."""
        return str(json.loads(self.pair)["name"])


@dataclass(frozen=True)
class Outcome:
    """name: of the pair. reason: why there is no result, None where there is one; detail: of a fault of the program.

    no_report: why a result has no report, None where it has one or none is wanted.
    """

    name: str
    reason: str | None = None
    detail: str = ""
    no_report: str | None = None


@dataclass(frozen=True)
class Resources:
    """What an engine may use.

    workers: processes. threads: of each. devices: CUDA devices, dealt out to the workers in turn; none means that workers
    see what this process sees. scheduler: address of a running Dask scheduler.
    """

    workers: int = 1
    threads: int = 1
    devices: tuple[str, ...] = ()
    scheduler: str | None = None


Call = Callable[[Task], Outcome]
Report = Callable[[Outcome], None]


def task_of(pair: Mapping[str, str], config_files: tuple[str, ...], overrides: Mapping[str, Any], output_dir: Path) -> Task:
    """The task of registering a pair."""
    return Task(json.dumps(dict(pair)), config_files, json.dumps(dict(overrides)), str(output_dir))


def prepare_process(threads: int, device: str | None) -> None:
    """Nothing; this process uses so many threads, and one device. Before torch is loaded, or it is too late."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(threads)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device


def register_pair(task: Task) -> Outcome:
    """The outcome of one pair; its files are in its folder, metrics.json last."""
    _load()
    from scripts.guard import explanation, release_memory

    workflow = _workflow(task.config_files, task.overrides, task.output_dir)
    workflow.parser["dataset_data"] = [with_paths(json.loads(task.pair))]
    workflow.initialize()
    try:
        with redirect_stdout(io.StringIO()):  # the summary of a single run
            workflow.parser.get_parsed_content("evaluator").run()
            failed = workflow.parser.get_parsed_content("reports").made()
    except Exception as error:
        told = explanation(error)
        fault = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return Outcome(task.name, told or fault, "" if told else traceback.format_exc())
    finally:
        workflow.parser.get_parsed_content("folders").release()
        workflow.parser.ref_resolver.reset()  # the evaluator, which holds the pair's images
        release_memory()
    return Outcome(task.name, no_report=next(iter(failed), None))


def report_pair(task: Task) -> Outcome:
    """The outcome of a pair that lacks its report alone: it is made of the saved files, nothing is registered again."""
    _load()
    _use_threads()
    from scripts.guard import release_memory
    from scripts.report.after import attempt

    folder = Path(task.output_dir) / task.name
    with redirect_stdout(io.StringIO()):  # where the page lies
        why = attempt(folder)
    release_memory()
    return Outcome(task.name, no_report=why and f"{why} (by hand: ncf report {folder})")


# what makes the reports that the results of a call lack; where a call is not named, its results have none
REPORTED_BY: dict[Call, Call] = {register_pair: report_pair}


@lru_cache(maxsize=1)
def _load() -> None:
    """Nothing; libraries are loaded, which takes seconds, and their objects are not looked through after every pair."""
    load_libraries()
    gc.collect()
    gc.freeze()  # once: whatever lives then stays for good


def _use_threads() -> None:
    """Nothing; torch uses as many threads as `prepare_process` was told, also where an earlier task had loaded it."""
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))


@lru_cache(maxsize=1)
def _workflow(config_files: tuple[str, ...], overrides: str, output_dir: str) -> Any:
    """The workflow of a config, its libraries loaded; the state of a pair is made anew by its ``initialize``."""
    import logging

    from monai.bundle import ConfigWorkflow

    for name in ("monai.bundle.workflows", "scripts.engine", "scripts.alignment"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # an error is told by the outcome
    _use_threads()
    settings = {**json.loads(overrides), "output_dir": Path(output_dir), "progress": False}
    workflow = ConfigWorkflow(config_file=list(config_files), workflow_type="inference", logging_file=False, **settings)
    workflow.initialize()
    workflow.parser.get_parsed_content("allocator").run()
    return workflow
