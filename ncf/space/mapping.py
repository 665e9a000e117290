"""A map of space as it is applied: a displacement field on its grid, with a pre-transform and a post-transform.

This module knows where points and voxels go, in both directions. It must not know files, networks or the fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from ncf.core.errors import PairError
from ncf.space.geometry import placed, to_mm, to_vox
from ncf.space.grids import Grid
from ncf.space.preimages import preimages
from ncf.space.sampling import sample, through

ALL_KNOWN = 1 - 1e-4  # of a mask read between voxels: all voxels around are known, up to rounding
PIECE_VOXELS = 2**20  # voxels processed at a time: 12 MiB for their positions


@dataclass(frozen=True)
class SpatialMap:
    """The map ``x -> post(y + u(y))`` with ``y = pre(x)``, from a reference point to its moving point, in RAS mm.

    Attributes:
        field: u, (3, W, H, D), float32, in voxels of ``grid``, linear between its voxels. Up to half a voxel beyond its
            outer voxels their value is used; further away the field is not known.
        grid: where the field lies.
        pre_transform: (4, 4), RAS mm; the identity by default.
        post_transform: (4, 4), RAS mm; the identity by default.
        valid: (W, H, D), bool, False where the field is not known inside its grid either; None means known everywhere.
    """

    field: torch.Tensor
    grid: Grid
    pre_transform: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(4))
    post_transform: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(4))
    valid: torch.Tensor | None = None

    def __post_init__(self) -> None:
        for name, affine in (("pre_transform", self.pre_transform), ("post_transform", self.post_transform)):
            check_affine(affine, name)

    def composed(
        self, *, pre_transform: np.ndarray | None = None, post_transform: np.ndarray | None = None
    ) -> SpatialMap:
        """Return the map with another affine before everything, and one after everything.

        Args:
            pre_transform: (4, 4), RAS mm, applied first; None for none.
            post_transform: (4, 4), RAS mm, applied last; None for none.

        Raises:
            PairError: an affine is not 4x4 or has no inverse.
        """
        first = (
            self.pre_transform
            if pre_transform is None
            else self.pre_transform @ check_affine(pre_transform, "pre_transform")
        )
        last = (
            self.post_transform
            if post_transform is None
            else check_affine(post_transform, "post_transform") @ self.post_transform
        )
        return SpatialMap(self.field, self.grid, first, last, self.valid)

    def sure(self, positions: torch.Tensor) -> torch.Tensor:
        """Tell where ``valid`` is True at all voxels around given positions.

        Args:
            positions: (1, 3, w, h, d), in voxels of the field.

        Returns:
            (1, 1, w, h, d), bool; True everywhere without ``valid``.
        """
        if self.valid is None:
            return torch.ones_like(positions[:, :1], dtype=torch.bool)
        return sample(self._mask, positions.float(), padding_mode="border") > ALL_KNOWN

    @cached_property
    def _mask(self) -> torch.Tensor:
        """Return ``valid`` as numbers that can be read between voxels."""
        assert self.valid is not None
        return self.valid[None, None].to(self.field.device, torch.float32)

    def to_moving(self, points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map points from the reference to the moving image.

        Args:
            points_mm: (N, 3), RAS mm.

        Returns:
            The moving points (N, 3), RAS mm, float64; and which of them the field knows (N,), bool. The others move
            with the nearest border value of the field.
        """
        at = to_vox(to_mm(points_mm, self.pre_transform), self.grid.affine)
        if not len(at):
            return at, np.zeros(0, dtype=bool)
        positions = _as_positions(at)
        moved, known = through(self.field[None], positions)
        known = known & self.sure(positions)
        return to_mm(to_mm(_as_points(moved), self.grid.affine), self.post_transform), known.flatten().numpy()

    def to_reference(self, points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map points from the moving image to the reference: the inverse of `to_moving`.

        Args:
            points_mm: (N, 3), RAS mm.

        Returns:
            The reference points (N, 3), RAS mm, float64; and which of them are known (N,), bool. A point is not known
            if its origin lies outside the field, or was not found (in a fold); its value then follows from the border
            values of the field, which are continued outwards.
        """
        targets = to_vox(to_vox(points_mm, self.post_transform), self.grid.affine)
        found, known = preimages(self.field, torch.from_numpy(targets))
        if len(found):
            known = known & self.sure(_as_positions(found.numpy())).flatten()
        return to_vox(to_mm(found.numpy(), self.grid.affine), self.pre_transform), known.numpy()

    def positions(self, reference: Grid, target: np.ndarray) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Yield where the voxels of a reference grid go, slab by slab along its first axis.

        Args:
            reference: the grid.
            target: (4, 4), voxel -> RAS mm, of the grid in whose voxels the positions are.

        Yields:
            The slab's planes; the positions (1, 3, k, H, D), float32; and where the map is known, (1, 1, k, H, D),
            bool.
        """
        own = self.grid.same_as(reference) and np.array_equal(self.pre_transform, np.eye(4))
        to_own = np.linalg.inv(self.grid.affine) @ self.pre_transform @ reference.affine
        to_target = np.linalg.inv(np.asarray(target, np.float64)) @ self.post_transform @ self.grid.affine
        for planes in slabs(reference):
            at = reference.planes(planes.start, planes.stop)[None].to(self.field.device)
            if own:
                moved, known = at + self.field[None, :, planes], self.sure(at)
            else:
                start = placed(at, to_own)
                moved, known = through(self.field[None], start)
                known = known & self.sure(start)
            yield planes, placed(moved, to_target), known

    def on(self, reference: Grid) -> tuple[SpatialMap, torch.Tensor]:
        """Return the same map as one field on a reference grid, without affines, and where it is known.

        Args:
            reference: the grid.

        Returns:
            The map; and (W, H, D), bool. Where the map is not known, its field continues the displacement at the border
            of this field.
        """
        known = torch.ones(tuple(reference.shape), dtype=torch.bool) if self.valid is None else self.valid.clone()
        if self.grid.same_as(reference) and all(
            np.array_equal(a, np.eye(4)) for a in (self.pre_transform, self.post_transform)
        ):
            return self, known
        field, known = torch.empty(3, *reference.shape), torch.empty(tuple(reference.shape), dtype=torch.bool)
        for planes, moved, valid in self.positions(reference, reference.affine):
            field[:, planes] = moved[0] - reference.planes(planes.start, planes.stop)
            known[planes] = valid[0, 0]
        return SpatialMap(field, reference), known


def slabs(grid: Grid) -> Iterator[slice]:
    """Yield the planes of a grid's first axis, about PIECE_VOXELS voxels at a time."""
    step = max(1, PIECE_VOXELS // (grid.shape[1] * grid.shape[2]))
    for first in range(0, grid.shape[0], step):
        yield slice(first, min(first + step, grid.shape[0]))


def check_affine(affine: np.ndarray, name: str) -> np.ndarray:
    """Return an affine as float64.

    Args:
        affine: (4, 4), with the last row 0 0 0 1.
        name: of the affine, for the message.

    Raises:
        PairError: it is no affine map with an inverse.
    """
    found = np.asarray(affine, dtype=np.float64)
    sound = found.shape == (4, 4) and bool(np.isfinite(found).all()) and np.allclose(found[3], [0, 0, 0, 1])
    if not sound or abs(np.linalg.det(found[:3, :3])) < 1e-9:
        raise PairError(f"the affine {name} must be 4x4 with the last row 0 0 0 1 and an inverse, got {found.tolist()}")
    return found


def _as_positions(points_vox: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(points_vox.T)).view(1, 3, -1, 1, 1)


def _as_points(positions: torch.Tensor) -> np.ndarray:
    return positions.reshape(3, -1).T.numpy()
