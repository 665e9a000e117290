"""A config as MONAI runs it, from beginning to end, in a process of ours."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from scripts.startup import load_libraries


def run_config(config_files: Iterable[str], overrides: Mapping[str, Any]) -> None:
    """Nothing; MONAI's `ConfigWorkflow` over the files, base first, with overrides of their entries, has run.

    Exits with status 1 and one line where the config finds that it cannot.
    """
    load_libraries()  # takes seconds
    from monai.bundle import ConfigWorkflow

    logging.getLogger("monai.bundle.workflows").setLevel(logging.WARNING)  # it tells which logging.conf it found
    workflow = ConfigWorkflow(config_file=list(config_files), workflow_type="inference", **overrides)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
