"""A whole config, run by MONAI from beginning to end in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ncf.core.startup import load_libraries

MONAIS = "monai.bundle.workflows"  # the logger by which MONAI says which logging.conf it takes


def run_config(config_files: Iterable[str], overrides: Mapping[str, Any]) -> None:
    """Run config files from beginning to end by MONAI's `ConfigWorkflow`. Logging stays as it is set up.

    Args:
        config_files: the base first.
        overrides: of the config's entries.

    Raises:
        SystemExit: with status 1 and one line, where a part of the config finds that it cannot be run.
    """
    load_libraries()  # takes seconds
    from monai.bundle import ConfigWorkflow

    logging.getLogger(MONAIS).setLevel(logging.ERROR)  # else it says that it was given no logging.conf
    workflow = ConfigWorkflow(
        config_file=list(config_files), workflow_type="inference", logging_file=False, **overrides
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
