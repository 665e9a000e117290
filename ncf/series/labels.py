"""Labels drawn on the fixed scan, carried to every phase, which needs the inverse of the map around them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from ncf.io.label_files import shown_labels, table_of
from ncf.io.label_names import save_names
from ncf.io.nifti import save_image
from ncf.pair.keys import affine_of
from ncf.space.geometry import to_mm, to_vox
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap
from ncf.space.resampling import warp
from ncf.use.invert import inverse_field

MARGIN_VOX = 2  # around where the voxels of a label go
ML_OF_MM3 = 1e-3


def label_on_phase(mapping: SpatialMap, label: MetaTensor, phase: Grid) -> torch.Tensor:
    """Carry a label map of the fixed scan to the grid of a phase, by nearest neighbour.

    Args:
        mapping: fixed to moving.
        label: codes (1, W, H, D) on the fixed grid.
        phase: the grid of the phase.

    Returns:
        Codes (W, H, D), float32, on that grid; 0 where the inverse of the map is not known.
    """
    codes, own = label.as_tensor()[0], affine_of(label)
    found = torch.zeros(tuple(phase.shape))
    where = torch.nonzero(codes).double().numpy()
    if not len(where):
        return found
    moved, _ = mapping.to_moving(to_mm(where, own))
    at = to_vox(moved, phase.affine)
    low = np.clip(np.floor(at.min(axis=0)).astype(int) - MARGIN_VOX, 0, np.array(phase.shape))
    high = np.clip(np.ceil(at.max(axis=0)).astype(int) + MARGIN_VOX + 1, 0, np.array(phase.shape))
    if not (high > low).all():
        return found
    shift = np.eye(4)
    shift[:3, 3] = low
    box = Grid(tuple(int(n) for n in high - low), phase.affine @ shift)
    field, known = inverse_field(mapping, box)
    carried = warp(SpatialMap(field, box, valid=known), codes, moving=own, reference=box, mode="nearest")
    x, y, z = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    found[x, y, z] = torch.where(known, carried, 0.0)
    return found


def save_label(path: Path, codes: torch.Tensor, label: MetaTensor, phase: Grid) -> None:
    """Write a carried label map, with the names of its labels beside it.

    Args:
        path: of the file.
        codes: of `label_on_phase`.
        label: the map that was carried.
        phase: the grid of the phase.
    """
    table = table_of(label)
    save_image(path, shown_labels(codes, table), phase.affine)
    save_names(path, table.names)


def volumes_ml(shown: np.ndarray, affine: np.ndarray, names: Mapping[int, str]) -> dict[str, float]:
    """Return the volume of every label in ml, by its name, or its number where it has none.

    Args:
        shown: label numbers (W, H, D).
        affine: (4, 4), voxel -> RAS mm.
        names: of the numbers.
    """
    voxel = abs(float(np.linalg.det(affine[:3, :3]))) * ML_OF_MM3
    numbers, counts = np.unique(shown[shown > 0], return_counts=True)
    return {names.get(int(n), str(int(n))): round(int(c) * voxel, 4) for n, c in zip(numbers, counts, strict=True)}
