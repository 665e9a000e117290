"""A series from beginning to end: compared, registered phase by phase, told. What is done is never done again.

The first phase is the one most like the fixed scan. Each of the others begins with the network of the phase that is
most like it, among those before it whose verdict is good. So a result depends on the scans of the series, not on the
order of their names in a command, nor on where a run was interrupted.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ncf.cohort.lock import only_run
from ncf.cohort.plan import (
    DONE,
    FAILED,
    Plan,
    failures,
    open_pairs,
    prepared,
    record_failure,
    without_bounds,
    without_report,
)
from ncf.cohort.run import doubtful, note_outcome, tell_lacking
from ncf.cohort.worker import Outcome, bound_pair, register_pair, report_pair, task_of
from ncf.core.drawing import load_matplotlib
from ncf.core.errors import PairError
from ncf.core.files import load_json
from ncf.core.lacking import Lacking
from ncf.core.names import NETWORK_FILE
from ncf.io.pair_lists import Pairs
from ncf.pair.checks import CheckFilesd
from ncf.series.names import SERIES_FILE, SERIES_REPORT
from ncf.series.scans import SeriesScans

logger = logging.getLogger(__name__)


def plan_of(
    scans: SeriesScans,
    config_files: tuple[str, ...],
    output_dir: Path,
    *,
    overrides: Mapping[str, Any],
    points: Path | None = None,
    space: str | None = None,
) -> Plan:
    """Return the plan of a series.

    Args:
        scans: of the series.
        config_files: the base first.
        output_dir: each phase gets ``<output_dir>/<name>/``.
        overrides: of config entries, plain data.
        points: file of points in the fixed scan, whose paths are told.
        space: of its numbers (`ncf.io.points.table.read_points_file`).
    """
    more = {"times_s": dict(scans.times_s), "told": dict(scans.told), "points": points and str(points), "space": space}
    return Plan(scans.pairs, config_files, output_dir, overrides, SERIES_FILE, more)


def is_series(folder: Path) -> bool:
    """Tell whether ``ncf series`` wrote into this folder."""
    return (folder / SERIES_FILE).exists()


def saved_plan(folder: Path) -> Plan:
    """Return the plan of a series that was run before, to tell it again; nothing is registered by it.

    Args:
        folder: the output folder of the series.
    """
    kept = load_json(folder / SERIES_FILE)
    more = {key: value for key, value in kept.items() if key not in ("settings", "pairs")}
    settings = {key: value for key, value in kept["settings"].items() if key != "config_files"}
    return Plan(kept["pairs"], (), folder, settings, SERIES_FILE, more)


def run_series(plan: Plan, *, retry_failed: bool = False, progress: bool = True) -> bool:
    """Register every open phase of a series, and write its table, paths, labels and report, also after failures.

    Args:
        plan: of `plan_of`.
        retry_failed: True registers those phases again that failed before.
        progress: False hides the bar.

    Returns:
        True if every phase has a result, with the report and the bounds that are wanted.

    Raises:
        PairError: an input is missing or cannot be opened, another run is at work in the output folder, or inputs or
            settings have changed. All results stay as they were.
    """
    import torch

    load_matplotlib()
    for pair in plan.pairs:
        CheckFilesd()(pair)
    _check_fixed(plan)
    with only_run(plan.output_dir):
        prepared(plan, threads=torch.get_num_threads())
        unbounded = without_bounds(plan)
        unreported = [pair for pair in without_report(plan) if pair not in unbounded]
        lacking = _registered(plan, open_pairs(plan, retry_failed=retry_failed), progress=progress)
        for call, pairs in ((bound_pair, unbounded), (report_pair, unreported)):
            for pair in pairs:
                note_outcome(plan, call(task_of(pair, plan.config_files, plan.overrides, plan.output_dir)), lacking)
        return _told(plan, lacking)


def _check_fixed(plan: Plan) -> None:
    """Raise PairError where the points cannot be read, or, before a first run, the fixed scan, which all need."""
    from ncf.io.image_files import read_image
    from ncf.series.paths import fixed_points

    if not plan.output_dir.exists():
        read_image("fixed", plan.pairs[0]["fixed"])
    fixed_points(plan.more, plan.pairs[0]["fixed"])


def _registered(plan: Plan, left: Pairs, *, progress: bool) -> Lacking:
    """Register phases, each from its neighbour; return what failed beside complete results."""
    from tqdm import tqdm

    lacking = Lacking([], [])
    if not left:
        return lacking
    order, names = _order(plan), {pair["name"] for pair in left}
    pairs = {pair["name"]: pair for pair in plan.pairs}
    begun = len(plan.pairs) - len([name for name in order if name in names])
    with tqdm(total=len(plan.pairs), initial=begun, desc="phases", disable=None if progress else True) as bar:
        for name, neighbours in order.items():
            if name not in names:
                continue
            odd = doubtful(plan)
            good = [other for other in neighbours if plan.state(pairs[other]) == DONE and other not in odd]
            outcome = _register(plan, pairs[name], good[0] if good else None)
            with bar.external_write_mode():
                note_outcome(plan, outcome, lacking)
            bar.update()
    return lacking


def _register(plan: Plan, pair: Mapping[str, str], neighbour: str | None) -> Outcome:
    """Register a phase, from its neighbour where there is one."""
    logger.info("%s: %s", pair["name"], f"begins with the network of {neighbour}" if neighbour else "begins afresh")
    start = {} if neighbour is None else {"start": str(plan.output_dir / neighbour / NETWORK_FILE)}
    return register_pair(task_of({**pair, **start}, plan.config_files, plan.overrides, plan.output_dir))


def _order(plan: Plan) -> dict[str, list[str]]:
    """Return the phases in the order of fitting, each with those before it, the most alike first.

    A phase that cannot be read is recorded as failed, and left out.
    """
    from ncf.io.image_files import read_image
    from ncf.pair.neighbours import Neighbours

    found = Neighbours(read_image("fixed", plan.pairs[0]["fixed"]))
    for pair in plan.pairs:
        try:
            found.add(pair["name"], read_image("phase", pair["moving"]))
        except PairError as error:
            if plan.state(pair) == DONE:
                raise
            record_failure(plan, pair["name"], reason=str(error), detail="")
    order = found.order()
    return {name: found.ranked(name, order[:number]) for number, name in enumerate(order)}


def _told(plan: Plan, lacking: Lacking) -> bool:
    """Write what is known of the whole series, and print what a person should know; return True if all went well."""
    from ncf.series.told import tell_series

    for line in tell_series(plan):
        print(line)
    failed = failures(plan)
    for failure in failed:
        print(f"failed: {failure['name']}: {failure['reason']}")
    for name, reasons in doubtful(plan).items():
        print(f"doubtful: {name}: {'; '.join(reasons)}")
    tell_lacking(lacking)
    done = sum(plan.state(pair) == DONE for pair in plan.pairs)
    print(f"{done} of {len(plan.pairs)} phases done, results in {plan.output_dir}")
    if plan.reports and done:
        print(f"report: {plan.output_dir / SERIES_REPORT}")
    sys.stdout.flush()
    return not failed and not any(lacking) and all(plan.state(pair) != FAILED for pair in plan.pairs)
