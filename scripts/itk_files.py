"""Fields in files of ITK, beyond NIfTI: .nrrd, .mha, .h5 and .tfm, written and read back as maps.

On disk all of them are in LPS mm; this room knows how ITK orders a field's numbers and a composite's parts. Every function
raises PairError for a file that cannot be read or holds something else.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError

from scripts.errors import PairError
from scripts.exporters import load_itk_field, save_itk_field
from scripts.files import unreadable, write_whole
from scripts.geometry import RAS_TO_LPS, Grid, field_to_mm, field_to_vox, from_lps, spacing_mm
from scripts.itk_transforms import (
    FIELD,
    HDF5,
    MATLAB,
    READ_ERRORS,
    TEXT,
    Part,
    affine_of,
    itk_package,
    read_parts,
    save_field_transform,
)
from scripts.maps import SpatialMap
from scripts.names import INVERSE_FILE, VALID_FILE
from scripts.nifti import open_nifti

NIFTI, IMAGE, TRANSFORM = (".nii", ".nii.gz"), (".nrrd", ".nhdr", ".mha", ".mhd"), (*HDF5, *TEXT)
SQUARE = 1e-3  # how far from 90 degrees, as a cosine, axes may be: ITK's directions are rotations


# --- writing ---------------------------------------------------------------------------------------------------------


def save_field(path: str | Path, field_vox: torch.Tensor, affine: np.ndarray) -> None:
    """Nothing; a field (3, W, H, D), in voxels of its grid, as the file that the suffix of ``path`` names.

    .nii, .nii.gz, .nrrd and .mha hold a vector image, .h5 and .tfm ITK's transform; the same bytes each time.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(NIFTI):
        save_itk_field(path, field_vox, affine)
        return
    origin, spacing, direction = _itk_grid(affine, path)
    lps_mm = field_to_mm(field_vox.float(), RAS_TO_LPS @ np.asarray(affine)[:3, :3]).numpy()
    values = np.ascontiguousarray(lps_mm.transpose(3, 2, 1, 0))  # ITK: x runs fastest but for the components
    if name.endswith(IMAGE):
        itk = itk_package()
        image = itk.image_from_array(values, ttype=itk.Image[itk.Vector[itk.F, 3], 3])
        image.SetOrigin(origin.tolist())
        image.SetSpacing(spacing.tolist())
        image.SetDirection(itk.matrix_from_array(direction))
        write_whole(path, lambda temporary: _imwrite(image, temporary))
    elif name.endswith(TRANSFORM):
        fixed = np.concatenate([field_vox.shape[1:], origin, spacing, direction.ravel()]).astype(np.float64)
        save_field_transform(path, fixed, values.ravel())
    else:
        raise PairError(f"cannot save {path}: a field's file ends in .nii.gz, .nrrd, .mha, .h5 or .tfm")


def _imwrite(image: Any, path: Path) -> None:
    try:
        itk_package().imwrite(image, str(path), compression=True)
    except RuntimeError as error:  # ITK's word for whatever the disk refuses
        raise OSError("ITK could not write all of it, the disk may be full") from error


