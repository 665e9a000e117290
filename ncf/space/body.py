"""Where the patient is in a scan: what is brighter than the air around, with everything that it encloses."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

MOST_VOXELS = 1_000_000  # of the coarser grid on which the body is found; its edge is as exact as a voxel of that
RANGE = (0.5, 99.5)  # percentiles between which intensities are looked at
BINS = 256
LOWER = 0.5  # of the way from the darkest value to Otsu's threshold, so that muscle counts beside bright fat
LEAST_PART = 0.1  # of the largest part: two legs are both body, a table or a line is not


def body_mask(volume: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Find the body in a scan of any modality whose surroundings are dark.

    Otsu's threshold (Otsu 1979, doi:10.1109/TSMC.1979.4310076), halved towards the darkest value, an opening, the large
    parts, and everything that these enclose in a slice along any axis, such as lungs.

    Args:
        volume: intensities, (W, H, D).
        valid: where the scan has data, (W, H, D), bool.

    Returns:
        (W, H, D), bool; exact to one voxel of a grid of `MOST_VOXELS`.
    """
    step = int(np.ceil((volume.numel() / MOST_VOXELS) ** (1 / 3)))
    some = (slice(None, None, step),) * 3
    coarse, there = volume[some].cpu().numpy().astype(np.float64), valid[some].cpu().numpy()
    found = _large_parts(there & (coarse > _threshold(coarse[there]))) if there.any() else there
    body = found.copy()
    for axis in range(3):
        body |= _enclosed(found, axis)
    fine = torch.from_numpy(body)
    for axis in range(3):
        fine = fine.repeat_interleave(step, axis).narrow(axis, 0, volume.shape[axis])
    return fine & valid.cpu()


def _threshold(values: np.ndarray) -> float:
    """Return what is brighter than air: `LOWER` of the way from the darkest value to Otsu's threshold."""
    low, high = np.percentile(values, RANGE)
    counts, edges = np.histogram(values.clip(low, high), BINS)
    centres = (edges[1:] + edges[:-1]) / 2
    below, sums = counts.cumsum()[:-1], (counts * centres).cumsum()
    above = counts.sum() - below
    between = below * above * (sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)) ** 2
    return float(low + LOWER * (edges[1:-1][np.argmax(between)] - low))


def _large_parts(bright: np.ndarray) -> np.ndarray:
    """Return the connected parts that are at least `LEAST_PART` of the largest, without thin ones."""
    parts, count = ndimage.label(ndimage.binary_opening(bright))
    if not count:
        return bright
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return (sizes >= LEAST_PART * sizes.max())[parts]


def _enclosed(body: np.ndarray, axis: int) -> np.ndarray:
    """Return what the body encloses in the slices along an axis."""
    in_slice = ndimage.generate_binary_structure(3, 1)
    for end in (0, 2):
        np.moveaxis(in_slice, axis, 0)[end] = False
    parts, count = ndimage.label(~body, in_slice)
    open_ = np.zeros(count + 1, dtype=bool)
    open_[0] = True
    for other in {0, 1, 2} - {axis}:
        for end in (0, -1):
            open_[np.unique(parts.take(end, axis=other))] = True
    return ~open_[parts]
