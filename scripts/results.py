"""What comes out of a fit: the dictionary transforms behind the inferer, from a `Fit` to files.

Images and labels are read once, from the moving file's own grid, at the places the field names. Everything is written
here and nowhere else, metrics.json last: a folder that has one is complete. No networks, no losses.
"""

from __future__ import annotations

import platform
import shlex
import sys
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, Transform

from scripts.checkpoint import save_checkpoint
from scripts.errors import PairError
from scripts.exporters import save_image, save_itk_field
from scripts.files import record_of, save_json
from scripts.folders import ResultFolders
from scripts.geometry import Grid
from scripts.maps import SpatialMap
from scripts.metrics import (
    fold_share,
    jacobian_determinant,
    label_sets,
    landmark_summary,
    log_jacobian_spread,
    overlap,
    similarity,
    tre_mm,
)
from scripts.names import (
    FIELD_FILE,
    IMAGES,
    METRICS_FILE,
    NETWORK_FILE,
    RUN_FILE,
    WARPED_FILE,
    WARPED_LABEL_FILE,
)
from scripts.sampling import inside, sample
from scripts.warping import Reader, in_type_of, label_type

LOST = {"ncc": 1e-3, "nmi": 1e-3}  # less is rounding, or scans that were alike from the start
ENOUGH_VOXELS = 500_000  # tell how alike two images are as well as more do
SIMILARITY_WORDS = {"ncc": "correlation", "nmi": "normalised mutual information"}
PACKAGES = ("monai", "torch", "numpy", "nibabel", "pytorch-ignite")


class WarpToFixedd(MapTransform):
    """The pair with moving volumes carried to the fixed grid: ``warped``, ``warped_label``, and the same of no motion.

    Args:
        keys: of the moving side. mode: ``bilinear`` for images, ``nearest`` for labels, one each. Where the field leaves
            the moving image, an image gets its own lowest value and a label 0.
    """

    def __init__(self, keys: Sequence[str] = ("moving", "moving_label"), mode: Sequence[str] = ("bilinear", "nearest")):
        super().__init__(keys, allow_missing_keys=True)
        self.mode = tuple(mode)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A new dictionary; ``<before|warped>`` and ``..._label`` are (W, H, D), ``..._valid`` says where data was read."""
        pair: dict[Hashable, Any] = dict(data)
        fixed, moving, field = pair["fixed"], pair["moving"], pair["pred"].field_vox[0]
        grid = Grid(tuple(fixed.shape[1:]), _affine(fixed))
        readers = {
            str(key).removeprefix("moving"): Reader(pair[key].as_tensor().to(field.device)[None], mode)
            for key, mode in self.key_iterator(pair, self.mode)
        }
        data_there = pair["moving_valid"].to(field.device, torch.float32)[None]
        for prefix, u in (("before", field.new_zeros(()).expand(field.shape)), ("warped", field)):
            valid = pair[f"{prefix}_valid"] = torch.empty(grid.shape, dtype=torch.bool)
            for suffix in readers:
                pair[prefix + suffix] = torch.empty(grid.shape)
            for planes, positions, _ in SpatialMap(u, grid).positions(grid, _affine(moving)):
                there = inside(positions, moving.shape[1:])
                valid[planes] = ((sample(data_there, positions, padding_mode="border") > 0.5) & there)[0, 0].cpu()
                for suffix, reader in readers.items():
                    pair[prefix + suffix][planes] = reader(positions)[0, 0].cpu()
        return pair


class Measured(Transform):
    """The pair with ``metrics``: how alike the two sides are before and after, and how regular the map is."""

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A new dictionary. Shares are of voxels, 0 to 1; distances in mm; see docs/README.md for every entry."""
        pair, fit = dict(data), data["pred"]
        begun = time.perf_counter()
        field = fit.field_vox[0].cpu()
        metrics: dict[str, Any] = {"name": pair["name"], "similarity": {}}
        for when, name in (("before", "before"), ("after", "warped")):
            weight = pair["fixed_weight"].as_tensor()[0] * pair[f"{name}_valid"]
            metrics["similarity"][when] = similarity(pair["fixed"].as_tensor()[0], pair[name], weight)
        label = pair["fixed_label"].as_tensor()[0] if "fixed_label" in pair else None
        if label is not None and "moving_label" in pair:
            sets = label_sets(label, pair["moving_label"].as_tensor()[0])
            carried = {"before": pair["before_label"], "after": pair["warped_label"]}
            metrics["dice"] = {when: overlap(label, moved, sets.shared) for when, moved in carried.items()}
            metrics["dice"]["absent"] = sets.absent
        if "landmarks" in pair:
            affines = {"fixed_affine": _affine(pair["fixed"]), "moving_affine": _affine(pair["moving"])}
            errors = {"before": tre_mm(None, pair["landmarks"], **affines)}
            errors["after"] = tre_mm(field, pair["landmarks"], **affines)
            metrics["tre_mm"] = {when: landmark_summary(e) for when, e in errors.items()}
        det = jacobian_determinant(field)
        metrics["folded_share"] = {"all": fold_share(det)}
        metrics["log_jacobian_spread"] = {"all": log_jacobian_spread(det)}
        if label is not None:
            metrics["folded_share"]["in_label"] = fold_share(det, label > 0)
            metrics["log_jacobian_spread"]["in_label"] = log_jacobian_spread(det, label > 0)
        metrics["attempts"] = fit.attempt
        levels = {"global_stage": fit.global_s} | {f"level_{entry['level']}": entry["seconds"] for entry in fit.history}
        metrics["seconds"] = {**pair.get("seconds", {}), **levels, "measuring": time.perf_counter() - begun}
        pair["metrics"] = metrics
        return pair


