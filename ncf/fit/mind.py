"""MIND-SSC: twelve numbers a place that describe what lies around it, whatever its contrast.

Heinrich et al. 2013, doi:10.1007/978-3-642-40811-3_24. Each number compares two patches beside the place, not the place
with another image. So it stays the same where brightness or contrast change.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812

SIX = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
# the pairs of neighbours that lie at right angles as seen from the place: twelve of fifteen
PAIRS = [(i, j) for i, j in itertools.combinations(range(6), 2) if sum(map(lambda a, b: a * b, SIX[i], SIX[j])) == 0]
CHANNELS = len(PAIRS)
LEAST, MOST = 1e-3, 1e3  # times the mean noise: the range of a place's own noise
MOST_SUMMED = 5  # nodes of a box along an axis, up to which they are added one by one
FLAT = 1e-12  # squared intensity: an image without any contrast


def mind_ssc(image: torch.Tensor, *, distance: int = 1, radius: int = 1) -> torch.Tensor:
    """Describe every node of an image by the self-similarity around it.

    Args:
        image: (1, 1, W, H, D).
        distance: of the patches from the node, in nodes.
        radius: of the patches, in nodes.

    Returns:
        (1, 12, W, H, D), 0 to 1; beyond the border the outer nodes are repeated.
    """
    moved = [_moved(image, [distance * step for step in direction]) for direction in SIX]
    apart = torch.cat([box_mean((moved[i] - moved[j]) ** 2, radius) for i, j in PAIRS], dim=1)
    apart = apart - apart.amin(dim=1, keepdim=True)
    noise = apart.mean(dim=1, keepdim=True)
    usual = noise.mean().clamp(min=FLAT)
    return torch.exp(-apart / noise.clamp(usual * LEAST, usual * MOST))


def box_mean(volume: torch.Tensor, radius: int | Sequence[int]) -> torch.Tensor:
    """Return the mean over a box of nodes around each node.

    Args:
        volume: (B, C, W, H, D); beyond the border the outer nodes are repeated.
        radius: of the box, in nodes; one number, or one for each axis.

    Returns:
        A volume of the same shape.
    """
    for axis, reach in enumerate([radius] * 3 if isinstance(radius, int) else radius):
        pad, size, count = [0] * 6, 2 * reach + 1, volume.shape[2 + axis]
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = reach
        wide = F.pad(volume, pad, mode="replicate")
        if size > MOST_SUMMED:
            volume = F.avg_pool3d(wide, [size if a == axis else 1 for a in range(3)], stride=1)
        else:  # a few sums of whole volumes take a third of the time of torch's pooling
            volume = wide.narrow(2 + axis, 0, count)
            for first in range(1, size):
                volume = volume + wide.narrow(2 + axis, first, count)
            volume = volume / size
    return volume


def _moved(image: torch.Tensor, steps: list[int]) -> torch.Tensor:
    """Return image(node + steps), with the outer nodes repeated."""
    for axis, step in enumerate(steps):
        nodes = torch.arange(image.shape[2 + axis], device=image.device) + step
        if step:
            image = image.index_select(2 + axis, nodes.clamp(0, image.shape[2 + axis] - 1))
    return image
