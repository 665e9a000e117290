"""Dask as the engine: workers on this machine or on many, of which any may be lost. Needs the extra ``dask``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ncf.cohort.worker import Call, Outcome, Report, Resources, Task, prepare_process
from ncf.core.errors import PairError
from ncf.core.packages import optional

RETRIES = 2  # further tries of a pair whose worker was lost
GPU = "GPU"  # the resource that a worker with a GPU offers: dask worker --resources "GPU=1"


def run(tasks: Sequence[Task], report: Report, *, call: Call, resources: Resources) -> None:
    """Do every task in a Dask worker and report the outcomes, in the order in which the tasks end.

    A worker that is lost is replaced, or the others go on without it; another worker takes its pair, up to `RETRIES`
    times. Without the address of a scheduler, a LocalCluster is started. Where devices are named, each task gets a
    worker that offers the resource `GPU`.

    Args:
        tasks: of the cohort.
        report: is called with each outcome.
        call: what a worker does with a task.
        resources: what the workers may use.

    Raises:
        PairError: no scheduler answers.
    """
    distributed = optional("distributed")
    cluster: Any = None
    if resources.scheduler is None:
        offered = {"resources": {GPU: 1}} if resources.devices else {}
        cluster = distributed.LocalCluster(
            n_workers=min(resources.workers, len(tasks)),
            threads_per_worker=1,
            dashboard_address=":0",
            host="127.0.0.1",
            **offered,
        )
    try:
        with distributed.Client(cluster if resources.scheduler is None else resources.scheduler) as client:
            wanted = {"resources": {GPU: 1}} if resources.devices else {}
            futures = {
                client.submit(
                    _prepared, call, resources.threads, task, key=task.name, pure=False, retries=RETRIES, **wanted
                ): task
                for task in tasks
            }
            for future in distributed.as_completed(futures):
                report(_outcome(future, futures[future]))
    except OSError as error:
        raise PairError(
            f"no Dask scheduler answers at {resources.scheduler}: {error}; start one, or leave --scheduler out"
        ) from error
    finally:
        if cluster is not None:
            cluster.close()


def _prepared(call: Call, threads: int, task: Task) -> Outcome:
    """Do a task in a worker that may be new: one that replaces a lost one needs as many threads, else bytes differ."""
    prepare_process(threads, None)
    return call(task)


def _outcome(future: Any, task: Task) -> Outcome:
    """Return the outcome of a task; that of a task that no worker finished says so."""
    error = future.exception()
    if error is None:
        return future.result()
    return Outcome(task.name, f"no worker finished it: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
