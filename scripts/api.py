"""For Python and for MONAI: registration of images in memory, over the same config as the command line.

Of configs/inference.json, the blocks that read and write files are left out (``reading``, ``saving``); everything between
runs as it stands there, so the same images give the same bytes. Nothing is written before `Registered.save`.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from scripts.checks import CheckPaird
from scripts.errors import PairError
from scripts.folders import ResultFolders
from scripts.geometry import Grid
from scripts.guard import check_device, explanation
from scripts.images import image_of
from scripts.inputs import check_owner
from scripts.maps import SpatialMap
from scripts.names import GRID_OF, IMAGES
from scripts.presets import MOST_SEED, config_files
from scripts.results import WarpToFixedd

NAME = "in_memory"  # of a pair without files


@dataclass(frozen=True)
class Options:
    """How pairs are registered.

    preset: an overlay of configs/, such as fast. seed: of the network's first weights. device: by default a CUDA device
    where there is one. align_centres: start with both centres together. progress: show a bar.
    """

    preset: str | None = None
    seed: int = 0
    device: str | torch.device | None = None
    align_centres: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        config_files(self.preset)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed <= MOST_SEED:
            raise PairError(f"seed must be a whole number from zero to {MOST_SEED}, got {self.seed!r}")
        if self.device is not None:
            check_device(self.device)

    @property
    def config_files(self) -> list[str]:
        """The base and the overlay."""
        return list(config_files(self.preset))

    @property
    def overrides(self) -> dict[str, Any]:
        """Of the config's entries."""
        given = {"seed": self.seed, "align_centres": self.align_centres, "progress": self.progress}
        return given if self.device is None else {**given, "device": self.device}


class Registered:
    """What a registration gives.

    ``field``: MetaTensor (3, W, H, D), float32, in voxels of the fixed grid, fixed -> moving (docs/conventions.md).
    ``warped``: MetaTensor (1, W, H, D), the moving image on the fixed grid. ``warped_label``: the moving label there, or
    None. ``metrics``: as in metrics.json. All on the CPU, with the fixed image's affine.
    """

    def __init__(self, pair: Mapping[str, Any], saver: Any) -> None:
        self._pair, self._saver = dict(pair), saver
        self._took_s = time.perf_counter() - pair["begun_s"]
        self.field = self._on_fixed(pair["pred"].field_vox[0].cpu())
        self.warped = self._on_fixed(pair["warped"][None])
        self.warped_label = self._on_fixed(pair["warped_label"][None]) if "warped_label" in pair else None
        self.metrics: dict[str, Any] = pair["metrics"]

    def _on_fixed(self, values: torch.Tensor) -> MetaTensor:
        affine = self._pair["fixed"].affine
        meta = {"space": "RAS", "spatial_shape": np.array(values.shape[1:]), "original_affine": affine.numpy()}
        return MetaTensor(values, affine=affine.clone(), meta=meta)

    @property
    def _map(self) -> SpatialMap:
        return SpatialMap(self.field.as_tensor(), Grid(tuple(self.field.shape[1:]), self._pair["fixed"].affine.numpy()))

    def carry_label(self, label: Any) -> MetaTensor:
        """A label map of the moving grid on the fixed grid, (1, W, H, D), by nearest neighbour.

        ``label``: one of `images.FORMS`; raises PairError unless it lies on the moving grid and holds whole numbers.
        """
        pair = {key: self._pair[key] for key in (*IMAGES, "moving_valid", "pred")}
        checked = CheckPaird(align_centres=True)({**pair, "moving_label": image_of("moving_label", label)})
        carried = WarpToFixedd(keys=("moving_label",), mode=("nearest",))(dict(checked.items()))
        return self._on_fixed(carried["warped_label"][None])

    def points_in_moving(self, points_mm: Any) -> np.ndarray:
        """Where points of the fixed scan lie in the moving one, (N, 3) in RAS mm both, float64.

        Raises PairError for points off the fixed grid or of another shape.
        """
        points = _points(points_mm)
        found, known = self._map.to_moving(points)
        if not known.all():
            raise PairError(f"the point {points[~known][0].tolist()} mm lies off the fixed grid; give points inside it")
        return found

    def points_in_fixed(self, points_mm: Any) -> np.ndarray:
        """Where points of the moving scan lie in the fixed one, (N, 3) in RAS mm both, float64.

        nan for a point whose partner lies off the fixed grid or in a fold. Raises PairError for another shape.
        """
        found, known = self._map.to_reference(_points(points_mm))
        return np.where(known[:, None], found, np.nan)

    def save(self, folder: str | Path) -> Path:
        """The folder, with the files that ``ncf register`` writes, but that run.json has no files to name as inputs.

        Raises PairError where it cannot be written, or where it holds the result of scans that were files.
        """
        folder = Path(folder).absolute()
        check_owner(folder, {})
        saver = copy.copy(self._saver)
        saver.folders = ResultFolders(folder.parent)
        named = {"name": folder.name, "metrics": {**self.metrics, "name": folder.name}}
        try:
            saver({**self._pair, **named, "begun_s": time.perf_counter() - self._took_s})
        finally:
            saver.folders.release()
        return folder


