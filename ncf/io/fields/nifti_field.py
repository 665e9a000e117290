"""NIfTI vector images, as this library stores its own fields."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ncf.io.fields.base import FieldFormat, FieldToSave

if TYPE_CHECKING:
    from ncf.space.mapping import SpatialMap


def save(path: Path, field: FieldToSave) -> None:
    """Write a field as a NIfTI vector image in LPS mm.

    Args:
        path: of the file.
        field: to write.

    Raises:
        PairError: the file cannot be written.
    """
    from ncf.io.nifti import save_itk_field

    save_itk_field(path, field.field_vox, field.grid.affine)


def load(path: Path) -> SpatialMap:
    """Read the map of a NIfTI vector image."""
    from ncf.io.itk_fields import load_nifti_map

    return load_nifti_map(path)


FORMATS = (
    FieldFormat(
        name="nii.gz",
        suffix=".nii.gz",
        sentence="a vector image in mm as NIfTI, for ITK, SimpleITK, 3D Slicer and ANTs",
        save=save,
        load=load,
        reads=(".nii.gz", ".nii"),
    ),
)
