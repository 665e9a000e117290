"""``ncf series``: registration of every phase of a series to one fixed scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fire.decorators import SetParseFn

from ncf.cohort.plan import REPORT, TRUST
from ncf.commands.common import (
    CallJob,
    absolute,
    at_least_one,
    chosen_configs,
    fit_options,
    given_paths,
    one_of,
    plain,
    refuse,
    true_or_false,
)
from ncf.core.names import DOUBTFUL_STATUS

SPACES = ("lps", "ras", "voxel")


@SetParseFn(str)
def series(
    *scans: str,
    output_dir: str,
    reference: str | None = None,
    fixed_label: str | None = None,
    points: str | None = None,
    space: str | None = None,
    preset: str | None = None,
    modality: str = "auto",
    transform: str = "deformable",
    labels: str | None = None,
    guide_labels: str = "false",
    rigid_label: str | None = None,
    keep_volume_label: str | None = None,
    seed: str = "0",
    device: str | None = None,
    align_centres: str = "false",
    retry_failed: str = "false",
    strict: str = "false",
    trust: str = "false",
    report: str = "true",
    progress: str = "true",
) -> CallJob:
    """Register every phase of a series to its fixed scan: FIXED PHASE..., each from its neighbour's result.

    4DCT, dynamic MR, gated scans. Each phase after the first begins with the network of the phase that is most like
    it, and needs less than half the steps. The order of the phases in SCANS changes no result. Run again, it goes on
    where it stopped, as `ncf cohort` does. Beside the folder of each phase lie series.tsv, report.html with a film and
    curves, and what is asked for below.

    Args:
        scans: the fixed scan, then the phases. A 4D NIfTI file or a DICOM folder stands for all its volumes; alone, its
            first volume is the fixed one. Or one CSV or JSON list, as `ncf cohort` takes it, whose fixed scan is one.
        output_dir: where the results go, <output_dir>/<phase>/.
        reference: which volume of the first path is the fixed scan, counted from 1, as `ncf files` does.
        fixed_label: label map on the fixed scan; it is carried to every phase, with the volumes there.
        points: points in the fixed scan; paths.csv tells where they lie in every phase.
        space: of their numbers, where the file does not say it: lps, ras (mm) or voxel.
        preset: one of the presets below, or the path of a JSON overlay of your own.
        modality: same or different, where auto, which asks the scans, chooses wrongly (`ncf register`).
        transform: rigid, affine or deformable, for every phase.
        labels: names or numbers of the labels that count, such as Heart,Lung_L; by default all.
        guide_labels: true lets labels with equal numbers (or names) guide the fit; a list names both label maps.
        rigid_label: numbers or names of fixed labels, such as 3,5, in which the map stays rigid, each by itself.
        keep_volume_label: numbers or names of fixed labels whose volume is kept.
        seed: of the network's first weights, the same for every phase.
        device: cpu, cuda, cuda:1, mps; by default a CUDA device where there is one.
        align_centres: true begins with the centres of both grids together (for headers that do not overlap).
        retry_failed: true registers those phases again that failed before.
        strict: true ends with status 2 where all is done, but the verdict on a phase is doubtful.
        trust: true bounds the error of every result, in mm, by four more fits (`ncf trust`); run again with true, it
            does so for phases that are done.
        report: false makes no report of the series and of each phase; run again with true, they are made.
        progress: false hides the progress bar.
    """
    return _job(dict(locals()))


def _job(given: Mapping[str, Any]) -> CallJob:
    """Return the job that a command line describes; end the process where an option is wrong.

    Args:
        given: every option as it was given, by its name.
    """
    settings: dict[str, Any] = fit_options(given) | {name: true_or_false(name, given[name]) for name in (REPORT, TRUST)}
    if given["device"] is not None:
        settings["device"] = plain("device", given["device"])
    if not given["scans"]:
        refuse("series needs FIXED and PHASE..., a 4D file, a DICOM folder or a list; see: ncf series --help")
    paths = [absolute("scans", scan) for scan in given["scans"]]
    beside = given_paths(fixed_label=given["fixed_label"], points=given["points"])
    space = None if given["space"] is None else one_of("space", given["space"], SPACES)
    number = None if given["reference"] is None else at_least_one("reference", given["reference"])
    configs, target = chosen_configs(given["preset"]), absolute("output_dir", given["output_dir"])
    again, bar, careful = (true_or_false(name, given[name]) for name in ("retry_failed", "progress", "strict"))

    def call() -> None:
        """Run the series; exit with status 1 where a phase lacks its result, bounds or report."""
        from ncf.cohort.run import doubtful
        from ncf.series.run import plan_of, run_series
        from ncf.series.scans import series_scans

        found = series_scans(paths, reference=number, fixed_label=beside.get("fixed_label"))
        plan = plan_of(found, configs, target, overrides=settings, points=beside.get("points"), space=space)
        if not run_series(plan, retry_failed=again, progress=bar):
            raise SystemExit(1)
        if careful and doubtful(plan):
            raise SystemExit(DOUBTFUL_STATUS)

    return CallJob(call)
