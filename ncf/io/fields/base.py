"""What a format of fields is, and what it is given to write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ncf.io.dicom.written.between import Between
    from ncf.space.grids import Grid
    from ncf.space.mapping import SpatialMap


@dataclass(frozen=True)
class FieldToSave:
    """A field, with what a format may need to know about it.

    Attributes:
        field_vox: (3, W, H, D), float32, in voxels of ``grid``, fixed to moving.
        grid: where the field lies.
        moving: the grid of the moving scan, None where it is not known.
        affine: the affine part of the map (4, 4), RAS mm, fixed to moving, None where it is not known.
        scans: the two DICOM series, for formats that are made of their headers; None for others.
        matrix: (4, 4), RAS mm, fixed to moving, where the map is rigid or affine and known as such.
    """

    field_vox: torch.Tensor
    grid: Grid
    moving: Grid | None
    affine: np.ndarray | None = None
    scans: Between | None = None
    matrix: np.ndarray | None = None


@dataclass(frozen=True)
class FieldFormat:
    """One format of fields.

    Attributes:
        name: as ``--format`` has it.
        suffix: of the files that are written.
        sentence: what it is for, for help and docs.
        save: writes a field to a path, whole or not at all.
        load: reads a map back; None where that is not offered.
        reads: suffixes of the files that are read, lower case.
        stem: makes the name of a file without suffix, from the names of the fixed and the moving scan and the user's
            choice of naming; None names the file after the result.
        namings: the choices of naming that ``stem`` knows; the first is the default.
        collect: makes one file of all that were written into a folder, and returns its path; None leaves them as they
            are.
        of_scans: whether files are made of the headers of both scans, which then are DICOM series.
    """

    name: str
    suffix: str
    sentence: str
    save: Callable[[Path, FieldToSave], None]
    load: Callable[[Path], SpatialMap] | None = None
    reads: tuple[str, ...] = ()
    stem: Callable[[str, str, str], str] | None = None
    namings: tuple[str, ...] = ()
    collect: Callable[[Path], Path] | None = None
    of_scans: bool = False
