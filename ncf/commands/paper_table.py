"""``ncf paper_table``: the paper's experiment, measured."""

from __future__ import annotations

import sys

from fire.decorators import SetParseFn

from ncf.commands.common import CallJob, absolute, at_least_one, or_refused, refuse, true_or_false, whole_number
from ncf.core.presets import presets
from ncf.paper.elastix import check_sources
from ncf.paper.experiment import CASES, experiment

ELASTIX = "elastix"
METHODS = f"default,paper,{ELASTIX}"


@SetParseFn(str)
def paper_table(
    *,
    data_dir: str,
    output_dir: str = "paper_table",
    methods: str = METHODS,
    cases: str = str(CASES),
    seed: str = "0",
    workers: str | None = None,
    threads: str = "1",
    peers_python: str | None = None,
    progress: str = "true",
) -> CallJob:
    """Run the paper's experiment on the lung data of 2020 and print its table 1, with published and measured rows.

    Run again, it goes on where it stopped.

    Args:
        data_dir: the folder of Zenodo's record 3835682, see ncf fetch.
        output_dir: where paper_table.md, paper_table.json and a folder for each method go.
        methods: default, paper or another preset, elastix; the paper's preset needs tens of GiB at the data's size.
        cases: number of pairs within a patient; the scans of half as many patients are registered in all orders.
        seed: of the network's first weights.
        workers: number of processes; by default one for every core (as memory allows) or GPU.
        threads: of each process.
        peers_python: the python of an environment that has itk-elastix, see requirements-peers.txt.
        progress: false hides the progress bar.
    """
    wanted = list(dict.fromkeys(part.strip() for part in methods.split(",") if part.strip()))
    offered = ["default", *presets(), ELASTIX]
    unknown = [name for name in wanted if name not in offered]
    if unknown or not wanted:
        refuse(f"--methods are some of {', '.join(offered)}, got {', '.join(unknown) or 'none'}")
    source, target = absolute("data_dir", data_dir), absolute("output_dir", output_dir)
    if ELASTIX in wanted:
        or_refused(check_sources)
    asked = or_refused(experiment, source, cases=whole_number("cases", cases))
    count = at_least_one("workers", workers) if workers is not None else None
    each = at_least_one("threads", threads)
    python = sys.executable if peers_python is None else str(absolute("peers_python", peers_python))
    first, bar = whole_number("seed", seed), true_or_false("progress", progress)

    def call() -> None:
        """Run the experiment; exit with status 1 where a pair has no result."""
        from ncf.cohort.run import all_devices, default_resources
        from ncf.paper.table import Settings, paper_table

        resources = default_resources(workers=count, threads=each, devices=all_devices())
        if not paper_table(asked, wanted, Settings(target, resources, python, first, bar)):
            raise SystemExit(1)

    return CallJob(call)
