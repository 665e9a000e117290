"""From a fitted network to a displacement field: on any lattice, on the whole grid, at any time later.

A *control lattice* covers the fixed image. The field is defined by the network's values at its nodes and an
interpolation between them: linear or by cubic B-splines (Unser 1999, doi:10.1109/79.799930; Rueckert et al. 1999,
doi:10.1109/42.796284). So the network is evaluated at few points, however large the image is. This room knows how
network units (half the longest side of the fixed image) become voxels. It must not know losses, levels or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from ncf.space.geometry import spacing_mm, to_mm, to_vox
from ncf.space.grids import Lattice, half_extent_mm, isotropic_coordinates, lattice_over, nodes_for_budget
from ncf.space.interpolation import Upsampler, interpolation_matrix
from ncf.space.sampling import moving_positions

POINTS_AT_A_TIME = 1024  # each needs one slice of the control lattice: some 20 MiB in all


@dataclass(frozen=True)
class FieldSpace:
    """Where the field of a network lives: the fixed grid, its control lattices, and the initial transform.

    Attributes:
        shape: of the fixed grid, in voxels.
        affine: 4x4, voxel to RAS mm, of the fixed grid.
        order: interpolation between the control nodes: 1 linear, 3 cubic B-spline.
        initial: 4x4 affine map in RAS mm that follows the network's own map; the identity unless the headers leave the
            scans far apart.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    order: int = 3
    initial: np.ndarray = field(default_factory=lambda: np.eye(4))

    def control(self, points: int) -> Lattice:
        """Return the control lattice of about ``points`` nodes, at least 4 along an axis, as the spline needs."""
        return lattice_over(self.shape, nodes_for_budget(self.shape, spacing_mm(self.affine), points, least=4))

    def full(self) -> Lattice:
        """Return the fixed image's own grid as a lattice."""
        return lattice_over(self.shape, self.shape)

    def network_input(self, control: Lattice, device: torch.device | str) -> torch.Tensor:
        """Return the coordinates of the control nodes as the network wants them.

        Args:
            control: the control lattice.
            device: where the coordinates are needed.

        Returns:
            (1, 3, *control.shape), isotropic in mm, with the longest side of the fixed image from -1 to 1.
        """
        return isotropic_coordinates(control, self.shape, self.affine)[None].to(device)

    def unit_vox(self, step_vox: Sequence[float], device: torch.device | str) -> torch.Tensor:
        """Return how many nodes one unit of network output is.

        Args:
            step_vox: distance of two nodes along each axis, in fixed voxels.
            device: where the numbers are needed.

        Returns:
            (1, 3, 1, 1, 1), float32.
        """
        unit = half_extent_mm(self.shape, self.affine) / spacing_mm(self.affine) / np.asarray(step_vox)
        return torch.as_tensor(unit, dtype=torch.float32, device=device).view(1, 3, 1, 1, 1)

    def values_of(self, field_vox: torch.Tensor, lattice: Lattice, control: Lattice) -> torch.Tensor:
        """Return a field as the network would give it at the control nodes; linear between the nodes of the field.

        Args:
            field_vox: (1, 3, W, H, D), in fixed voxels, without the initial transform.
            lattice: of the field, over the fixed grid.
            control: the control lattice.

        Returns:
            (1, 3, *control.shape), in the network's unit.
        """
        device = field_vox.device
        return Upsampler(lattice, control, order=1, device=device)(field_vox) / self.unit_vox((1, 1, 1), device)

    def after_initial(self, field_vox: torch.Tensor) -> torch.Tensor:
        """Return the whole displacement initial(x + v(x)) - x.

        Args:
            field_vox: the network's own displacement v, (1, 3, W, H, D), in voxels.

        Returns:
            (1, 3, W, H, D), in voxels, fixed to moving.
        """
        if np.array_equal(self.initial, np.eye(4)):
            return field_vox
        return moving_positions(
            field_vox, fixed_affine=self.affine, moving_affine=np.linalg.solve(self.initial, self.affine)
        ).sub_(self.full().points(field_vox.device))


@torch.no_grad()
def dense_field(
    network: nn.Module, space: FieldSpace, control: Lattice, *, offsets: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute the displacement on the fixed grid.

    Args:
        network: positions to offsets.
        space: where the field lives.
        control: the lattice on which the network is evaluated.
        offsets: (1, 3, w, h, d), in the network's unit, on their own lattice over the fixed grid. The network's output
            is interpolated to that lattice, and the offsets are added.

    Returns:
        (1, 3, W, H, D), float32, in voxels, fixed to moving, with the initial transform.
    """
    values, nodes = control_values(network, space, control, offsets=offsets)
    upsample = Upsampler(nodes, space.full(), order=space.order, device=values.device)
    return space.after_initial(upsample(values))


@torch.no_grad()
def control_values(
    network: nn.Module, space: FieldSpace, control: Lattice, *, offsets: torch.Tensor | None = None
) -> tuple[torch.Tensor, Lattice]:
    """Compute the values from which the field is interpolated.

    Args:
        network: positions to offsets.
        space: where the field lives.
        control: the lattice on which the network is evaluated.
        offsets: as of `dense_field`.

    Returns:
        Displacements (1, 3, w, h, d) in voxels, without the initial transform, and the lattice on which they lie.
    """
    device = next(network.parameters()).device
    values = network(space.network_input(control, device))
    if offsets is not None:
        finer = lattice_over(space.shape, offsets.shape[2:])
        values = Upsampler(control, finer, order=space.order, device=device)(values) + offsets.to(device)
        control = finer
    return values * space.unit_vox((1, 1, 1), device), control


def field_at_voxels(space: FieldSpace, values: torch.Tensor, control: Lattice, *, voxels: np.ndarray) -> np.ndarray:
    """Compute displacements at some voxels of the fixed grid, from the control values alone.

    Args:
        space: where the field lives.
        values: (1, 3, w, h, d), of `control_values`.
        control: the lattice of the values.
        voxels: (N, 3), voxel coordinates in the fixed grid.

    Returns:
        (N, 3), float64, in voxels, fixed to moving, with the initial transform.
    """
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
    moved_mm = to_mm(to_mm(voxels + found, space.affine), space.initial)
    return to_vox(moved_mm, space.affine) - voxels
