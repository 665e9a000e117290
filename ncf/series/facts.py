"""What is known of a series, read from its saved results; with it, paths of points and labels on every phase."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ncf.cohort.collect import numbers_of
from ncf.cohort.plan import DONE, TRUST, Plan
from ncf.core.files import claim_folder
from ncf.core.names import FIELD_FILE
from ncf.io.fields.table import load_map
from ncf.io.image_files import read_image
from ncf.io.label_files import read_label, shown_labels, table_of
from ncf.pair.keys import affine_of
from ncf.result.folder import SavedResult
from ncf.series.labels import label_on_phase, save_label, volumes_ml
from ncf.series.names import LABELS_FOLDER, PATHS_FILE
from ncf.series.paths import fixed_points, save_paths
from ncf.space.geometry import field_to_mm
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap

FIXED = "fixed"  # the row of the fixed scan
NUMBERS = (
    "tre_before_mm",
    "tre_mm",
    "dice_before",
    "dice",
    "correlation_before",
    "correlation",
    "folds_percent",
    "mean_displacement_mm",
    "max_displacement_mm",
    "bound_mm",
    "bound_p95_mm",
    "seconds",
)


@dataclass(frozen=True)
class PhaseFacts:
    """What is known of one phase.

    Attributes:
        name: of the phase.
        time_s: in s; None where nobody tells it.
        begun_from: the phase whose network its fit began with; nothing where it began afresh.
        verdict: of the result.
        numbers: by the names of `NUMBERS`.
        volumes_ml: of every label of the fixed scan, carried to the phase.
        moved_mm: how far each point has moved, (N,); None without points.
        remark: what a person should know of its start.
    """

    name: str
    time_s: float | None = None
    begun_from: str = ""
    verdict: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    volumes_ml: dict[str, float] = field(default_factory=dict)
    moved_mm: np.ndarray | None = None
    remark: str = ""


@dataclass(frozen=True)
class SeriesFacts:
    """What is known of a series.

    Attributes:
        phases: those that are done, in the order in which they were named; the fixed scan first.
        motion_mm: mean length of the displacement over all phases, (W, H, D), on the fixed grid.
        label: of the fixed scan, or None.
    """

    phases: list[PhaseFacts]
    motion_mm: np.ndarray
    label: MetaTensor | None


def series_facts(plan: Plan) -> SeriesFacts:
    """Read the results of the phases that are done, one at a time; write paths and labels.

    Args:
        plan: of `ncf.series.run.plan_of`; at least one phase is done.

    Raises:
        PairError: a result or a scan cannot be read, or a file cannot be written.
    """
    done = [pair for pair in plan.pairs if plan.state(pair) == DONE]
    points = fixed_points(plan.more, done[0]["fixed"])
    label = _fixed_label(plan, done[0])
    own = {}
    if label is not None:
        table = table_of(label)
        own = volumes_ml(shown_labels(label.as_tensor()[0], table), affine_of(label), table.names)
    phases, paths = [PhaseFacts(FIXED, volumes_ml=own, moved_mm=None if points is None else np.zeros(len(points)))], []
    total: torch.Tensor | None = None
    for pair in done:
        result, time_s = SavedResult(plan.folder(pair)), plan.more["times_s"].get(pair["name"])
        mapping = load_map(result.folder / FIELD_FILE)
        length = field_to_mm(mapping.field, mapping.grid.affine).norm(dim=0)
        total = length if total is None else total.add_(length)
        moved = None
        if points is not None:
            there, known = mapping.to_moving(points)
            paths.append((pair["name"], time_s, there, known))
            moved = np.linalg.norm(there - points, axis=1)
        volumes = {} if label is None else _label_volumes(plan, pair, mapping, label)
        phases.append(_phase(result, time_s, length, volumes, moved))
    if points is not None:
        save_paths(plan.output_dir / PATHS_FILE, points, paths)
    assert total is not None
    return SeriesFacts(phases, (total / len(done)).numpy(), label)


def _fixed_label(plan: Plan, pair: dict[str, str]) -> MetaTensor | None:
    """Return the label map of the fixed scan, where there is one."""
    if "fixed_label" not in pair:
        return None
    wanted = [str(name).partition("=")[0] for name in plan.overrides.get("labels", [])]
    return read_label("fixed_label", pair["fixed_label"], read_image("fixed", pair["fixed"]), wanted=wanted)


def _label_volumes(plan: Plan, pair: dict[str, str], mapping: SpatialMap, label: MetaTensor) -> dict[str, float]:
    """Write the labels of the fixed scan on the grid of a phase; return their volumes there."""
    phase: Grid = SavedResult(plan.folder(pair)).grid("moving")
    codes = label_on_phase(mapping, label, phase)
    folder = claim_folder(plan.output_dir / LABELS_FOLDER)
    save_label(folder / f"{pair['name']}.nii.gz", codes, label, phase)
    table = table_of(label)
    return volumes_ml(shown_labels(codes, table), phase.affine, table.names)


def _phase(
    result: SavedResult,
    time_s: float | None,
    length_mm: torch.Tensor,
    volumes: dict[str, float],
    moved_mm: np.ndarray | None,
) -> PhaseFacts:
    """Return what is known of a phase."""
    metrics, start = numbers_of(result), result.run.get("start_evidence")
    bounds = metrics.get(TRUST, {})
    found: dict[str, Any] = {
        "tre_before_mm": metrics.get("tre_mm", {}).get("before", {}).get("mean"),
        "tre_mm": metrics.get("tre_mm", {}).get("after", {}).get("mean"),
        "dice_before": metrics.get("dice", {}).get("before", {}).get("mean"),
        "dice": metrics.get("dice", {}).get("after", {}).get("mean"),
        "correlation_before": metrics["similarity"]["before"]["ncc"],
        "correlation": metrics["similarity"]["after"]["ncc"],
        "folds_percent": 100 * metrics["folding_fraction"]["all"],
        "mean_displacement_mm": float(length_mm.mean()),
        "max_displacement_mm": float(length_mm.max()),
        "bound_mm": bounds.get("median_mm"),
        "bound_p95_mm": bounds.get("p95_mm"),
        "seconds": metrics["seconds"]["total"],
    }
    begun_from = remark = ""
    if start:
        begun_from = start["neighbour"] if start["taken"] else ""
        remark = "" if start["taken"] else f"{result.name}: the network of {start['neighbour']} {start['why']}"
    return PhaseFacts(
        name=result.name,
        time_s=time_s,
        begun_from=begun_from,
        verdict=metrics.get("verdict", {}).get("word", ""),
        numbers={name: float(value) for name, value in found.items() if value is not None},
        volumes_ml=volumes,
        moved_mm=moved_mm,
        remark=remark,
    )
