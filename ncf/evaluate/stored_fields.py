"""Where the displacement field of a pair is stored, whichever program wrote it, and how it is read.

Known formats are our own and other ITK fields, and Learn2Reg's files. This module must not know networks, configs or
the fit.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from monai.transforms import Transform
from nibabel.filebasedimages import ImageFileError

from ncf.core.errors import PairError
from ncf.core.files import DAMAGE
from ncf.core.names import FIELD_FILE, image_stem
from ncf.io.learn2reg import (
    DISPLACEMENT_SUFFIXES,
    from_stored,
    load_displacement,
    to_stored,
)
from ncf.io.learn2reg_names import NAMINGS, displacement_name
from ncf.io.nifti import load_itk_field
from ncf.io.nifti_read import read_header
from ncf.pair.keys import Pair, affine_of
from ncf.space.grids import Grid

FIELD_TOLERANCE_VOX = 0.01  # between a field's grid and the fixed image's, anywhere on the grid: float32 headers


def field_of(pair: Pair, folder: str | Path) -> Path:
    """Return the file of a pair's field in a folder of results.

    It is ``<folder>/<name>/displacement.nii.gz``, ``<folder>/<name>.nii.gz``, or has a name of Learn2Reg.

    Args:
        pair: with its name and files.
        folder: of the results.

    Raises:
        PairError: there is no such file, or more than one.
    """
    folder = Path(folder)
    found = sorted({path for path in _candidates(pair, folder) if path.exists()})
    if not found:
        raise PairError(f"{pair['name']}: no field in {folder}; looked for {', '.join(_told(pair, folder))}")
    if len(found) > 1:
        raise PairError(f"{pair['name']}: more than one field, {' and '.join(map(str, found))}; keep one")
    return found[0]


def _candidates(pair: Pair, folder: Path) -> Iterator[Path]:
    yield folder / pair["name"] / FIELD_FILE
    yield folder / f"{pair['name']}.nii.gz"
    stems = [image_stem(str(pair["files"][key])) for key in ("fixed", "moving")]
    with contextlib.suppress(PairError):  # the scans may have other names than Learn2Reg's
        for names in NAMINGS:
            for suffix in DISPLACEMENT_SUFFIXES:
                yield folder / (displacement_name(*stems, names=names) + suffix)


def _told(pair: Pair, folder: Path) -> list[str]:
    return list(dict.fromkeys(str(path.relative_to(folder)) for path in _candidates(pair, folder)))


class ReadFieldd(Transform):
    """Adds ``field_vox`` (3, W, H, D) on the fixed grid, ``stored_vox`` between stored indices, and ``field_file``.

    Args:
        folder: of results, see `field_of`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = folder

    def __call__(self, data: Pair) -> Pair:
        """Read the field of a pair.

        Returns:
            A new dictionary; both fields are float32, in voxels, fixed to moving.

        Raises:
            PairError: the field is missing, damaged, or on another grid.
        """
        pair = cast(Pair, dict(data))
        path = field_of(pair, self.folder)
        affines = {"fixed_affine": affine_of(pair["fixed"]), "moving_affine": affine_of(pair["moving"])}
        w, h, d = pair["fixed"].shape[1:]
        if is_itk_field(path):
            field, affine = load_itk_field(path)
            _check_grid(Grid(field.shape[1:], affine), Grid((w, h, d), affines["fixed_affine"]), path=path)
            pair["field_vox"] = torch.from_numpy(field)
            pair["stored_vox"] = to_stored(pair["field_vox"], **affines)
        else:
            pair["stored_vox"] = load_displacement(path, (w, h, d))
            pair["field_vox"] = from_stored(pair["stored_vox"], **affines)
        pair["field_file"] = str(path)
        return pair


def is_itk_field(path: str | Path) -> bool:
    """Tell whether a file's header says that it is a vector field in millimetres, as ITK has it."""
    if not str(path).endswith((".nii", ".nii.gz")):
        return False
    try:
        header = read_header(path)
    except (*DAMAGE, zlib.error, ImageFileError):
        return False  # the reader of the file says what is wrong with it
    return int(header["intent_code"]) != 0


def _check_grid(found: Grid, wanted: Grid, *, path: Path) -> None:
    """Raise PairError unless a field's grid is the fixed image's."""
    advice = "resample the field onto the fixed image's grid"
    if found.shape != wanted.shape:
        raise PairError(f"{path} has the grid {found.shape}, the fixed image {wanted.shape}; {advice}")
    off = found.off_vox(wanted)
    if not off <= FIELD_TOLERANCE_VOX:  # not ">", which a nan would pass
        raise PairError(f"{path} lies up to {off:.3g} voxels off the fixed image; {advice}")
