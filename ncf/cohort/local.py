"""Worker processes on this machine as the engine; one that dies takes its pair with it and no other."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from ncf.cohort.worker import Call, Outcome, Report, Resources, Task, prepare_process
from ncf.core.folders import remove_begun


def run(tasks: Sequence[Task], report: Report, *, call: Call, resources: Resources) -> None:
    """Do every task in a worker process and report the outcomes, in the order in which the tasks end.

    Args:
        tasks: of the cohort.
        report: is called with each outcome.
        call: what a worker does with a task.
        resources: what the workers may use.
    """
    context: Any = get_context("spawn")
    begun = (context.Value("i", 0), resources.threads, resources.devices)
    workers = min(resources.workers, len(tasks))
    with ProcessPool(max_workers=workers, context=context, initializer=_begin, initargs=begun) as pool:
        futures: dict[Any, Task] = {pool.schedule(call, args=[task]): task for task in tasks}
        try:
            for future in as_completed(futures):
                report(outcome_of(future, futures[future]))
        except BaseException:  # Ctrl-C too: tasks that have not begun stay undone
            pool.stop()
            pool.join()
            for task in tasks:
                remove_begun(Path(task.output_dir) / task.name)
            raise


def _begin(counter: Any, threads: int, devices: Sequence[str]) -> None:
    """Prepare a new worker: its number decides its device, and it ends when the process that started it has ended."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    prepare_process(threads, devices[number % len(devices)] if devices else None)


def _end_with_parent() -> None:
    """Wait for the end of the parent process, then end: workers of a killed command must not run beside the next."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def outcome_of(future: Any, task: Task) -> Outcome:
    """Wait for the outcome of a scheduled task; that of a process which died says so.

    Args:
        future: of the task.
        task: that was scheduled.
    """
    try:
        return future.result()
    except ProcessExpired as died:
        status = died.exitcode
        why = f"signal {-status}" if status and status < 0 else f"status {status}"
        return Outcome(
            task.name, f"the worker process ended with {why}; if it was killed for its memory, use fewer workers"
        )
