"""The map of a network.pt: a fitted network and its free offsets, evaluated again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ncf.core.errors import PairError
from ncf.fit.field import FieldSpace, control_values, field_at_voxels
from ncf.fit.network import NCF
from ncf.fit.rounding import Rounded
from ncf.io.checkpoint import load_checkpoint
from ncf.space.geometry import to_mm, to_vox
from ncf.space.grids import Grid, Lattice
from ncf.space.interpolation import Upsampler
from ncf.space.mapping import SpatialMap


@dataclass(frozen=True)
class SavedNetwork:
    """The map of a network.pt: the network's values on its control lattice, and how the field follows from them.

    At the fixed voxels it is the field of displacement.nii.gz beside it, except for rounding. That field is linear
    between voxels, so between them this one is linear too.

    Attributes:
        space: where the field lives.
        values: (1, 3, w, h, d), displacements in voxels on the control lattice, without the initial transform.
        control: the control lattice.
    """

    space: FieldSpace
    values: torch.Tensor
    control: Lattice

    @property
    def grid(self) -> Grid:
        """The fixed grid."""
        return Grid(self.space.shape, self.space.affine)

    def field(self) -> torch.Tensor:
        """Return the field (3, W, H, D) in voxels, float32, fixed to moving."""
        upsample = Upsampler(self.control, self.space.full(), order=self.space.order)
        return self.space.after_initial(upsample(self.values))[0]

    def map(self) -> SpatialMap:
        """Return the field as a map that can be applied to points and scans on any grid."""
        return SpatialMap(self.field(), self.grid)

    def to_moving(self, points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Carry a few points as `SpatialMap.to_moving` does, but compute only the voxels around them, not the field.

        Args:
            points_mm: (N, 3), RAS mm.

        Returns:
            Where they lie in the moving scan, (N, 3), RAS mm, float64; and which of them the field covers, (N,), bool.
        """
        at = to_vox(points_mm, self.space.affine)
        last = np.array(self.space.shape) - 1
        known = np.all((at > -0.5) & (at < last + 0.5), axis=1)
        first = np.clip(np.floor(at), 0, np.maximum(last - 1, 0))
        share = np.clip(at - first, 0, 1)
        moved = at.copy()
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod(np.where(np.array(corner) == 1, share, 1 - share), axis=1)
            voxels = np.minimum(first + corner, last)
            moved += weight[:, None] * field_at_voxels(self.space, self.values, self.control, voxels=voxels)
        return to_mm(moved, self.space.affine), known


def saved_network(path: str | Path) -> SavedNetwork:
    """Open the map of a network.pt, fixed to moving. Nothing in the file is executed.

    Args:
        path: of the network.pt.

    Raises:
        PairError: the file is damaged, another version wrote it, or an overlay built its network in another way than
            the options say.
    """
    state = load_checkpoint(path)
    network = NCF(**state["network"])
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    modules = [type(module).__name__ for module in network.modules()]
    weights = {name: Rounded(*kept).values() for name, kept in state["weights"].items()}
    if modules != state["modules"] or shapes != {name: value.shape for name, value in weights.items()}:
        raise PairError(f"{path} holds another network than its options describe; build it as its config did")
    network.load_state_dict(weights)
    offsets = None if state["offsets"] is None else Rounded(*state["offsets"]).values()
    affine = state["fixed_affine"].numpy()
    width, height, depth = state["fixed_shape"]
    space = FieldSpace((width, height, depth), affine, state["interpolation"], state["initial_transform"].numpy())
    values, control = control_values(network, space, space.control(state["control_points"]), offsets=offsets)
    return SavedNetwork(space, values, control)


def network_field(path: str | Path) -> tuple[torch.Tensor, np.ndarray]:
    """Return the field of a network.pt: that of displacement.nii.gz beside it, except for rounding.

    Args:
        path: of the network.pt.

    Returns:
        The field (3, W, H, D) in voxels, float32, fixed to moving, and the fixed affine (4, 4), RAS mm.

    Raises:
        PairError: as of `saved_network`.
    """
    network = saved_network(path)
    return network.field(), network.space.affine
