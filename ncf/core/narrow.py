"""Markdown tables on a terminal that is narrower than they are: a row becomes lines of head and cell."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby


def for_terminal(text: str) -> str:
    """Return a text for the terminal: tables that do not fit into it are written row by row; files get all as it is.

    Args:
        text: with Markdown tables.
    """
    if not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size().columns
    lines: list[str] = []
    for is_table, group in groupby(text.split("\n"), key=lambda line: line.startswith("|")):
        own = list(group)
        wide = is_table and max(map(len, own)) > width
        lines += _rows([_cells(line) for line in own], width) if wide else own
    return "\n".join(lines)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def _rows(table: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Yield a table row by row; its second line only parts the head from the rest."""
    head, _, *rows = table
    for first, *cells in rows:
        yield first
        told = "; ".join(f"{title}: {cell}" for title, cell in zip(head[1:], cells, strict=False) if cell)
        yield from textwrap.wrap(
            told, width, initial_indent="    ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
