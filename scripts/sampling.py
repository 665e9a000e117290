"""Reading images between voxels: the one home of `grid_sample`, of smoothing before it, and of MONAI's `Warp`.

Positions are in voxels or nodes everywhere; that torch wants them in [-1, 1], last axis first, is known here alone.
This room must not know networks, losses, files or configs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from monai.networks.blocks import Warp as MonaiWarp

from scripts.geometry import Lattice, field_to_mm, lattice_over, separable, spacing_mm

GAUSS_REACH = 3.0  # a Gaussian is cut at this many standard deviations
NO_TURN_VOX = 1e-3  # two grids' axes agree when they part by less than this over the whole image
PADDING_NOISE = 1e-6  # weights below this count as no data at all


def gaussian_matrix(size: int, sigma: float) -> torch.Tensor:
    """Weights (size, size) of a Gaussian of ``sigma`` samples, cut at 3 sigma; rows are *not* renormalised at the ends."""
    if sigma <= 0:
        return torch.eye(size)
    distance = torch.arange(size).view(-1, 1) - torch.arange(size).view(1, -1)
    reach = max(1, int(np.ceil(GAUSS_REACH * sigma)))
    weights = torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= reach)
    span = torch.arange(-reach, reach + 1)
    return weights / torch.exp(-0.5 * (span / sigma) ** 2).sum()


def reading_matrix(size: int, positions: np.ndarray) -> torch.Tensor:
    """Weights (len(positions), size), float32, that read a row of voxels linearly at positions in voxels; zero outside."""
    distance = np.abs(positions[:, None] - np.arange(size)[None, :])
    return torch.from_numpy(np.maximum(1 - distance, 0)).float()


def normalised(positions: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Positions (B, 3, W, H, D) in voxels of an image of ``shape`` as torch's sampling grid (B, W, H, D, 3), x last axis.

    Corners at -1 and +1; an axis of one voxel sits at -1.
    """
    return (positions * _unit_steps(tuple(shape), positions.device, positions.dtype) - 1).flip(1).movedim(1, -1)


