"""ITK's displacement field transform, in HDF5 or text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

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
)
