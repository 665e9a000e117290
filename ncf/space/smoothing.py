"""Images brought to the nodes of a lattice, smoothed before they are sampled, so that little aliases.

Positions are in voxels or nodes everywhere. It must not know networks, losses, files or configs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ncf.space.grids import Lattice
from ncf.space.interpolation import cardinal_matrix, separable
from ncf.space.sampling import PADDING_NOISE

BLUR = 0.3  # standard deviation before sampling, in steps; some detail may alias: docs/decisions/0021-detail.md
ALL_DATA = 0.9  # weight above which a node's whole neighbourhood counts as data
GAUSS_REACH = 3.0  # a Gaussian is cut at this many standard deviations


def gaussian_matrix(size: int, sigma: float) -> torch.Tensor:
    """Return the weights (size, size) of a Gaussian, cut at 3 sigma; rows are *not* normalised again at the ends.

    Args:
        size: number of samples.
        sigma: standard deviation, in samples.
    """
    if sigma <= 0:
        return torch.eye(size)
    distance = torch.arange(size).view(-1, 1) - torch.arange(size).view(1, -1)
    reach = max(1, int(np.ceil(GAUSS_REACH * sigma)))
    weights = torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= reach)
    span = torch.arange(-reach, reach + 1)
    return weights / torch.exp(-0.5 * (span / sigma) ** 2).sum()


def reading_matrix(size: int, positions: np.ndarray) -> torch.Tensor:
    """Return the weights (len(positions), size), float32, that read a row of voxels linearly; 0 outside the row.

    Args:
        size: number of voxels.
        positions: in voxels.
    """
    distance = np.abs(positions[:, None] - np.arange(size)[None, :])
    return torch.from_numpy(np.maximum(1 - distance, 0)).float()


def image_on_lattice(
    image: torch.Tensor,
    weight: torch.Tensor,
    lattice: Lattice,
    *,
    step_vox: Sequence[float] | np.ndarray,
    through: Lattice | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample an image and its data weight on a lattice, smoothed so that little aliases.

    Voxels of weight 0 (padding, outside a mask) take no part in the average (normalised convolution). The weight of a
    node says how much of its neighbourhood holds data; it is 0 outside the image. The voxels are read by cubic
    B-splines, and linearly beside missing data.

    Args:
        image: (1, 1, W, H, D).
        weight: (1, 1, W, H, D), 0 to 1.
        lattice: in voxels of the image.
        step_vox: distance between the points at which the image is compared, along each axis, in voxels (3,); finer
            detail is smoothed away.
        through: a lattice from corner to corner of the image; the image is first read on it, and then interpolated
            linearly from it.

    Returns:
        The image and its weight, each (1, 1, *lattice.shape).
    """
    linear, cubic = [], []
    for a, (n, step) in enumerate(zip(image.shape[2:], step_vox, strict=True)):
        smooth = gaussian_matrix(n, BLUR * float(max(step**2 - 1, 0)) ** 0.5)
        nodes = lattice if through is None else through
        at, last = nodes.axis(a), torch.eye(nodes.shape[a])
        if through is not None:
            last = reading_matrix(through.shape[a], lattice.axis(a).numpy() / through.step_vox[a])
        linear.append((last @ reading_matrix(n, at.numpy()) @ smooth).to(image))
        cubic.append((last @ cardinal_matrix(n, at) @ smooth).to(image))
    (plain, total), (sharp, all_of_it) = _weighted(image, weight, (linear, cubic))
    total = total.clamp(0, 1)
    plain = plain / total.clamp(min=PADDING_NOISE)
    return torch.where(total > ALL_DATA, sharp / all_of_it.clamp(min=0.5), plain), total


def _weighted(
    image: torch.Tensor, weight: torch.Tensor, readings: Sequence[Sequence[torch.Tensor]]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Apply a matrix along each axis to an image times its weight, and to the weight; for each of some readings."""
    if not bool((weight == 1).all()):
        product = image * weight
        return [(separable(product, matrices), separable(weight, matrices)) for matrices in readings]
    ones = [[matrix.sum(dim=1) for matrix in matrices] for matrices in readings]  # what they make of ones
    of_weight = [(first[:, None, None] * second[:, None] * third)[None, None] for first, second, third in ones]
    return [(separable(image, m), of_ones) for m, of_ones in zip(readings, of_weight, strict=True)]
