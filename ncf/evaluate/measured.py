"""A fit measured: moving volumes warped to the fixed grid once, metrics before and after, and a check for gain."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from monai.transforms import MapTransform, Transform

from ncf.core.errors import PairError
from ncf.core.names import DIFFERENT
from ncf.evaluate.label_overlap import label_sets, overlap
from ncf.evaluate.metrics import landmark_summary, regularity, similarity, tre_mm
from ncf.fit.label_guidance import LabelWishes, body
from ncf.fit.losses.bodies import RigidityLoss
from ncf.io.label_files import table_of
from ncf.pair.keys import Pair, affine_of
from ncf.space.grids import Grid, lattice_over
from ncf.space.jacobian import jacobian_determinant
from ncf.space.mapping import SpatialMap
from ncf.space.resampling import Reader
from ncf.space.sampling import inside, sample

LOST = {"ncc": 1e-3, "nmi": 1e-3}  # a smaller loss is rounding, or scans that were alike from the beginning
ENOUGH_VOXELS = 500_000  # this many show how similar two images are as well as more would
SIMILARITY_WORDS = {"ncc": "correlation", "nmi": "normalised mutual information"}


class WarpToFixedd(MapTransform):
    """Carries moving volumes to the fixed grid: ``warped``, ``warped_label``, and the same without motion, ``before``.

    Args:
        keys: of the moving volumes.
        mode: ``bilinear`` for images, ``nearest`` for labels, one for each key. Where the field leaves the moving
            image, an image gets its own lowest value and a label 0.
    """

    def __init__(self, keys: Sequence[str] = ("moving", "moving_label"), mode: Sequence[str] = ("bilinear", "nearest")):
        super().__init__(keys, allow_missing_keys=True)
        self.mode = tuple(mode)

    def __call__(self, data: Pair) -> Pair:
        """Warp the moving volumes of a fitted pair.

        Returns:
            A new dictionary; ``<before|warped>`` and ``..._label`` are (W, H, D) on the fixed grid, and ``..._valid``
            says where data that counts was read.
        """
        pair: dict[Any, Any] = dict(data)
        fixed, moving, field = data["fixed"], data["moving"], data["pred"].field_vox[0]
        grid = Grid(tuple(fixed.shape[1:]), affine_of(fixed))
        readers = {
            str(key).removeprefix("moving"): Reader(pair[key].as_tensor().to(field.device)[None], mode)
            for key, mode in self.key_iterator(pair, self.mode)
        }
        data_there = (data["moving_weight"].as_tensor() > 0).to(field.device, torch.float32)[None]
        for prefix, u in (("before", field.new_zeros(()).expand(field.shape)), ("warped", field)):
            valid = pair[f"{prefix}_valid"] = torch.empty(grid.shape, dtype=torch.bool)
            for suffix in readers:
                pair[prefix + suffix] = torch.empty(grid.shape)
            for planes, positions, _ in SpatialMap(u, grid).positions(grid, affine_of(moving)):
                there = inside(positions, moving.shape[1:])
                valid[planes] = ((sample(data_there, positions, padding_mode="border") > 0.5) & there)[0, 0].cpu()
                for suffix, reader in readers.items():
                    pair[prefix + suffix][planes] = reader(positions)[0, 0].cpu()
        return cast(Pair, pair)


class Measured(Transform):
    """Adds ``metrics``: how similar the two scans are before and after, and how regular the map is."""

    def __call__(self, data: Pair) -> Pair:
        """Measure a pair whose volumes were warped.

        Returns:
            A new dictionary. Fractions are of voxels, 0 to 1; distances in mm. docs/README.md explains every entry.
        """
        fit, begun = data["pred"], time.perf_counter()
        field = fit.field_vox[0].cpu()
        metrics: dict[str, Any] = {"name": data["name"], "similarity": {}}
        fixed, weight = data["fixed"].as_tensor()[0], data["fixed_weight"].as_tensor()[0]
        metrics["similarity"]["before"] = similarity(fixed, data["before"], weight * data["before_valid"])
        metrics["similarity"]["after"] = similarity(fixed, data["warped"], weight * data["warped_valid"])
        label = data["fixed_label"].as_tensor()[0] if "fixed_label" in data else None
        if label is not None and "moving_label" in data:
            tables = table_of(data["fixed_label"]), table_of(data["moving_label"])
            sets = label_sets(label, data["moving_label"].as_tensor()[0], tables)
            carried = {"before": data["before_label"], "after": data["warped_label"]}
            metrics["dice"] = {when: overlap(label, moved, sets.shared, tables) for when, moved in carried.items()}
            metrics["dice"]["absent"] = sets.absent
            metrics["dice"] |= {"guided": True} if "wishes" in data and data["wishes"].meet else {}
        metrics |= names_told(data)
        if "wishes" in data:
            metrics["kept"] = kept_by(field, data["wishes"], affine_of(data["fixed"]))
        affines = {"fixed_affine": affine_of(data["fixed"]), "moving_affine": affine_of(data["moving"])}
        for key, points in (("tre_mm", data.get("landmarks")), ("guide_points_mm", data.get("guide_points"))):
            if points is not None:
                errors = {when: tre_mm(u, points, **affines) for when, u in (("before", None), ("after", field))}
                metrics[key] = {when: landmark_summary(e) for when, e in errors.items()}
        metrics |= regularity(jacobian_determinant(field), label)
        metrics["attempts"] = fit.attempt
        levels = {"initial_alignment": fit.alignment_s, "search": fit.search_s} | {
            f"level_{level.name}": level.seconds for level in fit.history
        }
        metrics["seconds"] = {**data.get("seconds", {}), **levels, "measuring": time.perf_counter() - begun}
        return cast(Pair, {**data, "metrics": metrics})


def names_told(pair: Pair) -> dict[str, Any]:
    """Return the entry of the metrics that names the labels, by number; nothing where none has a name."""
    maps = [pair[key] for key in ("moving_label", "fixed_label") if key in pair]
    names = {str(number): name for label in maps for number, name in table_of(label).names.items()}
    return {"label_names": dict(sorted(names.items(), key=lambda item: int(item[0])))} if names else {}


def kept_by(field_vox: torch.Tensor, wishes: LabelWishes, affine: np.ndarray) -> dict[str, dict[str, float]]:
    """Measure how rigid a map is in labels, and what it does to their volume.

    Args:
        field_vox: (3, W, H, D), the whole displacement on the fixed grid, in its voxels.
        wishes: of which labels something was wanted.
        affine: 4x4, voxel to RAS mm, of the fixed grid.

    Returns:
        By label number: ``rigid_rms_mm``, root of the mean squared distance from the best rigid motion, and
        ``volume_ratio``, the mean determinant of the map.
    """
    shape = (int(field_vox.shape[1]), int(field_vox.shape[2]), int(field_vox.shape[3]))
    found = {}
    for label in sorted({*wishes.rigid, *wishes.volume}):
        there = wishes.tables[0].mask(wishes.fixed.cpu(), label)
        own = body(there, lattice_over(shape, shape), affine, np.eye(4))
        rigid = RigidityLoss()(own.moved_mm(field_vox[None]), own.own_mm)
        found[str(label)] = {
            "rigid_rms_mm": float(rigid) ** 0.5,
            "volume_ratio": float(own.volume_change(field_vox[None]).mean()),
        }
    return found


class CheckGained(Transform):
    """Accepts a pair whose images became more similar, where both maps show data; refuses any other.

    Args:
        similarity: the measure: ``ncc`` for one contrast, ``nmi`` for two (`ncf.evaluate.metrics.similarity`); None
            takes the one for as what the pair was compared.

    Raises:
        ValueError: the measure is another.
    """

    def __init__(self, similarity: str | None = None) -> None:
        if similarity is not None and similarity not in LOST:
            raise ValueError(f"similarity is one of {', '.join(LOST)}, not {similarity}")
        self.similarity = similarity

    def __call__(self, data: Pair) -> Pair:
        """Check that a measured pair has gained by the registration.

        Returns:
            The same dictionary.

        Raises:
            PairError: the result is worse than doing nothing.
        """
        weight = data["fixed_weight"].as_tensor()[0] * (data["before_valid"] & data["warped_valid"])
        step = max(1, int((weight.numel() / ENOUGH_VOXELS) ** (1 / 3)))
        some = (slice(None, None, step),) * 3
        fixed = data["fixed"].as_tensor()[0][some]
        two = data["pred"].contrast is not None and data["pred"].contrast.chosen == DIFFERENT
        measure = self.similarity or ("nmi" if two else "ncc")
        before, after = (
            similarity(fixed, image[some], weight[some])[measure] for image in (data["before"], data["warped"])
        )
        if after < before - LOST[measure]:
            told = f"{SIMILARITY_WORDS[measure]} {before:.3f} before, {after:.3f} after"
            raise PairError(
                f"{data['name']}: the scans are less alike after the fit than before ({told}), doing nothing is "
                "better. Nothing was written. Check that both scans show the same anatomy, and that their headers are "
                "right"
            )
        return data
