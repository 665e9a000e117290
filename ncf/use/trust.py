"""Bounds of a map's error at points and on other grids, from the file that `ncf.api.trust.trust` wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ncf.core.files import write_whole
from ncf.io.trust_file import load_trust
from ncf.space.geometry import placed, to_vox
from ncf.space.grids import Grid
from ncf.space.sampling import inside, sample

SUFFIX = "_error_mm.csv"
PLANES = 16  # that are read at once


def write_errors(trust: Path, points_mm: np.ndarray, path: Path) -> None:
    """Write the bounds of the error at points, a line for each; empty where nothing is known.

    Args:
        trust: the file of the bounds.
        points_mm: (N, 3), RAS mm, in the fixed scan.
        path: of the table, with the columns point (from 1), bound_68_mm and bound_95_mm.

    Raises:
        PairError: a file cannot be read or written.
    """
    bounds, grid = load_trust(trust)
    at = torch.as_tensor(to_vox(points_mm, grid.affine).T, dtype=torch.float32)[None, :, :, None, None]
    found = _at(_volumes(bounds), at)[:, :, 0, 0]
    lines = ["point,bound_68_mm,bound_95_mm"]
    for number, values in enumerate(found.T, start=1):
        lines.append(f"{number}," + ",".join("" if np.isnan(value) else f"{value:.2f}" for value in values))
    text = "\n".join(lines) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def bounds_on(trust: Path, grid: Grid) -> np.ndarray:
    """Return the 68 % bound of the error on a grid.

    Args:
        trust: the file of the bounds.
        grid: the fixed one, or another in its space.

    Returns:
        (W, H, D), float32, in mm; nan where nothing is known.

    Raises:
        PairError: the file cannot be read.
    """
    bounds, own = load_trust(trust)
    if grid.same_as(own):
        return np.ascontiguousarray(bounds[..., 0])
    found = np.empty(grid.shape, dtype=np.float32)
    onto, volumes = np.linalg.inv(own.affine) @ grid.affine, _volumes(bounds[..., :1])
    for first in range(0, grid.shape[0], PLANES):
        last = min(first + PLANES, grid.shape[0])
        found[first:last] = _at(volumes, placed(grid.planes(first, last)[None], onto))[0]
    return found


def _volumes(bounds: np.ndarray) -> torch.Tensor:
    """Return bounds (W, H, D, n) as an image (1, n, W, H, D)."""
    return torch.from_numpy(np.moveaxis(bounds, -1, 0).copy())[None]


def _at(volumes: torch.Tensor, positions: torch.Tensor) -> np.ndarray:
    """Return bounds (1, n, W, H, D) at positions (1, 3, w, h, d) in voxels: (n, w, h, d), nan where none is known."""
    found = sample(volumes, positions, padding_mode="border")[0].numpy()  # nan beside what is not known
    found[:, ~inside(positions, volumes.shape[2:])[0, 0].numpy()] = np.nan
    return found
