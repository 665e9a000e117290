"""The 3D convolution of the network, as a matrix product over shifted copies, with gradients of its own.

It must not know networks, images or levels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
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
        return torch.stack([padded[(..., *part)] for part in _parts(padded, size)], dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient with respect to the volume."""
        found = grads[0].new_zeros(ctx.shape)
        for number, part in enumerate(_parts(found, ctx.size)):
            found[(..., *part)] += grads[0][:, number]
        return found, None


class _Sum(torch.autograd.Function):
    """The sum (C, W, H, D) of volumes (size^3, C, W + size - 1, ...), each from its own shift on."""

    @staticmethod
    def forward(ctx: Any, volumes: torch.Tensor, size: int) -> torch.Tensor:
        """Return the sum."""
        ctx.size, ctx.shape = size, volumes.shape
        parts = list(_parts(volumes, size))
        found = volumes[0][(..., *parts[0])].clone()
        for volume, part in zip(volumes[1:], parts[1:], strict=True):
            found += volume[(..., *part)]
        return found

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient with respect to the volumes."""
        found = grads[0].new_zeros(ctx.shape)
        for volume, part in zip(found, _parts(found, ctx.size), strict=True):
            volume[(..., *part)] = grads[0]
        return found, None


def _parts(volume: torch.Tensor, size: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield which part of the last three axes each of size^3 shifts is."""
    lengths = [n - size + 1 for n in volume.shape[-3:]]
    for shift in itertools.product(range(size), repeat=3):
        a, b, c = (slice(first, first + n) for first, n in zip(shift, lengths, strict=True))
        yield a, b, c
