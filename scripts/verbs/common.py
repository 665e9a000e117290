"""What the commands share: a job that is described but not begun, and the words of a command line turned into values."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from scripts import presets
from scripts.errors import PairError
from scripts.folders import new_folder
from scripts.startup import load_libraries
from scripts.workflow import run_config


class Job(Protocol):
    """A run that is fully described but not begun: nothing starts before every argument was understood."""

    def start(self) -> None:
        """Nothing; the run is over. Exits with status 1 and one line when it cannot be done."""


@dataclass(frozen=True)
class ConfigJob:
    """A run of config files with overrides. check: what can be refused before anything is loaded for it."""

    config_files: tuple[str, ...]
    overrides: tuple[tuple[str, Any], ...]
    check: Callable[[], None] | None = None

    def start(self) -> None:
        """Nothing; the run is over. Exits with status 1 and one line when it cannot be done."""
        if self.check is not None:
            self.check()
        run_config(self.config_files, dict(self.overrides))


@dataclass(frozen=True)
class CallJob:
    """A call that prints what it did; a PairError of it becomes one line.

    libraries: whether it needs torch and MONAI. output_dir: a folder for its files, not left behind empty when it fails.
    """

    call: Callable[[], None]
    libraries: bool = True
    output_dir: Path | None = None

    def start(self) -> None:
        """Nothing; the call has returned."""
        if self.libraries:
            load_libraries()
        try:
            with self._folder():
                self.call()
        except PairError as error:
            refuse(str(error))

    def _folder(self) -> AbstractContextManager[object]:
        if self.output_dir is None:
            return nullcontext()
        return new_folder(self.output_dir)


def refuse(message: str) -> NoReturn:
    """Nothing; the process ends with one line and status 1."""
    sys.exit(f"error: {message}")


def absolute(option: str, path: str) -> Path:
    """The path, absolute; ``option`` is named when it is empty."""
    if not path:
        refuse(f"--{option} must not be empty")
    return Path(os.path.abspath(Path(path).expanduser()))


def plain(option: str, value: str) -> str:
    """The value, which holds nothing that MONAI would evaluate."""
    if not value or set(value) & set("$@%#"):
        refuse(f"--{option} must not be empty or hold $, @, % or #, got {value!r}")
    return value


def whole_number(option: str, value: str) -> int:
    """The number, zero or more."""
    if not value.strip().isdecimal() or int(value) > presets.MOST_SEED:
        refuse(f"--{option} must be a whole number from zero to {presets.MOST_SEED}, got {value!r}")
    return int(value)


def true_or_false(option: str, value: str) -> bool:
    """The truth value of true or false."""
    if value.lower() not in ("true", "false"):
        refuse(f"--{option} is true or false, got {value!r}")
    return value.lower() == "true"


def one_of(option: str, value: str, offered: Sequence[str]) -> str:
    """The value, which is among those offered."""
    if value not in offered:
        refuse(f"--{option} is one of {', '.join(offered)}, got {value!r}")
    return value


def config_files(preset: str | None) -> tuple[str, ...]:
    """`presets.config_files`, refused in one line."""
    try:
        return presets.config_files(preset)
    except PairError as error:
        refuse(str(error))
