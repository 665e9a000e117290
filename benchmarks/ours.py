"""Our own method as a user runs it, ``python -m scripts register``, and how much memory the libraries and the pair take.

Labels and landmarks are not handed over: every method gets two scans and gives a field, and one referee judges all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.pairs import Pair
from scripts.presets import config, config_files
from scripts.startup import load_libraries


def command(pair: Pair, *, preset: str, seed: int, output_dir: Path, name: str) -> list[str]:
    """The command line of one run; its result lies in <output_dir>/<name>/."""
    scans = [str(pair.files["fixed"]), str(pair.files["moving"])]
    words = [sys.executable, "-m", "scripts", "register", *scans, "--progress=false", "--report=false"]
    words += ["--align_centres=true"] if pair.align_centres else []
    words += [f"--seed={seed}", f"--output_dir={output_dir}", f"--name={name}"]
    return words + ([] if preset == "default" else [f"--preset={preset}"])


def report(folder: Path) -> dict[str, Any]:
    """Version, device and seconds by stage of a finished run, as the peers tell them."""
    metrics = json.loads((folder / "metrics.json").read_text())
    seconds = {key: value for key, value in metrics["seconds"].items() if key != "total"}
    device = str(json.loads((folder / "run.json").read_text())["device"])
    version = json.loads(Path(config("metadata")).read_text())["version"]
    return {"version": version, "device": device, "seconds": seconds}


def load_only(fixed: str, moving: str, output_dir: str) -> None:
    """Nothing; everything was imported and the pair was read as for a run, but nothing was fitted."""
    load_libraries()  # as the command does
    from monai.bundle import ConfigWorkflow

    paths: dict[str, Any] = {"fixed": Path(fixed), "moving": Path(moving), "output_dir": Path(output_dir)}
    workflow = ConfigWorkflow(config_file=list(config_files(None)), workflow_type="inference", logging_file=False, **paths)
    workflow.initialize()
    workflow.parser.get_parsed_content("evaluator")  # builds all parts, so their modules are imported
    workflow.parser.get_parsed_content("dataset")[0]


if __name__ == "__main__":
    load_only(*sys.argv[1:])
