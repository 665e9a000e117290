"""Fields in the formats of ITK's programs, written and read as maps: vector images, transforms, and NIfTI fields.

On disk all of them are in LPS mm. This module knows how ITK orders the numbers of a field and the parts of a composite.
Every function raises PairError for a file that cannot be read or written, or that holds something else.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError

from ncf.core.errors import PairError
from ncf.core.files import unreadable, write_whole
from ncf.core.names import INVERSE_FILE, VALID_FILE
from ncf.core.notes import note
from ncf.core.packages import optional
from ncf.io.dicom.registrations import load_matrix
from ncf.io.itk_headers import checked_header
from ncf.io.itk_transforms import (
    FIELD,
    HDF5,
    MATLAB,
    READ_ERRORS,
    Part,
    affine_transform,
    matrix_of,
    read_parts,
    save_transforms,
)
from ncf.io.nifti import load_itk_field
from ncf.io.nifti_read import open_nifti
from ncf.space.geometry import RAS_TO_LPS, field_to_mm, field_to_vox, from_lps, is_sheared, spacing_mm
from ncf.space.grids import Grid, lattice_over
from ncf.space.mapping import SpatialMap

# 3D Slicer tells by this key of an NRRD which way a field leads; resampling is from fixed to moving points
SLICER_KEY, RESAMPLING = "displacement field type", "resampling"


def save_vector_image(path: Path, field_vox: torch.Tensor, affine: np.ndarray) -> None:
    """Write a field as an image of vectors, .nrrd or .mha; equal fields give the same bytes.

    Args:
        path: of the file.
        field_vox: (3, W, H, D), in voxels of its grid.
        affine: (4, 4), voxel -> RAS mm.

    Raises:
        PairError: the file cannot be written, or the grid is sheared.
    """
    itk, (origin, spacing, direction) = optional("itk"), _itk_grid(affine, path)
    image = itk.image_from_array(_itk_vectors(field_vox, affine), ttype=itk.Image[itk.Vector[itk.F, 3], 3])
    image.SetOrigin(origin.tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection(itk.matrix_from_array(direction))
    if path.suffix == ".nrrd":
        image[SLICER_KEY] = RESAMPLING
    write_whole(path, lambda temporary: _imwrite(image, temporary))


def save_scalar_image(path: Path, array: np.ndarray | torch.Tensor, affine: np.ndarray) -> None:
    """Write a volume as .nrrd or .mha; equal volumes give the same bytes.

    Args:
        path: of the file.
        array: (W, H, D), of one number a voxel.
        affine: (4, 4), voxel -> RAS mm.

    Raises:
        PairError: the file cannot be written, or the grid is sheared.
    """
    itk, (origin, spacing, direction) = optional("itk"), _itk_grid(affine, path)
    image = itk.image_from_array(np.ascontiguousarray(np.asarray(array).T))
    image.SetOrigin(origin.tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection(itk.matrix_from_array(direction))
    write_whole(path, lambda temporary: _imwrite(image, temporary))


def save_transform(path: Path, field_vox: torch.Tensor, affine: np.ndarray) -> None:
    """Write a field as ITK's displacement field transform, .h5 or .tfm; equal fields give the same bytes.

    Args:
        path: of the file.
        field_vox: (3, W, H, D), in voxels of its grid.
        affine: (4, 4), voxel -> RAS mm.

    Raises:
        PairError: the file cannot be written, or the grid is sheared.
    """
    save_transforms(path, [_field_part(path, field_vox, affine)])


def save_composite(path: Path, field_vox: torch.Tensor, affine: np.ndarray, *, affine_part: np.ndarray) -> None:
    """Write a map as ITK's composite transform, .h5: first a field, then an affine transform.

    Args:
        path: of the file.
        field_vox: of the whole map, (3, W, H, D), in voxels of its grid.
        affine: (4, 4), voxel -> RAS mm.
        affine_part: of the map, (4, 4), RAS mm.

    Raises:
        PairError: the file cannot be written, or the grid is sheared.
    """
    undone = torch.from_numpy(np.linalg.inv(affine) @ np.linalg.inv(affine_part) @ affine)  # in voxels
    nodes = lattice_over(field_vox.shape[1:], field_vox.shape[1:]).points().double()
    led = torch.einsum("ij,j...->i...", undone[:3, :3], nodes + field_vox) + undone[:3, 3].view(3, 1, 1, 1)
    rest = _field_part(path, led - nodes, affine)
    save_transforms(
        path, [affine_transform(from_lps(affine_part)), rest._replace(values=rest.values.astype(np.float64))]
    )


def _field_part(path: Path, field_vox: torch.Tensor, affine: np.ndarray) -> Part:
    """Return a field as one transform."""
    origin, spacing, direction = _itk_grid(affine, path)
    fixed = np.concatenate([field_vox.shape[1:], origin, spacing, direction.ravel()]).astype(np.float64)
    return Part(FIELD, fixed, _itk_vectors(field_vox, affine).ravel())


def _itk_vectors(field_vox: torch.Tensor, affine: np.ndarray) -> np.ndarray:
    """Return vectors (D, H, W, 3) in LPS mm: in ITK's files x runs fastest, after the components."""
    lps_mm = field_to_mm(field_vox.float(), RAS_TO_LPS @ np.asarray(affine)[:3, :3]).numpy()
    return np.ascontiguousarray(lps_mm.transpose(3, 2, 1, 0))


