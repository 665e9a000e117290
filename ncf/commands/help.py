"""The help of the command line, made from the commands' docstrings and the tables of formats and presets."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ncf.commands.choices import Option, everywhere, options_of, without_arguments
from ncf.core.presets import presets
from ncf.io.dicom.written.table import DICOM_OBJECTS
from ncf.io.fields.table import field_formats
from ncf.io.points.table import point_formats

Rows = list[tuple[str, str]]
WIDTH, LEAST_WIDTH = 120, 40  # characters of a line, at most and at least


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


TABLES: Mapping[str, Mapping[str, Callable[[], Rows]]] = {
    "register": {"Presets": presets_offered},
    "cohort": {"Presets": presets_offered},
    "series": {"Presets": presets_offered},
    "trust": {"Presets": presets_offered},
    "apply": {"Files of fields": fields_read, "Files of points": points_read},
    "invert": {"Files of fields": fields_read},
    "export": {"Formats": fields_written, "DICOM objects": dicom_written},
}


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
    options = options_of(call)
    usage = f"usage: ncf {verb}{_places(options)} [--option=value ...]"
    entries = "\n".join(_entry(option) for option in options)
    tables = [f"{title}:\n{_aligned(rows())}" for title, rows in TABLES.get(verb, {}).items()]
    common = [(f"--{o.name}{'' if o.bare else '=FILE'}", o.sentence) for o in everywhere()]
    tables.append(f"Every command:\n{_aligned(common)}")
    text = "\n\n".join(map(_filled, without_arguments(call).split("\n\n")))
    return "\n\n".join([usage, text, *([f"Args:\n{entries}"] if entries else []), *tables])


def _places(options: Sequence[Option]) -> str:
    """Write the values that are given by their places, and the options that are needed; brackets mean may be left out.

    All of a command's needed values come first; those behind may be left out together.
    """
    free = [o for o in options if o.free]
    alone = len(free) == 1  # scans of a series: several, at least one
    needed = [f"{o.name.upper()}{' ...' * o.many}" for o in free if o.needed or alone]
    rest = [f"{o.name.upper()}{' ...' * o.many}" for o in free if not o.needed and not alone]
    words = [*needed, *([f"[{' '.join(rest)}]"] if rest else [])]
    return "".join(f" {word}" for word in [*words, *(f"--{o.name}=..." for o in options if o.needed and not o.free)])


def _width() -> int:
    """Return the characters of a line: those of the terminal, at most `WIDTH`, which a file gets too."""
    return max(LEAST_WIDTH, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


def _filled(paragraph: str) -> str:
    """Return a paragraph in lines of the width; indented lines, such as commands, stay as they are."""
    lines = paragraph.splitlines()
    if any(line.startswith(" ") for line in lines) or all(len(line) <= _width() for line in lines):
        return paragraph
    return textwrap.fill(" ".join(lines), _width(), break_long_words=False, break_on_hyphens=False)


def _entry(option: Option) -> str:
    """Write what an option is for, with its choices and its default."""
    named = option.name if option.free else f"--{option.name}"
    text = f"{named}: {option.sentence} {option.notes}".strip()
    return textwrap.fill(
        text,
        _width(),
        initial_indent="    ",
        subsequent_indent="        ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _aligned(rows: Rows) -> str:
    """Write rows as two columns."""
    width = max(len(name) for name, _ in rows)
    lines = []
    for name, sentence in rows:
        wide = max(_width() - width - 4, LEAST_WIDTH // 2)
        parts = textwrap.wrap(sentence, wide, break_long_words=False, break_on_hyphens=False) or [""]
        lines += [f"  {word:{width}}  {part}" for word, part in zip([name] + [""] * len(parts), parts, strict=False)]
    return "\n".join(lines)