@lru_cache(maxsize=32)
def _unit_steps(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """(1, 3, 1, 1, 1), what a voxel is in [-1, 1]; kept, because on CUDA making it is a copy from the host at every step."""
    return torch.tensor([2 / max(n - 1, 1) for n in shape], device=device, dtype=dtype).view(1, 3, 1, 1, 1)


def threaded(grid: torch.Tensor) -> torch.Tensor:
    """The sampling grid (1, W, H, D, 3) folded to (k, W H D / k, 1, 1, 3), because torch's CPU kernels share work by batch.

    ``k`` is the largest divisor of the number of points that is at most the number of threads; 1 on other devices.
    """
    count = grid[..., 0].numel()
    parts = torch.get_num_threads() if grid.device.type == "cpu" else 1
    while count % parts:
        parts -= 1
    return grid.reshape(parts, count // parts, 1, 1, 3)


def sample(
    image: torch.Tensor, positions: torch.Tensor, *, mode: str = "bilinear", padding_mode: str = "zeros"
) -> torch.Tensor:
    """``image`` (1, C, W, H, D) read at ``positions`` (1, 3, w, h, d), in voxels of ``image``: (1, C, w, h, d)."""
    if len(image) != 1 or len(positions) != 1:  # `threaded` has another use for the batch axis
        raise ValueError(f"one image is read at a time, not shapes {tuple(image.shape)} and {tuple(positions.shape)}")
    grid = threaded(normalised(positions, image.shape[2:]))
    parts = grid.shape[0]
    found = F.grid_sample(
        image.expand(parts, -1, -1, -1, -1), grid, mode=mode, padding_mode=padding_mode, align_corners=True
    )
    return found.transpose(0, 1).reshape(1, image.shape[1], *positions.shape[2:])


def inside(positions: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Whether positions (1, 3, w, h, d) lie in a voxel of an image of ``shape``, half a voxel beyond the centres: bool."""
    last = torch.tensor(shape, device=positions.device, dtype=positions.dtype).view(1, 3, 1, 1, 1) - 0.5
    return ((positions > -0.5) & (positions < last)).all(dim=1, keepdim=True)


def moving_positions(field_vox: torch.Tensor, *, fixed_affine: np.ndarray, moving_affine: np.ndarray) -> torch.Tensor:
    """Where each fixed voxel x reads the moving image, in its voxels: ``A_m^-1 A_f (x + u(x))``, (1, 3, W, H, D).

    ``field_vox``: (1, 3, W, H, D) on the fixed grid.
    """
    matrix = np.linalg.inv(np.asarray(moving_affine, np.float64)) @ np.asarray(fixed_affine, np.float64)
    grid = lattice_over(field_vox.shape[2:], field_vox.shape[2:]).points().to(field_vox.device)
    offset = torch.as_tensor(matrix[:3, 3], dtype=torch.float32, device=field_vox.device)
    return field_to_mm(grid + field_vox, matrix) + offset.view(1, 3, 1, 1, 1)


def image_on_lattice(
    image: torch.Tensor, weight: torch.Tensor, lattice: Lattice, *, affine: np.ndarray, fixed_affine: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """An image and its data weight on a lattice, both (1, 1, *lattice.shape), smoothed first so that nothing aliases.

    Voxels of weight 0 (padding, outside a mask) take no part in the average (normalised convolution); a node's own weight
    says how much of its neighbourhood holds data, 0 outside the image.

    Args:
        image: (1, 1, W, H, D) on its own grid. weight: the same shape, 0 to 1.
        affine: the image's own voxel -> mm. fixed_affine: of the space the lattice lives in.
    """
    own_spacing, step = spacing_mm(affine), spacing_mm(lattice.affine(fixed_affine))
    own = np.linalg.inv(np.asarray(affine, dtype=np.float64)) @ lattice.affine(fixed_affine)
    direction = np.abs(own[:3, :3]) * own_spacing[:, None] / step[None, :]  # own axis against lattice axis, cosines
    want = (direction**2) @ (step**2)
    sigma = 0.5 * np.sqrt(np.maximum(want / own_spacing**2 - 1, 0))
    passes = [gaussian_matrix(n, float(s)).to(image) for n, s in zip(image.shape[2:], sigma, strict=True)]
    parts = _read_smoothed(torch.cat([image * weight, weight], dim=1), passes, own=own, shape=lattice.shape)
    total = parts[:, 1:].clamp(0, 1)
    return parts[:, :1] / total.clamp(min=PADDING_NOISE), total


def _read_smoothed(
    volume: torch.Tensor, passes: Sequence[torch.Tensor], *, own: np.ndarray, shape: tuple[int, int, int]
) -> torch.Tensor:
    """``volume`` with a smoothing matrix along each axis, read at the nodes of a lattice: (1, C, *shape).

    own: 4x4, node -> voxel of the volume. Where the axes agree, one small product an axis smooths and reads at once.
    """
    matrix, origin = own[:3, :3], own[:3, 3]
    across = np.abs(matrix - np.diag(np.diag(matrix))) @ np.array(shape)
    if across.max() < NO_TURN_VOX:
        nodes = [origin[a] + matrix[a, a] * np.arange(n) for a, n in enumerate(shape)]
        reads = [reading_matrix(n, at).to(volume) for n, at in zip(volume.shape[2:], nodes, strict=True)]
        return separable(volume, [read @ smooth for read, smooth in zip(reads, passes, strict=True)])
    points = np.moveaxis(np.indices(shape), 0, -1) @ matrix.T + origin
    positions = torch.from_numpy(np.moveaxis(points, -1, 0).astype(np.float32)).to(volume.device)
    return sample(separable(volume, passes), positions[None])


class Warp(MonaiWarp):
    """MONAI's `Warp` with a reference grid that is built once, for images on another lattice than the field.

    ``warped(i) = image(i + offset + field(i))``, all in nodes; equal to MONAI's where the two shapes agree and the offset
    is zero. The grid of the parent class is built anew at every call (its cache compares the wrong axes).
    """

    def __init__(self, mode: str = "bilinear", padding_mode: str = "zeros") -> None:
        with warnings.catch_warnings():  # the parent warns that it uses torch's sampler, which is what is wanted here
            warnings.simplefilter("ignore")
            super().__init__(mode=mode, padding_mode=padding_mode)
        self._key: tuple | None = None
        self.ref_grid: torch.Tensor = torch.empty(0)

    def positions(self, field: torch.Tensor, offset: Sequence[float] = (0.0, 0.0, 0.0)) -> torch.Tensor:
        """Where each node reads the image, in nodes of the image's lattice, shape of ``field`` (1, 3, W, H, D)."""
        key = (tuple(field.shape[2:]), tuple(offset), field.device)
        if key != self._key:
            axes = [o + torch.arange(n, dtype=torch.float32) for o, n in zip(offset, field.shape[2:], strict=True)]
            self.ref_grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None].to(field.device)
            self._key = key
        return self.ref_grid + field

    def forward(self, image: torch.Tensor, ddf: torch.Tensor, offset: Sequence[float] = (0.0, 0.0, 0.0)) -> torch.Tensor:
        """The image (1, C, *any) pulled back to the field's lattice: (1, C, *ddf.shape[2:])."""
        return sample(
            image, self.positions(ddf, offset), mode=self._interp_mode_native, padding_mode=self._padding_mode_native
        )
