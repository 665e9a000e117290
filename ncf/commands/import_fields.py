"""``ncf import``: fields of other programs as results of ours."""

from __future__ import annotations

from typing import Any

from fire.decorators import SetParseFn

from ncf.commands.common import ConfigJob, absolute, listed_pairs, or_refused, refuse, true_or_false
from ncf.core.paths import there
from ncf.core.presets import config
from ncf.io.pair_lists import with_paths


@SetParseFn(str)
def import_fields(
    fields: str, *, pairs: str, output_dir: str, which: str | None = None, progress: str = "true"
) -> ConfigJob:
    """Save the fields in FIELDS, of Learn2Reg or ITK, as result folders <output_dir>/<name>/ like those of register.

    Each gets displacement.nii.gz, an ITK field on the fixed scan's grid, and run.json.

    Args:
        fields: the folder that holds them: <name>.nii.gz (an ITK field), or Learn2Reg's disp_*.nii.gz or .npz.
        pairs: the list of pairs that the fields belong to: a dataset JSON, a CSV, or the folder of the Zenodo archive.
        output_dir: where the folders are made.
        which: list of a Learn2Reg dataset: registration_val, registration_test, training_paired_images, all_pairs.
        progress: false hides the progress bar.
    """
    folder = absolute("fields", fields)
    if not or_refused(there, folder).is_dir():
        refuse(f"{folder} is no folder; give the one that holds the fields")
    rows = listed_pairs(pairs, which)
    overrides: dict[str, Any] = {"dataset_data": list(map(with_paths, rows)), "fields": folder}
    overrides |= {"output_dir": absolute("output_dir", output_dir), "progress": true_or_false("progress", progress)}
    return ConfigJob((config("evaluate"), config("import")), tuple(overrides.items()))
