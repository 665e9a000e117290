"""Numbers of many pairs as one table: a line for each pair, then mean, median and standard deviation.

Tables are written as JSON, CSV and Markdown. This module knows nested dictionaries of numbers, and text files. It must
not know what the numbers mean, except for the columns that a user reads first.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ncf.core.files import encoded, save_json, write_whole

NOTHING = "-"
PRINTED = 60  # rows that a user still reads at the end of a run
DIGITS, MOST_DECIMALS = 4, 5  # of a number in a table of pairs: all digits, and those behind the point
STATISTICS: dict[str, Callable[[list[float]], Any]] = {
    "mean": np.mean,
    "median": np.median,
    "std": np.std,
}  # std is that of the population
LABELLED = ("labels", "kept")  # entries whose keys are numbers of labels
Flat = dict[str, float | str | None]


def flat(numbers: Mapping[str, Any], prefix: str = "") -> Flat:
    """Return nested numbers as one level, such as ``tre_mm.after.mean``.

    Args:
        numbers: nested dictionaries; texts are kept, lists are left out.
        prefix: of every name.
    """
    found: Flat = {}
    for key, value in numbers.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= flat(value, f"{name}.")
        elif isinstance(value, (int, float, str, np.number)) or value is None:
            found[name] = value  # type: ignore[assignment]
    return found


def by_name(case: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the numbers of a pair with its labels under their names, where they have names.

    Numbers of structures differ from file to file, so a column of one number would mix organs.

    Args:
        case: nested numbers.
    """
    names = case.get("label_names")
    if not names:
        return case

    def renamed(value: Any, key: str) -> Any:
        if not isinstance(value, Mapping):
            return value
        labels = key in LABELLED
        return {(names.get(str(k), k) if labels else k): renamed(inner, str(k)) for k, inner in value.items()}

    return {key: renamed(value, key) for key, value in case.items() if key != "label_names"}


def known(values: Iterable[Any]) -> list[float]:
    """Return the finite numbers among values."""
    return [float(v) for v in values if isinstance(v, (int, float, np.number)) and math.isfinite(v)]


def statistics(rows: Sequence[Flat]) -> dict[str, dict[str, float]]:
    """Return mean, median and population standard deviation of every column of numbers, over the rows that have it."""
    columns = dict.fromkeys(name for row in rows for name in row)
    values = {name: known(row.get(name) for row in rows) for name in columns}
    return {name: {kind: float(of(v)) for kind, of in STATISTICS.items()} for name, v in values.items() if v}


def cell(number: Any) -> str:
    """Write a number with four digits, or a dash for what was not measured."""
    if not known([number]):
        return NOTHING
    return f"{number:.4g}" if abs(number) < 1000 else f"{number:.0f}"


