"""The command line: each verb stacks config files and overrides, and hands them to MONAI's `ConfigWorkflow`.

``python -m scripts register FIXED MOVING`` (or ``ncf register ...`` once installed) is the same run as
``python -m monai.bundle run --config_file configs/inference.json --fixed FIXED --moving MOVING``, but for one thing: an
unknown option is refused. Paths are handed over as `Path` objects, because MONAI evaluates strings that begin with ``$``
and rewrites those that hold ``#``.
"""

from __future__ import annotations

import inspect
import io
import json
import keyword
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from difflib import get_close_matches
from pathlib import Path

import fire

from scripts.presets import config
from scripts.streams import keep_going_unread
from scripts.verbs.apply import apply
from scripts.verbs.cohort import cohort
from scripts.verbs.common import Job, refuse
from scripts.verbs.evaluate import evaluate
from scripts.verbs.export import export
from scripts.verbs.fetch import fetch
from scripts.verbs.import_fields import import_fields
from scripts.verbs.invert import invert
from scripts.verbs.label_server import label_server
from scripts.verbs.paper_table import paper_table
from scripts.verbs.register import register
from scripts.verbs.report import report

HELP = ("--help", "-h")


VERBS: dict[str, Callable[..., Job]] = {
    "register": register,
    "apply": apply,
    "invert": invert,
    "cohort": cohort,
    "evaluate": evaluate,
    "export": export,
    "import": import_fields,
    "report": report,
    "fetch": fetch,
    "paper_table": paper_table,
    "label_server": label_server,
}


def refuse_unknown(arguments: Sequence[str]) -> None:
    """Nothing; exits with one line where Fire would guess.

    That is a verb or an option that is not known (the nearest one is named), an option without a value, which Fire takes
    for "True", one name too many, which Fire looks up inside of what the verb returned, and what is needed but not named.
    """
    verb = arguments[0]
    if verb not in VERBS:
        refuse(f"no command {verb!r}{_nearest(verb, list(VERBS))}; there are: {', '.join(VERBS)}")
    parameters = inspect.signature(VERBS[verb]).parameters.values()
    options = [option_name(p.name) for p in parameters if p.kind is not p.VAR_POSITIONAL]
    free = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    many = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    needed = [option_name(p.name) for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    named, given, rest = 0, set(), iter(arguments[1:])
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if not argument.startswith("-"):
            named += 1
            if named > len(free) and not many:
                refuse(f"{verb} takes {' and '.join(free)}, {argument!r} is one too many")
        elif name[2:].replace("-", "_") not in options or not name.startswith("--"):
            refuse(f"unknown option {name}{_nearest(name.strip('-'), options, '--')}")
        elif not equals and next(rest, "--").startswith("--"):
            refuse(f"{name} needs a value")
        else:
            given.add(name[2:].replace("-", "_"))
    absent = [name for name in needed if name not in {*free[:named], *given}]
    if absent:
        told = " and ".join(name.upper() if name in free else f"--{name}" for name in absent)
        refuse(f"{verb} needs {told}; see: ncf {verb} --help")


def option_name(parameter: str) -> str:
    """What a parameter is called on the command line: words that Python keeps for itself carry a line behind them there."""
    word = parameter.removesuffix("_")
    return word if keyword.iskeyword(word) else parameter


def for_python(argument: str) -> str:
    """The argument with its option called as the parameter is: ``--from=x`` becomes ``--from_=x``."""
    name, equals, value = argument.partition("=")
    return f"{name}_{equals}{value}" if name.startswith("--") and keyword.iskeyword(name[2:]) else argument


def help_text(verb: str) -> str:
    """What a person sees who asks for help: one verb with its options, or the list of verbs."""
    if verb not in VERBS:
        verbs = "\n".join(f"  {name:12} {(call.__doc__ or '').partition(chr(10))[0]}" for name, call in VERBS.items())
        return f"usage: ncf COMMAND ...\n\n{verbs}\n\nMore: ncf COMMAND --help"
    parameters = inspect.signature(VERBS[verb]).parameters.values()
    free = " ".join(p.name.upper() for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    free += "".join(f" {p.name.upper()} ..." for p in parameters if p.kind is p.VAR_POSITIONAL)
    text = inspect.getdoc(VERBS[verb]) or ""
    for option in (option_name(p.name) for p in parameters if p.kind is p.KEYWORD_ONLY):
        text = re.sub(rf"^( +){option}: ", rf"\1--{option}: ", text, flags=re.MULTILINE)
    return f"usage: ncf {verb} [{free}] [--option=value ...]\n\n{text}"


def _nearest(word: str, known: Sequence[str], prefix: str = "") -> str:
    near = get_close_matches(word, known, n=1)
    return f" (did you mean {prefix}{near[0]}?)" if near else ""


def main() -> None:
    """Nothing; the command line was carried out."""
    keep_going_unread()
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(json.loads(Path(config("metadata")).read_text(encoding="utf-8"))["version"])
        return
    if not arguments or set(HELP) & set(arguments):
        print(help_text(arguments[0] if arguments else ""))
        return
    refuse_unknown(arguments)
    try:
        with redirect_stderr(io.StringIO()):  # Fire answers a mistake with a page of usage; one line is enough
            job = fire.Fire(VERBS, [for_python(a) for a in arguments], name="ncf", serialize=lambda _: None)
    except fire.core.FireExit as stop:
        refuse(f"{stop.trace.elements[-1].ErrorAsStr()}; see: ncf {arguments[0]} --help")
    try:
        job.start()
    except KeyboardInterrupt:
        refuse("interrupted; what was not complete was not written")


if __name__ == "__main__":
    main()
