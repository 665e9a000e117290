"""A cohort from beginning to end: prepared, registered by an engine, collected. What is done is never done again.

Only reports are made up for, where results lack them: of saved files, nothing is registered for them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module

from tqdm import tqdm

from scripts.cohort.lock import only_run
from scripts.cohort.plan import DONE, Plan, failures, open_pairs, prepared, record_failure, without_report
from scripts.cohort.worker import REPORTED_BY, Call, Outcome, Resources, register_pair, task_of
from scripts.datasets import Pairs
from scripts.drawing import load_matplotlib

ENGINES = {"local": "local", "torchrun": "ranks", "dask": "cluster"}  # name -> module of this package
WORKER_MIB = 2500  # for each worker: 1200 were measured at the everyday size, 1500 with a report; the rest is room


def default_resources(*, workers: int | None = None, threads: int = 1, devices: Sequence[str] = ()) -> Resources:
    """A worker for every device, or for every core as far as memory goes: a second thread helps a fit less than a pair.

    threads: of each worker; not by the number of cores, so that any number of workers on any machine gives the same bytes.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if workers is None:
        workers = len(devices) or max(1, min(cores // threads, memory_mib() // WORKER_MIB))
    return Resources(workers, threads, tuple(devices))


def all_devices() -> tuple[str, ...]:
    """The numbers of this machine's CUDA devices."""
    import torch  # takes seconds to import

    return tuple(str(number) for number in range(torch.cuda.device_count()))


def memory_mib() -> int:
    """What this machine has in all; where that cannot be known (Windows), enough for any number of workers."""
    if not hasattr(os, "sysconf"):
        return 2**20
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def run_cohort(
    plan: Plan,
    *,
    engine: str = "local",
    resources: Resources | None = None,
    retry_failed: bool = False,
    progress: bool = True,
    call: Call = register_pair,
) -> bool:
    """Whether every pair of the plan has a result and its report; tables, a picture and an index are written, also after
    failures.

    Args:
        engine: of `ENGINES`. resources: for it; by default `default_resources`. retry_failed: register those again that
            failed before. call: what a worker does with a task. Reports that its results lack are made by `REPORTED_BY`.

    Raises PairError, with all results as they were, while another run is at work in the output folder, or where `prepared`
    finds inputs or settings changed.
    """
    load_matplotlib()
    resources = resources or default_resources()
    with only_run(plan.output_dir):
        prepared(plan, threads=resources.threads)
        work = [(call, open_pairs(plan, retry_failed=retry_failed))]
        if call in REPORTED_BY:
            work.append((REPORTED_BY[call], without_report(plan)))
        return _told(plan, _worked(plan, work, engine=engine, resources=resources, progress=progress))


def _worked(
    plan: Plan, work: Sequence[tuple[Call, Pairs]], *, engine: str, resources: Resources, progress: bool
) -> list[str]:
    """A line for every report that could not be made, after an engine has done each call with its pairs, no pair in two.

    A pair that failed is recorded; one whose result is there, although its process ended, lacks a report alone.
    """
    no_report: list[str] = []
    finished = len(plan.pairs) - sum(len(pairs) for _, pairs in work)
    with tqdm(total=len(plan.pairs), initial=finished, desc="pairs", disable=None if progress else True) as bar:

        def report(outcome: Outcome) -> None:
            if outcome.no_report is not None:
                no_report.append(outcome.no_report)
            if outcome.reason is not None and plan.state({"name": outcome.name}) == DONE:
                no_report.append(f"{outcome.name}: {outcome.reason}")
            elif outcome.reason is not None:
                record_failure(plan, outcome.name, reason=outcome.reason, detail=outcome.detail)
            bar.update()

        for call, pairs in work:
            tasks = [task_of(pair, plan.config_files, plan.overrides, plan.output_dir) for pair in pairs]
            if tasks:
                module = import_module(f"scripts.cohort.{ENGINES[engine]}")
                module.run(tasks, report, call=call, resources=resources)
    return no_report


def _told(plan: Plan, no_report: Sequence[str]) -> bool:
    """Whether all went well; tables, picture and index are written, and what a person should know is printed."""
    from scripts.cohort.collect import collect  # takes seconds to import

    print(collect(plan))
    failed = failures(plan)
    for failure in failed:
        print(f"failed: {failure['name']}: {failure['reason']}")
    if plan.reports:
        from scripts.report.concerns import serious
        from scripts.report.index import make_index

        make_index(plan.output_dir)
        worrying = [pair["name"] for pair in plan.pairs if serious(plan.folder(pair))]
        if worrying:
            print(f"serious, by their reports: {', '.join(worrying)}")
    for line in no_report:
        print(f"no report: {line}")
    print(f"{len(plan.pairs) - len(failed)} of {len(plan.pairs)} pairs done, results in {plan.output_dir}")
    return not failed and not no_report
