"""Fields of other programs as result folders of ours, without a fit; see configs/import.json."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Transform

from scripts.errors import PairError
from scripts.exporters import save_itk_field
from scripts.files import record_of, save_json
from scripts.folders import ResultFolders
from scripts.guard import items_or_reasons
from scripts.names import FIELD_FILE, METRICS_FILE, RUN_FILE
from scripts.results import origin


class SaveImportedd(Transform):
    """The folder of a field of any program, saved as a result of ours: displacement.nii.gz, and run.json without a fit.

    Args:
        folders: where results go.
    """

    def __init__(self, folders: ResultFolders) -> None:
        self.folders = folders

    def __call__(self, data: Mapping[str, Any]) -> Path:
        """The folder; raises PairError where one of a registration is there already, or it cannot be written."""
        held = self.folders.hold(data["name"])
        try:
            if (held.folder / METRICS_FILE).exists():
                raise PairError(f"{held.folder} holds a registration of ours; choose another output_dir")
            with held.whole() as folder:
                save_itk_field(folder / FIELD_FILE, data["field_vox"], np.asarray(data["fixed"].affine, dtype=np.float64))
                save_json(folder / RUN_FILE, {**origin(data), "imported": record_of(data["field_file"])})
        finally:
            self.folders.release()
        return held.folder


class Imported:
    """All fields of a dataset imported, one after another.

    Args:
        dataset: items are the folders that were written, see `SaveImportedd`.
    """

    def __init__(self, dataset: Sequence[Any], *, progress: bool = True) -> None:
        self.dataset, self.progress = dataset, progress

    def run(self) -> None:
        """Nothing; the folders are printed. Exits with status 1, and a line for each, when fields could not be imported."""
        folders, reasons = items_or_reasons(self.dataset, progress=self.progress)
        print("\n".join(str(folder) for folder in folders))
        if reasons:
            sys.exit("\n".join(f"error: {reason}" for reason in reasons))
