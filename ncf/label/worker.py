"""One process that registers pair after pair, with its libraries loaded, so that the server stays free to answer."""

from __future__ import annotations

import os
import threading
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from pebble import ProcessPool

from ncf.cohort.local import outcome_of
from ncf.cohort.worker import Outcome, Task, prepare_process, register_pair

STOPPED = "the label server is being stopped; ask again when it runs"


class WarmWorker:
    """A process that the first task starts and that is kept; one that dies is replaced.

    Args:
        threads: that it may use; by default one for each core.
    """

    def __init__(self, threads: int | None = None) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
        self._threads = threads or cores
        self._pool = self._made()
        self._asked, self._stopped, self._change = set[Any](), False, threading.Lock()

    def __call__(self, task: Task) -> Outcome:
        """Register a pair, after those that were asked for before, and write its files to its folder."""
        with self._change:
            if self._stopped:
                return Outcome(task.name, STOPPED)
            if not self._pool.active:  # the pool stops when its process dies while it has nothing to do
                self._pool = self._made()
            future = self._pool.schedule(register_pair, args=[task])
            self._asked.add(future)
        try:
            outcome = outcome_of(future, task)
        except (CancelledError, BrokenProcessPool):
            if not self._stopped:
                raise
            outcome = Outcome(task.name, STOPPED)
        finally:
            self._asked.discard(future)
        return Outcome(task.name, STOPPED) if self._stopped and outcome.reason else outcome

    def stop(self) -> None:
        """End the process with the pair that it is at, and tell everyone who waits for a pair."""
        with self._change:
            self._stopped = True
        self._pool.stop()
        self._pool.join()
        for future in tuple(self._asked):  # the pool leaves them open, and a thread would wait for ever
            future.cancel()

    def _made(self) -> ProcessPool:
        """Return a pool of one process."""
        context: Any = get_context("spawn")
        return ProcessPool(max_workers=1, context=context, initializer=prepare_process, initargs=(self._threads, None))
