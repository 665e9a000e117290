"""Trilinear reading of volumes on the CPU, with its slope in the same pass.

torch's own sampler has vector code for two dimensions and none for three. Written as eight whole-array gathers and the
lerps between them, the same reading takes a third of the time, and its gradient costs one product more
(docs/decisions/0031-trilinear.md). Positions are in voxels. It must not know images, fields or networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from ncf.space.cells import Cells, Falls

DEVICES = ("cpu",)  # where this is faster than torch's own; a GPU has code for three dimensions
# their arrays stay in the processor's cache, and torch shares no array of fewer than 2^15 numbers among threads: a team
# of a worker's own would keep the other workers waiting. So rows are computed one by one, too; any smaller number
# will do
POINTS_AT_A_TIME = 2**15 - 64
MOST_THREADS = 8  # Python lets one of them run between two operations


def faster_on(volume: torch.Tensor) -> bool:
    """Tell whether volumes are read and visited by this room on the device of one."""
    return volume.device.type in DEVICES


def read_linear(volume: torch.Tensor, at: torch.Tensor, *, border: bool) -> torch.Tensor:
    """Read a volume between its voxels, linear along all three axes, as torch's `grid_sample` does.

    A volume of one voxel along an axis has that voxel's value all along it.

    Args:
        volume: (C, W, H, D), float32 or float64, on the CPU. It gets no gradient.
        at: (3, N), in voxels, of the dtype of the volume.
        border: True continues the outer voxels, False lets them fall to 0 within a voxel.

    Returns:
        (C, N); nan where a position is.
    """
    if torch.is_grad_enabled() and at.requires_grad:
        return _Reading.apply(volume, at, border)
    return _read(volume, at, border=border)


def read_data(volume: torch.Tensor, at: torch.Tensor, *, least: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the average of an image's data between its voxels, and how much of it is data.

    Args:
        volume: (2, W, H, D), float32 or float64, on the CPU: intensity times weight, then weight. It gets no gradient.
        at: (3, N), in voxels, of the dtype of the volume.
        least: the smallest weight that is divided by.

    Returns:
        The average (N,), which has a gradient, and the weight (N,), 0 to 1, which has none; both 0 beyond the volume,
        and nan where a position is.
    """
    if torch.is_grad_enabled() and at.requires_grad:
        average, weight = _Data.apply(volume, at, least)
        return average, weight
    return _data(volume, at, least=least)


