"""Reports of what a run has saved, made when it is over: one that fails costs no registration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from scripts.drawing import load_matplotlib
from scripts.errors import PairError
from scripts.guard import explanation

KEPT = ("metrics", "result_dir")  # of the output of an evaluator, while reports are made


class Reports:
    """Remembers the results of an evaluator (as its handler), then makes their reports.

    The evaluator's state lets go of its volumes first, so that a report needs no more memory than the fit before it.

    Args:
        report: false makes none.
    """

    def __init__(self, report: bool = True) -> None:
        self.report = report
        self._folders: list[Path] = []
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Asks the engine to call this after each pair."""
        self._engine = engine
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        output: Any = engine.state.output
        self._folders.append(Path(output["result_dir"]))

    def made(self) -> list[str]:
        """A line for every report that could not be made; the others lie in their results' folders."""
        folders, self._folders = self._folders, []
        if not self.report:
            return []
        if self._engine is not None and folders:
            output: Any = self._engine.state.output
            kept: Any = {key: output[key] for key in KEPT if key in output}
            self._engine.state.output, self._engine.state.batch = kept, None
        return [line for folder in folders if (line := attempt(folder)) is not None]

    def run(self) -> None:
        """Nothing; every result has its report, or the process ends with status 1 and a line for each that has none."""
        failed = self.made()
        if failed:
            sys.exit("error: " + "\n".join(failed))


def attempt(folder: Path, inputs: dict[str, Path] | None = None) -> str | None:
    """None once a report is made and its place printed, else the line that says why there is none."""
    try:
        load_matplotlib()
        from scripts.report.concerns import serious
        from scripts.report.make import make_report  # matplotlib takes a second to import

        page = make_report(folder, inputs)
        worries = [f"  serious     {text}" for text in serious(folder)]
        print("\n".join([*worries, f"  report      {page}"]), flush=True)
    except Exception as error:  # whatever it is, the result is complete and must stay so
        told = explanation(error) or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if isinstance(error, PairError):
            return told
        return f"the result in {folder} is complete, but its report could not be made: {told}"
    return None
