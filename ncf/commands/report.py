"""``ncf report``: the page and the pictures of a result, made again."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from fire.decorators import SetParseFn

from ncf.commands.common import CallJob, absolute, moved_files, or_refused, refuse
from ncf.core.paths import there


@SetParseFn(str)
def report(
    results: str,
    *,
    fixed: str | None = None,
    moving: str | None = None,
    fixed_label: str | None = None,
    moving_label: str | None = None,
    landmarks: str | None = None,
) -> CallJob:
    """Make the report of RESULTS again: report.html and its pictures, from the saved files and the registered scans.

    For a folder of results it makes the report of each; in a cohort's output folder also index.html, and in that of a
    series the report of the series.

    Args:
        results: what register, cohort or series wrote.
        fixed: the fixed scan, where it has moved since; for a single result, like all that follow.
        moving: the moving scan.
        fixed_label: the label map on the fixed grid.
        moving_label: the label map on the moving grid.
        landmarks: the CSV with six columns.
    """
    given = dict(locals())
    folder = absolute("results", results)
    if not or_refused(there, folder).is_dir():
        refuse(f"{folder} is no folder; give one that register or cohort wrote")
    return CallJob(partial(_make_reports, folder, moved_files(given)))


def _make_reports(folder: Path, inputs: dict[str, Path]) -> None:
    """Make the report of every result in a folder, and the index of a cohort; exit with a line for each that failed."""
    from ncf.core.drawing import load_matplotlib
    from ncf.core.names import RUN_FILE

    load_matplotlib()  # this and the next imports take seconds
    from ncf.cohort.index import is_cohort, make_index
    from ncf.report.after import told_or_reason
    from ncf.result.folder import saved_results
    from ncf.series.names import SERIES_REPORT
    from ncf.series.run import is_series, saved_plan
    from ncf.series.told import tell_series

    if inputs and not (folder / RUN_FILE).exists():
        refuse(f"--{next(iter(inputs))} is for a single result; {folder} holds several or none")
    found = [] if is_cohort(folder) and not list(folder.glob(f"*/{RUN_FILE}")) else saved_results(folder)
    failed = [line for result in found if (line := told_or_reason(result.folder, inputs, alone=True)) is not None]
    if is_cohort(folder):
        print(f"  index       {make_index(folder)}")
    if is_series(folder):
        tell_series(saved_plan(folder))
        print(f"  series      {folder / SERIES_REPORT}")
    if failed:
        refuse("\n".join(failed))
