"""Back from files: the result folder of a finished registration, and the field of its network alone.

This room knows what `scripts.results` writes, and how `configs/inference.json` builds its network from the options kept in
network.pt. It must not know the fit, the losses or the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.checkpoint import load_checkpoint
from scripts.datasets import Pairs, checked
from scripts.errors import PairError
from scripts.exporters import load_itk_field
from scripts.field import FieldSpace, control_values, field_at_voxels
from scripts.files import load_json
from scripts.geometry import Grid, Lattice, Upsampler, to_mm, to_vox
from scripts.itk_files import load_map
from scripts.maps import SpatialMap
from scripts.names import FIELD_FILE, METRICS_FILE, NETWORK_FILE, RUN_FILE
from scripts.network import NCF, Sine
from scripts.rounding import Rounded


@dataclass(frozen=True)
class SavedResult:
    """The folder that a registration wrote. Everything is read when it is asked for; PairError where it cannot be."""

    folder: Path

    @property
    def name(self) -> str:
        """Of the pair."""
        return self.folder.name

    @cached_property
    def run(self) -> dict[str, Any]:
        """run.json: settings, inputs, grids, versions, losses."""
        return load_json(self.folder / RUN_FILE)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json, see docs/README.md."""
        return load_json(self.folder / METRICS_FILE)

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that were registered, by their keys (`names.PAIR_KEYS`); they may have moved since.

        Empty for what was registered in memory (`scripts.api`).
        """
        inputs = self.run.get("inputs")
        if not isinstance(inputs, dict) or (inputs and not {"fixed", "moving"} <= set(inputs)):
            raise PairError(f"{self.folder / RUN_FILE} does not say which scans were registered; register them again")
        return {key: Path(of["path"]) for key, of in inputs.items()}

    def grid(self, key: str) -> Grid:
        """The grid of ``fixed`` or ``moving``."""
        grids = self.run.get("grids")
        if not grids:
            what = "was written by an older version, without the scans' grids"
            raise PairError(f"{self.folder / RUN_FILE} {what}; register again")
        return Grid(tuple(grids[key]["shape"]), np.array(grids[key]["affine"], dtype=np.float64))

    def require_complete(self) -> None:
        """Nothing; PairError for the folder of a registration that did not come to its end."""
        if not (self.folder / METRICS_FILE).exists() and "imported" not in self.run:
            what = f"{self.folder} holds no complete result (no {METRICS_FILE})"
            raise PairError(f"{what}: its registration did not come to its end; register again")

    def field(self) -> tuple[torch.Tensor, np.ndarray]:
        """The saved field (3, W, H, D) in voxels, float32, fixed to moving, and the fixed affine (4, 4), RAS mm."""
        self.require_complete()
        field, affine = load_itk_field(self.folder / FIELD_FILE)
        return torch.from_numpy(field), affine


def saved_results(folder: str | Path) -> list[SavedResult]:
    """The folder if it is a result of ours, else all results right below it; PairError if there are none."""
    folder = Path(folder)
    if (folder / RUN_FILE).exists():
        return [SavedResult(folder)]
    found = sorted(run.parent for run in folder.glob(f"*/{RUN_FILE}"))
    if not found:
        raise PairError(f"{folder} holds no results of ours (no {RUN_FILE} in it or right below)")
    return [SavedResult(path) for path in found]


def saved_pairs(folder: str | Path) -> Pairs:
    """The pairs that the results in a folder were made of, as `datasets.read_pairs` gives them."""
    results = saved_results(folder)
    unknown = next((result.folder for result in results if not result.inputs), None)
    if unknown is not None:
        raise PairError(f"{unknown} was saved from Python and knows no files of scans; name a list of pairs")
    rows = [{"name": r.name, **{key: str(path) for key, path in r.inputs.items()}} for r in results]
    return checked(rows, where=str(folder))


@dataclass(frozen=True)
class SavedNetwork:
    """The map of a network.pt: the network's values on its control lattice, and how the field follows from them.

    At the fixed voxels it is the field of displacement.nii.gz beside it, but for rounding; that field is linear between
    voxels, so between them this one is too.
    """

    space: FieldSpace
    values: torch.Tensor
    control: Lattice

    @property
    def grid(self) -> Grid:
        """The fixed grid."""
        return Grid(self.space.shape, self.space.affine)

    def field(self) -> torch.Tensor:
        """The field (3, W, H, D) in voxels, float32, fixed to moving."""
        upsample = Upsampler(self.control, self.space.full(), order=self.space.order)
        return self.space.after_start(upsample(self.values))[0]

    def map(self) -> SpatialMap:
        """The same, to be applied to points and scans on any grid."""
        return SpatialMap(self.field(), self.grid)

    def to_moving(self, points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `SpatialMap.to_moving`, for a few points: only the voxels around them are computed, no field is made."""
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
    """The map of a network.pt, fixed to moving; nothing in the file is executed.

    Raises PairError for a file that is damaged, that another version wrote, or whose network an overlay built in another
    way than the options say.
    """
    state = load_checkpoint(path)
    network = _network(state["network"])
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    modules = [type(module).__name__ for module in network.modules()]
    weights = {name: Rounded(*kept).values() for name, kept in state["weights"].items()}
    if modules != state["modules"] or shapes != {name: value.shape for name, value in weights.items()}:
        raise PairError(f"{path} holds another network than its options describe; build it as its config did")
    network.load_state_dict(weights)
    offsets = None if state["offsets"] is None else Rounded(*state["offsets"]).values()
    affine = state["fixed_affine"].numpy()
    width, height, depth = state["fixed_shape"]
    space = FieldSpace((width, height, depth), affine, state["interpolation"], state["start"].numpy())
    values, control = control_values(network, space, space.control(state["control_points"]), offsets=offsets)
    return SavedNetwork(space, values, control)


def network_field(path: str | Path) -> tuple[torch.Tensor, np.ndarray]:
    """The field (3, W, H, D) in voxels, float32, fixed to moving, of a network.pt, and the fixed affine (4, 4), RAS mm.

    The same as displacement.nii.gz beside it, but for rounding. Raises what `saved_network` raises.
    """
    network = saved_network(path)
    return network.field(), network.space.affine


def saved_map(path: str | Path) -> SpatialMap:
    """The map of a result folder, of its network.pt, or of any field's file that `itk_files.load_map` reads."""
    path = Path(path)
    if not path.exists():
        raise PairError(f"there is no {path}; give a result folder, its {NETWORK_FILE}, or the file of a field")
    if path.is_dir():
        if not (path / RUN_FILE).exists():
            raise PairError(f"{path} is no result folder (no {RUN_FILE} in it); give one, or the file of a field")
        SavedResult(path).require_complete()
        return load_map(path / FIELD_FILE)
    if path.suffix == ".pt":
        return saved_network(path).map()
    return load_map(path)


def _network(options: Mapping[str, Any]) -> NCF:
    """The network of the options, as `network_def` of configs/inference.json builds it."""
    return NCF(
        width=options["width"],
        depth=options["depth"],
        activation=Sine(options["omega"]),
        smooth_channels=options["smooth_channels"],
        kernel_size=options["kernel_size"],
    )
