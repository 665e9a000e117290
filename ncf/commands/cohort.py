"""``ncf cohort``: registration of many pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fire.decorators import SetParseFn

from ncf.cohort.plan import REPORT, TRUST, Plan
from ncf.cohort.run import ENGINES, all_devices, default_resources, doubtful, run_cohort
from ncf.commands.common import (
    CallJob,
    absolute,
    at_least_one,
    chosen_configs,
    fit_options,
    listed_pairs,
    one_of,
    plain,
    refuse,
    true_or_false,
)
from ncf.core.names import DOUBTFUL_STATUS, LABEL_KEYS
from ncf.io.pair_lists import Pairs

# the label maps that an option needs of every pair
NEED_LABELS = {"guide_labels": LABEL_KEYS, "rigid_label": LABEL_KEYS[:1], "keep_volume_label": LABEL_KEYS[:1]}
TOLD = 3  # most pairs named in one line


@SetParseFn(str)
def cohort(
    pairs: str,
    *,
    output_dir: str,
    which: str | None = None,
    preset: str | None = None,
    modality: str = "auto",
    transform: str = "deformable",
    labels: str | None = None,
    guide_labels: str = "false",
    rigid_label: str | None = None,
    keep_volume_label: str | None = None,
    seed: str = "0",
    align_centres: str = "false",
    workers: str | None = None,
    threads: str = "1",
    engine: str = "local",
    scheduler: str | None = None,
    devices: str | None = None,
    retry_failed: str = "false",
    strict: str = "false",
    trust: str = "false",
    report: str = "true",
    progress: str = "true",
) -> CallJob:
    """Register every pair of the list PAIRS, each into <output_dir>/<name>/, and collect tables and a picture.

    Run again, it goes on where it stopped: pairs that are done are skipped, after a check that scans, settings and
    version are the same, and missing reports are made. A pair that fails is recorded in failures.csv, and the others go
    on; the exit status is then 1. While one run is at work in a folder, a second one is refused.

    Args:
        pairs: a Learn2Reg dataset JSON, the folder of the Zenodo archive, a CSV or a JSON list.
        output_dir: where the results go.
        which: list of a Learn2Reg dataset: registration_val, registration_test, training_paired_images, all_pairs.
        preset: one of the presets below, or the path of a JSON overlay of your own.
        modality: same or different, where auto, which asks the scans of each pair, chooses wrongly (`ncf register`).
        transform: rigid, affine or deformable, for every pair.
        labels: names or numbers of the labels that count, such as Heart,Lung_L; by default all. Heart=Herz is called
            Heart in the fixed and Herz in the moving map.
        guide_labels: true lets labels with equal numbers (or names) guide the fit (both label maps are needed).
        rigid_label: numbers or names of fixed labels, such as 3,5, in which the map stays rigid, each by itself.
        keep_volume_label: numbers or names of fixed labels whose volume is kept.
        seed: of the network's first weights, the same for every pair.
        align_centres: true registers every pair with the centres of both grids together at first.
        workers: number of processes; by default one for every core (as memory allows) or GPU.
        threads: of each process. More make a pair faster and a list slower; another number changes the last bits.
        engine: local (processes of this machine), torchrun, or dask.
        scheduler: address of a running Dask scheduler, such as tcp://host:8786; for the engine dask.
        devices: GPUs to deal out to the workers, such as 0,1; by default all, if there are any.
        retry_failed: true registers those pairs again that failed before.
        strict: true ends with status 2 where all is done, but the verdict on a pair is doubtful.
        trust: true bounds the error of every result, in mm, by four more fits (`ncf trust`); run again with true, pairs
            that are done get their bounds.
        report: false makes no report of each pair and no index.html; run again with true, they are made.
        progress: false hides the progress bar.
    """
    return _job(dict(locals()))


def _job(given: Mapping[str, Any]) -> CallJob:
    """Return the job that a command line describes; end the process where an option is wrong.

    Args:
        given: every option as it was given, by its name.
    """
    settings = fit_options(given) | {name: true_or_false(name, given[name]) for name in (REPORT, TRUST)}
    rows, files = listed_pairs(given["pairs"], given["which"]), chosen_configs(given["preset"])
    _check_labels(rows, settings)
    chosen = one_of("engine", given["engine"], tuple(ENGINES))
    if given["scheduler"] is not None and chosen != "dask":
        refuse("--scheduler is for --engine dask")
    count = at_least_one("workers", given["workers"]) if given["workers"] is not None else None
    each = at_least_one("threads", given["threads"])
    careful = true_or_false("strict", given["strict"])
    again, bar = (true_or_false(name, given[name]) for name in ("retry_failed", "progress"))
    named = given["devices"]
    if named is not None:
        named = tuple(part.strip() for part in plain("devices", named).split(","))
    plan = Plan(rows, files, absolute("output_dir", given["output_dir"]), settings)

    def call() -> None:
        """Run the cohort; exit with status 1 where a pair lacks its result, bounds or report."""
        given_devices = all_devices() if named is None else named
        resources = default_resources(workers=count, threads=each, devices=given_devices, bounds=plan.bounds)
        resources = replace(resources, scheduler=given["scheduler"])
        if not run_cohort(plan, engine=chosen, resources=resources, retry_failed=again, progress=bar):
            raise SystemExit(1)
        if careful and doubtful(plan):
            raise SystemExit(DOUBTFUL_STATUS)

    return CallJob(call, libraries=False)


def _check_labels(rows: Pairs, settings: Mapping[str, Any]) -> None:
    """Refuse an option that needs label maps where pairs have none: each of them would fail by itself."""
    for option, keys in NEED_LABELS.items():
        lacking = [str(row["name"]) for row in rows if option in settings and not set(keys) <= set(row)]
        if lacking:
            some = ", ".join(lacking[:TOLD]) + (f" and {len(lacking) - TOLD} more" if len(lacking) > TOLD else "")
            needed = " and ".join(keys)
            refuse(f"--{option} needs {needed}, which the list does not name for {some}; add them, or leave the option")
