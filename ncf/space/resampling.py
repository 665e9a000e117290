"""Moving volumes warped to a reference grid. Each value is read once, between the voxels of the file's own grid."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import map_coordinates, spline_filter

from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap
from ncf.space.sampling import inside, sample

IMAGE_MODES = ("bilinear", "spline")
LABEL_MODES = ("nearest", "soft")
SPLINE_ORDER, SPLINE_EDGE = 3, "mirror"  # as in ITK's BSplineInterpolateImageFunction


class Reader:
    """Reads one moving volume at any positions. Outside it an image has its own lowest value, and a label map has 0.

    Args:
        volume: (1, 1, W, H, D), float32.
        mode: ``bilinear`` or ``spline`` for images, ``nearest`` or ``soft`` for labels. ``spline`` is the cubic
            B-spline through the voxels (Unser 1999, doi:10.1109/79.799930). ``soft`` takes the label whose own mask,
            read linearly, is largest.

    Raises:
        ValueError: the mode is another.
    """

    def __init__(self, volume: torch.Tensor, mode: str) -> None:
        if mode not in (*IMAGE_MODES, *LABEL_MODES):
            raise ValueError(f"mode is one of {', '.join((*IMAGE_MODES, *LABEL_MODES))}, not {mode}")
        self.volume, self.mode = volume, mode
        self.nothing = volume.min() if mode in IMAGE_MODES else volume.new_zeros(())
        self.labels = torch.unique(volume) if mode == "soft" else None
        self.nodes = None
        if mode == "spline":
            self.nodes = spline_filter(volume[0, 0].numpy(), SPLINE_ORDER, output=np.float32, mode=SPLINE_EDGE)

    def __call__(self, positions: torch.Tensor) -> torch.Tensor:
        """Read the volume at positions (1, 3, w, h, d) in its voxels; return values (1, 1, w, h, d)."""
        there = inside(positions, self.volume.shape[2:])
        if self.mode == "spline":
            read = self._spline(positions)
        elif self.mode == "soft":
            read = self._largest(positions)
        else:
            read = sample(self.volume, positions, mode=self.mode, padding_mode="border")
        return torch.where(there, read, self.nothing)

    def _spline(self, positions: torch.Tensor) -> torch.Tensor:
        assert self.nodes is not None
        at = positions[0].numpy()
        read = map_coordinates(self.nodes, at, order=SPLINE_ORDER, mode=SPLINE_EDGE, prefilter=False, output=np.float32)
        return torch.from_numpy(read)[None, None]

    def _largest(self, positions: torch.Tensor) -> torch.Tensor:
        assert self.labels is not None
        found = torch.zeros_like(positions[:, :1])
        most = torch.full_like(found, -1.0)
        for label in self.labels:  # in rising order, so that of two labels with equal masks the smaller one stays
            share = sample((self.volume == label).float(), positions, padding_mode="border")
            found = torch.where(share > most, label, found)
            most = torch.maximum(share, most)
        return found


def in_type_of(volume: torch.Tensor, original: torch.Tensor) -> np.ndarray:
    """Return a warped volume in the type of the moving file: int16, or float32.

    Args:
        volume: the warped volume, float32.
        original: the moving volume. Where it holds whole numbers in the range of int16 (CT), the result is rounded to
            int16.
    """
    array = volume.numpy()
    info = np.iinfo(np.int16)
    values = original.as_tensor() if hasattr(original, "as_tensor") else original
    whole = bool((values == values.round()).all()) and info.min <= values.min() and values.max() <= info.max
    return np.rint(array).clip(info.min, info.max).astype(np.int16) if whole else array


def label_type(volume: torch.Tensor) -> np.ndarray:
    """Return labels in the smallest unsigned type that holds them; labels are 0 or more (`ncf.pair.checks`)."""
    return volume.numpy().astype(np.min_scalar_type(int(volume.max())))


def warp(mapping: SpatialMap, volume: torch.Tensor, *, moving: np.ndarray, reference: Grid, mode: str) -> torch.Tensor:
    """Warp a moving volume to a reference grid.

    Args:
        mapping: from the reference to the moving image.
        volume: the moving volume (W, H, D).
        moving: its affine (4, 4), voxel -> RAS mm.
        reference: the grid.
        mode: see `Reader`.

    Returns:
        The warped volume, float32, on the reference grid. Where the map is not known, it holds the same value as where
        the map leaves the moving volume.
    """
    reader = Reader(volume[None, None].float(), mode)
    out = torch.empty(tuple(reference.shape))
    for planes, positions, known in mapping.positions(reference, moving):
        out[planes] = torch.where(known, reader(positions), reader.nothing)[0, 0]
    return out


def planes_read(mapping: SpatialMap, *, moving: Grid, reference: Grid) -> list[tuple[int, int]]:
    """Return which planes of a moving volume, along its third axis, each plane of a reference grid is read from.

    Args:
        mapping: from the reference to the moving image.
        moving: the moving grid.
        reference: the grid.

    Returns:
        The first plane and the one after the last, by reference plane along the third axis; two equal numbers where a
        plane lies wholly outside the moving volume.
    """
    depth, last = reference.shape[2], moving.shape[2] - 1
    low, high = torch.full((depth,), torch.inf), torch.full((depth,), -torch.inf)
    for _, positions, _ in mapping.positions(reference, moving.affine):
        there = inside(positions, moving.shape)[0, 0]
        at = positions[0, 2]
        low = torch.minimum(low, torch.where(there, at, torch.inf).amin(dim=(0, 1)))
        high = torch.maximum(high, torch.where(there, at, -torch.inf).amax(dim=(0, 1)))
    first, after = low.floor().clamp(0, last), high.ceil().clamp(0, last) + 1
    found = torch.stack([first, after], dim=1).nan_to_num(0).long()
    found[low > high] = 0
    return [(int(a), int(b)) for a, b in found.tolist()]
