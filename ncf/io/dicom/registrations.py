"""DICOM's registrations, read as maps from the registered (fixed) to the source (moving) frame of reference.

PS3.3 C.20.3.1.1: a point of the grid goes through the pre-deformation matrix, is moved by its vector, and goes through
the post-deformation matrix. A Spatial Registration (C.20.2) has matrices alone, source to registered frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ncf.core.errors import PairError
from ncf.core.files import unreadable
from ncf.core.packages import optional
from ncf.space.geometry import RAS_TO_LPS, field_to_vox, from_lps
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap, check_affine

READ_ERRORS = (OSError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError)


def load_grid(path: Path) -> SpatialMap:
    """Read the map of a Deformable Spatial Registration with one grid.

    Raises:
        PairError: the file cannot be read, or holds something else.
    """
    data = _opened(path)
    items = [item for item in data.get("DeformableRegistrationSequence") or [] if _grid_of(item) is not None]
    if len(items) != 1:
        kind = data.get("Modality", "no modality")
        advice = "give the file of one field"
        if "RegistrationSequence" in data:
            kind, advice = "matrices alone", "give it as --pre_transform or --post_transform"
        raise PairError(
            f"{path}: expected a registration with one grid of vectors, got {len(items)} ({kind}); {advice}"
        )
    item = items[0]
    try:
        lps_mm, affine = _field(_grid_of(item))
        pre, post = (
            from_lps(_product(item.get(f"{when}DeformationMatrixRegistrationSequence") or [], path))
            for when in ("Pre", "Post")
        )
    except READ_ERRORS as error:
        raise error if isinstance(error, PairError) else unreadable(path, error) from error
    # the vectors belong to points of the grid; a map of ours looks them up at the points that the pre-transform makes
    moved = pre @ affine
    return SpatialMap(field_to_vox(lps_mm, RAS_TO_LPS @ moved[:3, :3]), Grid(tuple(lps_mm.shape[1:]), moved), pre, post)


def load_matrix(path: Path) -> np.ndarray:
    """Read the matrix of a Spatial Registration as a map (4, 4) in RAS mm, from a fixed to its moving point.

    Raises:
        PairError: the file cannot be read, or has not one matrix beside identities.
    """
    data = _opened(path)
    try:
        found = [
            _product([m for reg in item.MatrixRegistrationSequence for m in reg.MatrixSequence], path)
            for item in data.get("RegistrationSequence") or []
        ]
    except READ_ERRORS as error:
        raise error if isinstance(error, PairError) else unreadable(path, error) from error
    telling = [matrix for matrix in found if not np.allclose(matrix, np.eye(4))] or found[:1]
    if len(telling) != 1:
        raise PairError(f"{path}: expected a registration with one matrix, got {len(telling)}; give the file of one")
    return from_lps(np.linalg.inv(telling[0]))


def _opened(path: Path) -> Any:
    """Return the data set of a file."""
    pydicom = optional("pydicom")
    try:
        with pydicom.config.disable_value_validation():
            data = pydicom.dcmread(path, force=True)
            data.decode()
    except Exception as error:  # whatever pydicom meets in a damaged file
        raise unreadable(path, ValueError(str(error).partition("\n")[0])) from error
    return data


def _grid_of(item: Any) -> Any | None:
    """Return the one grid of a registration, None without."""
    grids = item.get("DeformableRegistrationGridSequence") or []
    return grids[0] if len(grids) == 1 else None


def _field(grid: Any) -> tuple[torch.Tensor, np.ndarray]:
    """Return vectors (3, W, H, D) in LPS mm, float32, and the affine (4, 4) of their grid, node -> RAS mm."""
    size = [int(n) for n in grid.GridDimensions]
    axes = np.array([float(v) for v in grid.ImageOrientationPatient]).reshape(2, 3)
    step = np.array([float(v) for v in grid.GridResolution])
    origin = np.array([float(v) for v in grid.ImagePositionPatient])
    values = np.frombuffer(grid.VectorGridData, dtype="<f4").reshape(*size[::-1], 3)
    if not np.isfinite(values).all():
        raise ValueError("vectors that are not finite")
    lps = np.column_stack([*axes, np.cross(*axes)]) * step
    affine = np.vstack([RAS_TO_LPS @ np.column_stack([lps, origin]), [0.0, 0.0, 0.0, 1.0]])
    check_affine(affine, "of the grid")
    return torch.from_numpy(np.ascontiguousarray(values.transpose(3, 2, 1, 0))), affine


def _product(items: Sequence[Any], path: Path) -> np.ndarray:
    """Return matrices applied one after the other, the first one first, in LPS mm."""
    whole = np.eye(4)
    for item in items:
        numbers = [float(v) for v in item.FrameOfReferenceTransformationMatrix]
        whole = check_affine(np.array(numbers).reshape(4, 4), f"of {path}") @ whole
    return whole
