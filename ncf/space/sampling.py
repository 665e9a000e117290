"""Reading images between voxels: the one home of `grid_sample`, and of MONAI's `Warp`.

Positions are in voxels or nodes everywhere. Only this module knows that torch wants them in [-1, 1], last axis first.
It must not know networks, losses, files or configs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from monai.networks.blocks import Warp as MonaiWarp

from ncf.space.geometry import placed
from ncf.space.grids import lattice_over
from ncf.space.trilinear import faster_on, read_data, read_linear

PADDING_NOISE = 1e-6  # weights below this count as no data


def normalised(positions: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return positions in voxels as torch's sampling grid (B, ..., 3), with the coordinate of the last axis first.

    The corners are at -1 and +1; an axis of one voxel is at -1.

    Args:
        positions: (B, 3, ...), in voxels of the image.
        shape: of the image (3,).
    """
    steps = _unit_steps(tuple(shape), positions.device, positions.dtype)
    return (positions * steps.view(1, 3, *[1] * (positions.ndim - 2)) - 1).flip(1).movedim(1, -1)


@lru_cache(maxsize=32)
def _unit_steps(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return the size of a voxel in [-1, 1], (3,).

    It is cached, because on CUDA making it is a copy from the host at every step.
    """
    return torch.tensor([2 / max(n - 1, 1) for n in shape], device=device, dtype=dtype)


def threaded(grid: torch.Tensor) -> torch.Tensor:
    """Return a sampling grid (..., 3) folded to (k, points / k, 1, 1, 3).

    torch's CPU kernels share work among threads by batch. ``k`` is the largest divisor of the number of points that is
    at most the number of threads; on other devices it is 1.
    """
    count = grid[..., 0].numel()
    parts = torch.get_num_threads() if grid.device.type == "cpu" else 1
    while count % parts:
        parts -= 1
    return grid.reshape(parts, count // parts, 1, 1, 3)


def _read(image: torch.Tensor, at: torch.Tensor, *, mode: str, padding_mode: str) -> torch.Tensor:
    """Read an image (1, C, W, H, D) at positions (3, N) in its voxels: (C, N)."""
    if len(image) != 1:  # `threaded` uses the batch axis for threads
        raise ValueError(f"one image is read at a time, not shape {tuple(image.shape)}")
    known = mode == "bilinear" and padding_mode in ("zeros", "border")
    if known and faster_on(image) and not image.requires_grad:
        return read_linear(image[0], at, border=padding_mode == "border")
    grid = threaded(normalised(at[None], image.shape[2:]))
    found = F.grid_sample(
        image.expand(len(grid), -1, -1, -1, -1), grid, mode=mode, padding_mode=padding_mode, align_corners=True
    )
    return found.transpose(0, 1).reshape(image.shape[1], -1)


def _read_data(image: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Read an image's data (1, 2, W, H, D) at positions (3, N) in its voxels: the average and the weight, each (N,)."""
    if faster_on(image) and not image.requires_grad:
        return read_data(image[0], at, least=PADDING_NOISE)
    total, weight = _read(image, at, mode="bilinear", padding_mode="zeros")
    return total / weight.clamp(min=PADDING_NOISE), weight.detach().clamp(0, 1)


def sample_data(image: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the average of an image's data at positions between its voxels, and how much of it is data.

    Args:
        image: (1, 2, W, H, D): intensity times weight, then weight (`ncf.fit.pyramid.LevelImages.moving`).
        positions: (1, 3, w, h, d), in voxels of the image.

    Returns:
        The average, and the weight, 0 to 1, without a gradient; each (1, 1, w, h, d), and 0 outside the image.
    """
    shape = positions.shape[2:]
    average, weight = _read_data(image, positions[0].flatten(1))
    return average.view(1, 1, *shape), weight.view(1, 1, *shape)


def sample(
    image: torch.Tensor, positions: torch.Tensor, *, mode: str = "bilinear", padding_mode: str = "zeros"
) -> torch.Tensor:
    """Read an image at positions between its voxels.

    Args:
        image: (1, C, W, H, D).
        positions: (1, 3, w, h, d), in voxels of the image.
        mode: of torch's `grid_sample`: ``bilinear`` (linear along all three axes) or ``nearest``.
        padding_mode: of torch's `grid_sample`: ``zeros`` or ``border``.

    Returns:
        Values (1, C, w, h, d).
    """
    found = _read(image, positions[0].flatten(1), mode=mode, padding_mode=padding_mode)
    return found.reshape(1, image.shape[1], *positions.shape[2:])


def every_nth(volume: torch.Tensor, n: int) -> torch.Tensor:
    """Return every n-th node along each of the last three axes of a volume; its gradient is written in one pass."""
    return volume if n == 1 else _EveryNth.apply(volume, n)


class _EveryNth(torch.autograd.Function):
    """Every n-th node along the last three axes."""

    @staticmethod
    def forward(ctx: Any, volume: torch.Tensor, n: int) -> torch.Tensor:
        """Return those nodes."""
        ctx.n, ctx.shape = n, volume.shape
        return volume[..., ::n, ::n, ::n].clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient with respect to the volume: 0 at the others."""
        found = grads[0].new_zeros(ctx.shape)
        found[..., :: ctx.n, :: ctx.n, :: ctx.n] = grads[0]
        return found, None


def inside(positions: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Tell which positions lie in a voxel of an image, up to half a voxel beyond the outer centres.

    Args:
        positions: (1, 3, w, h, d), in voxels of the image.
        shape: of the image (3,).

    Returns:
        (1, 1, w, h, d), bool.
    """
    last = torch.tensor(shape, device=positions.device, dtype=positions.dtype).view(1, 3, 1, 1, 1) - 0.5
    return ((positions > -0.5) & (positions < last)).all(dim=1, keepdim=True)


def moving_positions(field_vox: torch.Tensor, *, fixed_affine: np.ndarray, moving_affine: np.ndarray) -> torch.Tensor:
    """Return where each fixed voxel x reads the moving image: ``A_m^-1 A_f (x + u(x))``, in moving voxels.

    Args:
        field_vox: u, (1, 3, W, H, D) on the fixed grid, in its voxels, fixed to moving.
        fixed_affine: (4, 4), voxel -> RAS mm.
        moving_affine: (4, 4), voxel -> RAS mm.

    Returns:
        Positions (1, 3, W, H, D).
    """
    matrix = np.linalg.inv(np.asarray(moving_affine, np.float64)) @ np.asarray(fixed_affine, np.float64)
    grid = lattice_over(field_vox.shape[2:], field_vox.shape[2:]).points(field_vox.device)
    return placed(grid + field_vox, matrix)


def through(field_vox: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where a field moves positions of its grid, ``x + u(x)``, and where the field is known.

    Args:
        field_vox: u, (1, 3, W, H, D), in voxels, linear between them.
        positions: x, (1, 3, w, h, d), in voxels.

    Returns:
        The moved positions (1, 3, w, h, d), in the precision of ``positions``; and (1, 1, w, h, d), bool. Beyond the
        outer voxels their value is used; further away than half a voxel the field is not known.
    """
    u = sample(field_vox, positions.to(field_vox.dtype), padding_mode="border")
    return positions + u, inside(positions, field_vox.shape[2:])


class Warp(MonaiWarp):
    """MONAI's `Warp` with a reference grid that is built only once, for images on another lattice than the field.

    ``warped(i) = image(placement(i + field(i)))``, with the field in nodes of its own lattice. Without a placement it
    is equal to MONAI's. The parent class builds its grid anew at every call (its cache compares the wrong axes).
    """

    def __init__(self, mode: str = "bilinear", padding_mode: str = "zeros") -> None:
        with warnings.catch_warnings():  # the parent warns that it uses torch's sampler, which is wanted here
            warnings.simplefilter("ignore")
            super().__init__(mode=mode, padding_mode=padding_mode)
        self._key: tuple | None = None
        self.ref_grid: torch.Tensor = torch.empty(0)
        self._matrix: torch.Tensor = torch.empty(0)

    def forward(self, image: torch.Tensor, ddf: torch.Tensor, placement: np.ndarray | None = None) -> torch.Tensor:
        """Warp an image to the field's lattice.

        Args:
            image: (1, C, *any).
            ddf: the field (1, 3, W, H, D), in nodes of its own lattice.
            placement: (4, 4), node of the field's lattice -> voxel of the image; None for the identity.

        Returns:
            The warped image (1, C, W, H, D).
        """
        at = self._positions(ddf, placement)
        found = _read(image, at, mode=self._interp_mode_native, padding_mode=self._padding_mode_native)
        return found.reshape(1, image.shape[1], *ddf.shape[2:])

    def data(
        self, image: torch.Tensor, ddf: torch.Tensor, placement: np.ndarray | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Warp an image with its weight to the field's lattice, as `sample_data` reads it.

        Args:
            image: (1, 2, *any): intensity times weight, then weight.
            ddf: as of `forward`.
            placement: as of `forward`.

        Returns:
            The average of the data, and the weight, without a gradient; each (1, 1, W, H, D).

        Raises:
            ValueError: this warp is not bilinear with zeros around the image, as data is read.
        """
        if (self._interp_mode_native, self._padding_mode_native) != ("bilinear", "zeros"):
            raise ValueError("data is read linearly, with nothing around it: a warp for it has no other modes")
        average, weight = _read_data(image, self._positions(ddf, placement))
        return average.view(1, 1, *ddf.shape[2:]), weight.view(1, 1, *ddf.shape[2:])

    def _positions(self, ddf: torch.Tensor, placement: np.ndarray | None) -> torch.Tensor:
        """Return where the nodes of a field read, (3, points), in voxels of the image."""
        self._prepare(ddf, np.eye(4) if placement is None else placement)
        return torch.addmm(self.ref_grid, self._matrix, ddf[0].reshape(3, -1))

    def _prepare(self, ddf: torch.Tensor, placement: np.ndarray) -> None:
        """Compute and keep the matrix (3, 3) and where the nodes lie in the image without a field, (3, points)."""
        key = (tuple(ddf.shape[2:]), placement.tobytes(), ddf.device, ddf.dtype)
        if key == self._key:
            return
        place = ddf.device if ddf.device.type == "cuda" else "cpu"  # some devices have no float64
        axes = [torch.arange(n, dtype=torch.float64, device=place) for n in ddf.shape[2:]]
        points = torch.stack(torch.meshgrid(*axes, indexing="ij")).reshape(3, -1)
        parts = (placement[:3, :3], placement[:3, 3:])
        linear, shift = (torch.as_tensor(part, dtype=torch.float64, device=place) for part in parts)
        grid = linear @ points + shift
        self._matrix, self.ref_grid = linear.to(ddf), grid.to(ddf)
        self._key = key
