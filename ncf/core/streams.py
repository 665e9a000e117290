"""Output of a command that nobody reads: a closed stream does not end a run or lose its result."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

STANDARD_ERROR = 2  # the highest of the three numbers of a process


class OpenEnded:
    """A text stream whose reader may leave: what is written after that is dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text.

        Returns:
            The number of its characters.
        """
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Write out what is buffered."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        """Lead the stream to the null device.

        What the stream has buffered can be dropped then, also at the end of the process.
        """
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _fill_closed() -> None:
    """Put the null device where standard input, output or error is closed.

    Else the next file that is opened gets that number, and what a library writes to its standard error goes into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        os.set_inheritable(number, True)
    os.close(number)


def keep_going_unread() -> None:
    """Replace standard output and standard error by streams that may close without ending the run.

    A stream that was closed before the process began is replaced too. A name that is no UTF-8 is written with escapes.
    """
    _fill_closed()
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the process began
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for as long as the process lives
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, OpenEnded(stream))
