"""Trilinear reading of volumes on the CPU, with its slope in the same pass.

torch's own sampler has vector code for two dimensions and none for three. Written as eight whole-array gathers and the
lerps between them, the same reading takes a third of the time, and its gradient costs one product more
(docs/decisions/0031-trilinear.md). Positions are in voxels. It must not know images, fields or networks.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from ncf.space.cells import Cells, Falls

DEVICES = ("cpu",)  # where this is faster than torch's own; a GPU has code for three dimensions
# their arrays stay in the processor's cache, and torch shares no array of fewer than 2^15 numbers among threads: a team
# of a worker's own would keep the other workers waiting. So rows are computed one by one, too; any smaller number
# will do
POINTS_AT_A_TIME = 2**15 - 64
FEW = 4  # one of so many positions, or fewer, are read by themselves
# Python lets one thread run between two operations, so those of several threads must be longer
LEAST_OF_A_THREAD, MOST_OF_A_THREAD, MOST_THREADS = 2**16, 2**18, 8


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

    def fill(cells: Cells, *parts: torch.Tensor) -> None:
        """Fill in values and slopes, as within the volume."""
        for channel, row in enumerate(flat):
            cells.read(row, *_channel(parts, channel))

    def fade(cells: Cells, *parts: torch.Tensor) -> None:
        """Change values and slopes to those beyond the volume."""
        falls = None if border else Falls(cells)
        for channel in range(len(flat)):
            found, slope = _channel(parts, channel)
            if slope is not None:
                cells.flatten(slope)
            if falls is not None:
                falls.apply(found, slope)

    def read(some: slice) -> None:
        """Fill in some values and slopes."""
        parts = [values[:, some]] if slopes is None else [values[:, some], slopes[..., some]]
        _fill(Cells(at.detach()[:, some], shape), fill, fade, parts)

    _for_pieces(at.shape[1], read)
    return values


def _channel(parts: Sequence[torch.Tensor], channel: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the values of a channel, and its slopes where there are any."""
    return parts[0][channel], parts[1][channel] if len(parts) > 1 else None


def _fill(
    cells: Cells,
    fill: Callable[..., None],
    fade: Callable[..., None],
    parts: Sequence[torch.Tensor],
) -> None:
    """Fill tensors (..., n) with what is read at n positions.

    Most positions lie within the volume, and those beyond it cost twice as much. So they are read once more, alone.

    Args:
        cells: of the positions.
        fill: with cells and tensors fills these, as within the volume.
        fade: with cells and tensors changes these to what they are beyond the volume.
        parts: to fill.
    """
    fill(cells, *parts)
    beyond = cells.beyond()
    if beyond is None:
        return
    if FEW * len(beyond) > len(cells.first):
        fade(cells, *parts)
        return
    outer = Cells(cells.at[:, beyond], cells.shape)
    own = [part.new_empty(*part.shape[:-1], len(beyond)) for part in parts]
    fill(outer, *own)
    fade(outer, *own)
    for part, found in zip(parts, own, strict=True):
        part.index_copy_(-1, beyond, found)


def _data(
    volume: torch.Tensor, at: torch.Tensor, *, least: float, slopes: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return averages (N,) and weights (N,), and fill in the slopes (3, N) of the averages where they are wanted."""
    shape, flat = tuple(volume.shape[1:]), _flat(volume)
    average, weight = (at.new_empty(at.shape[1]) for _ in range(2))

    def fill(cells: Cells, *parts: torch.Tensor) -> None:
        """Fill in sums, weights, and the slopes of both."""
        for row, found, slope in zip(flat, parts[:2], _slopes(parts), strict=True):
            cells.read(row, found, slope)

    def fade(cells: Cells, *parts: torch.Tensor) -> None:
        """Change them to those beyond the volume."""
        falls = Falls(cells)
        for found, slope in zip(parts[:2], _slopes(parts), strict=True):
            if slope is not None:
                cells.flatten(slope)
            falls.apply(found, slope)

    def read(some: slice) -> None:
        """Fill in some averages, weights and slopes."""
        found, share = average[some], weight[some]
        parts = [found, share] if slopes is None else [found, share, slopes[:, some], torch.empty_like(slopes[:, some])]
        _fill(Cells(at.detach()[:, some], shape), fill, fade, parts)
        divisor = share.clamp(min=least)
        found.div_(divisor)
        if slopes is not None:
            falling = found * (share >= least)  # below it the divisor has no slope
            for row, of_weight in zip(*parts[2:], strict=True):
                row.addcmul_(of_weight, falling, value=-1).div_(divisor)
        share.clamp_(0, 1)

    _for_pieces(at.shape[1], read)
    return average, weight


def _slopes(parts: Sequence[torch.Tensor]) -> Sequence[torch.Tensor | None]:
    """Return the slopes of sums and weights, where there are any."""
    return parts[2:] if len(parts) > 2 else (None, None)


def _flat(volume: torch.Tensor) -> torch.Tensor:
    """Return a volume (C, W, H, D) as (C, voxels), without a gradient."""
    return volume.detach().reshape(len(volume), -1)


def _for_pieces(count: int, read: Callable[[slice], None]) -> None:
    """Call a function for every piece of so many positions, by as many threads as torch has."""
    threads = min(torch.get_num_threads(), count // LEAST_OF_A_THREAD, MOST_THREADS)
    if threads < 2:
        for some in _pieces(count):
            read(some)
        return
    inference = torch.is_inference_mode_enabled()

    def in_mode(some: slice) -> None:
        with torch.inference_mode(inference):  # a mode belongs to a thread
            read(some)

    turns = math.ceil(count / (threads * MOST_OF_A_THREAD))
    pieces = _pieces(count, math.ceil(count / (turns * threads)))
    list(_workers(torch.get_num_threads(), os.getpid()).map(in_mode, pieces))


@lru_cache(maxsize=1)
def _workers(threads: int, process: int) -> ThreadPoolExecutor:
    """Return threads that share few long tasks, where torch would share many short operations.

    Args:
        threads: of torch.
        process: a fork has none of the threads of its parent.
    """
    return ThreadPoolExecutor(min(threads, MOST_THREADS), initializer=_alone)


def _alone() -> None:
    """Let this thread share no operation with others, once torch has told it how many it may use.

    `torch.set_num_threads` would tell all threads to come, and MKL to use two threads for the smallest product.
    """
    torch.get_num_threads()
    threadpool_limits(1, user_api="openmp")


def _pieces(count: int, size: int = 0) -> Iterator[slice]:
    """Yield the positions that are read at a time."""
    size = size or POINTS_AT_A_TIME
    return (slice(first, first + size) for first in range(0, count, size))
