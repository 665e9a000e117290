"""A finished registration by the measures and limits of AAPM's task group 132.

Brock et al. 2017, doi:10.1002/mp.12256, table III. docs/tg132.md says what each row means and how it is judged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from ncf.core.words import percent, structure_words
from ncf.evaluate.structures import Measurable, Scan, determinants, measured_structures
from ncf.evaluate.tables import known
from ncf.io.label_files import table_of
from ncf.pair.data_region import data_region
from ncf.pair.keys import Pair, affine_of
from ncf.space.body import body_mask
from ncf.space.geometry import spacing_mm
from ncf.space.jacobian import jacobian_determinant

DICE = 0.8  # the lower end of the report's 0.80 to 0.90
PASS, FAIL, NOT_MEASURED = "pass", "fail", "not measured"
TRE, MDA, DICE_ROW = "Target registration error", "Mean distance to agreement", "Dice similarity coefficient"
JACOBIAN, CONSISTENCY = "Jacobian determinant", "Consistency"
NO_LABELS = "no label is in both label maps"
CONSISTENCY_COMMAND = "ncf tg132 RESULT --consistency=true"
NO_BACK = f"needs a second registration with fixed and moving exchanged: {CONSISTENCY_COMMAND}"


@dataclass(frozen=True)
class Limits:
    """What is accepted.

    Attributes:
        mm: the largest mean error or distance, in mm.
        dice: the least Dice.
    """

    mm: float
    dice: float = DICE


@dataclass(frozen=True)
class Row:
    """One measure of one structure, or of the whole.

    Attributes:
        test: the measure, as the report calls it.
        structure: name or number of the structure; None for the whole.
        measured: numbers, by name; empty where nothing was measured.
        told: these numbers in words, or why there are none.
        limit: in words.
        result: `PASS`, `FAIL` or `NOT_MEASURED`.
    """

    test: str
    structure: str | None
    measured: Mapping[str, Any]
    told: str
    limit: str
    result: str


class TaskGroup132(Transform):
    """Adds ``tg132`` to the metrics of a measured pair that has landmarks or labels (`judged_by_tg132`)."""

    def __call__(self, data: Pair) -> Pair:
        """Judge a measured pair, without the distances of surfaces before the registration.

        Returns:
            A new dictionary; the same one for a pair without landmarks and labels.
        """
        if not {"landmarks", "fixed_label", "moving_label"} & set(data):
            return data
        begun, metrics = time.perf_counter(), data["metrics"]
        carried = {}
        if "moving_label" in data:
            carried = {"before": data["before_label"], "after": data["warped_label"]}
        case = measurable(data, data["pred"].field_vox[0].cpu(), carried)
        found = judged_by_tg132(case, metrics, limits=default_limits(case), distances_before=False)
        seconds = {**metrics["seconds"], "tg132": time.perf_counter() - begun}
        return cast(Pair, {**data, "metrics": {**metrics, "tg132": found, "seconds": seconds}})


def measurable(pair: Pair, field_vox: torch.Tensor, carried: Mapping[str, torch.Tensor]) -> Measurable:
    """Return what a registration is judged by; the body is found in the fixed scan, and its labels belong to it.

    Args:
        pair: the scans and their labels.
        field_vox: (3, W, H, D), in voxels of the fixed grid, fixed to moving.
        carried: the moving labels on the fixed grid, ``before`` and ``after``; empty without any.
    """
    scans = {}
    for key in ("fixed", "moving"):
        label: MetaTensor | None = pair.get(f"{key}_label")  # type: ignore[assignment]
        image = pair[key]
        scan = Scan(image.as_tensor()[0], affine_of(image))
        scans[key] = scan if label is None else replace(scan, label=label.as_tensor()[0], table=table_of(label))
    own = scans["fixed"]
    body = body_of(own, pair.get("fixed_valid"))
    return Measurable(own, scans["moving"], jacobian_determinant(field_vox), body, carried)


def body_of(scan: Scan, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Return where the patient is in a scan, (W, H, D), bool: `body_mask`, and every label.

    Args:
        scan: with its labels.
        valid: where it has data, (1, W, H, D), bool; None where that was not found yet.
    """
    body = body_mask(scan.image, data_region(scan.image) if valid is None else valid[0])
    return body if scan.label is None else body | (scan.label > 0)


def default_limits(case: Measurable) -> Limits:
    """Return the limits of the report: the largest edge of a fixed voxel in mm, and `DICE`."""
    return Limits(float(spacing_mm(case.fixed.affine).max()))


def judged_by_tg132(
    case: Measurable,
    metrics: Mapping[str, Any],
    *,
    limits: Limits,
    consistency: Mapping[str, Any] | None = None,
    distances_before: bool = True,
) -> dict[str, Any]:
    """Judge a registration.

    Args:
        case: what it is judged by.
        metrics: ``tre_mm`` and ``dice`` as metrics.json has them, where there are landmarks or labels;
            ``label_names``, where labels have names.
        limits: what is accepted.
        consistency: of two registrations, in mm: summaries ``fixed_to_fixed`` and ``moving_to_moving``; other entries
            are kept.
        distances_before: see `measured_structures`.

    Returns:
        As plain data: ``rows`` (`Row`), ``counts`` of their results, ``limits``, ``structures``
        (`measured_structures`, with ``label`` and ``name``), ``body`` (its share of the fixed grid) and
        ``consistency``, where it was measured.
    """
    structures = measured_structures(case, distances_before=distances_before)
    names = {number: structure_words(metrics, number) for number in structures}
    guided = "; it guided the fit" if metrics.get("dice", {}).get("guided") else ""
    rows = [
        _tre(metrics.get("tre_mm"), limits),
        *_per_label(structures, names, metrics.get("dice"), limits=limits, guided=guided),
        *_jacobian(case, structures, names),
        *_consistency(consistency, limits),
    ]
    results = [row.result for row in rows]
    return {
        "counts": {word.replace(" ", "_"): results.count(word) for word in (PASS, FAIL, NOT_MEASURED)},
        "limits": asdict(limits),
        "rows": [asdict(row) for row in rows],
        "structures": [{"label": n, "name": names[n], **entry} for n, entry in structures.items()],
        "body": {"share": float(case.body.float().mean())},
        **({} if consistency is None else {"consistency": dict(consistency)}),
    }


