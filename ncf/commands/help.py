"""The help of the command line, made from the commands' docstrings and the tables of formats and presets."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any

from ncf.commands.talking import EVERYWHERE, SWITCHES
from ncf.core.presets import presets
from ncf.io.dicom.written.table import DICOM_OBJECTS
from ncf.io.fields.table import field_formats
from ncf.io.points.table import point_formats

Rows = list[tuple[str, str]]


def fields_written() -> Rows:
    """List the formats of fields that can be written, with a sentence each."""
    return [(name, entry.sentence) for name, entry in field_formats().items()]


def dicom_written() -> Rows:
    """List the DICOM objects that are made of a result, with a sentence each."""
    return [(name, entry.sentence) for name, entry in DICOM_OBJECTS.items()]


def fields_read() -> Rows:
    """List the files of fields that can be read, by suffix, with a sentence each."""
    return [(" ".join(entry.reads), entry.sentence) for entry in field_formats().values() if entry.load is not None]


def points_read() -> Rows:
    """List the files of points that can be read and written, by suffix, with a sentence each."""
    return [(" ".join(entry.suffixes), entry.sentence) for entry in point_formats().values()]


def presets_offered() -> Rows:
    """List the presets, with a sentence each."""
    return [(preset.name, preset.sentence) for preset in presets().values()]


def everywhere() -> Rows:
    """List the options of every command, with a sentence each."""
    return [(f"--{name}{'' if name in SWITCHES else '=FILE'}", sentence) for name, sentence in EVERYWHERE.items()]


TABLES: Mapping[str, Mapping[str, Callable[[], Rows]]] = {
    "register": {"Presets": presets_offered},
    "cohort": {"Presets": presets_offered},
    "apply": {"Files of fields": fields_read, "Files of points": points_read},
    "invert": {"Files of fields": fields_read},
    "export": {"Formats": fields_written, "DICOM objects": dicom_written},
}


def option_name(parameter: str) -> str:
    """Return a parameter's name on the command line, without the underscore that Python needs behind its own words."""
    word = parameter.removesuffix("_")
    return word if keyword.iskeyword(word) else parameter


def overview(verbs: Mapping[str, Callable[..., Any]]) -> str:
    """List the commands, with the first line of each docstring."""
    rows = [(name, (call.__doc__ or "").partition("\n")[0]) for name, call in verbs.items()]
    return f"usage: ncf COMMAND ...\n\n{_aligned(rows)}\n\nMore: ncf COMMAND --help"


def help_of(verb: str, call: Callable[..., Any]) -> str:
    """Describe one command: what it does, its options, and the formats or presets that it offers.

    Args:
        verb: the name of the command.
        call: what it calls; its docstring is the text.
    """
    parameters = inspect.signature(call).parameters.values()
    free = " ".join(p.name.upper() for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    free += "".join(f" {p.name.upper()} ..." for p in parameters if p.kind is p.VAR_POSITIONAL)
    text = inspect.getdoc(call) or ""
    for option in (option_name(p.name) for p in parameters if p.kind is p.KEYWORD_ONLY):
        text = re.sub(rf"^( +){option}: ", rf"\1--{option}: ", text, flags=re.MULTILINE)
    tables = [f"{title}:\n{_aligned(rows())}" for title, rows in TABLES.get(verb, {}).items()]
    tables.append(f"Every command:\n{_aligned(everywhere())}")
    usage = f"usage: ncf {verb}{f' [{free}]' if free else ''} [--option=value ...]"
    return "\n\n".join([usage, text, *tables])


def _aligned(rows: Rows) -> str:
    """Write rows as two columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:{width}}  {sentence}" for name, sentence in rows)
