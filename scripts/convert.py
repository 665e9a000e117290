"""Result folders of ours -> files of other programs; no registration, no networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scripts.errors import PairError
from scripts.exporters import save_image
from scripts.files import claim_folder
from scripts.itk_files import save_field
from scripts.learn2reg import FORMATS, displacement_name, save_displacement, to_stored, zip_submission
from scripts.metrics import jacobian_determinant
from scripts.names import IMAGES, image_stem
from scripts.saved import SavedResult

SUBMISSION = "submission.zip"
ITK_FORMATS = {name: f".{name}" for name in ("nii.gz", "nrrd", "mha", "h5", "tfm")}


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


def export_itk(results: Sequence[SavedResult], output_dir: str | Path, *, kind: str) -> list[Path]:
    """The files made of result folders, <name>.<suffix> each: their field as ITK's programs read it.

    Args:
        kind: a key of ITK_FORMATS.
    """
    target = claim_folder(output_dir)
    written = []
    for result in results:
        field, affine = result.field()
        written.append(target / (result.name + ITK_FORMATS[kind]))
        save_field(written[-1], field, affine)
    return written


def export_jacobian(results: Sequence[SavedResult], output_dir: str | Path) -> list[Path]:
    """The files made of result folders, <name>_jacobian.nii.gz each: the determinant on the fixed grid, float32.

    1 where volume stays, above 1 where the moving scan's part is larger than the fixed one's, 0 or less in a fold.
    """
    target = claim_folder(output_dir)
    written = []
    for result in results:
        field, affine = result.field()
        written.append(target / f"{result.name}_jacobian.nii.gz")
        save_image(written[-1], jacobian_determinant(field), affine)
    return written
