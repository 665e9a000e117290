"""The steps of a config's ``run``: the device is checked, the evaluator is run, and an error is told in one line."""

from __future__ import annotations

import sys
from typing import Any

import torch
from ignite.engine import Engine, Events

from ncf.core.errors import PairError
from ncf.core.folders import ResultFolders
from ncf.core.interruption import end_of, interrupted
from ncf.core.names import DOUBTFUL, DOUBTFUL_STATUS
from ncf.core.process import release_memory
from ncf.core.refusals import explanation
from ncf.core.threads import calm_threads
from ncf.fit.device import check_device


class DeviceCheck:
    """Ends the process with one line where the device cannot be used; runs before anything is put on it.

    Args:
        device: as torch names it.
    """

    def __init__(self, device: str | torch.device) -> None:
        self.device = device

    def run(self) -> None:
        """Make a tensor on the device; exit with status 1 where that fails."""
        try:
            check_device(self.device)
        except PairError as error:
            sys.exit(f"error: {error}")


class FlagCheck:
    """Ends the process with one line where a setting that is true or false is something else, such as the text "false".

    Args:
        flags: settings by name.
    """

    def __init__(self, **flags: Any) -> None:
        self.flags = flags

    def run(self) -> None:
        """Look at each flag; exit with status 1 where one is neither true nor false."""
        for name, value in self.flags.items():
            if not isinstance(value, bool):
                own = str(value).strip().capitalize()
                word = own if own in ("True", "False") else "True or False"
                sys.exit(f"error: {name} is True or False, and not the text {str(value)!r:.60}: --{name}={word}")


KEPT = ("metrics", "result_dir")  # entries of an evaluator's output that its later handlers need


def drop_volumes(engine: Engine) -> None:
    """Let an evaluator that has run forget its volumes, and give their memory back: what follows needs no more."""
    output: Any = engine.state.output
    kept: Any = {key: output[key] for key in KEPT if key in output}
    engine.state.output, engine.state.batch = kept, None
    release_memory()


class Released:
    """Makes an evaluator of many pairs release one pair's volumes before it takes the next (an Ignite handler)."""

    def attach(self, engine: Engine) -> None:
        """Ask the engine to call this before it takes a pair."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Drop the engine's batch and output, and give the memory back."""
        nothing: Any = None
        engine.state.output = engine.state.batch = nothing
        release_memory()


class Strict:
    """Ends a run whose verdict is doubtful with a status of its own, if that is wanted; its files are written.

    Args:
        strict: True ends so.
    """

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self._doubtful: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Ask the engine to call this after each pair."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Remember a pair whose verdict is doubtful."""
        output: Any = engine.state.output
        if output["metrics"].get("verdict", {}).get("word") == DOUBTFUL:
            self._doubtful.append(output["metrics"]["name"])

    def run(self) -> None:
        """End the process with `DOUBTFUL_STATUS` where a pair was doubtful.

        Raises:
            SystemExit: with that status.
        """
        if self.strict and self._doubtful:
            sys.stderr.write(f"doubtful: {', '.join(self._doubtful)} (status {DOUBTFUL_STATUS}, as strict wants it)\n")
            raise SystemExit(DOUBTFUL_STATUS)


class GuardedRun:
    """Runs an evaluator; a PairError or Ctrl-C ends the process with one line, without a traceback.

    Args:
        evaluator: the engine.
        folders: released at the end, whatever happens.
        face: who reads the line (`ncf.core.refusals.ADVICE`).
    """

    def __init__(self, evaluator: Engine, *, folders: ResultFolders, face: str = "bundle") -> None:
        self.evaluator, self.folders, self.face = evaluator, folders, face

    def run(self) -> None:
        """Run the evaluator through all its pairs.

        Raises:
            SystemExit: with status 1 and one line, for an error that a person can understand; 130 for Ctrl-C.
        """
        try:
            with calm_threads():
                self.evaluator.run()
        except (Exception, KeyboardInterrupt) as error:
            if interrupted(error):
                raise end_of("the result is not complete, nothing of it was written") from None
            message = explanation(error, face=self.face)
            if message is None:
                raise
            sys.exit(f"error: {message}")
        finally:
            self.folders.release()
