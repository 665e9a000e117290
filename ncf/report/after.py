"""Findings and reports of what a run has saved, made when the run is over: one that fails costs no registration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from ncf.core.console import tell
from ncf.core.errors import PairError
from ncf.core.interruption import end_of
from ncf.core.refusals import explanation
from ncf.run.guard import drop_volumes


class Reports:
    """Remembers the results of an evaluator (as its handler), then makes their reports.

    The evaluator's state first drops its volumes, so a report needs no more memory than the fit before it. (Findings
    alone need little.)

    Args:
        report: False writes the findings only, no page and no pictures.
    """

    def __init__(self, report: bool = True) -> None:
        self.report = report
        self.failed: list[str] = []
        self._folders: list[Path] = []
        self._told: set[Path] = set()
        self._engine: Engine | None = None

    def attach(self, engine: Engine) -> None:
        """Ask the engine to call this after each pair."""
        self._engine = engine
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Remember the folder of the result that was just saved."""
        output: Any = engine.state.output
        self.remember(Path(output["result_dir"]))

    def remember(self, folder: Path) -> None:
        """Remember a result whose report is to be made, or made again."""
        self._folders.append(folder)

    def made(self) -> list[str]:
        """Make the reports of all remembered results; of those that are made again, only new warnings are told.

        Returns:
            One line for each report that could not be made; the others lie in the folders of their results.
        """
        folders, self._folders = self._folders, []
        if self.report and self._engine is not None and folders:
            drop_volumes(self._engine)
        found = {f: told_or_reason(f, page=self.report, again=f in self._told) for f in folders}
        self._told |= {*folders}
        return [line for line in found.values() if line is not None]

    def run(self) -> None:
        """Make the reports of all remembered results, and remember what could not be made.

        Raises:
            SystemExit: with status 130 for Ctrl-C.
        """
        folders = list(self._folders)
        try:
            self.failed += [line for line in self.made() if line not in self.failed]
        except KeyboardInterrupt:
            again = "; ".join(f"ncf report {folder}" for folder in folders)
            raise end_of(f"the result is complete, its report may not be; made again by {again}") from None

    def end(self) -> None:
        """End the process with status 1 and one line for each report that could not be made, if any."""
        if self.failed:
            sys.exit("error: " + "\n".join(self.failed))


def told_or_reason(
    folder: Path,
    inputs: dict[str, Path] | None = None,
    *,
    page: bool = True,
    alone: bool = False,
    again: bool = False,
) -> str | None:
    """Write the findings about a result, with its report, and print the warnings and the report's path.

    Args:
        folder: of the result.
        inputs: scans that have moved since, by key.
        page: False writes the findings only.
        alone: whether the report is all that the command makes, so that its path is told even by a quiet one.
        again: whether the warnings so far and the path were told before; then only new warnings are.

    Returns:
        None, or a line that says why the report could not be made.
    """
    try:
        from ncf.report.saved_findings import saved_warnings

        before = saved_warnings(folder) if again else []
        made = _report(folder, inputs) if page else _findings(folder, inputs)
        lines = [f"  warning     {text}" for text in saved_warnings(folder) if text not in before]
        lines += [f"  report      {made}"] if page and not again else []
        tell("\n".join(lines), brief=str(made) if alone else "")
    except Exception as error:  # whatever it is, the result is complete and must stay complete
        told = explanation(error, face="command") or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if isinstance(error, PairError):
            return told
        what = "report" if page else "findings"
        return f"the result in {folder} is complete, but its {what} could not be made: {told}"
    return None


def _report(folder: Path, inputs: dict[str, Path] | None) -> Path:
    from ncf.report.make import make_report

    return make_report(folder, inputs)


def _findings(folder: Path, inputs: dict[str, Path] | None) -> Path:
    from ncf.report.facts import facts_of
    from ncf.report.findings import findings_of
    from ncf.report.saved_findings import save_findings
    from ncf.result.folder import SavedResult

    save_findings(folder, findings_of(facts_of(SavedResult(folder), inputs)))
    return folder
