"""``ncf report``: the page and the pictures of a result, again."""

from __future__ import annotations

from fire.decorators import SetParseFn

from scripts.verbs.common import CallJob, absolute, refuse


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
    """Make the report of RESULTS again: report.html and its pictures, from the saved files and the scans they were made of.

    For a folder of results it makes that of each; in a cohort's output folder also index.html.

    Args:
        results: what register or cohort wrote.
        fixed: the fixed scan, where it has moved since; for a single result, as all that follow.
        moving: the moving scan.
        fixed_label: the label map on the fixed grid.
        moving_label: the label map on the moving grid.
        landmarks: the CSV with six columns.
    """
    folder = absolute("results", results)
    if not folder.is_dir():
        refuse(f"{folder} is no folder; give one that register or cohort wrote")
    named = {
        "fixed": fixed,
        "moving": moving,
        "fixed_label": fixed_label,
        "moving_label": moving_label,
        "landmarks": landmarks,
    }
    inputs = {key: absolute(key, path) for key, path in named.items() if path is not None}
    for key, path in inputs.items():
        if not path.exists():
            refuse(f"--{key}: there is no {path}")

    def call() -> None:
        from scripts.drawing import load_matplotlib
        from scripts.names import RUN_FILE

        load_matplotlib()  # this and what follows takes seconds
        from scripts.report.after import attempt
        from scripts.report.index import is_cohort, make_index
        from scripts.saved import saved_results

        if inputs and not (folder / RUN_FILE).exists():
            refuse(f"--{next(iter(inputs))} is for a single result; {folder} holds several or none")
        found = [] if is_cohort(folder) and not list(folder.glob(f"*/{RUN_FILE}")) else saved_results(folder)
        failed = [line for result in found if (line := attempt(result.folder, inputs)) is not None]
        if is_cohort(folder):
            print(f"  index       {make_index(folder)}")
        if failed:
            refuse("\n".join(failed))

    return CallJob(call)
