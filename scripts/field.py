"""From a fitted network to a displacement field: on any lattice, on the whole grid, at any time later.

The field is defined by the network's values on a *control lattice* over the fixed image and an interpolation between them
(linear or cubic B-spline), so the network is asked at few points however large the image is. This room knows how network
units (half the fixed image's longest side) become voxels; it must not know losses, levels or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from scripts.geometry import (
    Lattice,
    Upsampler,
    half_extent_mm,
    isotropic_coordinates,
    lattice_over,
    nodes_for_budget,
    spacing_mm,
)


@dataclass(frozen=True)
class FieldSpace:
    """Where a network's field lives: the fixed grid, how the control lattice is spread over it, where the fit began.

    start_vox: displacement in fixed voxels that the network's own is added to (zero unless the images were centred first).
    order: 1 linear, 3 cubic B-spline interpolation between the control nodes.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    order: int = 3
    start_vox: tuple[float, float, float] = (0.0, 0.0, 0.0)

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

    def start(self, step_vox: Sequence[float], device: torch.device | str) -> torch.Tensor:
        """The start displacement in nodes of ``step_vox`` fixed voxels, (1, 3, 1, 1, 1)."""
        start = np.asarray(self.start_vox) / np.asarray(step_vox)
        return torch.as_tensor(start, dtype=torch.float32, device=device).view(1, 3, 1, 1, 1)


@torch.no_grad()
def dense_field(network: nn.Module, space: FieldSpace, control: Lattice) -> torch.Tensor:
    """The displacement (1, 3, W, H, D) on the fixed grid in voxels, float32; fixed point to moving point."""
    device = next(network.parameters()).device
    values = network(space.network_input(control, device)) * space.unit_vox((1, 1, 1), device)
    return Upsampler(control, space.full(), order=space.order, device=device)(values).add_(space.start((1, 1, 1), device))
