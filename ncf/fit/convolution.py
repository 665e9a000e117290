"""The 3D convolution of the network, as a matrix product over shifted copies, with gradients of its own.

It must not know networks, images or levels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


class ReplicatedConv3d(nn.Conv3d):
    """torch's `Conv3d` with replicated edges as a matrix product over shifted copies: same value, same gradient.

    On lattices of a few thousand nodes torch's own is slow on the CPU, and on CUDA the gradient of its padding differs
    from run to run. The product is taken on the side with fewer channels.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=kernel_size // 2, padding_mode="replicate")

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return (1, out_channels, W, H, D) of an input (1, in_channels, W, H, D)."""
        shape, size = input.shape[2:], self.kernel_size[0]
        padded = _Padded.apply(input[0], size // 2)
        kernel = self.weight.flatten(2)  # (out, in, size^3)
        if self.in_channels <= self.out_channels:
            found = kernel.flatten(1) @ _Copies.apply(padded, size).flatten(0, 1).flatten(1)
        else:
            products = kernel.permute(2, 0, 1).flatten(0, 1) @ padded.flatten(1)
            found = _Sum.apply(products.view(-1, self.out_channels, *padded.shape[1:]), size).flatten(1)
        assert self.bias is not None
        return (found + self.bias[:, None]).view(1, self.out_channels, *shape)


class _Padded(torch.autograd.Function):
    """A volume (C, W, H, D) with its outer nodes repeated, so many times at each face."""

    @staticmethod
    def forward(ctx: Any, volume: torch.Tensor, times: int) -> torch.Tensor:
        """Return the larger volume."""
        ctx.times = times
        for axis in range(1, 4):
            first, last = (volume.narrow(axis, i, 1) for i in (0, volume.shape[axis] - 1))
            volume = torch.cat([first] * times + [volume] + [last] * times, dim=axis)
        return volume

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient with respect to the volume."""
        (found,), times = grads, ctx.times
        for axis in (3, 2, 1):
            length = found.shape[axis] - 2 * times
            inner = found.narrow(axis, times, length).clone()
            inner.narrow(axis, 0, 1).add_(found.narrow(axis, 0, times).sum(dim=axis, keepdim=True))
            inner.narrow(axis, length - 1, 1).add_(found.narrow(axis, length + times, times).sum(axis, keepdim=True))
            found = inner
        return found, None


class _Copies(torch.autograd.Function):
    """The shifted copies (C, size^3, W, H, D) of a volume (C, W + size - 1, H + size - 1, D + size - 1)."""

    @staticmethod
    def forward(ctx: Any, padded: torch.Tensor, size: int) -> torch.Tensor:
        """Return the copies."""
        ctx.size, ctx.shape = size, padded.shape
        w, h, d = _lengths(padded, size)
        return padded.unfold(1, w, 1).unfold(2, h, 1).unfold(3, d, 1).reshape(len(padded), size**3, w, h, d)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient with respect to the volume."""
        return sum_of_copies(grads[0], ctx.size), None


class _Sum(torch.autograd.Function):
    """The sum (C, W, H, D) of volumes (size^3, C, W + size - 1, ...), each from its own shift on."""

    @staticmethod
    def forward(ctx: Any, volumes: torch.Tensor, size: int) -> torch.Tensor:
        """Return the sum."""
        ctx.size, ctx.shape = size, volumes.shape
        return sum_of_shifts(volumes, size)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient with respect to the volumes."""
        found = grads[0].new_zeros(ctx.shape)
        _shifted(found, ctx.size).copy_(grads[0].expand(ctx.size, ctx.size, ctx.size, *grads[0].shape))
        return found, None


def sum_of_shifts(volumes: torch.Tensor, size: int, *, at_once: bool | None = None) -> torch.Tensor:
    """Return the sum (C, W, H, D) of volumes (size^3, C, W + size - 1, ...), each from its own shift on.

    Args:
        volumes: contiguous.
        size: of the kernel.
        at_once: True adds them in one operation, as a GPU likes it, False axis by axis, as a processor does; by default
            as the volumes' device likes it.
    """
    if volumes.is_cuda if at_once is None else at_once:
        return _shifted(volumes, size).sum(dim=(0, 1, 2))
    found = _exact(volumes)
    for axis in (-1, -2, -3):  # the last shift is along the last axis
        parts = found.unflatten(0, (-1, size)).unbind(dim=1)
        length = found.shape[axis] - size + 1
        found = parts[0].narrow(axis, 0, length).clone()
        for first, part in enumerate(parts[1:], start=1):
            found += part.narrow(axis, first, length)
    return found[0].to(volumes.dtype)


def sum_of_copies(copies: torch.Tensor, size: int, *, at_once: bool | None = None) -> torch.Tensor:
    """Return the sum (C, W + size - 1, ...) of copies (C, size^3, W, H, D), each added where it was copied from.

    Args:
        copies: of `_Copies`, or their gradients.
        size: of the kernel.
        at_once: as of `sum_of_shifts`.
    """
    m = size - 1
    if copies.is_cuda if at_once is None else at_once:
        wide = F.pad(copies.flip(1).transpose(0, 1), (m,) * 6)  # what is added at a shift is read from its opposite
        return sum_of_shifts(wide.contiguous(), size, at_once=True)
    found = _exact(copies)
    for axis in (-1, -2, -3):
        parts, length = found.unflatten(1, (-1, size)).unbind(dim=2), found.shape[axis]
        shape = list(parts[0].shape)
        shape[axis] += m
        found = found.new_zeros(shape)
        for first, part in enumerate(parts):
            found.narrow(axis, first, length).add_(part)
    return found[:, 0].to(copies.dtype)


def _exact(volume: torch.Tensor) -> torch.Tensor:
    """Return a volume in at least 32 bits; in 16, sums take four times as long, and lose digits."""
    return volume if volume.dtype == torch.float64 else volume.float()


def _shifted(volumes: torch.Tensor, size: int) -> torch.Tensor:
    """Return a view (size, size, size, C, W, H, D) of contiguous volumes (size^3, C, W + size - 1, ...).

    Each is seen from its own shift on.
    """
    volume, channel, *steps = volumes.stride()
    shifts = [volume * size ** (2 - axis) + step for axis, step in enumerate(steps)]
    shape = (size, size, size, volumes.shape[1], *_lengths(volumes, size))
    return volumes.as_strided(shape, (*shifts, channel, *steps))


def _lengths(volume: torch.Tensor, size: int) -> tuple[int, int, int]:
    """Return the shape of a volume's part that every shift has."""
    w, h, d = (n - size + 1 for n in volume.shape[-3:])
    return w, h, d