def _itk_grid(affine: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Origin, spacing and direction in LPS of a grid; PairError for a sheared one, which ITK cannot hold."""
    lps = RAS_TO_LPS @ np.asarray(affine, dtype=np.float64)[:3]
    spacing = spacing_mm(affine)
    direction = lps[:, :3] / spacing
    if np.abs(direction.T @ direction - np.eye(3)).max() > SQUARE:
        raise PairError(f"cannot save {path}: the grid's axes are not at right angles, which ITK's files cannot hold")
    return lps[:, 3], spacing, direction


# --- reading ---------------------------------------------------------------------------------------------------------


def load_map(path: str | Path) -> SpatialMap:
    """The map of a field's file, whatever ITK format it is in; of a composite, with the affines before and after it."""
    path = Path(path)
    name = path.name.lower()
    if name.endswith(NIFTI):
        field, affine = load_itk_field(path)
        return SpatialMap(torch.from_numpy(field), Grid(field.shape[1:], affine), valid=_mask_beside(path, field.shape[1:]))
    if name.endswith(IMAGE):
        return SpatialMap(*_image_field(path))
    if name.endswith(TRANSFORM):
        return _composite(read_parts(path), path)
    raise PairError(f"{path}: a field's file ends in .nii.gz, .nrrd, .mha, .h5 or .tfm; convert it")


def _mask_beside(path: Path, shape: tuple[int, ...]) -> torch.Tensor | None:
    """Where an inverse is known, which ``ncf invert`` writes beside it; None for other fields."""
    beside = path.parent / VALID_FILE
    if path.name != INVERSE_FILE or not beside.exists():
        return None
    try:
        with open_nifti(beside) as image:
            mask = np.asarray(image.dataobj) > 0
    except (*READ_ERRORS, ImageFileError) as error:
        raise unreadable(beside, error) from error
    if mask.shape != tuple(shape):
        raise PairError(f"{beside} has the shape {mask.shape}, {path} {tuple(shape)}; they belong to two maps, remove one")
    return torch.from_numpy(mask)


def load_affine(path: str | Path) -> np.ndarray:
    """The 4x4 map in RAS mm of an ITK transform file, or of a text file of four rows of four numbers, in RAS mm."""
    path = Path(path)
    try:
        content = path.read_bytes()
        if not path.name.lower().endswith((*HDF5, *MATLAB)) and not content.startswith(b"#Insight Transform"):
            return np.loadtxt(path, dtype=np.float64, delimiter="," if b"," in content else None)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return _product(read_parts(path), path)


def _composite(parts: Sequence[Part], path: Path) -> SpatialMap:
    fields = [n for n, part in enumerate(parts) if part.kind == FIELD]
    if len(fields) != 1:
        kinds = ", ".join(part.kind for part in parts)
        raise PairError(f"{path}: expected one displacement field, with affine transforms or alone, got {kinds}")
    n, part = fields[0], parts[fields[0]]
    size = part.fixed[:3].astype(int)
    values = part.values.reshape(*size[::-1], 3)
    field, grid = _field_of(values, part.fixed[3:6], part.fixed[9:].reshape(3, 3) * part.fixed[6:9])
    return SpatialMap(field, grid, _product(parts[n + 1 :], path), _product(parts[:n], path))


def _product(parts: Sequence[Part], path: Path) -> np.ndarray:
    """The affine transforms one after the other, the last one first, as one map in RAS mm."""
    return from_lps(functools.reduce(np.matmul, [affine_of(part, path) for part in parts], np.eye(4)))


def _image_field(path: Path) -> tuple[torch.Tensor, Grid]:
    itk = itk_package()
    try:
        image = itk.imread(str(path))
        values = np.asarray(itk.array_from_image(image), dtype=np.float32)
        direction = np.asarray(itk.array_from_matrix(image.GetDirection()), dtype=np.float64)
    except READ_ERRORS as error:
        raise unreadable(path, error) from error
    if values.ndim != 4 or values.shape[-1] != 3 or not np.isfinite(values).all():
        raise PairError(f"{path}: expected a 3D image of finite vectors of 3, got {values.shape[::-1]}; give a field's file")
    return _field_of(values, np.array(list(image.GetOrigin())), direction * list(image.GetSpacing()))


def _field_of(values: np.ndarray, origin: np.ndarray, matrix: np.ndarray) -> tuple[torch.Tensor, Grid]:
    """The field in voxels and its grid of ITK's vectors (D, H, W, 3) in LPS mm; matrix (3, 3): voxel to LPS mm."""
    affine = np.vstack([RAS_TO_LPS @ np.column_stack([matrix, origin]), [0.0, 0.0, 0.0, 1.0]])
    field_mm = torch.from_numpy(np.ascontiguousarray(values.transpose(3, 2, 1, 0)))
    return field_to_vox(field_mm, matrix), Grid(tuple(field_mm.shape[1:]), affine)
