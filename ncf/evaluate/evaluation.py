"""How good stored fields are, whichever program made them: all metrics of a pair, by our definitions and Learn2Reg's.

This module takes what `ncf.evaluate.stored_fields.ReadFieldd` has read, and does not know how a field was made.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform

from ncf.core.console import tell
from ncf.core.files import claim_folder, load_json
from ncf.core.names import METRICS_FILE
from ncf.core.refusals import items_or_reasons
from ncf.evaluate.label_overlap import label_sets, overlap
from ncf.evaluate.learn2reg_metrics import (
    learn2reg_dice,
    learn2reg_hd95,
    learn2reg_log_jac_det_std,
    learn2reg_tre,
    learn2reg_tre30,
    warped_labels,
)
from ncf.evaluate.measured import names_told
from ncf.evaluate.metrics import field_at, landmark_summary, regularity, tre_mm
from ncf.evaluate.surfaces import surface_distances
from ncf.evaluate.tables import known, save_summary
from ncf.io.label_files import table_of
from ncf.pair.keys import Pair, affine_of
from ncf.space.geometry import spacing_mm, to_mm
from ncf.space.jacobian import jacobian_determinant
from ncf.space.sampling import inside, moving_positions, sample

STEM = "evaluation"
COLUMNS = {
    "TRE before mm": "tre_mm.before.mean",
    "TRE mm": "tre_mm.after.mean",
    "p95 mm": "tre_mm.after.p95",
    "snapped mm": "tre_mm.snapped.mean",
    "Dice before": "dice.before.mean",
    "Dice": "dice.after.mean",
    "HD95 mm": "hd95_mm.after.mean",
    "folds %": "folding_fraction.all",
    "SDlogJ": "sd_log_jacobian.all",
    "L2R TRE mm": "learn2reg.tre_mm",
    "L2R Dice": "learn2reg.dice.mean",
    "L2R HD95 vox": "learn2reg.hd95_vox.mean",
    "L2R SDlogJ": "learn2reg.log_jac_det_std",
    "s": "seconds",
}


class Evaluated(Transform):
    """Computes the metrics of a pair as plain data; the scans are not kept.

    * ``tre_mm``: before and after, and after with the partner snapped to the nearest moving voxel.
    * ``dice`` and ``hd95_mm``: for each label that both maps hold, before and after (labels by nearest neighbour,
      MONAI's metrics); the other labels are listed as absent.
    * ``folding_fraction``, ``sd_log_jacobian``.
    * ``learn2reg``: the challenge's definitions.
    * ``seconds``: of the registration, where a metrics.json beside the field has them.
    """

    def __call__(self, data: Pair) -> dict[str, Any]:
        """Evaluate the field of a pair.

        Returns:
            A dictionary of numbers; distances in mm except Learn2Reg's HD95 (voxels), fractions from 0 to 1.
        """
        pair = data
        found: dict[str, Any] = {"name": pair["name"], "field": pair["field_file"]}
        if "landmarks" in pair:
            found["tre_mm"] = _landmark_errors(pair)
        label = pair["fixed_label"].as_tensor()[0] if "fixed_label" in pair else None
        if label is not None and "moving_label" in pair:
            found |= _overlaps(pair, label)
        found |= regularity(jacobian_determinant(pair["field_vox"]), label)
        found["learn2reg"] = _by_learn2reg(pair, label)
        found["seconds"] = _seconds(Path(pair["field_file"]))
        return found


class EvaluationTable:
    """Evaluates all pairs of a dataset, one after another, and writes the table.

    Args:
        dataset: items are evaluations, see `Evaluated`.
        output_dir: gets evaluation.json, .csv and .md.
        progress: False hides the progress bar.
    """

    def __init__(self, dataset: Sequence[Any], output_dir: str | Path, *, progress: bool = True) -> None:
        self.dataset, self.output_dir, self.progress = dataset, Path(output_dir), progress

    def run(self) -> None:
        """Evaluate the pairs, write the three files and print the table.

        Raises:
            SystemExit: pairs could not be evaluated; with status 1 and a line for each of them.
        """
        claim_folder(self.output_dir)
        found, failures = items_or_reasons(self.dataset, progress=self.progress)
        if found:
            best = known(case.get("tre_mm", {}).get("after", {}).get("mean") for case in found)
            more = {"tre30_mm": learn2reg_tre30(best) if best else None, "failures": failures}
            tell(save_summary(self.output_dir, STEM, found, columns=COLUMNS, more=more) + "\n")
            print(f"results in {self.output_dir / STEM}.json, .csv and .md")
        if failures:
            sys.exit("\n".join(f"error: {reason}" for reason in failures))


def _mean(scores: Iterable[float]) -> float:
    """Return the mean of the numbers that are known, nan if there are none."""
    values = known(scores)
    return float(np.mean(values)) if values else float("nan")


def _landmark_errors(pair: Pair) -> dict[str, Any]:
    points, field = pair["landmarks"], pair["field_vox"]
    affines = {"fixed_affine": affine_of(pair["fixed"]), "moving_affine": affine_of(pair["moving"])}
    before, after = (tre_mm(u, points, **affines) for u in (None, field))
    moved = to_mm(points[:, :3] + field_at(field, points[:, :3]), affines["fixed_affine"])
    voxels = np.rint(to_mm(moved, np.linalg.inv(affines["moving_affine"])))
    snapped = np.linalg.norm(
        to_mm(voxels, affines["moving_affine"]) - to_mm(points[:, 3:], affines["moving_affine"]), axis=1
    )
    errors = {"before": before, "after": after, "snapped": snapped}
    return {when: landmark_summary(e) for when, e in errors.items()}


def _overlaps(pair: Pair, label: torch.Tensor) -> dict[str, Any]:
    """Return Dice and HD95 by label, before and after."""
    affines = {"fixed_affine": affine_of(pair["fixed"]), "moving_affine": affine_of(pair["moving"])}
    moving = pair["moving_label"].as_tensor()
    spacing = spacing_mm(affines["fixed_affine"]).tolist()
    tables = table_of(pair["fixed_label"]), table_of(pair["moving_label"])
    sets = label_sets(label, moving[0], tables)
    found: dict[str, Any] = {"dice": {}, "hd95_mm": {}}
    for when, field in (("before", torch.zeros_like(pair["field_vox"])), ("after", pair["field_vox"])):
        positions = moving_positions(field[None], **affines)
        read = sample(moving[None], positions, mode="nearest", padding_mode="border")
        carried = torch.where(inside(positions, moving.shape[1:]), read, torch.zeros(()))[0, 0]
        found["dice"][when] = overlap(label, carried, sets.shared, tables)
        apart = {n: _hd95(tables[0].mask(label, n), tables[1].mask(carried, n), spacing) for n in sets.shared}
        found["hd95_mm"][when] = {"mean": _mean(apart.values()), "labels": apart}
    found["dice"]["absent"] = sets.absent
    return found | names_told(pair)


def _labels(volume: torch.Tensor) -> list[int]:
    return sorted({int(value) for value in torch.unique(volume)} - {0})


def _hd95(truth: torch.Tensor, other: torch.Tensor, spacing: list[float]) -> float:
    """Return MONAI's 95th percentile Hausdorff distance in mm; nan where one of the two is empty."""
    return surface_distances(truth, other, spacing).p95


def _by_learn2reg(pair: Pair, label: torch.Tensor | None) -> dict[str, Any]:
    """Return the challenge's own metrics, which are computed on stored indices."""
    displacement = pair["stored_vox"].numpy()
    found: dict[str, Any] = {}
    if "landmarks" in pair:
        points, zooms = pair["landmarks"], spacing_mm(affine_of(pair["moving"])).tolist()
        found["tre_mm"] = float(learn2reg_tre(displacement, points[:, :3], points[:, 3:], moving_zooms=zooms).mean())
    if label is not None and "moving_label" in pair:
        tables = table_of(pair["fixed_label"]), table_of(pair["moving_label"])
        fixed, moving = label.numpy(), pair["moving_label"].as_tensor()[0].numpy()
        warped, labels = warped_labels(displacement, moving), sorted(tables[0].of(torch.unique(label).tolist()))
        for name, measure in (("dice", learn2reg_dice), ("hd95_vox", learn2reg_hd95)):
            scores: list[float] = []
            for number in labels:  # each by itself, because structures may overlap
                masks = (tables[0].mask(fixed, number), tables[1].mask(warped, number), tables[1].mask(moving, number))
                truth, carried, own = (mask.astype(np.uint8) for mask in masks)
                scores += measure(truth, carried, own, [1])
            found[name] = {"mean": _mean(scores), "labels": dict(zip(labels, scores, strict=True))}
    found["log_jac_det_std"] = learn2reg_log_jac_det_std(displacement, _mask(pair, label))
    return found


def _mask(pair: Pair, label: torch.Tensor | None) -> np.ndarray | None:
    """Return where Learn2Reg evaluates the Jacobian: the fixed mask, or else a label map that is a mask, or None."""
    if "fixed_mask" in pair:
        return pair["fixed_mask"].as_tensor()[0].numpy()
    return label.numpy() if label is not None and _labels(label) == [1] else None


def _seconds(field: Path) -> float | None:
    """Return how long the registration took, from our own metrics.json beside a field; None without one."""
    path = field.parent / METRICS_FILE
    if not path.exists():
        return None
    return load_json(path).get("seconds", {}).get("total")
