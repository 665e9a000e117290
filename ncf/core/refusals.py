"""Errors in words for a user: which errors can be explained, and what this user can do about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tqdm import tqdm

from ncf.core.errors import PairError

# torch reports a lack of memory on the CPU by a RuntimeError with this text, on other devices by this class
OUT_OF_MEMORY, OUT_OF_MEMORY_CLASS = "DefaultCPUAllocator", "OutOfMemoryError"

# what helps with each hint of a `PairError`, by face, in words that its user can type
ADVICE: Mapping[str, Mapping[str, str]] = {
    "command": {
        "align_centres": "pass --align_centres=true to start with both centres together",
        "two_modalities": "for two modalities, such as CT and MR, give --modality=different",
        "memory": "use --preset=fast, or another --device",
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
        The line, if the error or one of its causes is a `PairError`, Ctrl-C, or a lack of memory; None for a fault of
        the program.
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
        cause = cause.__cause__
    return None


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
    for number in tqdm(range(len(dataset)), desc="pairs", disable=None if progress else True):
        try:
            items.append(dataset[number])
        except Exception as error:
            reason = explanation(error, face="command")
            if reason is None:
                raise
            reasons.append(reason)
    return items, reasons
