"""Errors in words for a user: which errors can be explained, and what this user can do about them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ncf.core.errors import PairError
from ncf.core.paths import shortened

# torch reports a lack of memory on the CPU by a RuntimeError with this text, on other devices by this class
OUT_OF_MEMORY, OUT_OF_MEMORY_CLASS = "DefaultCPUAllocator", "OutOfMemoryError"

# what helps with each hint of a `PairError`, by face, in words that its user can type
ADVICE: Mapping[str, Mapping[str, str]] = {
    "command": {
        "align_centres": "pass --align_centres=true to start with both centres together",
        "two_modalities": "for two modalities, such as CT and MR, give --modality=different",
        "memory": "use --preset=fast, or another --device",
    },
    "other_command": {
        "align_centres": "register again with --align_centres=true",
        "two_modalities": "register again with --modality=different",
        "memory": "end other programs, take a smaller scan, or use a machine with more memory",
    },
    "bundle": {
        "align_centres": "pass --align_centres true to start with both centres together",
        "two_modalities": "for two modalities, such as CT and MR, pass --modality different",
        "memory": "add configs/presets/fast.json to --config_file, or use another --device",
    },
    "python": {
        "align_centres": "give align_centres=True to start with both centres together",
        "two_modalities": 'for two modalities, such as CT and MR, give modality="different"',
        "memory": 'give preset="fast", or another device',
    },
    "server": {
        "align_centres": "switch align_centres on to start with both centres together",
        "two_modalities": "for two modalities, such as CT and MR, choose the modality different",
        "memory": "choose the preset fast",
    },
}


def explanation(error: BaseException, *, face: str) -> str | None:
    """Explain an error to a user in one line.

    The causes of an error are searched too: those that it was raised ``from``, as MONAI does. An error that was only
    being handled when a fault of the program happened explains nothing.

    Args:
        error: what was caught.
        face: a key of `ADVICE`: who reads the line.

    Returns:
        The line, if the error or one of its causes is a `PairError`, Ctrl-C, a lack of memory, or a path that the
        system refuses; None for a fault of the program.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PairError):
            return _with_advice(str(cause), cause.hint, face)
        if isinstance(cause, KeyboardInterrupt):
            return "interrupted; the result is not complete, nothing of it was written"
        lack = isinstance(cause, MemoryError) or type(cause).__name__ == OUT_OF_MEMORY_CLASS
        if lack or OUT_OF_MEMORY in str(cause):
            reason = str(cause).strip().partition("\n")[0]
            return _with_advice(f"out of memory ({reason})", "memory", face)
        if isinstance(cause, OSError) and cause.filename is not None:
            return f"cannot use {_named(cause)}: {cause.strerror}; correct the path or its permissions"
        cause = cause.__cause__
    return None


def _named(error: OSError) -> str:
    """Return the path that the system refused."""
    name = error.filename
    return shortened(os.fsdecode(name)) if isinstance(name, (str, bytes, os.PathLike)) else str(name)


def _with_advice(reason: str, hint: str | None, face: str) -> str:
    return reason if hint is None else f"{reason}; {ADVICE[face][hint]}"


def items_or_reasons(dataset: Sequence[Any], *, progress: bool) -> tuple[list[Any], list[str]]:
    """Read the items of a dataset in order, with a progress bar, and go on after an item that cannot be read.

    Args:
        dataset: indexed from 0; an item may raise `PairError`, or an error that was raised from one.
        progress: False hides the bar.

    Returns:
        The items, and one line for each item that could not be read.
    """
    items, reasons = [], []
    from tqdm import tqdm

    for number in tqdm(range(len(dataset)), desc="pairs", disable=None if progress else True):
        try:
            items.append(dataset[number])
        except Exception as error:
            reason = explanation(error, face="command")
            if reason is None:
                raise
            reasons.append(reason)
    return items, reasons
