"""Worker processes on this machine; one that dies takes its pair with it and no other."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import as_completed
from multiprocessing import get_context
from typing import Any

from pebble import ProcessExpired, ProcessPool

from scripts.cohort.worker import Call, Outcome, Report, Resources, Task, prepare_process


def run(tasks: Sequence[Task], report: Report, *, call: Call, resources: Resources) -> None:
    """Nothing; every task was done by a worker process and its outcome reported, in the order they end."""
    context: Any = get_context("spawn")
    begun = (context.Value("i", 0), resources.threads, resources.devices)
    workers = min(resources.workers, len(tasks))
    with ProcessPool(max_workers=workers, context=context, initializer=_begin, initargs=begun) as pool:
        futures: dict[Any, Task] = {pool.schedule(call, args=[task]): task for task in tasks}
        try:
            for future in as_completed(futures):
                report(outcome_of(future, futures[future]))
        except BaseException:  # Ctrl-C too: what is not begun stays undone
            pool.stop()
            raise


def _begin(counter: Any, threads: int, devices: Sequence[str]) -> None:
    """In a new worker: its number decides its device."""
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    prepare_process(threads, devices[number % len(devices)] if devices else None)


def outcome_of(future: Any, task: Task) -> Outcome:
    """The outcome of a scheduled task, once it has one; that of a process which died says so."""
    try:
        return future.result()
    except ProcessExpired as died:
        status = died.exitcode
        why = f"signal {-status}" if status and status < 0 else f"status {status}"
        return Outcome(task.name, f"the worker process ended with {why}; if it was killed for its memory, use fewer workers")
