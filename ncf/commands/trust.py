"""``ncf trust``: bounds of the error of a result in mm, by other fits of the same pair."""

from __future__ import annotations

from fire.decorators import SetParseFn

from ncf.commands.common import CallJob, absolute, chosen_configs, moved_files, refuse, true_or_false, whole_number
from ncf.core.paths import shortened, there

FEWEST, MEMBERS, PRESET = 2, "4", "fast"


@SetParseFn(str)
def trust(
    result: str,
    *,
    members: str = MEMBERS,
    preset: str = PRESET,
    progress: str = "true",
    fixed: str | None = None,
    moving: str | None = None,
    fixed_label: str | None = None,
    moving_label: str | None = None,
) -> CallJob:
    """Bound the error of RESULT at every voxel of the fixed scan, in mm; write trust.nii.gz and trust.json into it.

    The pair is fitted again, disturbed a little and every second time the other way round. Where these fits disagree
    with the result, it is not to be trusted. Two bounds are written: the first is meant to hold for 68 %, the second
    for 95 % of all points; both are estimates. The report shows the second one, and points that are carried get both.
    The fits may bend space also where RESULT is rigid or affine: what such a map leaves is its error.

    Args:
        result: what register wrote.
        members: how many fits are made, 2 or more.
        preset: of these fits: one of the presets below, or the path of a JSON overlay of your own.
        progress: false hides the progress bars.
        fixed: the fixed scan, where it has moved since.
        moving: the moving scan.
        fixed_label: the label map on the fixed grid.
        moving_label: the label map on the moving grid.
    """
    given = dict(locals())
    folder = absolute("result", result)
    if not there(folder).is_dir():
        refuse(f"{shortened(folder)} is no folder; give one that register wrote")
    count = whole_number("members", members)
    if count < FEWEST:
        refuse(f"--members is {FEWEST} or more, got {members}")
    chosen_configs(preset)
    bars = true_or_false("progress", progress)
    inputs = moved_files({**given, "landmarks": None})

    def call() -> None:
        """Make the fits, write the bounds, and make the findings again, with the report where there is one."""
        from ncf.api.trust import trust as judge
        from ncf.core.console import tell
        from ncf.core.names import REPORT_FILE, TRUST_FILE, TRUST_NUMBERS_FILE
        from ncf.evaluate.trust import trust_in_words
        from ncf.report.after import told_or_reason

        told = trust_in_words(judge(folder, inputs=inputs, members=count, preset=preset, progress=bars).numbers)
        files = [f"  files       {folder / name}" for name in (TRUST_FILE, TRUST_NUMBERS_FILE)]
        tell("\n".join([f"  error       {told}", *files]), brief=f"Bounded {folder.name}, {told}: {folder}")
        failed = told_or_reason(folder, inputs, page=(folder / REPORT_FILE).exists())
        if failed is not None:
            refuse(failed)

    return CallJob(call)
