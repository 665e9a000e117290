"""``ncf evaluate``: evaluation of saved fields of any program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fire.decorators import SetParseFn

from ncf.commands.common import ConfigJob, absolute, given_labels, listed_pairs, or_refused, refuse, true_or_false
from ncf.core.errors import PairError
from ncf.core.names import RUN_FILE
from ncf.core.paths import there
from ncf.core.presets import config
from ncf.io.pair_lists import Pairs, with_paths


@SetParseFn(str)
def evaluate(
    fields: str,
    *,
    pairs: str | None = None,
    which: str | None = None,
    output_dir: str | None = None,
    labels: str | None = None,
    progress: str = "true",
) -> ConfigJob:
    """Evaluate the saved fields in FIELDS and write the table evaluation.json, .csv and .md.

    Without --pairs, FIELDS is a result folder of ours, or a folder of such, and the scans are those that were
    registered.

    Args:
        fields: their folder: <name>/displacement.nii.gz, <name>.nii.gz (an ITK field), or Learn2Reg's files.
        pairs: the list of pairs that the fields belong to: a dataset JSON, a CSV, or the folder of the Zenodo archive.
        which: list of a Learn2Reg dataset: registration_val, registration_test, training_paired_images, all_pairs.
        output_dir: where the table goes; by default FIELDS.
        labels: names or numbers of the labels that count, such as Heart,Lung_L; by default all. Heart=Herz is called
            Heart in the fixed and Herz in the moving map.
        progress: false hides the progress bar.
    """
    folder = absolute("fields", fields)
    if not or_refused(there, folder).is_dir():
        refuse(f"{folder} is no folder; give the one that holds the fields")
    rows = or_refused(_registered, folder) if pairs is None else listed_pairs(pairs, which)
    single = pairs is None and (folder / RUN_FILE).exists()
    overrides: dict[str, Any] = {
        "dataset_data": list(map(with_paths, rows)),
        "fields": folder.parent if single else folder,
        "output_dir": folder if output_dir is None else absolute("output_dir", output_dir),
        "progress": true_or_false("progress", progress),
        **given_labels(labels),
    }
    return ConfigJob((config("evaluate"),), tuple(overrides.items()))


def _registered(folder: Path) -> Pairs:
    """Return the pairs that the results in a folder were made of."""
    from ncf.result.folder import saved_pairs

    try:
        return saved_pairs(folder)
    except PairError as error:
        raise PairError(f"{error}; for fields of other programs name the list of pairs with --pairs") from error
