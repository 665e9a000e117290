"""Our own method as a user runs it, ``python -m ncf register``, and the memory that libraries and pair alone take.

Labels and landmarks are not handed over: every method gets two scans and gives a field, and one referee judges all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.pairs import Pair
from ncf.core.presets import config, config_files
from ncf.core.startup import load_libraries


def command(pair: Pair, *, preset: str, seed: int, output_dir: Path, name: str) -> list[str]:
    """Return the command line of one run; its result lies in <output_dir>/<name>/.

    Args:
        pair: has files.
        preset: of our method.
        seed: of the network's first weights.
        output_dir: where the result folder is made.
        name: of the result folder.
    """
    scans = [str(pair.files["fixed"]), str(pair.files["moving"])]
    words = [sys.executable, "-m", "ncf", "register", *scans, "--progress=false", "--report=false"]
    words += ["--align_centres=true"] if pair.align_centres else []
    words += [f"--seed={seed}", f"--output_dir={output_dir}", f"--name={name}"]
    return words + ([] if preset == "default" else [f"--preset={preset}"])


def report(folder: Path) -> dict[str, Any]:
    """Return version, device and seconds by stage of a finished run, as the peers tell them."""
    metrics = json.loads((folder / "metrics.json").read_text())
    seconds = {key: value for key, value in metrics["seconds"].items() if key != "total"}
    device = str(json.loads((folder / "run.json").read_text())["device"])
    version = json.loads(Path(config("metadata")).read_text())["version"]
    return {"version": version, "device": device, "seconds": seconds}


def load_only(fixed: str, moving: str, output_dir: str) -> None:
    """Import everything and read the pair as for a run, but fit nothing.

    Args:
        fixed: the fixed scan.
        moving: the moving scan.
        output_dir: as of a run.
    """
    load_libraries()  # as the command does
    from monai.bundle import ConfigWorkflow

    paths: dict[str, Any] = {"fixed": Path(fixed), "moving": Path(moving), "output_dir": Path(output_dir)}
    workflow = ConfigWorkflow(
        config_file=list(config_files(None)), workflow_type="inference", logging_file=False, **paths
    )
    workflow.initialize()
    workflow.parser.get_parsed_content("evaluator")  # builds all parts, which imports their modules
    workflow.parser.get_parsed_content("dataset")[0]


if __name__ == "__main__":
    load_only(*sys.argv[1:])
