"""``ncf cohort``: many pairs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fire.decorators import SetParseFn

from scripts.cohort.plan import Plan
from scripts.cohort.run import ENGINES, all_devices, default_resources, run_cohort
from scripts.datasets import read_pairs
from scripts.errors import PairError
from scripts.verbs.common import CallJob, absolute, config_files, one_of, plain, refuse, true_or_false, whole_number


@SetParseFn(str)
def cohort(
    pairs: str,
    *,
    output_dir: str,
    which: str | None = None,
    preset: str | None = None,
    seed: str = "0",
    align_centres: str = "false",
    workers: str | None = None,
    threads: str = "1",
    engine: str = "local",
    scheduler: str | None = None,
    devices: str | None = None,
    retry_failed: str = "false",
    report: str = "true",
    progress: str = "true",
) -> CallJob:
    """Register every pair of the list PAIRS, each into <output_dir>/<name>/, and collect tables and a picture.

    Run again, it goes on where it stopped: pairs that are done are skipped, after a check that scans, settings and version
    are the same; reports that are missing are made. A pair that fails is recorded in failures.csv, the rest goes on; the
    exit status is then 1. While one run is at work in a folder, a second one is refused.

    Args:
        pairs: a Learn2Reg dataset JSON, the folder of the Zenodo archive, a CSV or a JSON list.
        output_dir: where the results go.
        which: list of a Learn2Reg dataset: registration_val, registration_test, training_paired_images, all_pairs.
        preset: an overlay of configs/, such as fast.
        seed: of the network's first weights, the same for every pair.
        align_centres: true starts every pair with both centres together.
        workers: processes; by default one for every core (as memory allows) or GPU.
        threads: of each process. More make a pair faster and a list slower; other numbers give other last bits.
        engine: local (processes of this machine), torchrun, or dask.
        scheduler: address of a running Dask scheduler, such as tcp://host:8786; for the engine dask.
        devices: GPUs to deal out to the workers, such as 0,1; by default all, if there are any.
        retry_failed: true registers those again that failed before.
        report: false makes no report of each pair and no index.html; run again with true, they are made.
        progress: false hides the progress bar.
    """
    try:
        rows = read_pairs(absolute("pairs", pairs), which=which)
    except PairError as error:
        refuse(str(error))
    files = config_files(preset)
    settings: dict[str, Any] = {"seed": whole_number("seed", seed)}
    settings["align_centres"] = true_or_false("align_centres", align_centres)
    settings["report"] = true_or_false("report", report)
    chosen = one_of("engine", engine, tuple(ENGINES))
    if scheduler is not None and chosen != "dask":
        refuse("--scheduler is for --engine dask")
    count = whole_number("workers", workers) if workers is not None else None
    each = whole_number("threads", threads)
    if count == 0 or each == 0:
        refuse(f"--{'workers' if count == 0 else 'threads'} is at least 1")
    again, bar = true_or_false("retry_failed", retry_failed), true_or_false("progress", progress)
    named = None if devices is None else tuple(part.strip() for part in plain("devices", devices).split(","))
    plan = Plan(rows, files, absolute("output_dir", output_dir), settings)

    def call() -> None:
        resources = default_resources(workers=count, threads=each, devices=all_devices() if named is None else named)
        resources = replace(resources, scheduler=scheduler)
        if not run_cohort(plan, engine=chosen, resources=resources, retry_failed=again, progress=bar):
            raise SystemExit(1)

    return CallJob(call, libraries=False)
