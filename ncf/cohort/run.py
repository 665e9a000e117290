"""A cohort from beginning to end: prepared, registered by an engine, collected. What is done is never done again.

Only reports are made later, where results lack them: they come from saved files, and nothing is registered for them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from importlib import import_module

from ncf.cohort.lock import only_run
from ncf.cohort.plan import (
    DONE,
    Plan,
    failures,
    open_pairs,
    prepared,
    record_failure,
    without_bounds,
    without_report,
)
from ncf.cohort.worker import BOUNDED_BY, REPORTED_BY, Call, Outcome, Resources, register_pair, task_of
from ncf.core.console import tell
from ncf.core.drawing import load_matplotlib
from ncf.core.files import load_json
from ncf.core.lacking import Lacking
from ncf.core.names import DOUBTFUL, METRICS_FILE
from ncf.core.narrow import for_terminal
from ncf.core.notes import BEGINNING, note
from ncf.io.pair_lists import Pairs

logger = logging.getLogger(__name__)

ENGINES = {"local": "local", "torchrun": "ranks", "dask": "cluster"}  # name -> module of this package
WORKER_MIB = 2500  # for each worker: 1200 were measured at the usual size, 1500 with a report; the rest is a margin
BOUNDING_MIB = 4000  # where it bounds errors too: 2700 were measured at the usual size


def default_resources(
    *, workers: int | None = None, threads: int = 1, devices: Sequence[str] = (), bounds: bool = False
) -> Resources:
    """Return a worker for every device, or for every core as far as memory allows.

    A second thread helps a fit less than a second pair helps a cohort. The number of threads does not follow the number
    of cores, so any number of workers on any machine gives the same bytes.

    Args:
        workers: processes; None for the default.
        threads: of each worker.
        devices: CUDA devices for the workers.
        bounds: whether the workers bound errors too, which needs more memory.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if workers is None:
        each = BOUNDING_MIB if bounds else WORKER_MIB
        workers = len(devices) or max(1, min(cores // threads, memory_mib() // each))
    return Resources(workers, threads, tuple(devices))


def all_devices() -> tuple[str, ...]:
    """Return the numbers of this machine's CUDA devices."""
    import torch  # takes seconds to import

    return tuple(str(number) for number in range(torch.cuda.device_count()))


def memory_mib() -> int:
    """Return the memory of this machine in MiB; where it is not known (Windows), enough for any number of workers."""
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
    """Register every open pair of a plan, and write tables, a picture and an index, also after failures.

    Args:
        plan: of the cohort.
        engine: of `ENGINES`.
        resources: for the engine; by default `default_resources`.
        retry_failed: True registers those pairs again that failed before.
        progress: False hides the bar.
        call: what a worker does with a task. What its results lack is made by `BOUNDED_BY` and `REPORTED_BY`.

    Returns:
        True if every pair has a result, with the report and the bounds that are wanted.

    Raises:
        PairError: another run is at work in the output folder, or inputs or settings have changed (`prepared`). All
            results stay as they were.
    """
    load_matplotlib()
    resources = resources or default_resources(bounds=plan.bounds)
    with only_run(plan.output_dir):
        prepared(plan, threads=resources.threads)
        work = [(call, open_pairs(plan, retry_failed=retry_failed))]
        lacking = without_bounds(plan) if call in BOUNDED_BY else []
        if lacking:
            work.append((BOUNDED_BY[call], lacking))  # with their reports, which show the bounds
        if call in REPORTED_BY:
            work.append((REPORTED_BY[call], [pair for pair in without_report(plan) if pair not in lacking]))
        return _told(plan, _worked(plan, work, engine=engine, resources=resources, progress=progress))


def _worked(
    plan: Plan, work: Sequence[tuple[Call, Pairs]], *, engine: str, resources: Resources, progress: bool
) -> Lacking:
    """Have an engine do each call with its pairs, no pair in two, and return what failed beside complete results.

    A pair that failed is recorded. Where a process ended but the result is there, only what lies beside it is missing.
    """
    lacking = Lacking([], [])
    finished = len(plan.pairs) - sum(len(pairs) for _, pairs in work)
    from tqdm import tqdm

    with tqdm(total=len(plan.pairs), initial=finished, desc="pairs", disable=None if progress else True) as bar:

        def report(outcome: Outcome) -> None:
            """Record the outcome of one task."""
            with bar.external_write_mode():
                note_outcome(plan, outcome, lacking)
            bar.update()

        for call, pairs in work:
            tasks = [task_of(pair, plan.config_files, plan.overrides, plan.output_dir) for pair in pairs]
            if tasks:
                module = import_module(f"ncf.cohort.{ENGINES[engine]}")
                module.run(tasks, report, call=call, resources=resources)
    return lacking


def note_outcome(plan: Plan, outcome: Outcome, lacking: Lacking) -> None:
    """Tell the notes about a pair, record a failure, and add what a complete result lacks.

    Args:
        plan: of the cohort.
        outcome: of one task.
        lacking: lines are added to it.
    """
    tell_notes(outcome)
    logger.debug("%s: %s", outcome.name, outcome.reason or outcome.no_bounds or outcome.no_report or "done")
    if logger.isEnabledFor(logging.DEBUG) and outcome.reason is None:
        from ncf.report.saved_findings import saved_warnings

        for text in saved_warnings(plan.folder({"name": outcome.name})):
            logger.debug("%s: warning: %s", outcome.name, text)
    if outcome.no_report is not None:
        lacking.reports.append(outcome.no_report)
    if outcome.no_bounds is not None:
        lacking.bounds.append(outcome.no_bounds)
    if outcome.reason is None:
        return
    pair = {"name": outcome.name}
    if plan.state(pair) == DONE:
        lines = lacking.bounds if plan.lacks_bounds(pair) else lacking.reports
        lines.append(f"{outcome.name}: {outcome.reason}")
    else:
        record_failure(plan, outcome.name, reason=outcome.reason, detail=outcome.detail)


def tell_notes(outcome: Outcome) -> None:
    """Tell the notes about a pair with its name; other warnings are details, for a log.

    Args:
        outcome: of its task.
    """
    for line in outcome.said:
        if line.startswith(BEGINNING):
            note(line.removeprefix(BEGINNING), outcome.name)
        else:
            logger.debug("%s: %s", outcome.name, line)


def doubtful(plan: Plan) -> dict[str, list[str]]:
    """Return why the verdict on a pair is doubtful, for every pair that is done and on which it is.

    Args:
        plan: of the cohort.
    """
    found = {}
    for pair in plan.pairs:
        if plan.state(pair) == DONE:
            verdict = load_json(plan.folder(pair) / METRICS_FILE).get("verdict", {})
            if verdict.get("word") == DOUBTFUL:
                found[str(pair["name"])] = list(verdict["reasons"])
    return found


def tell_lacking(lacking: Lacking) -> None:
    """Print what complete results lack, a line for each."""
    for line in lacking.bounds:
        print(f"no bounds: {line}")
    for line in lacking.reports:
        print(f"no report: {line}")


def _told(plan: Plan, lacking: Lacking) -> bool:
    """Write tables, picture and index, and print what a person should know; return True if all went well."""
    from ncf.cohort.collect import collect

    tell(for_terminal(collect(plan)))
    failed = failures(plan)
    for failure in failed:
        print(f"failed: {failure['name']}: {failure['reason']}")
    if plan.reports:
        from ncf.cohort.index import make_index
        from ncf.report.saved_findings import saved_warnings

        make_index(plan.output_dir)
        warned = [pair["name"] for pair in plan.pairs if saved_warnings(plan.folder(pair))]
        if warned:
            tell(f"with warnings in their reports: {', '.join(warned)}")
    for name, reasons in doubtful(plan).items():
        print(f"doubtful: {name}: {'; '.join(reasons)}")
    tell_lacking(lacking)
    print(f"{len(plan.pairs) - len(failed)} of {len(plan.pairs)} pairs done, results in {plan.output_dir}")
    return not failed and not any(lacking)
