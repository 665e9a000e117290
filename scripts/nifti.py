"""NIfTI files opened with nibabel, but to the end and in millimetres."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

READ_BYTES = 2**20  # at a time
UNIT_BITS = 7  # of the header's xyzt_units: the unit of length
MM_OF = {1: 1000.0, 3: 0.001}  # metres and micrometres; 2 are millimetres, 0 are taken for such, as ITK does


@contextmanager
def open_nifti(path: str | Path) -> Iterator[Any]:
    """nibabel's image of a .nii or .nii.gz file, whose voxels are to be read inside the ``with``.

    Where nibabel stops, at the last voxel, the checksum of a .gz file has not been looked at; it is here, at the end.
    Raises what nibabel, gzip and zlib raise for a damaged file.
    """
    image: Any = nib.load(path)
    if not str(path).lower().endswith(".gz"):
        yield image
        return
    with gzip.open(path) as stream:
        yield type(image).from_stream(stream)
        while stream.read(READ_BYTES):
            pass


def affine_mm(image: Any) -> np.ndarray:
    """The affine (4, 4), float64, voxel -> RAS mm, of an image of nibabel, whatever unit of length its header names."""
    affine = np.array(image.affine, dtype=np.float64)
    if isinstance(image, nib.Nifti1Pair):
        affine[:3] *= MM_OF.get(int(image.header["xyzt_units"]) & UNIT_BITS, 1.0)
    return affine