def markdown(cells: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first row is its head."""
    head, *rest = [f"| {' | '.join(str(text).replace('|', '/') for text in row)} |" for row in cells]
    return "\n".join([head, "|---" * (head.count("|") - 1) + "|", *rest])


@dataclass(frozen=True)
class Table:
    """Numbers of pairs as they are read. All numbers of a column have as many decimals, so that they can be compared.

    Attributes:
        columns: titles.
        rows: name and cells of each row.
        statistics: kind and cells of each statistic.
    """

    columns: list[str]
    rows: list[tuple[str, list[str]]]
    statistics: list[tuple[str, list[str]]]


def tabulated(rows: Sequence[Flat], columns: Mapping[str, str]) -> Table:
    """Return the table of those columns that any row has, with statistics if there is more than one row.

    Args:
        rows: flat numbers of the pairs, each with a ``name``.
        columns: title to name of a flat entry. A title that ends in % shows a fraction times 100. An entry may also be
            a text; it has no statistics.
    """
    used = {
        title: name for title, name in columns.items() if known(row.get(name) for row in rows) or _texts(rows, name)
    }
    found = statistics(rows)
    kinds = list(STATISTICS) if len(rows) > 1 else []
    by_column = []
    for title, name in used.items():
        if _texts(rows, name):
            by_column.append([str(row.get(name) or NOTHING) for row in rows] + ["" for _ in kinds])
            continue
        numbers = [row.get(name) for row in rows] + [found[name][kind] for kind in kinds]
        by_column.append(_aligned(numbers, scale=100 if title.endswith("%") else 1))
    lines = [list(line) for line in zip(*by_column, strict=True)] or [[] for _ in (*rows, *kinds)]
    names = [str(row["name"]) for row in rows]
    return Table(
        list(used),
        list(zip(names, lines[: len(rows)], strict=True)),
        list(zip(kinds, lines[len(rows) :], strict=True)),
    )


def _texts(rows: Sequence[Flat], name: str) -> bool:
    """Tell whether a column holds texts."""
    return any(isinstance(row.get(name), str) for row in rows)


def _aligned(numbers: Sequence[Any], *, scale: int) -> list[str]:
    """Return the cells of a column, with the number of decimals that its largest number needs."""
    scaled = [scale * number if known([number]) else None for number in numbers]
    shown = known(scaled)
    largest = max(map(abs, shown), default=0.0)
    whole = all(number == round(number) for number in shown)
    digits = 0 if whole else min(max(DIGITS - 1 - math.floor(math.log10(largest)), 0), MOST_DECIMALS)
    return [NOTHING if number is None else f"{number:.{digits}f}" for number in scaled]


def overview(rows: Sequence[Flat], columns: Mapping[str, str], *, most: int | None = None) -> str:
    """Return `tabulated` as Markdown.

    Args:
        rows: see `tabulated`.
        columns: see `tabulated`.
        most: of more rows than this, only the statistics are shown; None shows all rows.
    """
    table = tabulated(rows, columns)
    lines = [["pair", *table.columns]]
    if most is not None and len(rows) > most:
        lines.append([f"{len(rows)} pairs", *[""] * len(table.columns)])
    else:
        lines += [[name, *cells] for name, cells in table.rows]
    return markdown([*lines, *([f"**{kind}**", *cells] for kind, cells in table.statistics)])


def save_csv(path: str | Path, rows: Sequence[Flat], *, columns: Sequence[str] = ()) -> None:
    """Write a CSV with a line for each row; a cell is empty where the row has no such number.

    Args:
        path: of the file.
        rows: flat numbers of the pairs.
        columns: the first columns; every other that any row has follows.

    Raises:
        PairError: the file cannot be written.
    """
    columns = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: "" if v is None or (isinstance(v, float) and math.isnan(v)) else v for k, v in row.items()})
    write_whole(path, lambda temporary: temporary.write_bytes(encoded(text.getvalue())))


def save_summary(
    folder: str | Path,
    stem: str,
    cases: Sequence[Mapping[str, Any]],
    *,
    columns: Mapping[str, str],
    more: Mapping[str, Any],
) -> str:
    """Write three files with every pair: <stem>.json (cases, statistics, and ``more``), <stem>.csv and <stem>.md.

    Args:
        folder: where.
        stem: of the names of the files.
        cases: nested numbers, each with a ``name``.
        columns: of the Markdown table, see `overview`.
        more: further entries of the JSON; numbers among them are also written below the Markdown table.

    Returns:
        The Markdown table to print; of more than `PRINTED` pairs it has only the statistics.

    Raises:
        PairError: a file cannot be written.
    """
    rows = [flat(by_name(case)) for case in cases]
    text = overview(rows, columns)
    shown = overview(rows, columns, most=PRINTED)
    save_json(Path(folder) / f"{stem}.json", {"cases": list(cases), "summary": statistics(rows), **more})
    save_csv(Path(folder) / f"{stem}.csv", rows)
    told = "".join(f"\n{key.replace('_', ' ')}: {cell(value)}\n" for key, value in more.items() if known([value]))
    write_whole(Path(folder) / f"{stem}.md", lambda temporary: temporary.write_bytes(encoded(f"{text}\n{told}")))
    return shown + (f"\n{told}".rstrip() if told else "")
