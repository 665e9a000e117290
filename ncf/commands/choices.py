"""What a command's options are: their sentences, defaults and choices, for help and for completion in a shell."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ncf.cohort.run import ENGINES
from ncf.commands.apply import MODES, OWN, SIDES, SPACES
from ncf.commands.talking import EVERYWHERE, SWITCHES
from ncf.core.names import DOSE_RULES, MODALITIES, TRANSFORMS
from ncf.core.presets import presets
from ncf.io.dicom.written.table import DICOM_OBJECTS
from ncf.io.fields.table import field_formats
from ncf.io.pair_lists import ALL_PAIRS, LEARN2REG_LISTS

TRUTH = ("true", "false")
DEVICES = ("cpu", "cuda", "mps")
SHELLS = ("bash", "zsh", "fish")
ENTRY = re.compile(r"^ {4}(\w+): ")  # of the arguments in a docstring
# values that an option takes, whatever the command
VALUES: dict[str, Callable[[], tuple[str, ...]]] = {
    "preset": lambda: tuple(presets()),
    "modality": lambda: MODALITIES,
    "transform": lambda: TRANSFORMS,
    "device": lambda: DEVICES,
    "engine": lambda: tuple(ENGINES),
    "which": lambda: (*LEARN2REG_LISTS, ALL_PAIRS),
    "format": lambda: (*field_formats(), *DICOM_OBJECTS),
    "names": lambda: tuple(naming for entry in field_formats().values() for naming in entry.namings),
    "to": lambda: tuple(OWN),
    "interpolation": lambda: tuple(mode for modes in MODES.values() for mode in modes),
    "from": lambda: SIDES,
    "space": lambda: SPACES,
    "rule": lambda: DOSE_RULES,
    "shell": lambda: SHELLS,
}
SWITCHED = ("dicom", "sum")  # true or false, where nothing given is a third
MOST_TOLD = 4  # choices that help names behind an option; more are in its sentence or in a table
OPEN = ("preset", "device")  # take other values too: a file, another device
NO_FILES = (
    "name",
    "seed",
    "labels",
    "rigid_label",
    "keep_volume_label",
    "members",
    "workers",
    "threads",
    "devices",
    "scheduler",
)


@dataclass(frozen=True)
class Option:
    """One option, or one value without a name, of a command.

    Attributes:
        name: as it is typed, without dashes.
        sentence: what it is for.
        free: whether it is given by its place.
        many: whether that place takes several.
        needed: whether a command cannot do without it.
        default: the value where it is not given, None where nothing is.
        choices: its values, empty where these are free.
        bare: whether it stands alone.
    """

    name: str
    sentence: str = ""
    free: bool = False
    many: bool = False
    needed: bool = False
    default: str | None = None
    choices: tuple[str, ...] = ()
    bare: bool = False

    @property
    def notes(self) -> str:
        """Default, choices and need, in brackets; empty where there is nothing to say."""
        told = ["required"] if self.needed else []
        if self.choices not in ((), TRUTH) and len(self.choices) <= MOST_TOLD and self.name not in OPEN:
            told.append(f"one of {', '.join(self.choices)}")
        told += ["true or false"] if self.choices == TRUTH else []
        told += [f"default {self.default}"] if self.default is not None else []
        return f"[{'; '.join(told)}]" if told else ""


def option_name(parameter: str) -> str:
    """Return a parameter's name on the command line, without the underscore that Python needs behind its own words."""
    word = parameter.removesuffix("_")
    return word if keyword.iskeyword(word) else parameter


def options_of(call: Callable[..., Any]) -> list[Option]:
    """Return what a command takes, in the order of its signature.

    Args:
        call: the command; its docstring describes its parameters.
    """
    sentences = dict(described(call))
    found = []
    for parameter in inspect.signature(call).parameters.values():
        name, many = option_name(parameter.name), parameter.kind is parameter.VAR_POSITIONAL
        default = parameter.default if isinstance(parameter.default, str) else None
        truth = default in TRUTH or name in SWITCHED
        found.append(
            Option(
                name,
                sentences.get(name, ""),
                free=many or parameter.kind is parameter.POSITIONAL_OR_KEYWORD,
                many=many,
                needed=parameter.default is parameter.empty and not many,
                default=default,
                choices=TRUTH if truth else VALUES[name]() if name in VALUES else (),
            )
        )
    return found


def everywhere() -> list[Option]:
    """Return the options of every command."""
    return [Option(name, sentence, bare=name in SWITCHES) for name, sentence in EVERYWHERE.items()]


def described(call: Callable[..., Any]) -> list[tuple[str, str]]:
    """Return the arguments in a docstring with their texts, each on one line."""
    found: list[tuple[str, str]] = []
    for line in _arguments(call).splitlines():
        begun = ENTRY.match(line)
        if begun:
            found.append((begun[1], line[begun.end() :].strip()))
        elif found and line.strip():
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found


def without_arguments(call: Callable[..., Any]) -> str:
    """Return a docstring up to its arguments."""
    return (inspect.getdoc(call) or "").partition("\nArgs:\n")[0].strip()


def _arguments(call: Callable[..., Any]) -> str:
    return (inspect.getdoc(call) or "").partition("\nArgs:\n")[2]
