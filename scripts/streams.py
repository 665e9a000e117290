"""What a command prints, when nobody reads it: a closed output ends no run and costs no result."""

from __future__ import annotations

import os
import sys
from typing import Any


class OpenEnded:
    """A text stream whose reader may leave: what is written after that is dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write the text; return how many characters there were."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Hand on what is kept back."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        """From now on the stream leads nowhere; what it kept back can be let go then, also at the end of the process."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def keep_going_unread() -> None:
    """Make standard output and standard error streams that a run outlives, closed ones too."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before the process began
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  for as long as the process lives
        setattr(sys, name, OpenEnded(stream))
