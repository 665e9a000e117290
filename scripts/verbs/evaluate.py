"""``ncf evaluate``: saved fields of any program, judged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fire.decorators import SetParseFn

from scripts.datasets import Pairs, read_pairs, with_paths
from scripts.errors import PairError
from scripts.names import RUN_FILE
from scripts.presets import config
from scripts.verbs.common import ConfigJob, absolute, refuse, true_or_false


@SetParseFn(str)
def evaluate(
    fields: str,
    *,
    pairs: str | None = None,
    which: str | None = None,
    output_dir: str | None = None,
    progress: str = "true",
) -> ConfigJob:
    """Judge the saved fields in FIELDS and write the table evaluation.json, .csv and .md.

    Without --pairs, FIELDS is a result folder of ours, or a folder of such, and the scans are those that were registered.

    Args:
        fields: the folder that holds them: <name>/displacement.nii.gz, <name>.nii.gz (an ITK field), or Learn2Reg's files.
        pairs: the list of pairs the fields belong to: a dataset JSON, a CSV, or the folder of the Zenodo archive.
        which: list of a Learn2Reg dataset: registration_val, registration_test, training_paired_images, all_pairs.
        output_dir: where the table goes; by default FIELDS.
        progress: false hides the progress bar.
    """
    folder = absolute("fields", fields)
    if not folder.is_dir():
        refuse(f"{folder} is no folder; give the one that holds the fields")
    try:
        rows = _registered(folder) if pairs is None else read_pairs(absolute("pairs", pairs), which=which)
    except PairError as error:
        refuse(str(error))
    single = pairs is None and (folder / RUN_FILE).exists()
    overrides: dict[str, Any] = {
        "dataset_data": list(map(with_paths, rows)),
        "fields": folder.parent if single else folder,
        "output_dir": folder if output_dir is None else absolute("output_dir", output_dir),
        "progress": true_or_false("progress", progress),
    }
    return ConfigJob((config("evaluate"),), tuple(overrides.items()))


def _registered(folder: Path) -> Pairs:
    """The pairs that the results in a folder were made of."""
    from scripts.saved import saved_pairs  # torch takes seconds to import

    try:
        return saved_pairs(folder)
    except PairError as error:
        raise PairError(f"{error}; for fields of other programs name the list of pairs with --pairs") from error