def _points(points_mm: Any) -> np.ndarray:
    """The points (N, 3), float64; PairError for anything else."""
    points = np.asarray(points_mm, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise PairError(f"points must be finite numbers of shape (N, 3), RAS mm, got shape {points.shape}")
    return points


def register(
    fixed: Any,
    moving: Any,
    *,
    fixed_label: Any = None,
    moving_label: Any = None,
    fixed_mask: Any = None,
    landmarks: Any = None,
    preset: str | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    align_centres: bool = False,
    progress: bool = False,
) -> Registered:
    """The registration of ``moving`` to ``fixed``; nothing is written and no argument changed.

    Args:
        fixed, moving: an array with its affine as (array, affine), a MetaTensor, or an image of nibabel or SimpleITK.
        fixed_label, moving_label: label maps in these forms, each on its own image's grid.
        fixed_mask: weights on the fixed grid; where it is 0 the images are not compared.
        landmarks: (N, 6), voxel indices of a point in fixed, then in moving.
        preset, seed, device, align_centres, progress: see `Options`.

    Raises:
        PairError: whatever makes a registration impossible, in one line.
    """
    options = Options(preset, seed, device, align_centres, progress)
    given = {"fixed": fixed, "moving": moving, "fixed_label": fixed_label, "moving_label": moving_label}
    return _registered({**given, "fixed_mask": fixed_mask, "landmarks": landmarks}, options)


def _registered(given: Mapping[str, Any], options: Options) -> Registered:
    pair: dict[str, Any] = {"begun_s": time.perf_counter(), "name": NAME, "files": {}}
    pair |= {key: image_of(key, given[key]) for key in (*IMAGES, *GRID_OF) if given.get(key) is not None}
    if given.get("landmarks") is not None:
        pair["landmarks"] = np.asarray(given["landmarks"], dtype=np.float64)
    from monai.bundle import ConfigWorkflow  # takes seconds to import

    blocks = {"preprocessing": "@preparing", "postprocessing": "@measuring", "handlers": [], "dataset_data": [{}]}
    settings = {**options.overrides, **blocks}
    log = logging.getLogger("monai.bundle.workflows")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns that there is no logging file, which would set up logging for the whole program
    try:
        workflow = ConfigWorkflow(options.config_files, workflow_type="inference", logging_file=False, **settings)
    finally:
        log.setLevel(level)
    workflow.initialize()
    parts = workflow.parser
    parts.get_parsed_content("dataset").data = [pair]
    evaluator = parts.get_parsed_content("evaluator")
    try:
        evaluator.run()
    except Exception as error:
        told = explanation(error)
        if told is None:
            raise
        raise PairError(told) from error
    # the evaluator splits what comes out again: entries that came in, and new ones; "image" is the pair on the device
    found = {**evaluator.state.batch, **evaluator.state.output}
    return Registered({key: value for key, value in found.items() if key != "image"}, parts.get_parsed_content("saving"))


class RegisterPaird(Transform):
    """The dictionary with the moving image brought onto the fixed one; for `monai.transforms.Compose`, without any file.

    Added are ``warped``, ``field`` and ``metrics`` as `Registered` has them, and ``warped_label`` where the dictionary has a
    moving label. Images are MetaTensors (1, W, H, D), as `LoadImaged` gives them with ``ensure_channel_first``, on any
    device.

    Args:
        keys: of the fixed and of the moving image.
        fixed_label, moving_label, fixed_mask, landmarks: keys that are used where the dictionary has them.
        preset, seed, device, align_centres, progress: see `Options`; the fit runs on ``device``, results are on the CPU.
    """

    def __init__(
        self,
        keys: Sequence[Hashable] = ("fixed", "moving"),
        *,
        fixed_label: Hashable = "fixed_label",
        moving_label: Hashable = "moving_label",
        fixed_mask: Hashable = "fixed_mask",
        landmarks: Hashable = "landmarks",
        preset: str | None = None,
        seed: int = 0,
        device: str | torch.device | None = None,
        align_centres: bool = False,
        progress: bool = False,
    ) -> None:
        if isinstance(keys, str) or len(keys) != 2:
            raise PairError(f"keys are those of the fixed and of the moving image, got {keys!r}")
        self.keys = tuple(keys)
        self.others = {"fixed_label": fixed_label, "moving_label": moving_label, "fixed_mask": fixed_mask}
        self.others["landmarks"] = landmarks
        self.options = Options(preset, seed, device, align_centres, progress)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A new dictionary; raises PairError, which Compose wraps, for what cannot be registered."""
        missing = [key for key in self.keys if key not in data]
        if missing:
            raise PairError(f"the dictionary has no {missing[0]!r}; keys are those of the fixed and of the moving image")
        given = dict(zip(IMAGES, (data[key] for key in self.keys), strict=True))
        done = _registered({**given, **{name: data.get(key) for name, key in self.others.items()}}, self.options)
        found = {**data, "warped": done.warped, "field": done.field, "metrics": done.metrics}
        return found if done.warped_label is None else {**found, "warped_label": done.warped_label}
