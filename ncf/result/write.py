"""The writing of a result: from a measured pair to its files.

All files of a result are written here and nowhere else, metrics.json last: a folder that has one is complete. No
networks and no losses here.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from monai.transforms import Transform

from ncf.core.errors import PairError
from ncf.core.files import record_of, save_json
from ncf.core.folders import ResultFolders
from ncf.core.names import AFFINE_FILE, FIELD_FILE, METRICS_FILE, NETWORK_FILE, RUN_FILE, WARPED_FILE, WARPED_LABEL_FILE
from ncf.core.process import command_line
from ncf.fit.fitted import Fit
from ncf.io.checkpoint import save_checkpoint
from ncf.io.itk_transforms import affine_transform, save_transforms
from ncf.io.label_files import shown_labels, table_of
from ncf.io.label_names import save_names
from ncf.io.named_files import NamedFiles
from ncf.io.nifti import save_image, save_itk_field
from ncf.pair.keys import Pair, affine_of
from ncf.result.dicom import write_objects
from ncf.result.record import RunRecord
from ncf.space.geometry import from_lps
from ncf.space.resampling import in_type_of

PACKAGES = ("monai", "torch", "numpy", "nibabel", "pytorch-ignite")


class SaveResultd(Transform):
    """Writes the result of a pair; see `write_result`.

    Args:
        folders: where results go.
        record: what run.json and network.pt keep of the config.
        dicom: whether the folder dicom/ is written too (`ncf.result.dicom`).
        anonymous: whether its objects tell no patient.
        named_files: what is written once more, under names of the user's.
    """

    def __init__(
        self,
        folders: ResultFolders,
        *,
        record: RunRecord,
        dicom: bool = False,
        anonymous: bool = False,
        named_files: NamedFiles | None = None,
    ) -> None:
        self.folders, self.record, self.dicom, self.anonymous = folders, record, dicom, anonymous
        self.named_files = named_files or NamedFiles()

    def __call__(self, data: Pair) -> Pair:
        """Write the result of a measured pair; return the pair with ``result_dir``, see `write_result`."""
        objects = partial(write_objects, anonymous=self.anonymous) if self.dicom else None
        written = write_result(data, self.record, self.folders, objects=objects)
        try:
            warped = in_type_of(data["warped"], data["moving"])
            self.named_files.save(warped, data["pred"].field_vox[0].cpu(), affine_of(data["fixed"]))
        except PairError as error:
            raise PairError(f"the result in {written['result_dir']} is complete, but: {error}") from error
        return written


def write_result(
    pair: Pair, record: RunRecord, folders: ResultFolders, *, objects: Callable[[Pair, Path], None] | None = None
) -> Pair:
    """Write every file of a result, each whole or not at all, metrics.json last; then release its folder.

    Args:
        pair: measured.
        record: the settings of its config.
        folders: where results go, ``<output_dir>/<name>/``.
        objects: writes more into the folder of the result; None for nothing.

    Returns:
        The pair with ``result_dir``, and with its time in s and its memory in MiB in ``metrics``.

    Raises:
        PairError: the folder cannot be written, the disk is full, or another run is at work there. The earlier result
            stays.
    """
    begun = time.perf_counter()
    held = folders.hold(pair["name"])
    with held.whole() as folder:
        _write_files(pair, record, folder)
        if objects is not None:
            objects(pair, folder)
        ended = time.perf_counter()
        seconds = {**pair["metrics"]["seconds"], "writing": ended - begun, "total": ended - pair["begun_s"]}
        memory = peak_memory_mib(pair["pred"].field_vox.device)
        metrics = {**pair["metrics"], "seconds": seconds, "peak_memory_mib": memory}
        save_json(folder / METRICS_FILE, metrics)
    folders.release()
    return cast(Pair, {**pair, "metrics": metrics, "result_dir": str(held.folder)})


def _write_files(pair: Pair, record: RunRecord, folder: Path) -> None:
    """Write all files of a result except metrics.json."""
    affine = affine_of(pair["fixed"])
    save_itk_field(folder / FIELD_FILE, pair["pred"].field_vox[0], affine)
    save_image(folder / WARPED_FILE, in_type_of(pair["warped"], pair["moving"]), affine)
    if "warped_label" in pair:
        table = table_of(pair["moving_label"])
        save_image(folder / WARPED_LABEL_FILE, shown_labels(pair["warped_label"], table), affine)
        save_names(folder / WARPED_LABEL_FILE, table.names)
    save_transforms(folder / AFFINE_FILE, [affine_transform(from_lps(pair["pred"].space.initial))])
    save_checkpoint(folder / NETWORK_FILE, _checkpoint(pair["pred"], record))
    save_json(folder / RUN_FILE, _run(pair, record))


def _checkpoint(fit: Fit, record: RunRecord) -> dict[str, Any]:
    """Return what network.pt keeps of a fit."""
    return {
        "weights": fit.weights,
        "network": record.network,
        "offsets": fit.offsets,
        "modules": fit.modules,
        "fixed_shape": list(fit.space.shape),
        "fixed_affine": torch.as_tensor(fit.space.affine, dtype=torch.float64),
        "interpolation": fit.space.order,
        "initial_transform": torch.from_numpy(fit.space.initial),
        "control_points": fit.control_points,
    }


def _run(pair: Pair, record: RunRecord) -> dict[str, Any]:
    """Return the content of run.json."""
    fit = pair["pred"]
    return {
        "command": command_line(),
        "config": record.settings(),
        **origin(pair),
        "intensity": pair["intensity"],
        "initial_transform": fit.space.initial,
        "initial_transform_evidence": None if fit.evidence is None else asdict(fit.evidence),
        "transform": fit.transform,
        "background": fit.background,
        "contrast": None if fit.contrast is None else asdict(fit.contrast),
        "search_evidence": None if fit.search is None else asdict(fit.search),
        "start_evidence": None if fit.start is None else asdict(fit.start),
        "device": str(fit.field_vox.device),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "platform": platform.platform(),
        "losses": [{"level": level.name, "shape": level.shape, "losses": level.losses} for level in fit.history],
    }


def origin(pair: Pair) -> dict[str, Any]:
    """Return what run.json tells of a pair that was read: ``inputs`` (paths, hashes) and ``grids`` (shape, affine)."""
    images = {"fixed": pair["fixed"], "moving": pair["moving"]}
    return {
        "inputs": {key: record_of(path) for key, path in pair["files"].items()},
        "grids": {key: {"shape": image.shape[1:], "affine": affine_of(image)} for key, image in images.items()},
    }


def peak_memory_mib(device: torch.device) -> dict[str, float | None]:
    """Return the largest memory of this process so far, in MiB.

    Args:
        device: of the fit.

    Returns:
        ``host``, the resident memory, and ``accelerator``, the memory on the device; None where it is not known.
    """
    host = None
    if sys.platform != "win32":
        import resource  # not on Windows

        unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB on Linux
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    accelerator = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return {"host": host, "accelerator": accelerator}