def _within(value: float | None, limit: float, *, least: bool = False) -> str:
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    return PASS if (value >= limit if least else value <= limit) else FAIL


def _at_most(limits: Limits) -> str:
    return f"mean at most {limits.mm:.2f} mm"


def _tre(found: Mapping[str, Any] | None, limits: Limits) -> Row:
    if found is None or not known([found["after"]["mean"]]):
        return Row(TRE, None, {}, "no landmarks", _at_most(limits), NOT_MEASURED)
    after = found["after"]
    told = f"{_spread(after)}; {after['count']} landmarks, mean {found['before']['mean']:.2f} mm before"
    return Row(TRE, None, dict(after), told, _at_most(limits), _within(after["mean"], limits.mm))


def _spread(errors: Mapping[str, Any]) -> str:
    return f"mean {errors['mean']:.2f} mm, 95 % below {errors['p95']:.2f}, largest {errors['max']:.2f}"


def _per_label(
    structures: Mapping[int, Mapping[str, Any]],
    names: Mapping[int, str],
    dice: Mapping[str, Any] | None,
    *,
    limits: Limits,
    guided: str,
) -> Iterator[Row]:
    """Yield the rows of mean distance to agreement and Dice, by structure."""
    both = [number for number, entry in structures.items() if "mda_mm" in entry]
    least = f"at least {limits.dice:.2f}"
    if not both:
        yield Row(MDA, None, {}, NO_LABELS, _at_most(limits), NOT_MEASURED)
        yield Row(DICE_ROW, None, {}, NO_LABELS, least, NOT_MEASURED)
        return
    for number in both:
        apart = {key: structures[number][key]["after"] for key in ("mda_mm", "hd95_mm")}
        told = f"mean {apart['mda_mm']:.2f} mm, HD95 {apart['hd95_mm']:.2f} mm{guided}"
        lost = "the map carries the label out of the fixed grid, or it covers no voxel centre there"
        there = bool(known([apart["mda_mm"]]))
        yield Row(
            MDA,
            names[number],
            apart if there else {},
            told if there else lost,
            _at_most(limits),
            _within(apart["mda_mm"], limits.mm),
        )
    scores = {when: {int(n): v for n, v in (dice or {})[when]["labels"].items()} for when in ("before", "after")}
    for number in both:
        before, after = (scores[when][number] for when in ("before", "after"))
        told = f"{after:.3f}; {before:.3f} before{guided}"
        yield Row(DICE_ROW, names[number], {"dice": after}, told, least, _within(after, limits.dice, least=True))


def _jacobian(case: Measurable, structures: Mapping[int, Mapping[str, Any]], names: Mapping[int, str]) -> Iterator[Row]:
    """Yield the rows of the Jacobian determinant: inside the body, and by structure."""
    inside = determinants(case.det, case.body)
    folded = int((~(case.det > 0)).sum())
    everywhere = f"outside the body {folded - int(inside['folded'] or 0)} fold"
    limit = "above 0 everywhere"
    regions = [("inside the body", inside, f"; {everywhere}")]
    regions += [(names[n], entry["jacobian"], "") for n, entry in structures.items() if "jacobian" in entry]
    for name, found, more in regions:
        if not found["voxels"]:
            yield Row(JACOBIAN, name, {}, f"no voxel{more}", limit, NOT_MEASURED)
            continue
        spread = f"{found['min']:.2f} to {found['max']:.2f}, 90 % from {found['p5']:.2f} to {found['p95']:.2f}"
        told = f"{spread}; {found['folded']} of {found['voxels']} voxels fold{more}"
        measured = {**found, **({"folded_outside": folded - int(found["folded"] or 0)} if more else {})}
        yield Row(JACOBIAN, name, measured, told, limit, FAIL if found["folded"] else PASS)


def _consistency(found: Mapping[str, Any] | None, limits: Limits) -> Iterator[Row]:
    """Yield the rows of inverse consistency, both ways."""
    if found is None:
        yield Row(CONSISTENCY, None, {}, NO_BACK, _at_most(limits), NOT_MEASURED)
        return
    for key, way in (("fixed_to_fixed", "fixed to moving to fixed"), ("moving_to_moving", "moving to fixed to moving")):
        errors = found[key]
        if not known([errors["mean"]]):
            yield Row(
                CONSISTENCY, way, {}, "no point of the body is known to both maps", _at_most(limits), NOT_MEASURED
            )
            continue
        told = f"{_spread(errors)}; known in {percent(errors['known_share'])} of the body"
        yield Row(CONSISTENCY, way, dict(errors), told, _at_most(limits), _within(errors["mean"], limits.mm))
