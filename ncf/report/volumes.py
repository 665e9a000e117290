"""Volumes for a viewer: reduced by whole voxels as far as a budget asks, and coded for the page or for a server.

A block of voxels becomes one: the mean of a scan, the middle of a label map, and what is worst of the rest. Nothing is
resampled. A coded volume is a plain dictionary: shape, affine, type, step and shift (value = stored * step + shift),
and in the page ``packed``: its bytes as of `packed`, in base64.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from isal import igzip

from ncf.io.nifti import PACKING_LEVEL
from ncf.space.geometry import spacing_mm
from ncf.space.grids import Lattice
from ncf.space.interpolation import interpolation_matrix, separable

FINE_STEPS = 4095  # of a scan whose values are no whole numbers: 12 bits, as scanners have
LARGEST = 2**15 - 1
TRIED = 4  # every 4th plane is packed, to guess the size of all
TRIED_VOXELS, TRIED_PLANES = 2**21, 16  # of larger scans about so many voxels, but at least so many planes
FIELD_STEP_MM = 0.01
ROUNDING = 1e-6  # steps by which a value that is a whole number of steps may lie above it
MOST_STEPS = 60_000  # of a scan of whole numbers that takes them as they are

Factors = tuple[int, int, int]


@dataclass(frozen=True)
class Volume:
    """Values on a grid.

    Attributes:
        values: (W, H, D).
        affine: (4, 4), voxel -> RAS mm.
    """

    values: np.ndarray
    affine: np.ndarray


def reduced(volume: Volume, factors: Factors, *, how: str = "mean") -> Volume:
    """Return a volume of blocks of voxels.

    Args:
        volume: to be reduced.
        factors: voxels of a block along each axis; a block at the end may repeat the last voxels.
        how: ``mean``, ``middle``, ``min`` or ``max`` of a block; all but ``middle`` are nan where a voxel is.
    """
    if factors == (1, 1, 1):
        return volume
    shape = [-(-n // f) for n, f in zip(volume.values.shape, factors, strict=True)]
    if how == "middle":
        at = [
            np.minimum(np.arange(m) * f + f // 2, n - 1)
            for m, f, n in zip(shape, factors, volume.values.shape, strict=True)
        ]
        values = volume.values[np.ix_(*at)]
    else:
        values = volume.values
        for axis, size in enumerate(factors):  # one axis after the other: numpy takes a tenth of the time
            values = _along(values, axis, size, how)
    origin = [(f - 1) / 2 for f in factors]
    lattice = Lattice(
        (shape[0], shape[1], shape[2]),
        (origin[0], origin[1], origin[2]),
        (float(factors[0]), float(factors[1]), float(factors[2])),
    )
    return Volume(values, lattice.affine(volume.affine))


def _along(values: np.ndarray, axis: int, size: int, how: str) -> np.ndarray:
    """Return blocks of so many voxels along an axis as one; the last one may repeat the last voxel."""
    if size == 1:
        return values
    turned = np.moveaxis(values, axis, 0)
    full = len(turned) // size * size
    found = getattr(turned[:full].reshape(-1, size, *turned.shape[1:]), how)(axis=1)
    if full < len(turned):
        last = [turned[full:], np.repeat(turned[-1:], full + size - len(turned), axis=0)]
        found = np.concatenate([found, getattr(np.concatenate(last), how)(axis=0)[None]])
    return np.moveaxis(found, 0, axis)


def coded(volume: Volume, *, step: float, shift: float = 0.0, up: bool = False) -> dict[str, Any]:
    """Return a volume as whole numbers of 8 or 16 bits, packed.

    Args:
        volume: to be coded.
        step: of the stored numbers; an error is half of it at most.
        shift: the value of 0.
        up: True for bounds: none becomes smaller, and one larger by a step at most.
    """
    steps = (volume.values.astype(np.float64) - shift) / step
    stored = (np.ceil(steps - ROUNDING) if up else np.rint(steps)).clip(-LARGEST - 1, LARGEST)
    kind = np.uint8 if stored.min() >= 0 and stored.max() <= 255 else np.int16
    told = {"step": step, "shift": shift, "type": np.dtype(kind).name, **_placed(volume)}
    return {**told, "packed": base64.b64encode(packed(stored.astype(kind))).decode()}


def labels_coded(volume: Volume) -> dict[str, Any]:
    """Return a label map, packed; labels up to 65535."""
    kind = np.uint8 if volume.values.max() <= 255 else np.uint16
    told = {"step": 1.0, "shift": 0.0, "type": np.dtype(kind).name, **_placed(volume)}
    return {**told, "packed": base64.b64encode(packed(volume.values.astype(kind))).decode()}


def _placed(volume: Volume) -> dict[str, Any]:
    return {"shape": list(volume.values.shape), "affine": np.asarray(volume.affine).tolist()}


def packed(stored: np.ndarray) -> bytes:
    """Return the bytes of whole numbers (W, H, D), the first axis fastest, gzip: all low bytes, then all high ones."""
    flat = stored.reshape(-1, order="F")
    content = flat.astype(flat.dtype.newbyteorder("<")).tobytes()
    if flat.dtype.itemsize == 2:
        content = content[::2] + content[1::2]
    return igzip.compress(content, compresslevel=PACKING_LEVEL, mtime=0)


def step_of(values: np.ndarray) -> tuple[float, float]:
    """Return the step and the shift by which a scan is stored: whole numbers as they are, others in `FINE_STEPS`."""
    low, high = float(values.min()), float(values.max())
    some = values.reshape(-1)[:: max(1, values.size // 100_000)]
    if high - low < MOST_STEPS and high - low > 100 and np.array_equal(some, np.rint(some)):
        return 1.0, 0.0 if low > -LARGEST and high < LARGEST else float(np.rint((low + high) / 2))
    return max((high - low) / FINE_STEPS, 1e-12), low


def factors_for(volumes: Sequence[Volume], budget: int) -> Factors:
    """Return the smallest blocks by which volumes of one grid, packed together, fit a budget.

    The axis with the smallest voxels is reduced first.

    Args:
        volumes: of one grid.
        budget: bytes of all, packed.
    """
    factors = [1, 1, 1]
    spacing = spacing_mm(volumes[0].affine)
    least = min(volumes[0].values.shape)
    steps = [step_of(volume.values) for volume in volumes]
    while True:
        made = (factors[0], factors[1], factors[2])
        size = sum(_guessed(volume, made, *step) for volume, step in zip(volumes, steps, strict=True))
        if size <= budget or least < 4 * max(factors):
            return made
        factors[int(np.argmin(spacing * factors))] += 1


def _guessed(volume: Volume, factors: Factors, step: float, shift: float) -> float:
    """Return about how many bytes a scan takes, packed, from some of its planes."""
    planes, voxels = volume.values.shape[2], volume.values.size
    every = max(TRIED * factors[2], min(voxels // TRIED_VOXELS, planes // TRIED_PLANES))
    small = reduced(Volume(volume.values[:, :, ::every], volume.affine), (factors[0], factors[1], 1)).values
    stored = np.rint((small - shift) / step).clip(-LARGEST - 1, LARGEST).astype(np.int16)
    depth = -(-planes // factors[2])
    return len(packed(stored)) * depth / stored.shape[2]


def field_nodes(field: np.ndarray, affine: np.ndarray, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a field at every k-th voxel along each axis, to be read linearly between them.

    The last node may lie beyond the grid, where the field goes on linearly.

    Args:
        field: (W, H, D, 3), in any unit.
        affine: (4, 4), voxel -> RAS mm, of the grid.
        nodes: at most about so many.

    Returns:
        The field (w, h, d, 3), and the affine of its nodes.
    """
    shape, step = field.shape[:3], [1, 1, 1]
    while np.prod([-(-(n - 1) // s) + 1 for n, s in zip(shape, step, strict=True)]) > nodes:
        step[int(np.argmin(spacing_mm(affine) * step))] += 1
    count = [-(-(n - 1) // s) + 1 for n, s in zip(shape, step, strict=True)]
    lattice = Lattice((count[0], count[1], count[2]), (0.0, 0.0, 0.0), (float(step[0]), float(step[1]), float(step[2])))
    matrices = [interpolation_matrix(shape[a], lattice.axis(a), order=1) for a in range(3)]
    read = [np.flatnonzero(matrix.numpy().any(axis=0)) for matrix in matrices]  # the voxels at nodes, and few others
    some = torch.from_numpy(np.ascontiguousarray(np.moveaxis(field[np.ix_(*read)], -1, 0)))
    found = separable(some, [matrix[:, at] for matrix, at in zip(matrices, read, strict=True)])
    return found.movedim(0, -1).numpy(), lattice.affine(affine)
