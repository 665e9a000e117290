"""Result folders of ours -> files of other programs, and fields of others -> ours; no registration, no networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scripts.errors import PairError
from scripts.files import claim_folder
from scripts.learn2reg import FORMATS, displacement_name, save_displacement, to_stored, zip_submission
from scripts.names import IMAGES, image_stem
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
