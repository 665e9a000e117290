"""One process that registers pair after pair, its libraries loaded, so that the server stays free to answer."""

from __future__ import annotations

import os
from multiprocessing import get_context
from typing import Any

from pebble import ProcessPool

from scripts.cohort.local import outcome_of
from scripts.cohort.worker import Outcome, Task, prepare_process, register_pair


class WarmWorker:
    """A process that is started by the first task and kept; one that dies is replaced."""

    def __init__(self, threads: int | None = None) -> None:
        context: Any = get_context("spawn")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
        begin = (threads or cores, None)
        self._pool = ProcessPool(max_workers=1, context=context, initializer=prepare_process, initargs=begin)

    def __call__(self, task: Task) -> Outcome:
        """The outcome of a pair, after those that were asked for before; its files are in its folder."""
        return outcome_of(self._pool.schedule(register_pair, args=[task]), task)

    def stop(self) -> None:
        """Nothing; the process is gone, with the pair that it was at."""
        self._pool.stop()
        self._pool.join()
