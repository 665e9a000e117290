"""How good saved fields are, whichever program made them: every number of a pair, by our metrics and by Learn2Reg's.

Reads what `scripts.fields.ReadFieldd` brought in and knows nothing of how a field came about.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance
from monai.transforms import Transform

from scripts.files import claim_folder, load_json
from scripts.geometry import spacing_mm, to_mm
from scripts.guard import items_or_reasons
from scripts.learn2reg_metrics import (
    learn2reg_dice,
    learn2reg_hd95,
    learn2reg_log_jac_det_std,
    learn2reg_tre,
    learn2reg_tre30,
    warped_labels,
)
from scripts.metrics import (
    field_at,
    fold_share,
    jacobian_determinant,
    label_sets,
    landmark_summary,
    log_jacobian_spread,
    overlap,
    tre_mm,
)
from scripts.names import METRICS_FILE
from scripts.sampling import inside, moving_positions, sample
from scripts.summary import known, save_summary

SURFACE_PERCENTILE = 95
STEM = "evaluation"
COLUMNS = {
    "TRE before mm": "tre_mm.before.mean",
    "TRE mm": "tre_mm.after.mean",
    "p95 mm": "tre_mm.after.p95",
    "snapped mm": "tre_mm.snapped.mean",
    "Dice before": "dice.before.mean",
    "Dice": "dice.after.mean",
    "HD95 mm": "hd95_mm.after.mean",
    "folds %": "folded_share.all",
    "log J": "log_jacobian_spread.all",
    "L2R TRE mm": "learn2reg.tre_mm",
    "L2R Dice": "learn2reg.dice.mean",
    "L2R HD95 vox": "learn2reg.hd95_vox.mean",
    "L2R SDlogJ": "learn2reg.log_jac_det_std",
    "s": "seconds",
}


class Evaluated(Transform):
    """The numbers of a pair as plain data; the scans are let go.

    ``tre_mm`` before and after, and after with the partner snapped to the nearest moving voxel; ``dice`` and ``hd95_mm``
    per label before and after (labels by nearest neighbour, MONAI's metrics), of the labels that both maps hold; the others
    are listed as absent;
    ``folded_share``, ``log_jacobian_spread``; ``learn2reg`` with the challenge's definitions; ``seconds`` of the
    registration where a metrics.json beside the field tells them.
    """

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A dictionary of numbers; distances in mm but for Learn2Reg's HD95 (voxels), shares from 0 to 1."""
        pair = data
        found: dict[str, Any] = {"name": pair["name"], "field": pair["field_file"]}
        if "landmarks" in pair:
            found["tre_mm"] = _landmark_errors(pair)
        label = pair["fixed_label"].as_tensor()[0] if "fixed_label" in pair else None
        if label is not None and "moving_label" in pair:
            found |= _overlaps(pair, label)
        det = jacobian_determinant(pair["field_vox"])
        found["folded_share"] = {"all": fold_share(det)}
        found["log_jacobian_spread"] = {"all": log_jacobian_spread(det)}
        if label is not None:
            found["folded_share"]["in_label"] = fold_share(det, label > 0)
            found["log_jacobian_spread"]["in_label"] = log_jacobian_spread(det, label > 0)
        found["learn2reg"] = _by_learn2reg(pair, label)
        found["seconds"] = _seconds(Path(pair["field_file"]))
        return found


class EvaluationTable:
    """All pairs of a dataset evaluated, one after another, and the table of them written.

    Args:
        dataset: items are evaluations, see `Evaluated`. output_dir: gets evaluation.json, .csv and .md.
    """

    def __init__(self, dataset: Sequence[Any], output_dir: str | Path, *, progress: bool = True) -> None:
        self.dataset, self.output_dir, self.progress = dataset, Path(output_dir), progress

    def run(self) -> None:
        """Nothing; the table is printed. Exits with status 1, and a line for each, when pairs could not be evaluated."""
        claim_folder(self.output_dir)
        found, failures = items_or_reasons(self.dataset, progress=self.progress)
        if found:
            best = known(case.get("tre_mm", {}).get("after", {}).get("mean") for case in found)
            more = {"tre30_mm": learn2reg_tre30(best) if best else None, "failures": failures}
            print(save_summary(self.output_dir, STEM, found, columns=COLUMNS, more=more))
            print(f"\nresults in {self.output_dir / STEM}.json, .csv and .md")
        if failures:
            sys.exit("\n".join(f"error: {reason}" for reason in failures))


def _mean(scores: Iterable[float]) -> float:
    """The mean of the numbers that are known, nan without any."""
    values = known(scores)
    return float(np.mean(values)) if values else float("nan")


def _affine(image: Any) -> np.ndarray:
    return np.asarray(image.affine, dtype=np.float64)


def _landmark_errors(pair: Mapping[str, Any]) -> dict[str, Any]:
    points, field = pair["landmarks"], pair["field_vox"]
    affines = {"fixed_affine": _affine(pair["fixed"]), "moving_affine": _affine(pair["moving"])}
    before, after = (tre_mm(u, points, **affines) for u in (None, field))
    moved = to_mm(points[:, :3] + field_at(field, points[:, :3]), affines["fixed_affine"])
    voxels = np.rint(to_mm(moved, np.linalg.inv(affines["moving_affine"])))
    snapped = np.linalg.norm(
        to_mm(voxels, affines["moving_affine"]) - to_mm(points[:, 3:], affines["moving_affine"]), axis=1
    )
    errors = {"before": before, "after": after, "snapped": snapped}
    return {when: landmark_summary(e) for when, e in errors.items()}


def _overlaps(pair: Mapping[str, Any], label: torch.Tensor) -> dict[str, Any]:
    """Dice and HD95 by label, before and after."""
    affines = {"fixed_affine": _affine(pair["fixed"]), "moving_affine": _affine(pair["moving"])}
    moving = pair["moving_label"].as_tensor()
    spacing = spacing_mm(affines["fixed_affine"]).tolist()
    sets = label_sets(label, moving[0])
    found: dict[str, Any] = {"dice": {}, "hd95_mm": {}}
    for when, field in (("before", torch.zeros_like(pair["field_vox"])), ("after", pair["field_vox"])):
        positions = moving_positions(field[None], **affines)
        read = sample(moving[None], positions, mode="nearest", padding_mode="border")
        carried = torch.where(inside(positions, moving.shape[1:]), read, torch.zeros(()))[0, 0]
        found["dice"][when] = overlap(label, carried, sets.shared)
        apart = {value: _hd95(label == value, carried == value, spacing) for value in sets.shared}
        found["hd95_mm"][when] = {"mean": _mean(apart.values()), "labels": apart}
    found["dice"]["absent"] = sets.absent
    return found


def _labels(volume: torch.Tensor) -> list[int]:
    return sorted({int(value) for value in torch.unique(volume)} - {0})


def _hd95(truth: torch.Tensor, other: torch.Tensor, spacing: list[float]) -> float:
    """MONAI's 95th percentile Hausdorff distance in mm; nan where one of the two is empty."""
    if not (truth.any() and other.any()):
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compute_hausdorff_distance(
            other[None, None], truth[None, None], include_background=True, percentile=SURFACE_PERCENTILE, spacing=spacing
        )
    return float(found)


def _by_learn2reg(pair: Mapping[str, Any], label: torch.Tensor | None) -> dict[str, Any]:
    """The challenge's own numbers, on stored indices."""
    displacement = pair["stored_vox"].numpy()
    found: dict[str, Any] = {}
    if "landmarks" in pair:
        points, zooms = pair["landmarks"], spacing_mm(_affine(pair["moving"])).tolist()
        found["tre_mm"] = float(learn2reg_tre(displacement, points[:, :3], points[:, 3:], moving_zooms=zooms).mean())
    if label is not None and "moving_label" in pair:
        fixed, moving = label.numpy(), pair["moving_label"].as_tensor()[0].numpy()
        warped, labels = warped_labels(displacement, moving), _labels(label)
        for name, measure in (("dice", learn2reg_dice), ("hd95_vox", learn2reg_hd95)):
            scores = measure(fixed, warped, moving, labels)
            found[name] = {"mean": _mean(scores), "labels": dict(zip(labels, scores, strict=True))}
    found["log_jac_det_std"] = learn2reg_log_jac_det_std(displacement, _mask(pair, label))
    return found


def _mask(pair: Mapping[str, Any], label: torch.Tensor | None) -> np.ndarray | None:
    """Where Learn2Reg looks at the Jacobian: the fixed mask, else a label map that is a mask, else everywhere."""
    if "fixed_mask" in pair:
        return pair["fixed_mask"].as_tensor()[0].numpy()
    return label.numpy() if label is not None and _labels(label) == [1] else None


def _seconds(field: Path) -> float | None:
    """What our own metrics.json beside a field says that the registration took."""
    path = field.parent / METRICS_FILE
    if not path.exists():
        return None
    return load_json(path).get("seconds", {}).get("total")
