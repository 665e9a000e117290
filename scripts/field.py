"""From a fitted network to a displacement field: on any lattice, on the whole grid, at any time later.

The field is defined by the network's values on a *control lattice* over the fixed image and an interpolation between them
(linear or cubic B-spline), so the network is asked at few points however large the image is. This room knows how network
units (half the fixed image's longest side) become voxels; it must not know losses, levels or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from scripts.geometry import (
    Lattice,
    Upsampler,
    half_extent_mm,
    interpolation_matrix,
    isotropic_coordinates,
    lattice_over,
    nodes_for_budget,
    spacing_mm,
    to_mm,
    to_vox,
)
from scripts.sampling import moving_positions

POINTS_AT_A_TIME = 1024  # each holds a slice of the control lattice: some 20 MiB in all


@dataclass(frozen=True)
class FieldSpace:
    """Where a network's field lives: the fixed grid, how the control lattice is spread over it, where the fit began.

    start: 4x4 affine map in RAS mm that follows the network's own (the identity unless the scans began far apart).
    order: 1 linear, 3 cubic B-spline interpolation between the control nodes.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    order: int = 3
    start: np.ndarray = field(default_factory=lambda: np.eye(4))

    def control(self, points: int) -> Lattice:
        """The control lattice of about ``points`` nodes (at least 4 along an axis, for the spline's sake)."""
        return lattice_over(self.shape, nodes_for_budget(self.shape, spacing_mm(self.affine), points, least=4))

    def full(self) -> Lattice:
        """The fixed image's own grid."""
        return lattice_over(self.shape, self.shape)

    def network_input(self, control: Lattice, device: torch.device | str) -> torch.Tensor:
        """Coordinates of the control nodes as the network wants them, (1, 3, *control.shape)."""
        return isotropic_coordinates(control, self.shape, self.affine)[None].to(device)

    def unit_vox(self, step_vox: Sequence[float], device: torch.device | str) -> torch.Tensor:
        """How many nodes of ``step_vox`` fixed voxels one unit of network output is, (1, 3, 1, 1, 1)."""
        unit = half_extent_mm(self.shape, self.affine) / spacing_mm(self.affine) / np.asarray(step_vox)
        return torch.as_tensor(unit, dtype=torch.float32, device=device).view(1, 3, 1, 1, 1)

    def after_start(self, field_vox: torch.Tensor) -> torch.Tensor:
        """The whole displacement (1, 3, W, H, D) in voxels: start(x + v(x)) - x, v the network's own."""
        if np.array_equal(self.start, np.eye(4)):
            return field_vox
        return moving_positions(
            field_vox, fixed_affine=self.affine, moving_affine=np.linalg.solve(self.start, self.affine)
        ).sub_(self.full().points().to(field_vox.device))


@torch.no_grad()
def dense_field(
    network: nn.Module, space: FieldSpace, control: Lattice, *, offsets: torch.Tensor | None = None
) -> torch.Tensor:
    """The displacement (1, 3, W, H, D) on the fixed grid in voxels, float32; fixed point to moving point.

    offsets: (1, 3, w, h, d), in the network's unit, on a lattice of their own over the fixed grid; what the network says is
    interpolated to that lattice, and they are added.
    """
    values, nodes = control_values(network, space, control, offsets=offsets)
    upsample = Upsampler(nodes, space.full(), order=space.order, device=values.device)
    return space.after_start(upsample(values))


@torch.no_grad()
def control_values(
    network: nn.Module, space: FieldSpace, control: Lattice, *, offsets: torch.Tensor | None = None
) -> tuple[torch.Tensor, Lattice]:
    """What the field is interpolated from: displacements (1, 3, w, h, d) in voxels, before the start, and their lattice."""
    device = next(network.parameters()).device
    values = network(space.network_input(control, device))
    if offsets is not None:
        finer = lattice_over(space.shape, offsets.shape[2:])
        values = Upsampler(control, finer, order=space.order, device=device)(values) + offsets.to(device)
        control = finer
    return values * space.unit_vox((1, 1, 1), device), control


def field_at_voxels(space: FieldSpace, values: torch.Tensor, control: Lattice, *, voxels: np.ndarray) -> np.ndarray:
    """Displacements (N, 3) in voxels, float64, at voxels (N, 3) of the fixed grid, from `control_values` alone."""
    voxels = np.asarray(voxels, dtype=np.float64)
    found = np.empty_like(voxels)
    for first in range(0, len(voxels), POINTS_AT_A_TIME):
        some = torch.from_numpy(voxels[first : first + POINTS_AT_A_TIME])
        weights = []
        for axis in range(3):
            nodes = (some[:, axis] - control.origin_vox[axis]) / control.step_vox[axis]
            weights.append(interpolation_matrix(control.shape[axis], nodes, order=space.order))
        rows = torch.einsum("cwhd,nw->nchd", values[0].cpu(), weights[0])
        read = torch.einsum("nchd,nh,nd->nc", rows, weights[1], weights[2])
        found[first : first + POINTS_AT_A_TIME] = read.double().numpy()
    moved_mm = to_mm(to_mm(voxels + found, space.affine), space.start)
    return to_vox(moved_mm, space.affine) - voxels
