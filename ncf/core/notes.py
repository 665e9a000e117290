"""What a person should know of an input that is used all the same: one line beside the results, as errors are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LIBRARY = logging.getLogger("ncf")
NOTES = logging.getLogger("ncf.notes")  # configs/logging.conf leads it to standard error
BEGINNING = "note: "


def note(text: str, what: str = "") -> None:
    """Tell one line.

    Args:
        text: the line.
        what: how it begins, such as ``fixed``.
    """
    NOTES.warning("%s%s", BEGINNING, f"{what}: {text}" if what else text)


@contextmanager
def collected() -> Iterator[list[str]]:
    """Collect the notes and warnings of the library, and show none of them, until the block ends.

    A process that registers one of many pairs does not know whose reader it speaks to, and its notes name no pair.

    Yields:
        A list that is filled with them, line by line.
    """
    found: list[str] = []
    keeper, shown, propagate = _Keeper(found), [*LIBRARY.handlers, *NOTES.handlers], NOTES.propagate
    for handler in shown:
        handler.addFilter(_below_warnings)
    NOTES.propagate = False
    for logger in (LIBRARY, NOTES):
        logger.addHandler(keeper)
    try:
        yield found
    finally:
        for logger in (LIBRARY, NOTES):
            logger.removeHandler(keeper)
        NOTES.propagate = propagate
        for handler in shown:
            handler.removeFilter(_below_warnings)


class _Keeper(logging.Handler):
    """Keeps the lines of warnings.

    Args:
        found: takes them.
    """

    def __init__(self, found: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._found = found

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self._found += record.getMessage().splitlines()


def _below_warnings(record: logging.LogRecord) -> bool:
    return record.levelno < logging.WARNING
