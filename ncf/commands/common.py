"""What the commands share: a job that is described but not begun, and the words of a command line as values."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ncf.core import presets
from ncf.core.errors import PairError
from ncf.core.folders import new_folder
from ncf.core.labels import sides_of
from ncf.core.names import AUTO, DEFORMABLE, MODALITIES, TRANSFORMS
from ncf.core.paths import expanded, missing, shortened, there
from ncf.core.startup import load_libraries
from ncf.io.pair_lists import Pairs, read_pairs
from ncf.run.config import run_config

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConfigJob:
    """A run of config files with overrides.

    Attributes:
        config_files: the base first.
        overrides: of the config's entries.
        check: refuses what can be refused before anything is loaded for the run.
        reads: what is read, in words, for the first line.
    """

    config_files: tuple[str, ...]
    overrides: tuple[tuple[str, Any], ...]
    check: Callable[[], None] | None = None
    reads: str = ""

    def start(self) -> None:
        """Run the config; exit with status 1 and one line when it cannot be done."""
        if self.check is not None:
            self.check()
        _tell_reading(self.reads)
        run_config(self.config_files, dict(self.overrides))


@dataclass(frozen=True)
class CallJob:
    """A call that prints what it did; a PairError of it becomes one line.

    Attributes:
        call: what is called.
        libraries: True where it needs torch and MONAI.
        output_dir: a folder for its files; it is not left behind empty when the call fails.
        reads: what is read, in words, for the first line.
    """

    call: Callable[[], None]
    libraries: bool = True
    output_dir: Path | None = None
    reads: str = ""

    def start(self) -> None:
        """Call; exit with status 1 and one line when it cannot be done."""
        _tell_reading(self.reads)
        if self.libraries:
            load_libraries()
        try:
            with self._folder():
                self.call()
        except PairError as error:
            refuse(str(error))

    def _folder(self) -> AbstractContextManager[object]:
        """Return the context in which the output folder is made."""
        if self.output_dir is None:
            return nullcontext()
        return new_folder(self.output_dir)


Job = ConfigJob | CallJob  # described but not begun: nothing starts before every argument was understood


def _tell_reading(what: str) -> None:
    """Say what is read: loading the libraries takes seconds."""
    if what:
        logger.info("reading %s", what)


def refuse(message: str) -> NoReturn:
    """End the process with one line and status 1."""
    sys.exit(f"error: {message}")


def absolute(option: str, path: str) -> Path:
    """Return a path, absolute; end the process where it is empty.

    Args:
        option: its name, for the line.
        path: as it was given.
    """
    if not path:
        refuse(f"--{option} must not be empty")
    return Path(os.path.abspath(expanded(path)))


def given_paths(**paths: str | None) -> dict[str, Path]:
    """Return the paths that were given, absolute, by option."""
    return {option: absolute(option, path) for option, path in paths.items() if path is not None}


MOVED = ("fixed", "moving", "fixed_label", "moving_label", "landmarks")  # files of a result that may lie elsewhere now


def moved_files(given: Mapping[str, Any]) -> dict[str, Path]:
    """Return the files of a result that were named anew, absolute, by key; end the process where one is not there.

    Args:
        given: every option as it was given, by its name; others than `MOVED` are not looked at.
    """
    found = given_paths(**{key: given[key] for key in MOVED})
    for key, path in found.items():
        if missing(path):
            refuse(f"--{key}: there is no {shortened(path)}")
        or_refused(there, path, f"--{key}")
    return found


def plain(option: str, value: str) -> str:
    """Return a value; end the process where it holds something that MONAI would evaluate.

    Args:
        option: its name, for the line.
        value: as it was given.
    """
    if not value or set(value) & set("$@%#"):
        refuse(f"--{option} must not be empty or hold $, @, % or #, got {value!r}")
    return value


def whole_number(option: str, value: str) -> int:
    """Return a whole number, zero or more; end the process for other values.

    Args:
        option: its name, for the line.
        value: as it was given.
    """
    if not _is_whole(value.strip()):
        refuse(f"--{option} must be a whole number from zero to {presets.MOST_SEED}, got {value!r:.60}")
    return int(value)


def _is_whole(text: str) -> bool:
    """Tell whether a text is a whole number, from zero to the largest seed; Python itself reads no endless ones."""
    return text.isdecimal() and len(text.lstrip("0")) <= len(str(presets.MOST_SEED)) and int(text) <= presets.MOST_SEED


def at_least_one(option: str, value: str) -> int:
    """Return a whole number, one or more; end the process for other values.

    Args:
        option: its name, for the line.
        value: as it was given.
    """
    number = whole_number(option, value)
    if number == 0:
        refuse(f"--{option} is at least 1")
    return number


def true_or_false(option: str, value: str) -> bool:
    """Return the truth value of true or false; end the process for other values.

    Args:
        option: its name, for the line.
        value: as it was given.
    """
    if value.lower() not in ("true", "false"):
        refuse(f"--{option} is true or false, got {value!r}")
    return value.lower() == "true"


def label_list(option: str, value: str) -> list[int | str]:
    """Return one label or several, names or numbers with commas between them; end the process for other values.

    Args:
        option: its name, for the line.
        value: as it was given.
    """
    parts = [part.strip() for part in plain(option, value).strip("()[] ").split(",")]
    if not all(parts) or any(_is_whole(part.strip("-+.")) and int(part.strip("-+.")) < 1 for part in parts):
        refuse(f"--{option} is a label number or name, or several with commas between them, got {value!r:.60}")
    return [int(part) if _is_whole(part) else part for part in parts]


def given_labels(labels: str | None) -> dict[str, Any]:
    """Return the override that chooses labels; end the process where one has no name."""
    if labels is None:
        return {}
    or_refused(sides_of, plain("labels", labels))
    return {"labels": [part.strip() for part in labels.split(",")]}


def fit_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overrides of the options that say how a pair is fitted, the same for one pair and for many.

    Args:
        given: every option as it was given, by its name; others than these are not looked at.
    """
    found: dict[str, Any] = {"seed": whole_number("seed", given["seed"])}
    found["align_centres"] = true_or_false("align_centres", given["align_centres"])
    for option, usual, offered in (("modality", AUTO, MODALITIES), ("transform", DEFORMABLE, TRANSFORMS)):
        if given[option] != usual:
            found[option] = one_of(option, given[option], offered)
    found |= given_labels(given["labels"])
    wishes: dict[str, Any] = {"guide_labels": True} if true_or_false("guide_labels", given["guide_labels"]) else {}
    for option in ("rigid_label", "keep_volume_label"):
        if given[option] is not None:
            wishes[option] = label_list(option, given[option])
    if wishes and "transform" in found:
        refuse(f"--{next(iter(wishes))} is for maps that bend, not with --transform={found['transform']}")
    return found | wishes


def one_of(option: str, value: str, offered: Sequence[str]) -> str:
    """Return a value that is among those offered; end the process for other values.

    Args:
        option: its name, for the line.
        value: as it was given.
        offered: all values.
    """
    if value not in offered:
        refuse(f"--{option} is one of {', '.join(offered)}, got {value!r}")
    return value


def or_refused(call: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """Return what a call returns; a PairError of it ends the process with one line.

    Args:
        call: what is called.
        args: its arguments.
        kwargs: its keyword arguments.
    """
    try:
        return call(*args, **kwargs)
    except PairError as error:
        refuse(str(error))


def chosen_configs(preset: str | None) -> tuple[str, ...]:
    """Return the config files of a preset by name or path (`ncf.core.presets.config_files`)."""
    return or_refused(presets.config_files, preset)


def listed_pairs(pairs: str, which: str | None) -> Pairs:
    """Return the pairs of a list (`ncf.io.pair_lists.read_pairs`).

    Args:
        pairs: path of the list.
        which: list of a Learn2Reg dataset.
    """
    return or_refused(read_pairs, absolute("pairs", pairs), which=which)
