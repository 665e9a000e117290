"""A map of space, as it is applied: a field on its grid, with known affine maps before and after it.

This room knows where points and voxels go, both ways. It must not know files, networks or the fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from scripts.errors import PairError
from scripts.geometry import Grid, placed, to_mm, to_vox
from scripts.inverse import preimages
from scripts.sampling import sample, through

ALL_KNOWN = 1 - 1e-4  # of a mask read between voxels: all around are known, but for rounding
PIECE_VOXELS = 2**20  # voxels worked on at a time: 12 MiB for their positions


@dataclass(frozen=True)
class SpatialMap:
    """The map ``x -> after(y + u(y))`` with ``y = before(x)``, from a reference point to its moving point, in RAS mm.

    field: (3, W, H, D), float32, in voxels of ``grid``, linear between its voxels; half a voxel beyond its outer voxels
    their value counts, and further away nothing is known. before, after: 4x4, RAS mm; the identity by default. valid:
    (W, H, D), bool, where the field is known besides; everywhere by default.
    """

    field: torch.Tensor
    grid: Grid
    before: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(4))
    after: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(4))
    valid: torch.Tensor | None = None

    def __post_init__(self) -> None:
        for name, affine in (("before", self.before), ("after", self.after)):
            check_affine(affine, name)

    def composed(self, *, before: np.ndarray | None = None, after: np.ndarray | None = None) -> SpatialMap:
        """The map with another affine in front of everything, ``before``, and one behind everything, ``after``."""
        first = self.before if before is None else self.before @ check_affine(before, "before")
        last = self.after if after is None else check_affine(after, "after") @ self.after
        return SpatialMap(self.field, self.grid, first, last, self.valid)

    def sure(self, positions: torch.Tensor) -> torch.Tensor:
        """Whether the field is known around positions (1, 3, w, h, d), in its voxels: (1, 1, w, h, d), bool."""
        if self.valid is None:
            return torch.ones_like(positions[:, :1], dtype=torch.bool)
        return sample(self._mask, positions.float(), padding_mode="border") > ALL_KNOWN

    @cached_property
    def _mask(self) -> torch.Tensor:
        """``valid`` to be read between voxels."""
        assert self.valid is not None
        return self.valid[None, None].to(self.field.device, torch.float32)

    def to_moving(self, points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where points (N, 3) in RAS mm go, float64, and which of them the field knows (N,), bool.

        The others move with the field's nearest border value.
        """
        at = to_vox(to_mm(points_mm, self.before), self.grid.affine)
        if not len(at):
            return at, np.zeros(0, dtype=bool)
        positions = _as_positions(at)
        moved, known = through(self.field[None], positions)
        known = known & self.sure(positions)
        return to_mm(to_mm(_as_points(moved), self.grid.affine), self.after), known.flatten().numpy()

    def to_reference(self, points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The points (N, 3) that go to moving points (N, 3), RAS mm, float64: the inverse; and which are known (N,), bool.

        Not known are those whose origin lies outside the field, or was not found (in a fold); what stands there follows
        from the field's border values, carried on.
        """
        targets = to_vox(to_vox(points_mm, self.after), self.grid.affine)
        found, known = preimages(self.field, torch.from_numpy(targets))
        if len(found):
            known = known & self.sure(_as_positions(found.numpy())).flatten()
        return to_vox(to_mm(found.numpy(), self.grid.affine), self.before), known.numpy()

    def positions(self, reference: Grid, target: np.ndarray) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """Slab by slab of a reference grid: its planes, where they go in voxels of the affine ``target``, what is known.

        The positions are (1, 3, k, H, D), float32; known is (1, 1, k, H, D), bool.
        """
        own = self.grid.same_as(reference) and np.array_equal(self.before, np.eye(4))
        to_own = np.linalg.inv(self.grid.affine) @ self.before @ reference.affine
        to_target = np.linalg.inv(np.asarray(target, np.float64)) @ self.after @ self.grid.affine
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
        """The same map as one field on a reference grid, without affines; and where it is known (W, H, D), bool.

        Elsewhere the field carries the displacement of its own border on.
        """
        known = torch.ones(tuple(reference.shape), dtype=torch.bool) if self.valid is None else self.valid.clone()
        if self.grid.same_as(reference) and all(np.array_equal(a, np.eye(4)) for a in (self.before, self.after)):
            return self, known
        field, known = torch.empty(3, *reference.shape), torch.empty(tuple(reference.shape), dtype=torch.bool)
        for planes, moved, valid in self.positions(reference, reference.affine):
            field[:, planes] = moved[0] - reference.planes(planes.start, planes.stop)
            known[planes] = valid[0, 0]
        return SpatialMap(field, reference), known


def slabs(grid: Grid) -> Iterator[slice]:
    """Planes of the first axis of a grid, about PIECE_VOXELS voxels at a time."""
    step = max(1, PIECE_VOXELS // (grid.shape[1] * grid.shape[2]))
    for first in range(0, grid.shape[0], step):
        yield slice(first, min(first + step, grid.shape[0]))


def check_affine(affine: np.ndarray, name: str) -> np.ndarray:
    """The same, 4x4 and float64; PairError for what is no affine map with an inverse."""
    found = np.asarray(affine, dtype=np.float64)
    sound = found.shape == (4, 4) and bool(np.isfinite(found).all()) and np.allclose(found[3], [0, 0, 0, 1])
    if not sound or abs(np.linalg.det(found[:3, :3])) < 1e-9:
        raise PairError(f"the affine {name} must be 4x4 with the last row 0 0 0 1 and an inverse, got {found.tolist()}")
    return found


def _as_positions(points_vox: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(points_vox.T)).view(1, 3, -1, 1, 1)


def _as_points(positions: torch.Tensor) -> np.ndarray:
    return positions.reshape(3, -1).T.numpy()
