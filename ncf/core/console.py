"""What a command says: on the screen, with little or much of it, and in a log file with the time of every line.

Results are printed by `print`, what lies beside them by `tell`. Where a command is to be quiet, the latter reaches the
log alone. In a program that is no command of ours, both are plain prints.
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from ncf.core.errors import PairError
from ncf.core.files import refusal
from ncf.core.paths import shortened

STAMP = "%Y-%m-%d %H:%M:%S"
OF_LOGS = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ncf ")  # how the first line of a log begins
HEAD_BYTES = 32


class Log:
    """A text file of lines, each with the time at which it was said.

    A log that is there already is gone on with. No file of another kind is written to.

    Args:
        path: of the file.

    Raises:
        PairError: the file cannot be written, or is no log.
    """

    def __init__(self, path: Path) -> None:
        self._path: Path | None = path
        try:
            if path.is_file() and path.stat().st_size and not OF_LOGS.match(_head(path)):
                raise PairError(f"{shortened(path)} is there and is no log of ncf; choose another file for --log")
            if path.is_fifo():  # opening it would wait for a reader, for ever
                raise PairError(f"{shortened(path)} is a pipe; choose a file for --log")
            path.open("a").close()
        except OSError as error:
            raise refusal(path, error) from error

    def line(self, text: str) -> None:
        """Write a line. A disk that refuses it ends the log and not the run."""
        path, self._path = self._path, None
        if path is None:
            return
        try:
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{time.strftime(STAMP)} {text}\n")
            self._path = path
        except OSError as error:
            sys.stderr.write(f"note: {refusal(path, error)}; the log ends here, the run goes on\n")


def _head(path: Path) -> bytes:
    """Return the first bytes of a file."""
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


class Console:
    """A stream of a command: what is written appears on the screen, and in the log line by line.

    Args:
        screen: what the user sees; None for nothing.
        log: None for none.

    Attributes:
        beside: where `tell` writes, as soon as it was set; by default here.
        quiet: whether that does not reach the screen.
    """

    def __init__(self, screen: Any, log: Log | None) -> None:
        self._screen, self._log, self._begun = screen, log, ""
        self.beside: Any = self
        self.quiet = screen is None

    def write(self, text: str) -> int:
        """Write a text; a bar of progress, which overwrites itself, reaches the log as it is in the end."""
        if self._screen is not None:
            self._screen.write(text)
        if self._log is not None:
            *whole, self._begun = (self._begun + text).split("\n")
            for line in whole:
                if (last := line.rstrip("\r").rpartition("\r")[2]).strip():
                    self._log.line(last)
            self._begun = self._begun[max(self._begun.rfind("\r", 0, -1), 0) :]
        return len(text)

    def flush(self) -> None:
        """Write out what is buffered."""
        if self._screen is not None:
            self._screen.flush()

    def isatty(self) -> bool:
        """Tell whether somebody sees it at once; bars of progress ask."""
        return self._screen is not None and not self.quiet and self._screen.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._screen, name)


def tell(text: str, *, brief: str = "") -> None:
    """Print what lies beside a result.

    Args:
        text: one line or several.
        brief: what a quiet command prints in its place, for a result that is told by these lines.
    """
    if not text:
        return
    print(text, file=getattr(sys.stdout, "beside", sys.stdout), flush=True)
    if brief and getattr(sys.stdout, "quiet", False):
        print(brief, flush=True)


def set_up(*, quiet: bool = False, log: Log | None = None) -> None:
    """Make standard output and standard error of this process consoles.

    Args:
        quiet: True shows results and errors alone.
        log: takes all the same; None for none.
    """
    for name in ("stdout", "stderr"):
        screen = getattr(sys, name)
        console, beside = Console(screen, log), Console(None if quiet else screen, log)
        console.beside, console.quiet = beside, quiet
        setattr(sys, name, console)


def log_at(path: Path, command: str) -> Log:
    """Open a log and write its first line.

    Args:
        path: of the file.
        command: the command line with the version of the program.

    Raises:
        PairError: the file cannot be written, or is no log.
    """
    log = Log(Path(os.path.abspath(path)))
    log.line(command)
    return log
