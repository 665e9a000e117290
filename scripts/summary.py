"""Numbers of many pairs as one table: a line a pair, then mean, median and spread; as JSON, CSV and Markdown.

This room knows nested dictionaries of numbers and files of text. It must not know what the numbers mean, but for the
columns that a person reads first.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scripts.files import save_json, write_whole

NOTHING = "-"
PRINTED = 60  # lines that still fit a person who looks at the end of a run
STATISTICS: dict[str, Callable[[list[float]], Any]] = {"mean": np.mean, "median": np.median, "std": np.std}  # population
Flat = dict[str, float | str | None]


def flat(numbers: Mapping[str, Any], prefix: str = "") -> Flat:
    """Nested numbers as one level, ``tre_mm.after.mean``; texts are kept, lists are left out."""
    found: Flat = {}
    for key, value in numbers.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif isinstance(value, (int, float, str, np.number)) or value is None:
            found[name] = value  # type: ignore[assignment]
    return found


def known(values: Iterable[Any]) -> list[float]:
    """The finite numbers among values."""
    return [float(v) for v in values if isinstance(v, (int, float, np.number)) and math.isfinite(v)]


def statistics(rows: Sequence[Flat]) -> dict[str, dict[str, float]]:
    """Mean, median and population standard deviation of every column of numbers, over the rows that have it."""
    columns = dict.fromkeys(name for row in rows for name in row)
    values = {name: known(row.get(name) for row in rows) for name in columns}
    return {name: {kind: float(of(v)) for kind, of in STATISTICS.items()} for name, v in values.items() if v}


def cell(number: Any) -> str:
    """Four digits, or a dash for what was not measured."""
    if not known([number]):
        return NOTHING
    return f"{number:.4g}" if abs(number) < 1000 else f"{number:.0f}"


def markdown(cells: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *rest = [f"| {' | '.join(str(text).replace('|', '/') for text in row)} |" for row in cells]
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rest])


def overview(rows: Sequence[Flat], columns: Mapping[str, str], *, most: int | None = None) -> str:
    """A Markdown table of the columns {title: name of a flat entry} that any row has, with the statistics below.

    A title that ends in % shows a share times 100. Of more than ``most`` rows the statistics are shown alone.
    """
    used = {title: name for title, name in columns.items() if known(row.get(name) for row in rows)}
    found = statistics(rows)

    def line(label: str, numbers: Mapping[str, Any]) -> list[str]:
        values = {title: numbers.get(name) for title, name in used.items()}
        scaled = [100 * v if title.endswith("%") and isinstance(v, (int, float)) else v for title, v in values.items()]
        return [label, *map(cell, scaled)]

    shown = [] if most is not None and len(rows) > most else rows
    table = [["pair", *used], *(line(str(row["name"]), row) for row in shown)]
    if len(shown) < len(rows):
        table.append([f"{len(rows)} pairs", *[""] * len(used)])
    for kind in STATISTICS if len(rows) > 1 else ():
        table.append(line(f"**{kind}**", {name: numbers[kind] for name, numbers in found.items()}))
    return markdown(table)


def save_csv(path: str | Path, rows: Sequence[Flat]) -> None:
    """Nothing; a line a row, every column that any row has, empty where it has none."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: "" if v is None or (isinstance(v, float) and math.isnan(v)) else v for k, v in row.items()})
    write_whole(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8"))


def save_summary(
    folder: str | Path, stem: str, cases: Sequence[Mapping[str, Any]], *, columns: Mapping[str, str], more: Mapping[str, Any]
) -> str:
    """The Markdown table to print, of at most `PRINTED` pairs; three files are written.

    They are <stem>.json (cases, statistics, and ``more``), <stem>.csv and <stem>.md, with every pair.

    Args:
        cases: nested numbers, each with a ``name``. columns: of the Markdown table, see `overview`.
    """
    rows = [flat(case) for case in cases]
    text = overview(rows, columns)
    shown = overview(rows, columns, most=PRINTED)
    save_json(Path(folder) / f"{stem}.json", {"cases": list(cases), "summary": statistics(rows), **more})
    save_csv(Path(folder) / f"{stem}.csv", rows)
    told = "".join(f"\n{key.replace('_', ' ')}: {cell(value)}\n" for key, value in more.items() if known([value]))
    write_whole(Path(folder) / f"{stem}.md", lambda temporary: temporary.write_text(f"{text}\n{told}", encoding="utf-8"))
    return shown + (f"\n{told}".rstrip() if told else "")
