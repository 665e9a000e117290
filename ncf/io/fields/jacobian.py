"""The Jacobian determinant of a map, as an image."""

from __future__ import annotations

from pathlib import Path

from ncf.io.fields.base import FieldFormat, FieldToSave


def save(path: Path, field: FieldToSave) -> None:
    """Write the determinant (W, H, D) as an image.

    It is 1 where the volume stays the same, more where the moving part is larger, and 0 or less in a fold.

    Args:
        path: of the file.
        field: whose map it is.

    Raises:
        PairError: the file cannot be written.
    """
    from ncf.io.nifti import save_image
    from ncf.space.jacobian import jacobian_determinant

    save_image(path, jacobian_determinant(field.field_vox), field.grid.affine)


FORMATS = (
    FieldFormat(
        name="jacobian",
        suffix="_jacobian.nii.gz",
        sentence="the local change of volume as an image, the determinant of the map's Jacobian",
        save=save,
    ),
)
