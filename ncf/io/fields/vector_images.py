"""NRRD and MetaImage vector images, by the package itk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ncf.io.fields.base import FieldFormat, FieldToSave

if TYPE_CHECKING:
    from ncf.space.mapping import SpatialMap


def save(path: Path, field: FieldToSave) -> None:
    """Write a field as an image of vectors in LPS mm.

    Args:
        path: of the file.
        field: to write.

    Raises:
        PairError: the file cannot be written, or the grid is sheared.
    """
    from ncf.io.itk_fields import save_vector_image

    save_vector_image(path, field.field_vox, field.grid.affine)


def load(path: Path) -> SpatialMap:
    """Read the map of an image of vectors."""
    from ncf.io.itk_fields import load_vector_image

    return load_vector_image(path)


FORMATS = (
    FieldFormat(
        name="nrrd",
        suffix=".nrrd",
        sentence="a vector image in mm as NRRD, which 3D Slicer prefers",
        save=save,
        load=load,
        reads=(".nrrd", ".nhdr"),
    ),
    FieldFormat(
        name="mha",
        suffix=".mha",
        sentence="a vector image in mm as MetaImage, which elastix prefers",
        save=save,
        load=load,
        reads=(".mha", ".mhd"),
    ),
)
