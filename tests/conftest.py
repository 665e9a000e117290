"""What several test files share: a tiny chest on disk, and runs of the bundle within the test's own process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from ncf.phantom.chest import PhantomPair, breathing_thorax, write

ROOT = Path(__file__).parent.parent
LEVELS = {
    "only": {"voxels": 3000, "control_points": 300, "iterations": 12, "learning_rate": 1e-3}
}  # 50 ms, and it moves
NO_SEARCH = {"inferer::search": None}  # it takes a second; tests/test_search.py has it
CONFIGURED = ("", "ncf", "ncf.notes", "ignite")  # loggers of configs/logging.conf


LOGGERS = {name: logging.getLogger(name) for name in CONFIGURED}
AS_IT_WAS = {name: (logger.handlers[:], logger.level, logger.propagate) for name, logger in LOGGERS.items()}


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A command that runs in this process sets up logging for all that follow, on a stream that ends with its test.

    A fixture of a whole module may have run one before this test began, so it is set back before and after.
    """

    def set_back() -> None:
        for name, (handlers, level, propagate) in AS_IT_WAS.items():
            own = [h for h in LOGGERS[name].handlers if type(h).__module__.startswith("_pytest")]  # caplog's
            LOGGERS[name].handlers[:], LOGGERS[name].propagate = (
                [*own, *(h for h in handlers if h not in own)],
                propagate,
            )
            LOGGERS[name].setLevel(level)
        for name in list(logging.root.manager.loggerDict):  # a worker that runs in this process quiets some
            if name.startswith("ncf."):
                logging.getLogger(name).setLevel(logging.NOTSET)

    set_back()
    yield
    set_back()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Fits this small are slower with two threads, much slower where others compute too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def chest() -> PhantomPair:
    """A breathing chest of 24 x 22 x 26 voxels."""
    return breathing_thorax((24, 22, 26), seed=1)


@pytest.fixture(scope="session")
def pair(chest: PhantomPair, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The paths of its files: fixed, moving, both labels, landmarks."""
    return write(chest, tmp_path_factory.mktemp("chest"))


Run = Callable[..., ConfigWorkflow]


@pytest.fixture(scope="session")
def run() -> Run:
    """``run(output_dir, pair, *overlays, **overrides)``: the workflow after its run, with a fit of a few iterations."""

    def start(output_dir: Path, pair: Mapping[str, Any], *overlays: Path, **overrides: Any) -> ConfigWorkflow:
        files: Sequence[str] = [str(ROOT / "configs" / "inference.json"), *map(str, overlays)]
        small = {"fit::levels": LEVELS, **NO_SEARCH, "device": "cpu", "progress": False, "report": False}
        small["output_dir"] = output_dir
        workflow = ConfigWorkflow(
            config_file=files, workflow_type="inference", logging_file=False, **{**small, **pair, **overrides}
        )
        workflow.initialize()
        workflow.run()
        return workflow

    return start
