"""The result of a registration in Python, made just now or opened from its folder."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor

from ncf.core.errors import PairError
from ncf.core.folders import ResultFolders
from ncf.core.names import METRICS_FILE, RUN_FILE, WARPED_FILE, WARPED_LABEL_FILE
from ncf.core.paths import expanded
from ncf.evaluate.measured import WarpToFixedd
from ncf.fit.warm_start import WarmStart
from ncf.io.image_files import read_image
from ncf.io.image_objects import label_of, to_sitk, to_sitk_field_transform
from ncf.io.label_files import plain_map, read_label, table_of
from ncf.pair.checks import CheckPaird
from ncf.pair.keys import Pair, affine_of
from ncf.pair.source import check_owner
from ncf.result.folder import SavedResult
from ncf.result.record import RunRecord
from ncf.result.write import write_result
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap


class Mapped(ABC):
    """A map from a fixed to a moving scan that carries points in both directions."""

    @property
    @abstractmethod
    def field(self) -> MetaTensor:
        """The displacement field (3, W, H, D), float32, in fixed voxels, fixed to moving (docs/conventions.md)."""

    @cached_property
    def _map(self) -> SpatialMap:
        field = self.field
        return SpatialMap(field.as_tensor(), Grid(tuple(field.shape[1:]), affine_of(field)))

    def points_in_moving(self, points_mm: Any) -> np.ndarray:
        """Carry points of the fixed scan to the moving one.

        Args:
            points_mm: (N, 3), RAS mm.

        Returns:
            Where they lie in the moving scan, (N, 3), RAS mm, float64.

        Raises:
            PairError: a point lies off the fixed grid, or the points have another shape.
        """
        points = _points(points_mm)
        found, known = self._map.to_moving(points)
        if not known.all():
            raise PairError(f"the point {points[~known][0].tolist()} mm lies off the fixed grid; give points inside it")
        return found

    def points_in_fixed(self, points_mm: Any) -> np.ndarray:
        """Carry points of the moving scan to the fixed one, by the inverse of the map.

        Args:
            points_mm: (N, 3), RAS mm.

        Returns:
            Where they lie in the fixed scan, (N, 3), RAS mm, float64; nan where the partner lies off the fixed grid or
            in a fold.

        Raises:
            PairError: the points have another shape.
        """
        found, known = self._map.to_reference(_points(points_mm))
        return np.where(known[:, None], found, np.nan)

    @property
    @abstractmethod
    def warped(self) -> MetaTensor:
        """The moving scan on the fixed grid, (1, W, H, D)."""

    @property
    @abstractmethod
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json, see docs/results.md."""

    def to_sitk(self) -> Any:
        """Return the warped scan as an image of SimpleITK.

        Raises:
            PairError: SimpleITK is not installed.
        """
        return to_sitk(self.warped)

    def to_sitk_transform(self) -> Any:
        """Return the map as a transform of SimpleITK, from points of the fixed to points of the moving scan, LPS mm.

        ``SimpleITK.Resample(moving, fixed, transform)`` makes the warped scan with it. Off the fixed grid it moves
        nothing, as all fields do there.

        Raises:
            PairError: SimpleITK is not installed.
        """
        return to_sitk_field_transform(self.field)


