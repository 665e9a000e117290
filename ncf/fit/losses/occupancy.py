"""Occupancy: how often a map visits each voxel of the moving image (paper section 3.2), and the loss of its roughness.

On the CPU floats are added in a fixed order. On other devices the order is not fixed, so whole numbers are added there:
the same seed gives the same bytes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ncf.space.sampling import sample
from ncf.space.trilinear import faster_on, slopes_of_visits, visits

# units in which one visit is counted: as fine as float32, and a voxel can take 2^39 visits before it overflows
VISIT_UNITS = 2**24
POSITIONS_AT_A_TIME = 2**21  # each takes some 200 bytes


def exact_occupancy(at: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Count the occupancy in whole numbers: the sum has the same bits in whatever order it is made.

    On CUDA thousands of threads add to one voxel, and a sum of floats would differ from run to run.

    Args:
        at: (3, N), in voxels of the moving image.
        shape: of the moving image, in voxels.

    Returns:
        (1, 1, *shape), in the dtype of the positions.
    """
    count = torch.zeros(math.prod(shape), dtype=torch.int64, device=at.device)
    for some in at.split(POSITIONS_AT_A_TIME, dim=1):
        weight, index = some.new_ones(()), torch.zeros((), dtype=torch.int64, device=at.device)
        for axis, n in enumerate(shape):
            p = some[axis] if n > 1 else torch.zeros_like(some[axis])  # as it is read
            low = p.floor()
            high, node = p - low, low.long()
            nodes = torch.stack([node, node + 1])
            shares = torch.stack([1 - high, high]) * ((nodes >= 0) & (nodes < n))
            corners = [2 if a == axis else 1 for a in range(3)]  # both nodes of this axis, with both of the others
            weight = weight * shares.view(*corners, -1)
            index = index * n + nodes.clamp(0, n - 1).view(*corners, -1)
        count.index_add_(0, index.flatten(), (weight * VISIT_UNITS).round().long().flatten())
    return (count.to(at.dtype) / VISIT_UNITS).view(1, 1, *shape)


class _Occupancy(torch.autograd.Function):
    """The occupancy of positions: the adjoint of trilinear sampling, applied to ones."""

    @staticmethod
    def forward(ctx: Any, at: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
        """Return how often each voxel is visited, (1, 1, *shape)."""
        ctx.save_for_backward(at)
        return visits(at, shape) if faster_on(at) else exact_occupancy(at, shape)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient with respect to the positions."""
        (at,) = ctx.saved_tensors
        if faster_on(at):
            return slopes_of_visits(grads[0], at), None
        with torch.enable_grad():
            leaf = at.detach().requires_grad_()
            (found,) = torch.autograd.grad(sample(grads[0].detach(), leaf.view(1, 3, -1, 1, 1)).sum(), leaf)
        return found, None


def occupancy(positions: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Return the occupancy B: how often each voxel of the moving image is visited, with trilinear weights.

    Args:
        positions: (1, 3, w, h, d), in voxels of the moving image.
        shape: of the moving image.

    Returns:
        (1, 1, *shape).
    """
    return _Occupancy.apply(positions[0].flatten(1), shape)


class OccupancyLoss(nn.Module):
    """Root mean square of the differences of the occupancy along x, y and z (paper section 3.2), pooled over the axes.

    ``sqrt(mean(d^2))`` over all differences d of neighbouring voxels of the occupancy B. A difference that touches a
    visit of the outer ``margin`` nodes of the field is left out: there B falls to zero because the field of view ends,
    not because of the map.

    Args:
        margin: number of nodes at each face of the field whose visits mark the differences that are left out.
        stride: 1 is the paper. With s, only every s-th node along each axis visits, and voxels are s times as large
            along each axis, at 1/s^3 of the cost. The differences are divided by s, so an even change of volume gives
            the same loss. It is the caller that leaves out the other nodes.
        eps: keeps the gradient of the root finite.
    """

    def __init__(self, margin: int = 2, stride: int = 1, eps: float = 1e-4) -> None:
        super().__init__()
        self.margin = margin
        self.stride = stride
        self.eps = eps

    def forward(self, positions: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
        """Return the loss.

        Args:
            positions: (1, 3, w, h, d), of every ``stride``-th node, in voxels of a moving lattice.
            shape: of that lattice.
        """
        s = self.stride
        if s > 1:
            positions = positions / s
            shape = ((shape[0] - 1) // s + 1, (shape[1] - 1) // s + 1, (shape[2] - 1) // s + 1)
        b = occupancy(positions, shape)
        free = self._edge(positions.detach(), shape) <= 0
        total, count = b.new_zeros(()), b.new_zeros(())
        for axis in range(2, 5):
            keep = free.narrow(axis, 1, b.shape[axis] - 1) & free.narrow(axis, 0, b.shape[axis] - 1)
            difference = torch.diff(b, dim=axis) * keep
            total = total + (difference * difference).sum()
            count = count + keep.sum()
        return (torch.sqrt(total / count.clamp(min=1) + self.eps**2) - self.eps) / s

    def _edge(self, positions: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
        """Return the visits of the outer nodes alone.

        Nodes at two faces count twice, because the only question is "visited or not".
        """
        m = self.margin
        if m == 0:
            return positions.new_zeros(1, 1, *shape)
        faces = [(axis, start) for axis in range(2, 5) for start in (0, positions.shape[axis] - m)]
        outer = torch.cat([positions.narrow(axis, start, m).flatten(2) for axis, start in faces], dim=2)
        return occupancy(outer[..., None, None], shape)
