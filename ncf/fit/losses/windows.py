"""Moments of two images in small windows, by three 1D passes: the basis of SSIM and local correlation."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ncf.space.interpolation import separable

SHIFT = 0.5  # middle of a data range of 1: the variances stay the same, their rounding error becomes smaller


class Moments(NamedTuple):
    """Moments of input (x) and target (y) in every window, each (1, 1, w, h, d).

    Attributes:
        mean_x: mean of the input less `SHIFT`.
        mean_y: mean of the target less `SHIFT`.
        var_x: variance of the input.
        var_y: variance of the target.
        cov: covariance of both.
    """

    mean_x: torch.Tensor
    mean_y: torch.Tensor
    var_x: torch.Tensor
    var_y: torch.Tensor
    cov: torch.Tensor


class Windows:
    """Computes moments of two images in windows, the target's only once, and both only once for losses that share it.

    A Gaussian window (or a box) is a product of three 1D windows. So a dense 11x11x11 convolution becomes three small
    matrix products.

    Args:
        sizes: voxels along the three axes.
        sigmas: standard deviations of the Gaussians, in voxels; None for boxes.
        stride: with s, only every s-th window along each axis is used, at about 1/s of the cost. Neighbouring windows
            share most of their voxels (docs/decisions/0012-ssim-stride.md).
    """

    def __init__(self, sizes: Sequence[int], sigmas: Sequence[float] | None, *, stride: int) -> None:
        self.sizes, self.sigmas, self.stride = tuple(sizes), sigmas, stride
        self._input: weakref.ref[torch.Tensor] | None = None
        self._moments: Moments | None = None
        self._target: weakref.ref[torch.Tensor] | None = None
        self._of_target: tuple[torch.Tensor, torch.Tensor] | None = None
        self._passes: list[torch.Tensor] = []

    def __call__(self, input: torch.Tensor, target: torch.Tensor) -> Moments:
        """Return the moments of input and target, both (1, 1, W, H, D).

        The very same two tensors, asked about again, have the moments of the time before: losses that share windows
        compute them once.
        """
        known = self._moments is not None and self._input is not None and self._input() is input
        if not known or self._target is None or self._target() is not target:
            self._moments, self._input = self._computed(input, target), weakref.ref(input)
        assert self._moments is not None
        return self._moments

    def _computed(self, input: torch.Tensor, target: torch.Tensor) -> Moments:
        """Return the moments of input and target."""
        mu_y, var_y = self._prepare(target)
        mu_x, mu_xx, mu_xy = _Means.apply(input, target, self._passes).split(1, dim=1)
        cov = mu_xy - mu_x * mu_y
        return Moments(mu_x, mu_y, mu_xx - mu_x * mu_x, var_y, cov)

    def _prepare(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and variance of the target, computed once for a target."""
        if self._target is None or self._target() is not target or self._of_target is None:
            with torch.no_grad():
                self._passes = self._matrices(target)
                shifted = target - SHIFT
                mu = separable(shifted, self._passes)
                self._of_target = mu, separable(shifted * shifted, self._passes) - mu * mu
            self._target = weakref.ref(target)
        return self._of_target

    def _matrices(self, target: torch.Tensor) -> list[torch.Tensor]:
        """Return one banded matrix (places, n) an axis: the window at every ``stride``-th place where it fits."""
        found = []
        for a, n in enumerate(target.shape[2:]):
            window = self._window(a)
            places = n - len(window) + 1
            if places < 1:
                raise ValueError(f"a window of {len(window)} does not fit into {n} voxels along axis {a}")
            first = torch.arange((places - 1) % self.stride // 2, places, self.stride)
            matrix = torch.zeros(len(first), n)
            for k, w in enumerate(window):
                matrix[torch.arange(len(first)), first + k] = w
            found.append(matrix.to(target))
        return found

    def _window(self, axis: int) -> torch.Tensor:
        """Return the weights of the 1D window along an axis."""
        size = self.sizes[axis]
        if self.sigmas is None:
            return torch.full((size,), 1.0 / size)
        span = torch.arange((1 - size) / 2, (1 + size) / 2)  # as monai.metrics.regression._gaussian_kernel
        gauss = torch.exp(-((span / self.sigmas[axis]) ** 2) / 2)
        return gauss / gauss.sum()


class _Means(torch.autograd.Function):
    """Means of x, x^2 and x y in every window, of input x and target y less `SHIFT`; no gradient for the target."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, target: torch.Tensor, passes: list[torch.Tensor]) -> torch.Tensor:
        """Return the means (1, 3, w, h, d) of images (1, 1, W, H, D)."""
        products = input.new_empty(1, 3, *input.shape[2:])
        x, squares, mixed = products.split(1, dim=1)
        torch.sub(input, SHIFT, out=x)
        torch.mul(x, x, out=squares)
        torch.addcmul(-SHIFT * x, x, target, out=mixed)
        ctx.passes = passes
        ctx.save_for_backward(input, target)
        return separable(products, passes)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the gradient with respect to the input."""
        input, target = ctx.saved_tensors
        first, second, third = ctx.passes
        own, squares, mixed = separable(grads[0], [first.T, second.T, third.T]).split(1, dim=1)
        found = own.addcmul(squares, input, value=2).addcmul_(mixed, target)
        return found.add_(squares, alpha=-2 * SHIFT).add_(mixed, alpha=-SHIFT), None, None


def shared(windows: Windows | None, own: Windows) -> Windows:
    """Return windows of another loss, or a loss's own where it shares none.

    Args:
        windows: of another loss, or None.
        own: as this loss needs them.

    Raises:
        ValueError: the two differ.
    """
    if windows is None:
        return own
    told = [(tuple(w.sizes), None if w.sigmas is None else tuple(w.sigmas), w.stride) for w in (windows, own)]
    if told[0] != told[1]:
        raise ValueError(f"shared windows have sizes, sigmas and stride {told[0]}, this loss wants {told[1]}")
    return windows