class CheckGained(Transform):
    """Let a pair pass whose images became more alike, over the places where both maps show data; refuse any other.

    Args:
        similarity: what says so: ``ncc`` for one modality, ``nmi`` for two (`metrics.similarity`).
    """

    def __init__(self, similarity: str = "ncc") -> None:
        if similarity not in LOST:
            raise ValueError(f"similarity is one of {', '.join(LOST)}, not {similarity}")
        self.similarity = similarity

    def __call__(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same dictionary; raises PairError for a result that is worse than doing nothing."""
        weight = data["fixed_weight"].as_tensor()[0] * (data["before_valid"] & data["warped_valid"])
        step = max(1, int((weight.numel() / ENOUGH_VOXELS) ** (1 / 3)))
        some = (slice(None, None, step),) * 3
        fixed = data["fixed"].as_tensor()[0][some]
        before, after = (similarity(fixed, data[name][some], weight[some])[self.similarity] for name in ("before", "warped"))
        if after < before - LOST[self.similarity]:
            told = f"{SIMILARITY_WORDS[self.similarity]} {before:.3f} before, {after:.3f} after"
            raise PairError(
                f"{data['name']}: the scans are less alike after the fit than before ({told}), doing nothing is better. "
                "Nothing was written. Check that both scans show the same anatomy, and that their headers are right"
            )
        return data


class SaveResultd(Transform):
    """The pair with ``result_dir``: every file of the result written, each whole or not at all, metrics.json last.

    Args:
        folders: where results go. config: what run.json repeats of the config, as plain data.
        network_options: what builds the same network again; kept in network.pt beside the weights.
    """

    def __init__(self, folders: ResultFolders, *, config: Mapping[str, Any], network_options: Mapping[str, Any]) -> None:
        self.folders, self.config, self.network_options = folders, dict(config), dict(network_options)

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A new dictionary; raises PairError where the folder cannot be written or the disk is full."""
        pair, begun = dict(data), time.perf_counter()
        held = self.folders.hold(pair["name"])
        with held.whole() as folder:
            self._save(pair, folder)
            ended = time.perf_counter()
            seconds = {**pair["metrics"]["seconds"], "writing": ended - begun, "total": ended - pair["begun_s"]}
            memory = peak_memory_mib(pair["pred"].field_vox.device)
            pair["metrics"] = {**pair["metrics"], "seconds": seconds, "peak_memory_mib": memory}
            save_json(folder / METRICS_FILE, pair["metrics"])
        self.folders.release()
        pair["result_dir"] = str(held.folder)
        return pair

    def _save(self, pair: Mapping[str, Any], folder: Path) -> None:
        affine = _affine(pair["fixed"])
        save_itk_field(folder / FIELD_FILE, pair["pred"].field_vox[0], affine)
        save_image(folder / WARPED_FILE, in_type_of(pair["warped"], pair["moving"]), affine)
        if "warped_label" in pair:
            save_image(folder / WARPED_LABEL_FILE, label_type(pair["warped_label"]), affine)
        save_checkpoint(folder / NETWORK_FILE, self._checkpoint(pair))
        save_json(folder / RUN_FILE, self._run(pair))

    def _checkpoint(self, pair: Mapping[str, Any]) -> dict[str, Any]:
        fit = pair["pred"]
        return {
            "weights": fit.weights,
            "network": self.network_options,
            "offsets": fit.offsets,
            "modules": fit.modules,
            "fixed_shape": list(fit.space.shape),
            "fixed_affine": torch.as_tensor(fit.space.affine, dtype=torch.float64),
            "interpolation": fit.space.order,
            "start": torch.from_numpy(fit.space.start),
            "control_points": fit.control_points,
        }

    def _run(self, pair: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "command": command(),
            "config": self.config,
            **origin(pair),
            "intensity": pair["intensity"],
            "start": pair["pred"].space.start,
            "start_evidence": None if pair["pred"].evidence is None else asdict(pair["pred"].evidence),
            "device": str(pair["pred"].field_vox.device),
            "threads": torch.get_num_threads(),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "platform": platform.platform(),
            "losses": [{k: entry[k] for k in ("level", "shape", "losses")} for entry in pair["pred"].history],
        }


def origin(pair: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json tells of a pair that was read: its ``inputs`` (paths, hashes) and ``grids`` (shape, affine)."""
    return {
        "inputs": {key: record_of(path) for key, path in pair["files"].items()},
        "grids": {key: {"shape": pair[key].shape[1:], "affine": _affine(pair[key])} for key in IMAGES},
    }


def command() -> str:
    """The command line of this process, as it would be typed again: the program's name and its arguments, quoted."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)  # of python -m NAME, and of no script
    program = ["python", "-m", spec.name.removesuffix(".__main__")] if spec else [Path(sys.argv[0]).name]
    return shlex.join([*program, *sys.argv[1:]])


def peak_memory_mib(device: torch.device) -> dict[str, float | None]:
    """Largest resident memory of this process so far, and of the accelerator, in MiB; None where it cannot be known."""
    host = None
    if sys.platform != "win32":
        import resource  # not on Windows

        unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    accelerator = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {"host": host, "accelerator": accelerator}


def _affine(image: Any) -> np.ndarray:
    return np.asarray(image.affine, dtype=np.float64)
