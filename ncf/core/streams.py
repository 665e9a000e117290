"""Output of a command that nobody reads: a closed stream does not end a run or lose its result."""

from __future__ import annotations

import os
import sys
from typing import Any


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


def keep_going_unread() -> None:
    """Replace standard output and standard error by streams that may close without ending the run.

    A stream that was closed before the process began is replaced too.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the process began
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for as long as the process lives
        setattr(sys, name, OpenEnded(stream))
