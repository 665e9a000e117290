"""Ctrl-C ends a process in one line, with the status that shells know, wherever it comes."""

from __future__ import annotations

import sys

STATUS = 130  # 128 and the number of SIGINT, as shells have it


def interrupted(error: BaseException | None) -> bool:
    """Tell whether an error is Ctrl-C, or was made of it: some libraries raise another error while they are stopped."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False


def end_of(what: str = "what was not complete was not written") -> SystemExit:
    """Tell in one line that Ctrl-C was pressed.

    Args:
        what: has become of the work.

    Returns:
        The end of the process, to be raised.
    """
    sys.stderr.write(f"error: interrupted; {what}\n")
    sys.stderr.flush()
    return SystemExit(STATUS)
