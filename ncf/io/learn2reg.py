"""Learn2Reg's displacement files: their layout, and the conversion from and to the fields of this project.

A file holds ``x_moving = x_fixed + u(x_fixed)`` in voxels of the two images as they are stored; it has no affine. The
challenge is described by Hering et al. 2023 (doi:10.1109/TMI.2022.3213983). This module knows its formats: today's
NIfTI or npz, (X, Y, Z, 3), and that of 2020 and 2021, npz of half the resolution. It must not know networks, losses or
configs. Every function raises PairError for what is no such file or name.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from scipy.ndimage import zoom

from ncf.core.errors import PairError
from ncf.core.files import DAMAGE, unreadable, write_whole
from ncf.io.nifti import save_image
from ncf.io.nifti_read import open_nifti
from ncf.space.grids import lattice_over
from ncf.space.sampling import moving_positions

DISPLACEMENT_SUFFIXES = (".nii.gz", ".npz")  # of today's format, and of that of 2020 and 2021
DOUBLING_ORDER = 2  # of the spline by which the evaluation of 2020 and 2021 doubled a field's size
EARLIEST = (1980, 1, 1, 0, 0, 0)  # the date in a zip file that stands for none


def to_stored(field_vox: torch.Tensor, *, fixed_affine: np.ndarray, moving_affine: np.ndarray) -> torch.Tensor:
    """Convert a field to a displacement between stored indices, fixed to moving.

    Where both images have one affine, the two are equal.

    Args:
        field_vox: (3, W, H, D), in fixed voxels.
        fixed_affine: (4, 4), voxel -> RAS mm.
        moving_affine: (4, 4), voxel -> RAS mm.

    Returns:
        (3, W, H, D), from a stored fixed index to a stored moving index.
    """
    found = moving_positions(field_vox[None], fixed_affine=fixed_affine, moving_affine=moving_affine)[0]
    return found - lattice_over(field_vox.shape[1:], field_vox.shape[1:]).points()


def from_stored(displacement: torch.Tensor, *, fixed_affine: np.ndarray, moving_affine: np.ndarray) -> torch.Tensor:
    """Convert a displacement between stored indices to a field: the inverse of `to_stored`.

    Args:
        displacement: (3, W, H, D), from a stored fixed index to a stored moving index.
        fixed_affine: (4, 4), voxel -> RAS mm.
        moving_affine: (4, 4), voxel -> RAS mm.

    Returns:
        (3, W, H, D), in fixed voxels.
    """
    return to_stored(displacement, fixed_affine=moving_affine, moving_affine=fixed_affine)


def save_displacement(path: str | Path, displacement: torch.Tensor | np.ndarray) -> None:
    """Write the file of a displacement between stored indices; equal displacements give the same bytes.

    Args:
        path: of the file. ``.nii.gz``: (X, Y, Z, 3), float32, identity affine. ``.npz``: the format of 2020 and 2021,
            (3, X/2, Y/2, Z/2), float16, its nodes from corner to corner, values still in voxels of the full resolution.
        displacement: (3, X, Y, Z), in voxels.

    Raises:
        PairError: the displacement has another shape or is not finite, the suffix is another, or the file cannot be
            written.
    """
    path, values = Path(path), np.asarray(displacement, dtype=np.float32)
    if values.ndim != 4 or values.shape[0] != 3 or not np.isfinite(values).all():
        raise PairError(f"cannot save {path}: a displacement is finite and of shape (3, X, Y, Z), got {values.shape}")
    if path.name.endswith((".nii", ".nii.gz")):
        save_image(path, np.moveaxis(values, 0, -1), np.eye(4))
        return
    if path.suffix != ".npz":
        raise PairError(f"cannot save {path}: Learn2Reg's files end in .nii.gz or .npz")
    half = np.stack([zoom(channel, 0.5, order=DOUBLING_ORDER) for channel in values]).astype(np.float16)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, half)
    write_whole(path, lambda temporary: temporary.write_bytes(buffer.getbuffer()))


def load_displacement(path: str | Path, shape: tuple[int, int, int]) -> torch.Tensor:
    """Read the displacement file of any program.

    A file of half the resolution is enlarged by a spline of order 2, as its evaluation did.

    Args:
        path: of the file.
        shape: (X, Y, Z) of the fixed image as it is stored.

    Returns:
        (3, X, Y, Z), float32, in voxels, between stored indices, fixed to moving.

    Raises:
        PairError: the file cannot be read, or has another shape, type, or values that are not finite.
    """
    path = Path(path)
    try:
        values = _npz(path) if path.suffix == ".npz" else _nifti(path)
    except (*DAMAGE, zlib.error, zipfile.BadZipFile, KeyError, ImageFileError) as error:
        raise unreadable(path, error) from error
    half = tuple(round(n / 2) for n in shape)
    layouts: Mapping[tuple[int, ...], Any] = {
        (*shape, 3): lambda: np.moveaxis(values, -1, 0),
        (*shape, 1, 3): lambda: np.moveaxis(values[:, :, :, 0], -1, 0),
        (3, *half): lambda: np.stack([_doubled(channel.astype(np.float32), shape) for channel in values]),
    }
    if values.shape not in layouts or values.dtype.kind != "f":
        known = " or ".join(str(layout) for layout in layouts)
        raise PairError(f"{path}: expected floats of shape {known}, got {values.dtype} of {values.shape}")
    found = np.ascontiguousarray(layouts[values.shape](), dtype=np.float32)
    if not np.isfinite(found).all():
        raise PairError(f"{path} holds values that are not finite; every voxel needs a displacement")
    return torch.from_numpy(found)


def _nifti(path: Path) -> np.ndarray:
    with open_nifti(path) as image:
        return np.asarray(image.dataobj)


def _npz(path: Path) -> np.ndarray:
    """Return the one array of an npz file; numpy refuses objects, which could run code."""
    with np.load(path, allow_pickle=False) as file:
        if len(file.files) != 1:
            raise ValueError(f"it holds {len(file.files)} arrays, expected one")
        return np.asarray(file[file.files[0]])


def _doubled(channel: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    return zoom(channel, [n / m for n, m in zip(shape, channel.shape, strict=True)], order=DOUBLING_ORDER)


def zip_submission(folder: str | Path, target: str | Path) -> list[str]:
    """Put all displacement files of a folder into one zip file; equal files give the same bytes.

    Args:
        folder: of the displacement files.
        target: the zip file.

    Returns:
        The names of the files in it.

    Raises:
        PairError: the folder holds no displacement files, or the zip file cannot be written.
    """
    files = sorted(path for path in Path(folder).glob("disp_*") if path.name.endswith((".nii.gz", ".npz")))
    if not files:
        raise PairError(f"{folder} holds no displacement files to put into a zip file")

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(temporary, "w") as archive:  # not compressed, because the files are compressed already
            for path in files:
                archive.writestr(zipfile.ZipInfo(path.name, EARLIEST), path.read_bytes())

    write_whole(target, write)
    return [path.name for path in files]
