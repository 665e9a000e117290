"""The options of every command: how much it says, and a log file."""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ncf.commands.common import absolute, or_refused, refuse, true_or_false
from ncf.core.console import Log, log_at, set_up
from ncf.core.paths import shortened
from ncf.core.presets import configs_folder, version

EVERYWHERE = {  # the options, with the sentence that help shows
    "quiet": "shows results and errors alone.",
    "verbose": "shows details too: sizes, seconds of every stage, every loss of every level.",
    "log": "a text file for all that is said, details too, with times; a log that is there is gone on with.",
}
SWITCHES = ("quiet", "verbose")
READ_NOTHING = ("completion", "fetch")  # commands whose first word is no file
NAMING = ("--fixed", "--moving", "--pairs")  # options that name what is read first
CONFIGURED = ("", "ncf", "ncf.notes", "ignite")  # loggers of configs/logging.conf
PROSE = (
    "register",
    "cohort",
    "series",
    "trust",
    "evaluate",
    "import",
    "paper_table",
)  # these print for people, not programs


@dataclass(frozen=True)
class Talk:
    """How much a command says.

    Attributes:
        quiet: results and errors alone.
        verbose: details too.
        log: the file for all of it, None for none.
    """

    quiet: bool = False
    verbose: bool = False
    log: Path | None = None

    def begin(self, verb: str, line: Sequence[str]) -> None:
        """Set up output and logging of this process.

        Args:
            verb: the command.
            line: the whole command line, for the log.

        Raises:
            SystemExit: with one line, where the log cannot be written.
        """
        log = None
        if self.log is not None:
            log = or_refused(log_at, self.log, f"ncf {version()}: {shlex.join(['ncf', *line])}")
        set_up(quiet=self.quiet, log=log)
        self._lead(log, prose=verb in PROSE)

    def _lead(self, log: Log | None, *, prose: bool) -> None:
        """Lead what the library logs to the screen and to the log.

        Where the output of a command is for other programs, only a person at a terminal sees it, beside the output.
        """
        import logging.config  # help needs none of what it loads

        logging.config.fileConfig(configs_folder() / "logging.conf", disable_existing_loggers=False)
        shown = sys.stdout if prose else sys.stderr
        for handler in {h for name in CONFIGURED for h in logging.getLogger(name).handlers}:
            if isinstance(handler, logging.StreamHandler):
                stream: Any = shown if handler.stream is sys.stdout else sys.stderr
                handler.setStream(stream.beside)
        least = logging.DEBUG if self.verbose else logging.INFO
        least = least if prose or self.verbose or shown.isatty() else logging.CRITICAL
        ours = logging.getLogger("ncf")
        for handler in ours.handlers:
            handler.setLevel(least)
        if log is not None:
            ours.addHandler(_Unseen(log, below=least))
        ours.setLevel(logging.INFO if log is None and not self.verbose else logging.DEBUG)


class _Unseen(logging.Handler):
    """Writes to a log what the screen does not get.

    Args:
        log: the file.
        below: the least level that the screen gets.
    """

    def __init__(self, log: Log, *, below: int) -> None:
        super().__init__()
        self._log, self._below = log, below

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record that is below the level of the screen."""
        if record.levelno < self._below:
            for line in record.getMessage().splitlines():
                self._log.line(line)


def taken(arguments: Sequence[str]) -> tuple[list[str], Talk]:
    """Take the options of every command out of a command line.

    Args:
        arguments: the command first.

    Returns:
        The other arguments, and how much is to be said.

    Raises:
        SystemExit: with one line, where a value is wrong.
    """
    left: list[str] = []
    found: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        option = name[2:] if name.startswith("--") else ""
        if option not in EVERYWHERE:
            left.append(argument)
        elif not equals and option not in SWITCHES:
            value = next(rest, "")
            if not value or value.startswith("--"):
                refuse(f"{name} needs a value")
            found[option] = value
        else:
            found[option] = value if equals else "true"
    switches = {option: true_or_false(option, found.get(option, "false")) for option in SWITCHES}
    if all(switches.values()):
        refuse("--quiet and --verbose say two things; give one of them")
    return left, Talk(**switches, log=absolute("log", found["log"]) if "log" in found else None)


def named(arguments: Sequence[str]) -> str:
    """Return what a command line names to be read, in words; empty where it names nothing.

    Args:
        arguments: the command first.
    """
    if arguments[0] in READ_NOTHING:
        return ""
    free, rest = [], iter(arguments[1:])
    for argument in rest:
        option, equals, value = argument.partition("=")
        if not option.startswith("--"):
            free.append(argument)
        else:
            value = value if equals else next(rest, "")
            free += [value] if option in NAMING else []
    return " and ".join(map(shortened, free))
