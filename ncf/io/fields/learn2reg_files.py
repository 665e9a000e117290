"""The displacement files of the Learn2Reg challenge, and the zip file that it wants."""

from __future__ import annotations

from pathlib import Path

from ncf.core.errors import PairError
from ncf.io.fields.base import FieldFormat, FieldToSave
from ncf.io.learn2reg_names import NAMINGS, displacement_name

SUBMISSION = "submission.zip"


def stem(fixed: str, moving: str, names: str) -> str:
    """Return the challenge's name of a pair's file.

    Args:
        fixed: name of the fixed scan.
        moving: name of the moving scan.
        names: one of `NAMINGS`.

    Raises:
        PairError: the challenge does not know such names of scans.
    """
    return displacement_name(fixed, moving, names=names)


def save(path: Path, field: FieldToSave) -> None:
    """Write the displacement between stored indices of the two scans, fixed to moving.

    Args:
        path: of the file.
        field: with the grid of the moving scan.

    Raises:
        PairError: the grid of the moving scan is not known, or the file cannot be written.
    """
    from ncf.io.learn2reg import save_displacement, to_stored

    if field.moving is None:
        raise PairError(f"cannot write {path}: the moving scan's grid is not known; export a result folder")
    affines = {"fixed_affine": field.grid.affine, "moving_affine": field.moving.affine}
    save_displacement(path, to_stored(field.field_vox, **affines))


def collect(folder: Path) -> Path:
    """Put all displacement files of a folder into the zip file of a submission; return its path."""
    from ncf.io.learn2reg import zip_submission

    zip_submission(folder, folder / SUBMISSION)
    return folder / SUBMISSION


FORMATS = (
    FieldFormat(
        name="learn2reg",
        suffix=".nii.gz",
        sentence="disp_*.nii.gz for Learn2Reg's evaluation, with submission.zip of them all",
        save=save,
        stem=stem,
        namings=NAMINGS,
        collect=collect,
    ),
    FieldFormat(
        name="learn2reg2021",
        suffix=".npz",
        sentence="the half resolution npz files of Learn2Reg 2020 and 2021, with submission.zip of them all",
        save=save,
        stem=stem,
        namings=NAMINGS,
        collect=collect,
    ),
)
