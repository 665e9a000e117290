"""Trilinear reading of volumes on the CPU, with its slope in the same pass.

torch's own sampler has vector code for two dimensions and none for three. Written as eight whole-array gathers and the
lerps between them, the same reading takes a third of the time, and its gradient costs one product more
(docs/decisions/0031-trilinear.md). Positions are in voxels. It must not know images, fields or networks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

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


class Cells:
    """The cells of eight voxels in which positions lie.

    Args:
        at: (3, n), in voxels.
        shape: of the volume.

    Attributes:
        first: (n,), index of the first voxel of each cell.
        along: three of (n,), where a position lies in its cell, 0 to 1; beyond the volume 0 or 1.
        within: of each axis, (n,), bool: where the position does not lie beyond the volume; None for everywhere.
        steps: from a voxel to the next one along each axis, in indices; 0 along an axis of one voxel.
    """

    def __init__(self, at: torch.Tensor, shape: Sequence[int]) -> None:
        self.at, self.shape = at, shape
        strides = (shape[1] * shape[2], shape[2], 1)
        self.steps = [stride if n > 1 else 0 for stride, n in zip(strides, shape, strict=True)]
        last = strides[0] * shape[0] - 1 - sum(self.steps)
        whole = torch.int32 if last < 2**31 else torch.int64
        self.first = torch.zeros(at.shape[1], dtype=whole)
        self.along, self.within = [], []
        for place, n, stride in zip(at, shape, strides, strict=True):
            nearest = place.clamp(0, n - 1)
            cell = nearest.floor().clamp_(max=max(n - 2, 0))
            self.along.append(nearest.sub_(cell))
            self.first.add_(cell.to(whole), alpha=stride)
            low, high = place.aminmax()
            self.within.append(None if low >= 0 and high < n - 1 else (place >= 0) & (place < n - 1))
        self.first.clamp_(0, last)  # a position that is no number has no cell

    def read(self, values: torch.Tensor, found: torch.Tensor, slope: torch.Tensor | None) -> None:
        """Read a volume whose outer voxels go on for ever.

        Args:
            values: of the volume, flat.
            found: (n,), filled with the values at the positions.
            slope: (3, n), filled with the slopes, or None.
        """
        x, y, z = self.along
        a, b, _ = self.steps
        edges = [self._edge(values, start) for start in (0, b, a, a + b)]
        (v00, d00), (v01, d01), (v10, d10), (v11, d11) = ((torch.addcmul(low, rise, z), rise) for low, rise in edges)
        e0, e1 = v01.sub_(v00), v11.sub_(v10)
        low, high = torch.addcmul(v00, e0, y), torch.addcmul(v10, e1, y)
        rise = high.sub_(low)
        torch.addcmul(low, rise, x, out=found)
        if slope is not None:
            d0, d1 = torch.addcmul(d00, d01.sub_(d00), y), torch.addcmul(d10, d11.sub_(d10), y)
            slope[0].copy_(rise)
            torch.addcmul(e0, e1.sub_(e0), x, out=slope[1])
            torch.addcmul(d0, d1.sub_(d0), x, out=slope[2])
            for row, within in zip(slope, self.within, strict=True):
                if within is not None:
                    row.mul_(within)

    def spread(self, count: torch.Tensor) -> None:
        """Add one for each position to a volume, flat, shared by the voxels of its cell; nothing lies beyond it."""
        ones = torch.ones_like(self.along[0])
        Falls(self).apply(ones, None)
        shares = [(ones, 0)]
        for along, step in zip(self.along, self.steps, strict=True):
            if step:
                shares = [(share * (1 - along), start) for share, start in shares] + [
                    (share * along, start + step) for share, start in shares
                ]
        for share, start in shares:
            count[start:].index_add_(0, self.first, share)

    def _edge(self, values: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the value at one voxel of each cell, and how much it rises to the next one along the last axis."""
        low = values[start:].index_select(0, self.first)
        return low, values[start + self.steps[2] :].index_select(0, self.first).sub_(low)


class Falls:
    """How values fall to 0 within one voxel beyond the outer ones.

    Args:
        cells: of the positions.
    """

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self.shares: dict[int, torch.Tensor] = {}
        for axis, (place, n, within) in enumerate(zip(cells.at, cells.shape, cells.within, strict=True)):
            if within is not None and n > 1:
                self.shares[axis] = torch.minimum(place + 1, n - place).clamp_(0, 1)

    def apply(self, values: torch.Tensor, slope: torch.Tensor | None) -> None:
        """Change values (n,) and slopes (3, n) that were read with the outer voxels going on for ever."""
        if slope is not None:
            for share, row in itertools.product(self.shares.values(), slope):
                row.mul_(share)
            for axis in self.shares:  # where it falls, the value itself does not change along this axis
                others = (share for other, share in self.shares.items() if other != axis)
                slope[axis].add_(_product(values * self._slope(axis), others))
        _product(values, self.shares.values())

    def _slope(self, axis: int) -> torch.Tensor:
        """Return how a share changes along its axis, (n,): 1, 0 or -1."""
        place, n = self.cells.at[axis], self.cells.shape[axis]
        rises, falls = (place >= -1) & (place < 0), (place >= n - 1) & (place < n)
        return rises.to(place) - falls.to(place)


def _product(values: torch.Tensor, shares: Iterable[torch.Tensor]) -> torch.Tensor:
    """Multiply values by shares, in place."""
    for share in shares:
        values.mul_(share)
    return values
