"""ITK's displacement field transform, in HDF5 or text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ncf.core.errors import PairError
from ncf.io.fields.base import FieldFormat, FieldToSave

if TYPE_CHECKING:
    from ncf.space.mapping import SpatialMap


def save(path: Path, field: FieldToSave) -> None:
    """Write a field as a transform in LPS mm.

    Args:
        path: of the file.
        field: to write.

    Raises:
        PairError: the file cannot be written, or the grid is sheared.
    """
    from ncf.io.itk_fields import save_transform

    save_transform(path, field.field_vox, field.grid.affine)


def save_composite(path: Path, field: FieldToSave) -> None:
    """Write the affine part of a map and the field that is left, as one composite transform in LPS mm.

    Args:
        path: of the file.
        field: to write, with its affine part.

    Raises:
        PairError: the affine part is not known, the file cannot be written, or the grid is sheared.
    """
    from ncf.io.itk_fields import save_composite as save_parts

    if field.affine is None:
        raise PairError(f"cannot save {path}: a map's file does not say its affine part; export a result folder")
    save_parts(path, field.field_vox, field.grid.affine, affine_part=field.affine)


def load(path: Path) -> SpatialMap:
    """Read the map of a transform file, including affine transforms before and after the field."""
    from ncf.io.itk_fields import load_transform

    return load_transform(path)


FORMATS = (
    FieldFormat(
        name="h5",
        suffix=".h5",
        sentence="a displacement field transform of ITK in HDF5, for SimpleITK's ReadTransform and 3D Slicer",
        save=save,
        load=load,
        reads=(".h5", ".hdf5"),
    ),
    FieldFormat(
        name="tfm",
        suffix=".tfm",
        sentence="a displacement field transform of ITK as text: large, and slow to read",
        save=save,
        load=load,
        reads=(".tfm", ".txt"),
    ),
    FieldFormat(
        name="composite",
        suffix=".composite.h5",
        sentence="a composite transform of ITK: the affine part and the field that is left, which viewers show apart",
        save=save_composite,
        load=load,
        reads=(".composite.h5",),
    ),
)
