"""Result folders of ours -> files of other programs, and fields of others -> ours; no registration, no networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.datasets import RUN_FILE
from scripts.errors import PairError
from scripts.exporters import load_itk_field
from scripts.fields import FIELD_FILE
from scripts.files import claim_folder, unreadable
from scripts.learn2reg import FORMATS, displacement_name, save_displacement, to_stored, zip_submission
from scripts.names import image_stem

SUBMISSION = "submission.zip"


def result_folders(folder: str | Path) -> list[Path]:
    """The folder if it is a result of ours, else all results right below it; PairError if there are none."""
    folder = Path(folder)
    if (folder / RUN_FILE).exists():
        return [folder]
    found = sorted(run.parent for run in folder.glob(f"*/{RUN_FILE}"))
    if not found:
        raise PairError(f"{folder} holds no results of ours (no {RUN_FILE} in it or right below)")
    return found


def export_learn2reg(results: Sequence[Path], output_dir: str | Path, *, kind: str, names: str) -> list[Path]:
    """The displacement files made of result folders, and submission.zip of them all.

    Args:
        kind: a key of `learn2reg.FORMATS`. names: auto, short or long, see `learn2reg.displacement_name`.

    Raises:
        PairError: two results that give one file name, besides what reading and writing refuse.
    """
    wanted: dict[str, Path] = {}
    for folder in results:
        name = displacement_name(*_stems(folder), names=names) + FORMATS[kind]
        if name in wanted:
            raise PairError(f"{wanted[name]} and {folder} both give {name}; use --names long, or export one of them")
        wanted[name] = folder
    target = claim_folder(output_dir)
    for name, folder in wanted.items():
        field, affine = load_itk_field(folder / FIELD_FILE)
        stored = to_stored(torch.from_numpy(field), fixed_affine=affine, moving_affine=_moving_affine(folder))
        save_displacement(target / name, stored)
    zip_submission(target, target / SUBMISSION)
    return [*(target / name for name in wanted), target / SUBMISSION]


def _run(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / RUN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise unreadable(folder / RUN_FILE, error) from error


def _stems(folder: Path) -> tuple[str, str]:
    inputs = _run(folder).get("inputs", {})
    if not {"fixed", "moving"} <= set(inputs):
        raise PairError(f"{folder / RUN_FILE} does not say which scans were registered; register them again")
    return image_stem(inputs["fixed"]["path"]), image_stem(inputs["moving"]["path"])


def _moving_affine(folder: Path) -> np.ndarray:
    grids = _run(folder).get("grids")
    if not grids:
        raise PairError(f"{folder / RUN_FILE} was written by an older version, without the scans' grids; register again")
    return np.array(grids["moving"]["affine"], dtype=np.float64)
