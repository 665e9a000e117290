"""``ncf paper_table``: the paper's experiment, measured."""

from __future__ import annotations

import sys

from fire.decorators import SetParseFn

from scripts.errors import PairError
from scripts.paper_table.experiment import CASES, experiment
from scripts.presets import presets
from scripts.verbs.common import CallJob, absolute, refuse, true_or_false, whole_number

METHODS = "default,paper,elastix"


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
    """Run the paper's experiment on the lung data of 2020 and print its table 1, published rows and measured ones.

    Run again, it goes on where it stopped.

    Args:
        data_dir: the folder of Zenodo's record 3835682, see ncf fetch.
        output_dir: a folder a method goes there, and paper_table.md and .json.
        methods: default, paper or another preset, elastix; the paper's preset needs tens of GiB at the data's size.
        cases: of the pairs within a patient; scans of half as many patients are registered in all orders.
        seed: of the network's first weights.
        workers: processes; by default one for every core (as memory allows) or GPU.
        threads: of each process.
        peers_python: the python of an environment that has itk-elastix, see requirements-peers.txt.
        progress: false hides the progress bar.
    """
    wanted = list(dict.fromkeys(part.strip() for part in methods.split(",") if part.strip()))
    offered = ["default", *presets(), "elastix"]
    unknown = [name for name in wanted if name not in offered]
    if unknown or not wanted:
        refuse(f"--methods are some of {', '.join(offered)}, got {', '.join(unknown) or 'none'}")
    source, target = absolute("data_dir", data_dir), absolute("output_dir", output_dir)
    try:
        asked = experiment(source, cases=whole_number("cases", cases))
    except PairError as error:
        refuse(str(error))
    count, each = None if workers is None else whole_number("workers", workers), whole_number("threads", threads)
    if count == 0 or each == 0:
        refuse(f"--{'workers' if count == 0 else 'threads'} is at least 1")
    python = sys.executable if peers_python is None else str(absolute("peers_python", peers_python))
    first, bar = whole_number("seed", seed), true_or_false("progress", progress)

    def call() -> None:
        from scripts.cohort.run import all_devices, default_resources
        from scripts.paper_table.table import Settings, paper_table  # torch takes seconds to import

        resources = default_resources(workers=count, threads=each, devices=all_devices())
        if not paper_table(asked, wanted, Settings(target, resources, python, first, bar)):
            raise SystemExit(1)

    return CallJob(call)
