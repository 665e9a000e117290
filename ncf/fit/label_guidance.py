"""What label maps ask of a fit: that organs meet their counterparts, stay rigid, or keep their volume.

The labels are given by a person, so they may be wrong or coarse; they guide, and on the last level they weigh less
(`ncf.fit.levels.Level.guidance`). This room must not know networks or files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ncf.core.labels import Labels
from ncf.space.geometry import placed, spacing_mm
from ncf.space.grids import Lattice, nodes_for_budget
from ncf.space.sampling import sample

SHARE_NODES = 60_000  # of the lattices on which labels are compared
BODY_POINTS = 4_000  # of a label that stays rigid or keeps its volume
LEAST_SHARE = 1e-3  # of a label in a cell; cells without any are left out
FIRST_AXES = torch.eye(3)


@dataclass(frozen=True)
class LabelWishes:
    """The label maps of a pair, and what is wanted of which label.

    Attributes:
        fixed: label numbers (1, 1, W, H, D), on the fixed grid.
        moving: label numbers on the moving grid; None where none is named.
        meet: labels of both maps that are to meet.
        rigid: labels of the fixed map in which the map stays rigid, each by itself.
        volume: labels of the fixed map whose volume is kept, place by place.
        tables: what the numbers of both maps stand for; by default they are the labels.
    """

    fixed: torch.Tensor
    moving: torch.Tensor | None = None
    meet: tuple[int, ...] = ()
    rigid: tuple[int, ...] = ()
    volume: tuple[int, ...] = ()
    tables: tuple[Labels, Labels] = (Labels(), Labels())


@dataclass(frozen=True)
class Body:
    """The points of one label.

    Attributes:
        nodes: (1, 3, N, 1, 1), where they lie, in nodes of the level.
        own_mm: (3, N), where they lie, RAS mm.
        matrix: (3, 3), from a displacement in nodes to RAS mm, by the initial transform.
        initial: (3, 3), the linear part of the initial transform.
    """

    nodes: torch.Tensor
    own_mm: torch.Tensor
    matrix: torch.Tensor
    initial: torch.Tensor

    def moved_mm(self, field: torch.Tensor) -> torch.Tensor:
        """Return where a field (1, 3, W, H, D), in nodes, brings the points: (3, N), RAS mm, up to one shift."""
        u = sample(field, self.nodes, padding_mode="border")[0, :, :, 0, 0]
        return self.initial @ self.own_mm + self.matrix @ u

    def volume_change(self, field: torch.Tensor) -> torch.Tensor:
        """Return the determinant of the map around each point, (N,); by central differences over one node."""
        along = []
        for axis in range(3):
            step = FIRST_AXES[axis].view(1, 3, 1, 1, 1).to(field)
            ahead, behind = (sample(field, self.nodes + s * step, padding_mode="border") for s in (0.5, -0.5))
            along.append((ahead - behind)[0, :, :, 0, 0])
        jacobian = torch.stack(along).permute(2, 1, 0) + torch.eye(3).to(field)  # (N, component, axis)
        return torch.linalg.det(jacobian) * torch.linalg.det(self.initial)


@dataclass(frozen=True)
class LabelGuides:
    """What labels ask of a fit on one level.

    Attributes:
        nodes: (1, 3, N, 1, 1), cells of the fixed label map, in nodes of the level.
        fixed_share: (1, K, N), the share of each label that is to meet in these cells; none where K is 0.
        moving_share: (1, K, w, h, d), the same of the moving map, on a lattice of its own.
        to_share: 4x4, from a node of the level to a node of that lattice, by the initial transform.
        rigid: labels that stay rigid.
        volume: labels that keep their volume.
        strength: factor of the terms on this level.
    """

    nodes: torch.Tensor
    fixed_share: torch.Tensor
    moving_share: torch.Tensor
    to_share: np.ndarray
    rigid: tuple[Body, ...]
    volume: tuple[Body, ...]
    strength: float = 1.0

    def shares(self, field: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the shares of the labels by a field, and those that are wanted, both (1, K, N).

        Args:
            field: (1, 3, W, H, D), in nodes.
        """
        at = self.nodes + sample(field, self.nodes, padding_mode="border")
        return sample(self.moving_share, placed(at, self.to_share))[..., 0, 0], self.fixed_share


