"""The cells of eight voxels in which positions lie: their values, slopes and visits, for `ncf.space.trilinear`.

Positions are in voxels. It must not know images, fields or networks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch


class Cells:
    """The cells of eight voxels in which positions lie.

    Args:
        at: (3, n), in voxels.
        shape: of the volume.

    Attributes:
        first: (n,), index of the first voxel of each cell.
        along: three of (n,), where a position lies in its cell, 0 to 1; beyond the volume 0 or 1.
        left: axes along which some positions lie beyond the volume.
        steps: from a voxel to the next one along each axis, in indices; 0 along an axis of one voxel.
    """

    def __init__(self, at: torch.Tensor, shape: Sequence[int]) -> None:
        self.at, self.shape = at, shape
        strides = (shape[1] * shape[2], shape[2], 1)
        self.steps = [stride if n > 1 else 0 for stride, n in zip(strides, shape, strict=True)]
        last = strides[0] * shape[0] - 1 - sum(self.steps)
        whole = torch.int32 if last < 2**31 else torch.int64
        self.first = torch.zeros(at.shape[1], dtype=whole)
        self.along, self.left = [], []
        for axis, (place, n, stride) in enumerate(zip(at, shape, strides, strict=True)):
            nearest = place.clamp(0, n - 1)
            cell = nearest.floor().clamp_(max=max(n - 2, 0))
            self.along.append(nearest.sub_(cell))
            self.first.add_(cell.to(whole), alpha=stride)
            low, high = place.aminmax()
            if n > 1 and not (low >= 0 and high < n - 1):
                self.left.append(axis)
        self.first.clamp_(0, last)  # a position that is no number has no cell

    def read(self, values: torch.Tensor, found: torch.Tensor, slope: torch.Tensor | None) -> None:
        """Read a volume whose outer voxels go on for ever.

        Args:
            values: of the volume, flat.
            found: (n,), filled with the values at the positions.
            slope: (3, n), filled with the slopes, or None; wrong beyond the volume until `flatten`.
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

    def within(self, axis: int) -> torch.Tensor:
        """Tell which positions do not lie beyond the volume along an axis, (n,), bool."""
        return (self.at[axis] >= 0) & (self.at[axis] < self.shape[axis] - 1)

    def beyond(self) -> torch.Tensor | None:
        """Return the indices of the positions that lie beyond the volume; None where there is none."""
        if not self.left:
            return None
        inside = self.within(self.left[0])
        for axis in self.left[1:]:
            inside &= self.within(axis)
        return inside.logical_not_().nonzero()[:, 0]

    def flatten(self, slope: torch.Tensor) -> None:
        """Set slopes (3, n) to 0 along each axis along which a position lies beyond the volume."""
        for axis in self.left:
            slope[axis].mul_(self.within(axis))

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
        for axis in cells.left:
            place, n = cells.at[axis], cells.shape[axis]
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
