"""``ncf tg132``: the measures and limits of AAPM's task group 132, for a result."""

from __future__ import annotations

import math

from fire.decorators import SetParseFn

from ncf.commands.common import CallJob, absolute, chosen_configs, moved_files, refuse, true_or_false
from ncf.core.narrow import for_terminal
from ncf.core.paths import shortened, there


@SetParseFn(str)
def tg132(
    result: str,
    *,
    consistency: str = "false",
    limit_mm: str | None = None,
    limit_dice: str | None = None,
    preset: str | None = None,
    json: str = "false",
    fixed: str | None = None,
    moving: str | None = None,
    fixed_label: str | None = None,
    moving_label: str | None = None,
    landmarks: str | None = None,
) -> CallJob:
    """Judge RESULT by the measures and limits of AAPM's task group 132; write tg132.json and tg132.md to its folder.

    Args:
        result: what register wrote.
        consistency: true registers once more, with fixed and moving exchanged and the settings of the first time.
        limit_mm: largest mean error or distance in mm; by default the largest edge of a voxel of the fixed scan.
        limit_dice: least Dice; by default 0.8.
        preset: of the second registration, in place of the settings of the first time.
        json: true prints tg132.json in place of the table.
        fixed: the fixed scan, where it has moved since.
        moving: the moving scan.
        fixed_label: a label map on the fixed grid, also one that was not registered.
        moving_label: a label map on the moving grid.
        landmarks: the CSV with six columns.
    """
    given = dict(locals())
    folder = absolute("result", result)
    if not there(folder).is_dir():
        refuse(f"{shortened(folder)} is no folder; give one that register wrote")
    inputs = moved_files(given)
    twice, as_json = true_or_false("consistency", consistency), true_or_false("json", json)
    if preset is not None and not twice:
        refuse("--preset is for --consistency=true")
    chosen_configs(preset)
    limits = {
        "limit_mm": None if limit_mm is None else _number("limit_mm", limit_mm),
        "limit_dice": None if limit_dice is None else _number("limit_dice", limit_dice, most=1.0),
    }

    def call() -> None:
        """Judge the result and print the table, or the content of tg132.json."""
        from ncf.api.tg132 import tg132 as judge

        _, (numbers, table) = judge(folder, inputs=inputs, consistency=twice, preset=preset, **limits)
        if as_json:
            print(numbers.read_text(encoding="utf-8"), end="")
        else:
            print(f"{for_terminal(table.read_text(encoding='utf-8'))}\n{numbers}\n{table}")

    return CallJob(call)


def _number(option: str, value: str, *, most: float = math.inf) -> float:
    """Return a number above zero; end the process for other values."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (0 < number <= most and math.isfinite(number)):
        refuse(f"--{option} is a number above 0{'' if most == math.inf else f' and at most {most:g}'}, got {value!r}")
    return number
