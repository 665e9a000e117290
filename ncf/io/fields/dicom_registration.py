"""DICOM's registrations: a grid of vectors, or one matrix where the map is rigid or affine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ncf.core.errors import PairError
from ncf.io.fields.base import FieldFormat, FieldToSave

if TYPE_CHECKING:
    from ncf.space.mapping import SpatialMap


def save(path: Path, field: FieldToSave) -> None:
    """Write a Deformable Spatial Registration; of a map with a matrix a Spatial Registration.

    Args:
        path: of the file.
        field: with both scans.

    Raises:
        PairError: the scans are not known, the grid is none of DICOM's, or the file cannot be written.
    """
    from ncf.io.dicom.written.registration import save_grid, save_matrix

    if field.scans is None:
        raise PairError(f"cannot write {path}: a DICOM registration needs the headers of both scans; export a result")
    if field.matrix is not None:
        save_matrix(path, field.matrix, field.scans)
    else:
        save_grid(path, field.field_vox, field.grid, field.scans)


def load(path: Path) -> SpatialMap:
    """Read the map of a Deformable Spatial Registration, with its matrices before and after the grid."""
    from ncf.io.dicom.registrations import load_grid

    return load_grid(path)


FORMATS = (
    FieldFormat(
        name="dicom-reg",
        suffix="_reg.dcm",
        sentence="a DICOM registration between both scans: a grid of vectors, or a matrix of a rigid or affine map",
        save=save,
        load=load,
        reads=(".dcm",),
        of_scans=True,
    ),
)
