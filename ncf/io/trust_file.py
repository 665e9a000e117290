"""The file of a result that holds bounds of the map's error: a NIfTI of two volumes, for 68 and for 95 %."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from ncf.core.errors import PairError
from ncf.core.files import DAMAGE, unreadable
from ncf.io.nifti import save_image
from ncf.io.nifti_read import open_nifti, placement
from ncf.space.grids import Grid

LEVELS = 2  # of trust: 68 and 95 %


def save_trust(path: Path, bounds_mm: np.ndarray, affine: np.ndarray) -> None:
    """Write bounds of a map's error.

    Args:
        path: ends in .nii.gz.
        bounds_mm: (W, H, D, 2), float32: the bounds in mm that hold for 68 and for 95 % of all points; nan where
            nothing is known.
        affine: (4, 4), of the fixed grid, voxel -> RAS mm.

    Raises:
        PairError: the file cannot be written.
    """
    save_image(path, bounds_mm, affine)


def load_trust(path: Path) -> tuple[np.ndarray, Grid]:
    """Read bounds of a map's error: the inverse of `save_trust`.

    Raises:
        PairError: the file cannot be read, or holds something else.
    """
    try:
        with open_nifti(path) as image:
            bounds, affine = np.asarray(image.dataobj, dtype=np.float32), placement(image).affine
    except (*DAMAGE, OverflowError, zlib.error, ImageFileError, HeaderDataError) as error:
        raise unreadable(path, error) from error
    if bounds.ndim != 4 or bounds.shape[3] != LEVELS:
        raise PairError(f"{path} has shape {bounds.shape}, expected bounds of an error (W, H, D, 2); make it again")
    return bounds, Grid(bounds.shape[:3], affine)
