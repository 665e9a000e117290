"""Between a run and the person who started it: what went wrong in one line, and a summary of what came out."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from tqdm import tqdm

from scripts.errors import PairError
from scripts.folders import ResultFolders

GLIBC_KEEPS = {-3: 32 << 20, -1: 2**31 - 1}  # M_MMAP_THRESHOLD at its largest, M_TRIM_THRESHOLD (malloc.h), in bytes
NO_DEVICE = "device type at start of device string"  # in torch's message, which lists twenty kinds
OUT_OF_MEMORY = "DefaultCPUAllocator"  # in the text of torch's RuntimeError on the CPU, which has no class of its own


def explanation(error: BaseException) -> str | None:
    """The message meant for a person, if this error or one of its causes has one; None for a fault of the program.

    Those are a PairError, Ctrl-C, and memory that does not suffice. Causes are errors that another was raised ``from``, as
    MONAI does; one that was only being handled when a fault of the program happened explains nothing.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, PairError):
            return str(cause)
        if isinstance(cause, KeyboardInterrupt):
            return "interrupted; the result is not complete and metrics.json was not written"
        if isinstance(cause, (MemoryError, torch.OutOfMemoryError)) or OUT_OF_MEMORY in str(cause):
            reason = str(cause).strip().partition("\n")[0]
            return f"out of memory ({reason}); use fewer voxels and control_points in fit::levels, or another device"
        cause = cause.__cause__
    return None


def items_or_reasons(dataset: Sequence[Any], *, progress: bool) -> tuple[list[Any], list[str]]:
    """The items of a dataset, in order and with a progress bar, and one line for each that its input keeps from being."""
    items, reasons = [], []
    for number in tqdm(range(len(dataset)), desc="pairs", disable=None if progress else True):
        try:
            items.append(dataset[number])
        except Exception as error:
            reason = explanation(error)
            if reason is None:
                raise
            reasons.append(reason)
    return items, reasons


def check_device(device: str | torch.device) -> None:
    """Nothing; raises PairError where no tensor can be made on the device."""
    try:
        torch.zeros(1, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        why = "there is none of that name" if NO_DEVICE in reason else reason
        advice = "name another, such as cpu, cuda or cuda:1, or none for the default"
        raise PairError(f"device {str(device)!r} cannot be used ({why}); {advice}") from error


class DeviceCheck:
    """Ends the process with one line where the device cannot be used; runs before anything is put on it."""

    def __init__(self, device: str | torch.device) -> None:
        self.device = device

    def run(self) -> None:
        """Nothing; exits with status 1 when a tensor cannot be made there."""
        try:
            check_device(self.device)
        except PairError as error:
            sys.exit(f"error: {error}")


class Allocator:
    """Lets the process keep the memory it frees, which a fit needs again in the next step (docs/decisions/0009-speed.md).

    By default glibc gives large blocks back to the system at once, and the system clears every page of the next one.
    """

    def run(self) -> bool:
        """Whether the C library was told; other libraries than glibc (Windows, macOS, musl) are left alone."""
        tell = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
        return tell is not None and all(tell(what, size) == 1 for what, size in GLIBC_KEEPS.items())


def release_memory() -> None:
    """Nothing; what is no longer used is the system's again, so that a process does not grow from pair to pair.

    An evaluator and its handlers refer to each other, so that the images of a pair stay until Python looks for such
    cycles; and what the C library keeps for the next step (`Allocator`) is cut up further by every pair.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class Released:
    """Lets an evaluator of many pairs go of one pair's volumes before it takes the next (an Ignite handler)."""

    def attach(self, engine: Engine) -> None:
        """Asks the engine to call this before it takes a pair."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        nothing: Any = None
        engine.state.output = engine.state.batch = nothing
        release_memory()


class GuardedRun:
    """Runs an evaluator; a PairError or Ctrl-C ends the process with one line and status 1 instead of a traceback."""

    def __init__(self, evaluator: Engine, folders: ResultFolders) -> None:
        self.evaluator, self.folders = evaluator, folders

    def run(self) -> None:
        """Nothing; the evaluator has run through all its pairs."""
        try:
            self.evaluator.run()
        except (Exception, KeyboardInterrupt) as error:
            message = explanation(error)
            if message is None:
                raise
            sys.exit(f"error: {message}")
        finally:
            self.folders.release()


class Summary:
    """Prints after each pair, in words, what changed and where the files are (an Ignite handler)."""

    def attach(self, engine: Engine) -> None:
        """Asks the engine to call this after each pair."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        output: Any = engine.state.output
        print(summary(output["metrics"], output["result_dir"]), flush=True)


def summary(metrics: Mapping[str, Any], result_dir: str) -> str:
    """The closing lines for a person: before, after, folds, warnings, where the files are."""
    lines = [f"Registered {metrics['name']} in {metrics['seconds']['total']:.1f} s."]
    if "tre_mm" in metrics:
        tre = metrics["tre_mm"]
        after = tre["after"]
        spread = f"median {after['median']:.2f}, 95 % below {after['p95']:.2f}, largest {after['max']:.2f}"
        means = f"{tre['before']['mean']:.2f} mm before, {after['mean']:.2f} mm after"
        lines.append(f"  landmarks   {means} ({spread}; {after['count']} points)")
    if "dice" in metrics:
        lines.append(f"  labels      {_dice_words(metrics['dice'])}")
    alike = metrics["similarity"]
    words = {"correlation": "ncc", "mutual information": "nmi"}
    told = [f"{word} {alike['before'][key]:.3f} before, {alike['after'][key]:.3f} after" for word, key in words.items()]
    lines.append(f"  images      {'; '.join(told)}")
    folds = metrics["folded_share"]
    inside = f", {100 * folds['in_label']:.3f} % inside the fixed label" if "in_label" in folds else ""
    lines.append(f"  folds       {100 * folds['all']:.3f} % of voxels{inside}")
    if metrics["attempts"] > 1:
        lines.append(f"  note        the first attempt diverged; this is attempt {metrics['attempts']}, more careful")
    lines.append(f"  files       {result_dir}")
    return "\n".join(lines)


def _dice_words(dice: Mapping[str, Any]) -> str:
    """Mean Dice before and after, of how many labels, and which ones a map lacks."""
    scores, absent = dice["after"]["labels"], dice.get("absent", {})
    told = [f"{', '.join(map(str, labels))} {key.replace('_', ' ')}" for key, labels in absent.items() if labels]
    lacking = f"; absent: {'; '.join(told)}" if told else ""
    if not scores:
        return f"none is in both maps{lacking}"
    means = f"Dice {dice['before']['mean']:.3f} before, {dice['after']['mean']:.3f} after"
    return f"{means} (mean of {len(scores)} label{'' if len(scores) == 1 else 's'}{lacking})"
