"""How often a map visits each voxel of the moving image (paper section 3.2), with its gradient.

On the CPU torch's own kernel adds floats in a fixed order. On other devices the order is nobody's, so there whole numbers
are added: same seed, same bytes.
"""

from __future__ import annotations

import itertools
import math

import torch

from scripts.sampling import normalised, threaded

VISIT_UNITS = 2**24  # a visit counted in whole numbers: as fine as float32, 2^39 visits of a voxel before it overflows


def exact_visits(grid: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """`visits` of a sampling grid (B, W, H, D, 3) in whole numbers: the same bits in whatever order they are added.

    On CUDA thousands of threads add to one voxel, and a sum of floats would differ from run to run.
    """
    flat = grid.reshape(-1, 3)
    count = torch.zeros(math.prod(shape), dtype=torch.int64, device=grid.device)
    at = [(flat[:, 2 - a] + 1) * (0.5 * (n - 1)) for a, n in enumerate(shape)]  # voxels; the grid has its last axis first
    low = [p.floor() for p in at]
    for corner in itertools.product((0, 1), repeat=3):
        weight, index = torch.ones_like(at[0]), torch.zeros_like(at[0], dtype=torch.int64)
        for p, first, step, n in zip(at, low, corner, shape, strict=True):
            weight = weight * (p - first if step else 1 - (p - first))
            node = first.long() + step
            weight = weight * ((node >= 0) & (node < n))
            index = index * n + node.clamp(0, n - 1)
        count.index_add_(0, index, (weight * VISIT_UNITS).round().long())
    return (count.to(grid.dtype) / VISIT_UNITS).view(1, 1, *shape)


class _Visits(torch.autograd.Function):
    """How often each voxel is visited: the adjoint of trilinear sampling, applied to ones."""

    @staticmethod
    def forward(ctx, grid: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = shape
        if grid.device.type != "cpu":
            return exact_visits(grid, shape)
        ones = grid.new_ones(()).expand(grid.shape[0], 1, *grid.shape[1:4])
        image = grid.new_zeros(()).expand(grid.shape[0], 1, *shape)
        visits, _ = torch.ops.aten.grid_sampler_3d_backward(ones, image, grid, 0, 0, True, [True, False])
        return visits.sum(dim=0, keepdim=True)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grid,) = ctx.saved_tensors
        image = grads[0].expand(grid.shape[0], 1, *ctx.shape)
        ones = grid.new_ones(()).expand(grid.shape[0], 1, *grid.shape[1:4])
        _, to_grid = torch.ops.aten.grid_sampler_3d_backward(ones, image, grid, 0, 0, True, [False, True])
        return to_grid, None


def visits(positions: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Occupancy B (1, 1, *shape): trilinear visits of each moving voxel by positions (1, 3, w, h, d), in voxels."""
    return _Visits.apply(threaded(normalised(positions, shape)), shape)
