"""Back from files: the field of a finished registration, from its few hundred kilobytes of network instead of the map.

This room knows how `configs/inference.json` builds its network from the options kept in network.pt. It must not know the
fit, the losses or the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.checkpoint import load_checkpoint
from scripts.errors import PairError
from scripts.field import FieldSpace, dense_field
from scripts.network import NCF, Sine


def network_field(path: str | Path) -> tuple[torch.Tensor, np.ndarray]:
    """The field (3, W, H, D) in voxels, float32, fixed to moving, of a network.pt, and the fixed affine (4, 4), RAS mm.

    The same as displacement.nii.gz beside it, but for rounding. Raises PairError for a file that is damaged, or whose
    network an overlay built in another way than the options say.
    """
    state = load_checkpoint(path)
    network = _network(state["network"])
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    modules = [type(module).__name__ for module in network.modules()]
    if modules != state["modules"] or shapes != {name: value.shape for name, value in state["weights"].items()}:
        raise PairError(f"{path} holds another network than its options describe; build it as its config did")
    network.load_state_dict(state["weights"])
    affine = state["fixed_affine"].numpy()
    width, height, depth = state["fixed_shape"]
    space = FieldSpace((width, height, depth), affine, state["interpolation"], state["start"].numpy())
    return dense_field(network, space, space.control(state["control_points"]), offsets=state["offsets"])[0], affine


def _network(options: Mapping[str, Any]) -> NCF:
    """The network of the options, as `network_def` of configs/inference.json builds it."""
    return NCF(
        width=options["width"],
        depth=options["depth"],
        activation=Sine(options["omega"]),
        smooth_channels=options["smooth_channels"],
        kernel_size=options["kernel_size"],
    )