def on_level(
    wishes: LabelWishes,
    lattice: Lattice,
    fixed_affine: np.ndarray,
    *,
    moving_affine: np.ndarray,
    initial: np.ndarray,
    strength: float,
) -> LabelGuides:
    """Bring what labels ask to a lattice over the fixed grid.

    Args:
        wishes: of a person.
        lattice: of a level.
        fixed_affine: 4x4, voxel to RAS mm.
        moving_affine: 4x4, voxel to RAS mm, of the moving label map.
        initial: 4x4, the initial transform, which follows the displacement.
        strength: factor of the terms on this level.
    """
    device = wishes.fixed.device
    shape = tuple(int(n) for n in wishes.fixed.shape[2:])
    empty = torch.zeros(1, 3, 0, 1, 1, device=device)
    nodes, fixed_share, moving_share = empty, empty[:, :0, :, 0, 0], torch.zeros(1, 0, 1, 1, 1, device=device)
    to_share = np.eye(4)
    if wishes.meet and wishes.moving is not None:
        cells = _cells(shape, fixed_affine)
        shares = _shares(wishes.fixed, wishes.meet, cells.shape, wishes.tables[0])
        seen = (shares.sum(dim=1) > LEAST_SHARE).flatten()
        fixed_share = shares.flatten(2)[:, :, seen]
        nodes = _in_nodes(cells.points().reshape(3, -1)[:, seen.cpu()], lattice).to(device)
        moving_shape = tuple(int(n) for n in wishes.moving.shape[2:])
        own = _cells(moving_shape, moving_affine)
        moving_share = _shares(wishes.moving, wishes.meet, own.shape, wishes.tables[1])
        seen_by = own.affine(np.linalg.solve(initial, moving_affine))
        to_share = np.linalg.solve(seen_by, lattice.affine(fixed_affine))
    rigid, volume = (
        tuple(body(wishes.tables[0].mask(wishes.fixed, n), lattice, fixed_affine, initial) for n in labels)
        for labels in (wishes.rigid, wishes.volume)
    )
    return LabelGuides(nodes, fixed_share, moving_share, to_share, rigid, volume, strength)


def _cells(shape: tuple[int, ...], affine: np.ndarray) -> Lattice:
    """Return the middles of the cells into which a grid is divided to count shares."""
    w, h, d = nodes_for_budget(shape, spacing_mm(affine), SHARE_NODES, least=4)
    counts = tuple(min(n, m) for n, m in zip((w, h, d), shape, strict=True))
    step = [m / n for n, m in zip(counts, shape, strict=True)]
    x, y, z = ((s - 1) / 2 for s in step)
    return Lattice((counts[0], counts[1], counts[2]), (x, y, z), (step[0], step[1], step[2]))


def _shares(labels: torch.Tensor, meet: Sequence[int], shape: tuple[int, int, int], table: Labels) -> torch.Tensor:
    """Return the share of each label in each cell, (1, K, w, h, d), in one pass over the voxels."""
    codes = sorted({code for label in meet for code in table.codes(label)})
    numbers = torch.tensor(codes, dtype=labels.dtype, device=labels.device)
    x, y, z = (
        torch.arange(n, device=labels.device) * cells // n for n, cells in zip(labels.shape[2:], shape, strict=True)
    )
    cell = ((x[:, None, None] * shape[1] + y[:, None]) * shape[2] + z).flatten()
    values = labels.flatten()
    place = torch.searchsorted(numbers, values).clamp(max=len(numbers) - 1)
    known = numbers[place] == values
    size = math.prod(shape)
    counts = torch.bincount(place[known] * size + cell[known], minlength=len(numbers) * size)
    belong = torch.tensor([[float(c in table.codes(label)) for c in codes] for label in sorted(meet)])
    held = belong.to(labels.device, torch.float64) @ counts.view(len(numbers), size).double()
    return (held / torch.bincount(cell, minlength=size)).float().view(1, -1, *shape)


def _in_nodes(voxels: torch.Tensor, lattice: Lattice) -> torch.Tensor:
    """Return voxel positions (3, N) as nodes of a lattice, (1, 3, N, 1, 1), float32."""
    origin, step = (torch.tensor(v).view(3, 1) for v in (lattice.origin_vox, lattice.step_vox))
    return ((voxels.float() - origin) / step)[None, :, :, None, None]


def body(there: torch.Tensor, lattice: Lattice, fixed_affine: np.ndarray, initial: np.ndarray) -> Body:
    """Return points of a label, evenly among its voxels.

    Args:
        there: (1, 1, W, H, D), bool, where the label is on the fixed grid.
        lattice: of the field by which the points will move.
        fixed_affine: 4x4, voxel to RAS mm.
        initial: 4x4, the initial transform, which follows the displacement.
    """
    voxels = there[0, 0].nonzero().T.cpu()
    every = max(1, math.ceil(voxels.shape[1] / BODY_POINTS))
    voxels = voxels[:, ::every]
    own = fixed_affine[:3, :3] @ voxels.numpy()
    own = own - own.mean(axis=1, keepdims=True)
    matrix = initial[:3, :3] @ lattice.affine(fixed_affine)[:3, :3]

    def tensor(values: np.ndarray) -> torch.Tensor:
        """Return numbers as float32 on the device of the labels."""
        return torch.as_tensor(values, dtype=torch.float32, device=there.device)

    return Body(_in_nodes(voxels, lattice).to(there.device), tensor(own), tensor(matrix), tensor(initial[:3, :3]))