class Registered(Mapped):
    """A registration that was made just now; nothing of it is written before `save`.

    All images are on the CPU, with the fixed image's affine.

    Attributes:
        field: see `Mapped`.
        warped: MetaTensor (1, W, H, D), the moving image on the fixed grid.
        warped_label: the moving label on the fixed grid, or None.
        metrics: as in metrics.json.
    """

    def __init__(self, pair: Pair, record: RunRecord) -> None:
        self._pair, self._record = pair, record
        self._took_s = time.perf_counter() - pair["begun_s"]
        self._field = self._on_fixed(pair["pred"].field_vox[0].cpu())
        self._warped = self._on_fixed(pair["warped"][None])
        self.warped_label = self._label(pair["warped_label"], pair["moving_label"]) if "warped_label" in pair else None
        total = {"total": self._took_s, **pair["metrics"]["seconds"]}
        self._metrics: dict[str, Any] = {**pair["metrics"], "seconds": total}

    @property
    def field(self) -> MetaTensor:
        """The displacement field (3, W, H, D), float32, in voxels of the fixed grid, fixed to moving."""
        return self._field

    @property
    def warped(self) -> MetaTensor:
        """The moving scan on the fixed grid, (1, W, H, D)."""
        return self._warped

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json as far as it is known before anything is written, see docs/results.md."""
        return self._metrics

    def __repr__(self) -> str:
        return f"Registered({_in_words(self.metrics, self.field.shape[1:])})"

    def _on_fixed(self, values: torch.Tensor) -> MetaTensor:
        """Return values on the fixed grid as a MetaTensor."""
        return _meta_tensor(values, affine_of(self._pair["fixed"]))

    def _label(self, codes: torch.Tensor, source: MetaTensor) -> MetaTensor:
        """Return carried codes of a label map as labels on the fixed grid."""
        return plain_map(codes, table_of(source), affine_of(self._pair["fixed"]))

    def start(self, name: str) -> WarmStart | None:
        """Return the start that this result offers to a neighbour; None where its map has no network.

        Args:
            name: by which the neighbour's ``metrics`` call it.
        """
        return WarmStart.of(self._pair["pred"], name)

    def carry_label(self, label: Any) -> MetaTensor:
        """Carry a label map of the moving grid to the fixed grid, by nearest neighbour.

        Args:
            label: in one of the forms of `ncf.io.image_objects.FORMS`, or the path of a label map, RTSTRUCT or SEG.

        Returns:
            The label map on the fixed grid, (1, W, H, D).

        Raises:
            PairError: it does not lie on the moving grid, or holds other values than whole numbers from 0.
        """
        kept = {key: self._pair[key] for key in ("fixed", "moving", "moving_weight", "pred")}
        given = cast(Pair, {**kept, "moving_label": label_of("moving_label", label, self._pair["moving"])})
        checked = CheckPaird(align_centres=True)(given)
        carried = WarpToFixedd(keys=("moving_label",), mode=("nearest",))(checked)
        return self._label(carried["warped_label"], given["moving_label"])

    def save(self, folder: str | Path) -> Path:
        """Write the files that ``ncf register`` writes; run.json names the scans where all of the pair was files.

        Args:
            folder: of the result.

        Returns:
            Its absolute path.

        Raises:
            PairError: it cannot be written, or holds the result of scans that were files.
        """
        folder = Path(folder).absolute()
        check_owner(folder, self._pair["files"])
        named: dict[str, Any] = {"name": folder.name, "metrics": {**self.metrics, "name": folder.name}}
        folders = ResultFolders(folder.parent)
        try:
            pair = cast(Pair, {**self._pair, **named, "begun_s": time.perf_counter() - self._took_s})
            write_result(pair, self._record, folders)
        finally:
            folders.release()
        return folder


class OpenedResult(Mapped):
    """A result folder of ``ncf register`` or `Registered.save`; its files are read when they are asked for.

    Args:
        folder: of the result.

    Raises:
        PairError: it is no result folder, or its registration did not come to its end.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = expanded(folder).absolute()
        if not (folder / RUN_FILE).exists():
            raise PairError(f"{folder} is no result folder (no {RUN_FILE} in it); give one that a registration wrote")
        self._saved = SavedResult(folder)
        self._saved.require_complete()

    def __repr__(self) -> str:
        folder = self._saved.folder
        metrics = self.metrics if (folder / METRICS_FILE).exists() else {}
        return f"OpenedResult({_in_words(metrics, self._saved.grid('fixed').shape)}, {str(folder)!r})"

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json, see docs/results.md."""
        return self._saved.metrics

    @property
    def run(self) -> dict[str, Any]:
        """The content of run.json: settings, inputs, grids, versions, losses."""
        return self._saved.run

    @cached_property
    def field(self) -> MetaTensor:
        """The displacement field (3, W, H, D), float32, in voxels of the fixed grid, fixed to moving."""
        return _meta_tensor(*self._saved.field())

    @cached_property
    def warped(self) -> MetaTensor:
        """The moving scan on the fixed grid, (1, W, H, D)."""
        return read_image("warped", str(self._saved.folder / WARPED_FILE))

    @cached_property
    def warped_label(self) -> MetaTensor | None:
        """The moving label on the fixed grid, (1, W, H, D); None where none was registered."""
        path = self._saved.folder / WARPED_LABEL_FILE
        if not path.exists():
            return None
        label = read_label("warped_label", path)
        return plain_map(label.as_tensor()[0], table_of(label), np.asarray(label.affine))


def open_result(folder: str | Path) -> OpenedResult:
    """Open the folder of a finished registration.

    Args:
        folder: what ``ncf register`` or `Registered.save` wrote.

    Raises:
        PairError: it is no result folder, or its registration did not come to its end.
    """
    return OpenedResult(folder)


def _in_words(metrics: Mapping[str, Any], shape: Sequence[int]) -> str:
    """Say the verdict, the size of the fixed grid and the seconds, as far as they are known."""
    verdict, seconds = metrics.get("verdict", {}).get("word"), metrics.get("seconds", {}).get("total")
    told = [verdict, f"{' x '.join(map(str, shape))} voxels", None if seconds is None else f"{seconds:.1f} s"]
    return ", ".join(word for word in told if word is not None)


def _meta_tensor(values: torch.Tensor, affine: np.ndarray) -> MetaTensor:
    """Return values as a MetaTensor with an affine."""
    meta = {"space": "RAS", "spatial_shape": np.array(values.shape[1:]), "original_affine": affine}
    return MetaTensor(values, affine=torch.as_tensor(affine, dtype=torch.float64), meta=meta)


def _points(points_mm: Any) -> np.ndarray:
    """Return points as an array (N, 3); raise PairError where they are no such array."""
    points = np.asarray(points_mm, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 3 or not np.isfinite(points).all():
        raise PairError(f"points must be finite numbers of shape (N, 3), RAS mm, got shape {points.shape}")
    return points