def visits(at: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Count how often each voxel is visited, each position being shared by the eight voxels around it.

    It is what reading with ``border=False`` is the transpose of. Adding goes from the first position to the last, so
    the same positions give the same bits.

    Args:
        at: (3, N), in voxels.
        shape: of the volume, in voxels.

    Returns:
        (1, 1, *shape), in the dtype of ``at``.
    """
    count = at.new_zeros(math.prod(shape))
    for some in _pieces(at.shape[1]):
        Cells(at.detach()[:, some], shape).spread(count)
    return count.view(1, 1, *shape)


def slopes_of_visits(grads: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Return the gradient (3, N) of a function of `visits` with respect to the positions.

    Args:
        grads: (1, 1, W, H, D), with respect to the visits.
        at: (3, N), in voxels.
    """
    slopes = torch.empty_like(at)[None]
    _read(grads[0], at, border=False, slopes=slopes)
    return slopes[0]


class _Reading(torch.autograd.Function):
    """The values, which keep their slopes for the gradient."""

    @staticmethod
    def forward(ctx: Any, volume: torch.Tensor, at: torch.Tensor, border: bool) -> torch.Tensor:
        """Return the values (C, N)."""
        slopes = at.new_empty(len(volume), *at.shape)
        values = _read(volume, at, border=border, slopes=slopes)
        ctx.save_for_backward(slopes)
        return values

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        """Return the gradient with respect to the positions."""
        (slopes,) = ctx.saved_tensors
        found = slopes[0] * grads[0][0]
        for slope, grad in zip(slopes[1:], grads[0][1:], strict=True):
            found.addcmul_(slope, grad)
        return None, found, None


class _Data(torch.autograd.Function):
    """The averages, which keep their slopes for the gradient, and the weights."""

    @staticmethod
    def forward(ctx: Any, volume: torch.Tensor, at: torch.Tensor, least: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return averages (N,) and weights (N,)."""
        slopes = torch.empty_like(at)
        average, weight = _data(volume, at, least=least, slopes=slopes)
        ctx.save_for_backward(slopes)
        ctx.mark_non_differentiable(weight)
        return average, weight

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        """Return the gradient with respect to the positions."""
        (slopes,) = ctx.saved_tensors
        return None, slopes * grads[0], None


def _read(volume: torch.Tensor, at: torch.Tensor, *, border: bool, slopes: torch.Tensor | None = None) -> torch.Tensor:
    """Return the values (C, N), and fill in the slopes (C, 3, N) where they are wanted."""
    shape, flat, values = tuple(volume.shape[1:]), _flat(volume), at.new_empty(len(volume), at.shape[1])

    def read(some: slice) -> None:
        """Fill in some values and slopes."""
        cells = Cells(at.detach()[:, some], shape)
        falls = None if border else Falls(cells)
        for channel, row in enumerate(flat):
            slope = None if slopes is None else slopes[channel, :, some]
            cells.read(row, values[channel, some], slope)
            if falls is not None:
                falls.apply(values[channel, some], slope)

    _for_pieces(at.shape[1], read)
    return values


def _data(
    volume: torch.Tensor, at: torch.Tensor, *, least: float, slopes: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return averages (N,) and weights (N,), and fill in the slopes (3, N) of the averages where they are wanted."""
    shape, (sums, weights) = tuple(volume.shape[1:]), _flat(volume)
    average, weight = (at.new_empty(at.shape[1]) for _ in range(2))

    def read(some: slice) -> None:
        """Fill in some averages, weights and slopes."""
        cells = Cells(at.detach()[:, some], shape)
        falls = Falls(cells)
        found, share = average[some], weight[some]
        rise, other = (None, None) if slopes is None else (slopes[:, some], torch.empty_like(slopes[:, some]))
        for values, read_values, slope in ((sums, found, rise), (weights, share, other)):
            cells.read(values, read_values, slope)
            falls.apply(read_values, slope)
        divisor = share.clamp(min=least)
        found.div_(divisor)
        if rise is not None and other is not None:
            falling = found * (share >= least)  # below it the divisor has no slope
            for row, of_weight in zip(rise, other, strict=True):
                row.addcmul_(of_weight, falling, value=-1).div_(divisor)
        share.clamp_(0, 1)

    _for_pieces(at.shape[1], read)
    return average, weight


def _flat(volume: torch.Tensor) -> torch.Tensor:
    """Return a volume (C, W, H, D) as (C, voxels), without a gradient."""
    return volume.detach().reshape(len(volume), -1)


def _for_pieces(count: int, read: Callable[[slice], None]) -> None:
    """Call a function for every piece of so many positions, by as many threads as torch has."""
    pieces = list(_pieces(count))
    threads = min(torch.get_num_threads(), len(pieces), MOST_THREADS)
    if threads < 2:
        for some in pieces:
            read(some)
        return
    inference = torch.is_inference_mode_enabled()

    def in_mode(some: slice) -> None:
        with torch.inference_mode(inference):  # a mode belongs to a thread
            read(some)

    with ThreadPoolExecutor(threads) as pool:  # few long tasks, where torch would share many short ones
        list(pool.map(in_mode, pieces))


def _pieces(count: int) -> Iterator[slice]:
    """Yield the positions that are read at a time."""
    return (slice(first, first + POINTS_AT_A_TIME) for first in range(0, count, POINTS_AT_A_TIME))
