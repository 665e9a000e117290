"""Files that can be carried, but that a person has probably not meant: each is a note beside the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ncf.core.notes import note
from ncf.core.scan_paths import scan_path
from ncf.core.words import percent
from ncf.space.geometry import to_mm, to_vox
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap

SAMPLE = 2**20  # voxels that are looked at
NODES = 32  # along an axis, of the lattice by which the share of a grid is found
LEAST_WITHIN = 0.25  # of the grid of a result: a scan with less shows a small part of the body, or another body
MOST_LABELS = 64  # different numbers in a label map; a scan has hundreds


def note_what_is_odd(inputs: Mapping[str, Path], file: str | Path, image: torch.Tensor | None) -> None:
    """Note where a file is a scan or label map of the fixed side, or a label map that is carried as an image.

    Args:
        inputs: the files that were registered, by key.
        file: that is carried.
        image: its voxels; None for one that is carried as a label map.
    """
    own = _place(file)
    key = next((key for key in ("fixed", "fixed_label", "moving") if key in inputs and _place(inputs[key]) == own), "")
    if key.startswith("fixed"):
        side = "fixed scan" if key == "fixed" else "fixed label map"
        what = f"is the {side} that was registered, which lies on the fixed grid already"
        note(f"{what}; the map carries files of the moving side", str(file))
    elif key != "moving" and image is not None and _is_label_map(image):
        note("looks like a label map, and is interpolated as an image; --to=label carries labels", str(file))


def note_what_is_elsewhere(mapping: SpatialMap, reference: Grid, *, file: str | Path, own: Grid) -> None:
    """Note where the map leads hardly anywhere into a file: a scan of another patient, or in another space.

    Args:
        mapping: fixed to moving.
        reference: the grid that results lie on.
        file: that is carried.
        own: its grid.
    """
    steps = [np.linspace(0, n - 1, min(n, NODES)) for n in reference.shape]
    points = to_mm(np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3), reference.affine)
    there = to_vox(mapping.to_moving(points)[0], own.affine)
    share = float(((there >= -0.5) & (there <= np.array(own.shape) - 0.5)).all(axis=1).mean())
    if share < LEAST_WITHIN:
        what = f"only {percent(share)} of the grid of the result lie within it"
        note(f"{what}; is it a scan in the space of the moving scan?", str(file))


def _place(path: str | Path) -> tuple[Path, str]:
    """Return where a scan really lies, and which volume of a folder it is."""
    found = scan_path(path)
    return found.path.resolve(), found.choice


def _is_label_map(image: torch.Tensor) -> bool:
    """Tell whether voxels are a few whole numbers from 0, of many voxels by a sample."""
    values = image.reshape(-1)
    some = values[:: max(1, len(values) // SAMPLE)]
    if bool((some < 0).any()) or bool((some != some.round()).any()):
        return False
    return len(torch.unique(some)) <= MOST_LABELS
