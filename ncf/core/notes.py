"""What a person should know of an input that is used all the same: one line beside the results, as errors are."""

from __future__ import annotations

import logging

NOTES = logging.getLogger("ncf.notes")  # configs/logging.conf leads it to standard error


def note(text: str, what: str = "") -> None:
    """Tell one line.

    Args:
        text: the line.
        what: how it begins, such as ``fixed``.
    """
    NOTES.warning("note: %s", f"{what}: {text}" if what else text)
