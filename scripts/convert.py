"""Result folders of ours -> files of other programs, and fields of others -> ours; no registration, no networks."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms import Transform

from scripts.errors import PairError
from scripts.exporters import save_itk_field
from scripts.files import claim_folder, record_of, save_json
from scripts.guard import items_or_reasons
from scripts.learn2reg import FORMATS, displacement_name, save_displacement, to_stored, zip_submission
from scripts.names import FIELD_FILE, IMAGES, METRICS_FILE, RUN_FILE, image_stem
from scripts.results import origin, result_folder
from scripts.saved import SavedResult

SUBMISSION = "submission.zip"


def export_learn2reg(results: Sequence[SavedResult], output_dir: str | Path, *, kind: str, names: str) -> list[Path]:
    """The displacement files made of result folders, and submission.zip of them all.

    Args:
        kind: a key of `learn2reg.FORMATS`. names: auto, short or long, see `learn2reg.displacement_name`.

    Raises:
        PairError: two results that give one file name, besides what reading and writing refuse.
    """
    wanted: dict[str, SavedResult] = {}
    for result in results:
        stems = [image_stem(str(result.inputs[key])) for key in IMAGES]
        name = displacement_name(stems[0], stems[1], names=names) + FORMATS[kind]
        if name in wanted:
            both = f"{wanted[name].folder} and {result.folder}"
            raise PairError(f"{both} both give {name}; use --names long, or export one of them")
        wanted[name] = result
    target = claim_folder(output_dir)
    for name, result in wanted.items():
        field, affine = result.field()
        stored = to_stored(field, fixed_affine=affine, moving_affine=result.grid("moving").affine)
        save_displacement(target / name, stored)
    zip_submission(target, target / SUBMISSION)
    return [*(target / name for name in wanted), target / SUBMISSION]


class SaveImportedd(Transform):
    """The folder of a field of any program, saved as a result of ours: displacement.nii.gz, and run.json without a fit.

    Args:
        output_dir: results go to ``<output_dir>/<name>/``.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = Path(output_dir)

    def __call__(self, data: Mapping[str, Any]) -> Path:
        """The folder; raises PairError where one of a registration is there already, or it cannot be written."""
        with result_folder(self.output_dir / data["name"]) as folder:
            if (folder / METRICS_FILE).exists():
                raise PairError(f"{folder} holds a registration of ours; choose another output_dir")
            save_itk_field(folder / FIELD_FILE, data["field_vox"], np.asarray(data["fixed"].affine, dtype=np.float64))
            save_json(folder / RUN_FILE, {**origin(data), "imported": record_of(data["field_file"])})
        return folder


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
