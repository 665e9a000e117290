"""The files of a result that a user gives a name of their own: warped scans and fields, by the ending of the name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ncf.core.errors import PairError
from ncf.core.names import IMAGE_SUFFIXES
from ncf.core.packages import optional
from ncf.core.paths import shortened
from ncf.core.scan_paths import scan_path
from ncf.io.fields.base import FieldToSave
from ncf.io.fields.table import field_formats
from ncf.io.nifti import save_image
from ncf.space.grids import Grid

NIFTI = (".nii.gz", ".nii")
WRITTEN = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix != ".mhd")  # that one would be two files
FIELDS = {".nii.gz": "nii.gz", ".nii": "nii.gz", ".mha": "mha", ".nrrd": "nrrd", ".h5": "h5", ".tfm": "tfm"}


class NamedFiles:
    """Files that are written beside the result folder of a pair.

    Args:
        warped: path of the warped scan; None for none.
        field: path of the displacement field; None for none.
    """

    def __init__(self, warped: str | Path | None = None, field: str | Path | None = None) -> None:
        self.warped = None if warped is None else Path(warped).absolute()
        self.field = None if field is None else Path(field).absolute()

    def check(self, read: Iterable[str | Path] = ()) -> None:
        """Raise PairError unless both files can be written.

        Args:
            read: files that must not be overwritten.
        """
        if self.warped is not None:
            check_target("warped", self.warped, WRITTEN, read=read)
        if self.field is not None:
            check_target("field", self.field, tuple(FIELDS), read=read)
        if self.field is not None and self.field == self.warped:
            raise PairError(f"warped and field would both become {shortened(self.field)}; give two names")

    def save(self, warped: np.ndarray | torch.Tensor, field_vox: torch.Tensor, affine: np.ndarray) -> None:
        """Write the files, each whole or not at all.

        Args:
            warped: the warped scan (W, H, D), in its own type.
            field_vox: (3, W, H, D), in voxels of the fixed grid, fixed to moving.
            affine: (4, 4), of the fixed grid, voxel -> RAS mm.

        Raises:
            PairError: a file cannot be written, or cannot hold the grid.
        """
        if self.warped is not None:
            save_volume(self.warped, warped, affine)
        if self.field is not None:
            save_field(self.field, field_vox, affine)


def check_target(option: str, path: Path, endings: tuple[str, ...], *, read: Iterable[str | Path] = ()) -> None:
    """Raise PairError unless a file can be written: its ending, its folder, and what lies there.

    Args:
        option: what the file is, for the line.
        path: of the file.
        endings: that can be written.
        read: files that must not be overwritten.
    """
    ending, folder = _ending(option, path, endings), path.parent
    if ending not in NIFTI:
        optional("itk")
    told = f"{option}: cannot write {shortened(path)}"
    if not folder.is_dir():
        raise PairError(f"{told}: there is no folder {shortened(folder)}; make it, or choose another")
    if path.is_dir():
        raise PairError(f"{told}: it is a folder; name a file in it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PairError(f"{told}: you may not write to {shortened(folder)}; choose another folder")
    if path.resolve() in {scan_path(file).path.resolve() for file in read}:
        raise PairError(f"{told}: it is to be read and would be overwritten; choose another name")


def save_volume(path: Path, array: np.ndarray | torch.Tensor, affine: np.ndarray) -> None:
    """Write a volume in the format that the ending of its path names.

    Args:
        path: ends in one of `WRITTEN`.
        array: (W, H, D).
        affine: (4, 4), voxel -> RAS mm.

    Raises:
        PairError: the file cannot be written, or cannot hold the grid.
    """
    if _ending("the image", path, WRITTEN) in NIFTI:
        save_image(path, array, affine)
    else:
        from ncf.io.itk_fields import save_scalar_image

        save_scalar_image(path, array, affine)


def save_field(path: Path, field_vox: torch.Tensor, affine: np.ndarray) -> None:
    """Write a displacement field in the format that the ending of its path names.

    Args:
        path: ends in one of `FIELDS`.
        field_vox: (3, W, H, D), in voxels of its grid, fixed to moving.
        affine: (4, 4), of its grid, voxel -> RAS mm.

    Raises:
        PairError: the file cannot be written, or cannot hold the grid.
    """
    entry = field_formats()[FIELDS[_ending("field", path, tuple(FIELDS))]]
    entry.save(path, FieldToSave(field_vox, Grid(tuple(field_vox.shape[1:]), affine), None))


def _ending(option: str, path: Path, endings: tuple[str, ...]) -> str:
    """Return the ending of a path; raise PairError for one that is not offered."""
    found = next((ending for ending in endings if path.name.endswith(ending) and path.name != ending), None)
    if found is None:
        raise PairError(f"{option}: {shortened(path.name)} must end in {', '.join(endings)}; give such a name")
    return found
