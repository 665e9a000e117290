"""A config kept ready for pair after pair.

Only this module knows under which ids a config has its parts. Cohorts, the label server and Python register by it. A
single command runs the same config from beginning to end (`ncf.run.config`).
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, cast

from ncf.core.lacking import Lacking
from ncf.core.process import release_memory
from ncf.core.threads import calm_threads
from ncf.pair.keys import Pair, PairFiles
from ncf.result.record import RunRecord
from ncf.run.config import MONAIS

# overrides that make a config of files one for images in memory: nothing is read or written
IN_MEMORY: Mapping[str, Any] = {
    "preprocessing": "@preparing",
    "postprocessing": "@measuring",
    "handlers": [],
    "dataset_data": [{"labels": "@labels"}],  # so that run.json tells them, as of files
}


class Session:
    """A config for registrations: the config is kept, everything of a pair is made anew for the next one.

    Args:
        config_files: the base first.
        overrides: of the config's entries; for images in memory, `IN_MEMORY` among them.
    """

    def __init__(self, config_files: Iterable[str], overrides: Mapping[str, Any]) -> None:
        from monai.bundle import ConfigWorkflow

        with _without_warnings():
            self._workflow = ConfigWorkflow(
                config_file=list(config_files), workflow_type="inference", logging_file=False, **overrides
            )
        self._workflow.initialize()

    def keep_memory(self) -> None:
        """Let this process keep the memory it frees, which the next fit needs again."""
        self._part("allocator").run()

    def register_files(self, pair: PairFiles) -> Lacking:
        """Register a pair of files and write its result, with bounds of its error and a report where they are wanted.

        Args:
            pair: paths by key.

        Returns:
            One line for each bounds and each report that could not be made.

        Raises:
            PairError: the pair cannot be registered. An error that was raised from a PairError means the same
                (`ncf.core.refusals.explanation`).
        """
        files = {key: Path(value) if isinstance(value, str) and key != "name" else value for key, value in pair.items()}
        # Path objects, because MONAI evaluates texts that hold $, @ or %
        self._workflow.parser["dataset_data"] = [files]
        self._workflow.initialize()
        try:
            with redirect_stdout(io.StringIO()), calm_threads():  # the closing lines of a single run
                self._part("evaluator").run()
                without = self._part("reports").made()  # first: fits that are interrupted cost no report
                bounds = self._part("trusts").made()
                return Lacking(bounds=bounds, reports=[*without, *self._part("reports").made()])
        finally:
            self._part("folders").release()
            self._workflow.parser.ref_resolver.reset()  # the evaluator, which holds the pair's images
            release_memory()

    def register_images(self, pair: Pair) -> tuple[Pair, RunRecord]:
        """Register a pair of images in memory.

        Args:
            pair: as `ncf.pair.read.ReadPaird` gives one.

        Returns:
            The measured pair, and the record of its config for `ncf.result.write.write_result`.

        Raises:
            PairError: the pair cannot be registered. An error that was raised from a PairError means the same.
        """
        self._part("dataset").data = [pair]
        evaluator = self._part("evaluator")
        evaluator.logger.setLevel(logging.CRITICAL)  # an error is raised, so it need not be printed too
        with calm_threads():
            evaluator.run()
        # the evaluator keeps the entries that came in and the new ones apart; "image" is the pair on the device
        found = {**evaluator.state.batch, **evaluator.state.output}
        measured = cast(Pair, {key: value for key, value in found.items() if key != "image"})
        return measured, self._part("record")

    def reseed(self, seed: int) -> None:
        """Fit the next pairs with another seed."""
        if self._workflow.parser["seed"] != seed:
            self._workflow.parser["seed"] = seed
            self._workflow.initialize()

    def _part(self, name: str) -> Any:
        """Return a part of the config by its id."""
        return self._workflow.parser.get_parsed_content(name)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep MONAI from warning that there is no logging file, which would set up logging for the whole program."""
    log = logging.getLogger(MONAIS)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