def _imwrite(image: Any, path: Path) -> None:
    try:
        optional("itk").imwrite(image, str(path), compression=True)
    except RuntimeError as error:  # what ITK raises for everything that the disk refuses
        raise OSError("ITK could not write all of it, the disk may be full") from error


def _itk_grid(affine: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return origin, spacing and direction of a grid in LPS; raise PairError for a sheared one: ITK cannot hold it."""
    lps = RAS_TO_LPS @ np.asarray(affine, dtype=np.float64)[:3]
    spacing = spacing_mm(affine)
    direction = lps[:, :3] / spacing
    if is_sheared(affine):
        raise PairError(f"cannot save {path}: the grid's axes are not at right angles, which ITK's files cannot hold")
    return lps[:, 3], spacing, direction


def load_nifti_map(path: Path) -> SpatialMap:
    """Read the map of a NIfTI vector field; for an inverse, with the mask beside it of where it is known.

    Raises:
        PairError: a file cannot be read, or holds something else.
    """
    field, affine = load_itk_field(path)
    return SpatialMap(torch.from_numpy(field), Grid(field.shape[1:], affine), valid=_mask_beside(path, field.shape[1:]))


def _mask_beside(path: Path, shape: tuple[int, ...]) -> torch.Tensor | None:
    """Return where an inverse is known, from the file that ``ncf invert`` writes beside it; None for other fields."""
    beside = path.parent / VALID_FILE
    if path.name != INVERSE_FILE or not beside.exists():
        return None
    try:
        with open_nifti(beside) as image:
            mask = np.asarray(image.dataobj) > 0
    except (*READ_ERRORS, ImageFileError) as error:
        raise unreadable(beside, error) from error
    if mask.shape != tuple(shape):
        raise PairError(
            f"{beside} has the shape {mask.shape}, {path} {tuple(shape)}; they belong to two maps, remove one"
        )
    return torch.from_numpy(mask)


def load_vector_image(path: Path) -> SpatialMap:
    """Read the map of an image of vectors, .nrrd, .nhdr, .mha or .mhd.

    Raises:
        PairError: the file cannot be read, or holds something else.
    """
    itk = optional("itk")
    try:
        told = checked_header(path)
        if told.unit_mm != 1:
            raise ValueError(f"its unit of length is {told.unit_mm:g} mm, and that of its vectors is not known")
        image = itk.imread(str(path), itk.Vector[itk.F, 3]) if _is_field(path) else itk.imread(str(path))
        values = np.asarray(itk.array_from_image(image), dtype=np.float32)
        direction = np.asarray(itk.array_from_matrix(image.GetDirection()), dtype=np.float64)
    except PairError:
        raise
    except READ_ERRORS as error:
        raise unreadable(path, error) from error
    for line in told.notes:
        note(line, str(path))
    if values.ndim != 4 or values.shape[-1] != 3 or not np.isfinite(values).all():
        raise PairError(
            f"{path}: expected a 3D image of finite vectors of 3, got {values.shape[::-1]}; give a field's file"
        )
    kind = dict(image).get(SLICER_KEY, RESAMPLING)
    if kind != RESAMPLING:
        raise PairError(
            f"{path} is a displacement field of type {kind!r}, which leads from moving to fixed points; invert it in "
            f"3D Slicer, and save it as {RESAMPLING}"
        )
    return SpatialMap(*_field_of(values, np.array(list(image.GetOrigin())), direction * list(image.GetSpacing())))


def _is_field(path: Path) -> bool:
    """Tell whether a file holds vectors of three numbers in 3D, of whatever type: ITK's package reads no doubles."""
    itk = optional("itk")
    header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if header is None:
        raise ValueError("no reader knows its content")
    header.SetFileName(str(path))
    header.ReadImageInformation()
    return (header.GetNumberOfDimensions(), header.GetNumberOfComponents()) == (3, 3)


def load_transform(path: Path) -> SpatialMap:
    """Read the map of a transform file: one field, alone or with affine transforms before and after it.

    Raises:
        PairError: the file cannot be read, or holds something else.
    """
    parts = read_parts(path)
    fields = [n for n, part in enumerate(parts) if part.kind == FIELD]
    if len(fields) != 1:
        kinds = ", ".join(part.kind for part in parts)
        raise PairError(f"{path}: expected one displacement field, with affine transforms or alone, got {kinds}")
    n, part = fields[0], parts[fields[0]]
    size = part.fixed[:3].astype(int)
    values = part.values.reshape(*size[::-1], 3)
    field, grid = _field_of(values, part.fixed[3:6], part.fixed[9:].reshape(3, 3) * part.fixed[6:9])
    return SpatialMap(field, grid, _product(parts[n + 1 :], path), _product(parts[:n], path))


def load_affine(path: str | Path) -> np.ndarray:
    """Read an affine map (4, 4) in RAS mm.

    Args:
        path: of an ITK transform file (LPS mm), of a DICOM Spatial Registration (.dcm), or of a text file of four rows
            of four numbers, in RAS mm; the shape of a text is not checked here.

    Raises:
        PairError: the file cannot be read, or its transforms are not affine.
    """
    path = Path(path)
    if path.name.lower().endswith(".dcm"):
        return load_matrix(path)
    try:
        content = path.read_bytes()
        if not content.strip():
            raise PairError(f"cannot read {path}: it is empty; write or copy it again")
        if not path.name.lower().endswith((*HDF5, *MATLAB)) and not content.startswith(b"#Insight Transform"):
            return np.loadtxt(path, dtype=np.float64, delimiter="," if b"," in content else None)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return _product(read_parts(path), path)


def _product(parts: Sequence[Part], path: Path) -> np.ndarray:
    """Return affine transforms applied one after the other, the last one first, as one map in RAS mm."""
    return from_lps(functools.reduce(np.matmul, [matrix_of(part, path) for part in parts], np.eye(4)))


def _field_of(values: np.ndarray, origin: np.ndarray, matrix: np.ndarray) -> tuple[torch.Tensor, Grid]:
    """Return the field in voxels, and its grid, of ITK's vectors (D, H, W, 3) in LPS mm; matrix: voxel -> LPS mm."""
    affine = np.vstack([RAS_TO_LPS @ np.column_stack([matrix, origin]), [0.0, 0.0, 0.0, 1.0]])
    field_mm = torch.from_numpy(np.ascontiguousarray(values.transpose(3, 2, 1, 0)))
    return field_to_vox(field_mm, matrix), Grid(tuple(field_mm.shape[1:]), affine)
