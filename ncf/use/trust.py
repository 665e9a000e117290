"""Bounds of a map's error at single points, from the file that `ncf.api.trust.trust` wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ncf.core.files import write_whole
from ncf.io.trust_file import load_trust
from ncf.space.geometry import to_vox
from ncf.space.sampling import inside, sample

SUFFIX = "_error_mm.csv"


def write_errors(trust: Path, points_mm: np.ndarray, path: Path) -> None:
    """Write the bounds of the error at points, a line for each; empty where nothing is known.

    Args:
        trust: the file of the bounds.
        points_mm: (N, 3), RAS mm, in the fixed scan.
        path: of the table, with the columns point (from 1), error_mm_68 and error_mm.

    Raises:
        PairError: a file cannot be read or written.
    """
    bounds, grid = load_trust(trust)
    at = torch.as_tensor(to_vox(points_mm, grid.affine).T, dtype=torch.float32)[None, :, :, None, None]
    volumes = torch.from_numpy(np.moveaxis(bounds, -1, 0).copy())[None]
    found = sample(volumes, at, padding_mode="border")[0, :, :, 0, 0].numpy()  # nan beside what is not known
    found[:, ~inside(at, grid.shape)[0, 0, :, 0, 0].numpy()] = np.nan
    lines = ["point,error_mm_68,error_mm"]
    for number, values in enumerate(found.T, start=1):
        lines.append(f"{number}," + ",".join("" if np.isnan(value) else f"{value:.2f}" for value in values))
    text = "\n".join(lines) + "\n"
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
