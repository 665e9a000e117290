"""Import of fields of other programs: they become result folders, without a fit; see configs/import.json."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.transforms import Transform

from ncf.core.errors import PairError
from ncf.core.files import record_of, save_json
from ncf.core.folders import ResultFolders
from ncf.core.names import FIELD_FILE, METRICS_FILE, RUN_FILE
from ncf.core.refusals import items_or_reasons
from ncf.io.nifti import save_itk_field
from ncf.pair.keys import Pair, affine_of
from ncf.result.write import origin


class SaveImportedd(Transform):
    """Saves the field of any program as a result folder: displacement.nii.gz, and a run.json without a fit.

    Args:
        folders: where results go.
    """

    def __init__(self, folders: ResultFolders) -> None:
        self.folders = folders

    def __call__(self, data: Pair) -> Path:
        """Save one field, and return its folder.

        Raises:
            PairError: the folder holds a registration already, or it cannot be written.
        """
        held = self.folders.hold(data["name"])
        try:
            if (held.folder / METRICS_FILE).exists():
                raise PairError(f"{held.folder} holds a registration of ours; choose another output_dir")
            with held.whole() as folder:
                save_itk_field(folder / FIELD_FILE, data["field_vox"], affine_of(data["fixed"]))
                save_json(folder / RUN_FILE, {**origin(data), "imported": record_of(data["field_file"])})
        finally:
            self.folders.release()
        return held.folder


class Imported:
    """Imports all fields of a dataset, one after another.

    Args:
        dataset: its items are the folders that were written, see `SaveImportedd`.
        progress: False hides the bar.
    """

    def __init__(self, dataset: Sequence[Any], *, progress: bool = True) -> None:
        self.dataset, self.progress = dataset, progress

    def run(self) -> None:
        """Import every field, and print the folders.

        Raises:
            SystemExit: with status 1 and one line for each field that could not be imported.
        """
        folders, reasons = items_or_reasons(self.dataset, progress=self.progress)
        print("\n".join(str(folder) for folder in folders))
        if reasons:
            sys.exit("\n".join(f"error: {reason}" for reason in reasons))
