"""The command line: verbs and their options become a job, and the job is started.

``python -m ncf register FIXED MOVING`` (or ``ncf register ...`` once installed) is the same run as ``python -m
monai.bundle run --config_file configs/inference.json --fixed FIXED --moving MOVING``, with one difference: an unknown
option is refused. Paths are handed over as `Path` objects, because MONAI evaluates strings that begin with ``$`` and
rewrites those that hold ``#``.
"""

from __future__ import annotations

import inspect
import io
import keyword
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from difflib import get_close_matches

import fire
from fire.decorators import SetParseFn

from ncf.commands.apply import apply
from ncf.commands.choices import SHELLS, TRUTH, option_name
from ncf.commands.cohort import cohort
from ncf.commands.common import CallJob, Job, refuse
from ncf.commands.completion import script
from ncf.commands.evaluate import evaluate
from ncf.commands.export import export
from ncf.commands.fetch import fetch
from ncf.commands.files import files
from ncf.commands.help import help_of, overview
from ncf.commands.import_fields import import_fields
from ncf.commands.invert import invert
from ncf.commands.label_server import label_server
from ncf.commands.paper_table import paper_table
from ncf.commands.register import register
from ncf.commands.report import report
from ncf.commands.series import series
from ncf.commands.talking import named, taken
from ncf.commands.tg132 import tg132
from ncf.commands.trust import trust
from ncf.commands.view import view
from ncf.core.interruption import end_of, interrupted
from ncf.core.refusals import explanation
from ncf.core.streams import keep_going_unread

logger = logging.getLogger(__name__)

HELP = ("--help", "-h")
NOTE = "note: "  # how a line of `ncf.core.notes` begins
BARE = "--json"  # the one option that may stand alone, as in other programs


@SetParseFn(str)
def completion(shell: str) -> Job:
    """Print a script for SHELL that completes commands, options and their values.

    For bash, source it in ~/.bashrc: source <(ncf completion bash). docs/options.md has the other shells.

    Args:
        shell: the one that is to complete.
    """
    if shell not in SHELLS:
        refuse(f"SHELL is one of {', '.join(SHELLS)}, got {shell!r:.40}")
    return CallJob(lambda: print(script(shell, VERBS), end=""), libraries=False)


VERBS: dict[str, Callable[..., Job]] = {
    "register": register,
    "apply": apply,
    "invert": invert,
    "cohort": cohort,
    "series": series,
    "evaluate": evaluate,
    "export": export,
    "import": import_fields,
    "report": report,
    "tg132": tg132,
    "trust": trust,
    "files": files,
    "view": view,
    "fetch": fetch,
    "paper_table": paper_table,
    "label_server": label_server,
    "completion": completion,
}
RENAMED_OPTIONS = {"before": "pre_transform", "after": "post_transform"}  # since 0.6


def refuse_unknown(arguments: Sequence[str]) -> None:
    """End the process with one line where Fire would guess.

    Fire would guess for a verb or an option that is not known (the line names the nearest one, or its new name), for an
    option without a value, which Fire takes for "True", for one name too many, which Fire looks up inside of what the
    verb returned, and for a needed value that is missing.

    Args:
        arguments: of the command line, the verb first.

    Raises:
        SystemExit: with that line.
    """
    verb = arguments[0]
    if verb not in VERBS:
        refuse(f"no command {verb!r}{_nearest(verb, list(VERBS))}; there are: {', '.join(VERBS)}")
    parameters = inspect.signature(VERBS[verb]).parameters.values()
    options = [option_name(p.name) for p in parameters if p.kind is not p.VAR_POSITIONAL]
    free = [parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD]
    many = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    needed = [option_name(p.name) for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    defaults = {option_name(parameter.name): parameter.default for parameter in parameters}
    free_given, given, rest = 0, set(), iter(arguments[1:])
    for argument in rest:
        name, equals, _ = argument.partition("=")
        if not argument.startswith("-"):
            free_given += 1
            if free_given > len(free) and not many:
                refuse(f"{verb} takes {' and '.join(free)}, {argument!r} is one too many")
        elif name[2:].replace("-", "_") not in options or not name.startswith("--"):
            refuse(f"unknown option {name}{_now(name.strip('-'), options) or _nearest(name.strip('-'), options, '--')}")
        elif not equals and next(rest, "--").startswith("--"):
            truth = defaults.get(name[2:].replace("-", "_")) in TRUTH
            refuse(f"{name} needs a value{f', such as {name}=true' if truth else ''}")
        else:
            given.add(name[2:].replace("-", "_"))
    absent = [name for name in needed if name not in {*free[:free_given], *given}]
    if absent:
        told = " and ".join(name.upper() if name in free else f"--{name}" for name in absent)
        refuse(f"{verb} needs {told}; see: ncf {verb} --help")


def for_python(argument: str) -> str:
    """Name an option as its parameter is named: ``--from=x`` becomes ``--from_=x``."""
    name, equals, value = argument.partition("=")
    return f"{name}_{equals}{value}" if name.startswith("--") and keyword.iskeyword(name[2:]) else argument


def _now(word: str, options: Sequence[str]) -> str:
    """Say the new name of an option, if it has one."""
    new = RENAMED_OPTIONS.get(word)
    return f" (it is --{new} now)" if new in options else ""


def _nearest(word: str, known: Sequence[str], prefix: str = "") -> str:
    """Ask whether the nearest known word was meant."""
    near = get_close_matches(word, known, n=1)
    return f" (did you mean {prefix}{near[0]}?)" if near else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Carry out a command line.

    Args:
        arguments: the verb and what follows; None for those of this process.

    Raises:
        SystemExit: with one line and status 1 where something cannot be done.
    """
    keep_going_unread()
    begun = time.perf_counter()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], *HELP[:1]]
    if not arguments or set(HELP) & set(arguments):
        verb = arguments[0] if arguments else ""
        print(help_of(verb, VERBS[verb]) if verb in VERBS else overview(VERBS))
        return
    arguments = [f"{BARE}=true" if argument == BARE else argument for argument in arguments]
    try:
        os.getcwd()
    except OSError:
        refuse("the working folder is no longer there; change to another one")
    line, (arguments, talk) = arguments, taken(arguments)
    if not arguments:
        refuse(f"{' '.join(line)} is for a command; see: ncf --help")
    refuse_unknown(arguments)
    talk.begin(arguments[0], line)
    try:
        job = replace(_job_of(arguments), reads=named(arguments))
        job.start()
        logger.debug("%.1f s in all", time.perf_counter() - begun)
    except KeyboardInterrupt:
        raise end_of() from None
    except Exception as error:  # a path that the system refuses, wherever it is met; a fault of the program stays one
        if interrupted(error):
            raise end_of() from None
        fits = "preset" in inspect.signature(VERBS[arguments[0]]).parameters
        reason = explanation(error, face="command" if fits else "other_command")
        if reason is None:
            raise
        refuse(reason)


def _job_of(arguments: Sequence[str]) -> Job:
    """Return the job that a command line describes; end the process with one line where it is not understood."""
    try:
        with redirect_stderr(
            said := io.StringIO()
        ):  # Fire answers a mistake with a page of usage, but one line is enough
            job: Job = fire.Fire(VERBS, [for_python(a) for a in arguments], name="ncf", serialize=lambda _: None)
    except fire.core.FireExit as stop:
        refuse(f"{stop.trace.elements[-1].ErrorAsStr()}; see: ncf {arguments[0]} --help")
    sys.stderr.write("".join(line for line in said.getvalue().splitlines(True) if line.startswith(NOTE)))
    return job
