"""The result folder of a finished registration, read back from its files, or the map of its network alone.

This room knows what `ncf.result.write` writes, and how `configs/inference.json` builds its network from the options
kept in network.pt. It must not know the fit, the losses or the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ncf.core.errors import PairError
from ncf.core.files import load_json
from ncf.core.names import (
    AFFINE,
    AFFINE_FILE,
    FIELD_FILE,
    METRICS_FILE,
    NETWORK_FILE,
    RIGID,
    RUN_FILE,
    TG132_FILE,
    TRUST_NUMBERS_FILE,
)
from ncf.core.paths import missing, shortened, there
from ncf.core.renamed import RENAMED_METRICS, RENAMED_RUN
from ncf.io.fields.table import load_map
from ncf.io.itk_fields import load_affine
from ncf.io.nifti import load_itk_field
from ncf.io.pair_lists import Pairs, checked
from ncf.result.network_file import saved_network
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap


@dataclass(frozen=True)
class SavedResult:
    """The folder that a registration wrote. A file is read when it is asked for; PairError where it cannot be read.

    Attributes:
        folder: of the result.
    """

    folder: Path

    @property
    def name(self) -> str:
        """The name of the pair."""
        return self.folder.name

    @cached_property
    def run(self) -> dict[str, Any]:
        """The content of run.json: settings, inputs, grids, versions, losses."""
        return _renamed(load_json(self.folder / RUN_FILE), RENAMED_RUN)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json, see docs/results.md."""
        return _renamed(load_json(self.folder / METRICS_FILE), RENAMED_METRICS)

    @property
    def tg132(self) -> dict[str, Any] | None:
        """The page of task group 132: tg132.json where ``ncf tg132`` wrote one, else the section of metrics.json."""
        path = self.folder / TG132_FILE
        return load_json(path) if path.exists() else self.metrics.get("tg132")

    @property
    def trust(self) -> dict[str, Any] | None:
        """Bounds of the map's error in numbers: trust.json where ``ncf trust`` wrote one."""
        path = self.folder / TRUST_NUMBERS_FILE
        return load_json(path) if path.exists() else None

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that were registered, by their keys (`ncf.core.names.PAIR_KEYS`). They may have moved since.

        Empty for a pair that was registered in memory (`ncf.api.registration`).

        Raises:
            PairError: run.json does not name them.
        """
        inputs = self.run.get("inputs")
        if not isinstance(inputs, dict) or (inputs and not {"fixed", "moving"} <= set(inputs)):
            raise PairError(f"{self.folder / RUN_FILE} does not say which scans were registered; register them again")
        return {key: Path(of["path"]) for key, of in inputs.items()}

    def grid(self, key: str) -> Grid:
        """Return the grid of a scan.

        Args:
            key: ``fixed`` or ``moving``.

        Raises:
            PairError: an older version wrote the folder, without the grids.
        """
        grids = self.run.get("grids")
        if not grids:
            what = "was written by an older version, without the scans' grids"
            raise PairError(f"{self.folder / RUN_FILE} {what}; register again")
        return Grid(tuple(grids[key]["shape"]), np.array(grids[key]["affine"], dtype=np.float64))

    def matrix(self) -> np.ndarray | None:
        """Return the map (4, 4) in RAS mm, fixed to moving, of a rigid or affine result; None of others."""
        kept = self.run.get("transform") in (RIGID, AFFINE) and (self.folder / AFFINE_FILE).exists()
        return load_affine(self.folder / AFFINE_FILE) if kept else None

    def require_complete(self) -> None:
        """Raise PairError unless the registration came to its end.

        Raises:
            PairError: the folder has no metrics.json, and its field was not imported.
        """
        if not (self.folder / METRICS_FILE).exists() and "imported" not in self.run:
            what = f"{self.folder} holds no complete result (no {METRICS_FILE})"
            raise PairError(f"{what}: its registration did not come to its end; register again")

    def field(self) -> tuple[torch.Tensor, np.ndarray]:
        """Read the saved field.

        Returns:
            The field (3, W, H, D) in voxels, float32, fixed to moving, and the fixed affine (4, 4), RAS mm.

        Raises:
            PairError: the result is not complete, or the file cannot be read.
        """
        self.require_complete()
        field, affine = load_itk_field(self.folder / FIELD_FILE)
        return torch.from_numpy(field), affine


def _renamed(content: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a file's entries under their present names."""
    return {names.get(key, key): value for key, value in content.items()}


def saved_results(folder: str | Path) -> list[SavedResult]:
    """Find the results in a folder.

    Args:
        folder: a result folder, or a folder that holds result folders directly.

    Returns:
        The folder itself if it is a result, else all results directly below it.

    Raises:
        PairError: there are none.
    """
    folder = Path(folder)
    if (folder / RUN_FILE).exists():
        return [SavedResult(folder)]
    found = sorted(run.parent for run in folder.glob(f"*/{RUN_FILE}"))
    if not found:
        raise PairError(f"{folder} holds no results of ours (no {RUN_FILE} in it or right below)")
    return [SavedResult(path) for path in found]


def saved_pairs(folder: str | Path) -> Pairs:
    """Return the pairs that the results in a folder were made of, as `ncf.io.pair_lists.read_pairs` gives them.

    Args:
        folder: as of `saved_results`.

    Raises:
        PairError: there are no results, or one was saved from Python and knows no files of scans.
    """
    results = saved_results(folder)
    unknown = next((result.folder for result in results if not result.inputs), None)
    if unknown is not None:
        raise PairError(f"{unknown} was saved from Python and knows no files of scans; name a list of pairs")
    rows = [{"name": r.name, **{key: str(path) for key, path in r.inputs.items()}} for r in results]
    return checked(rows, where=str(folder))


def saved_map(path: str | Path) -> SpatialMap:
    """Open the map of a result folder, of its network.pt, or of a field's file.

    Args:
        path: one of these; a field's file is one that `ncf.io.fields.table.load_map` reads.

    Returns:
        The map, fixed to moving.

    Raises:
        PairError: there is no such file, it cannot be read, or the result is not complete.
    """
    path = Path(path)
    if missing(path):
        raise PairError(
            f"there is no {shortened(path)}; give a result folder, its {NETWORK_FILE}, or the file of a field"
        )
    if there(path).is_dir():
        if not (path / RUN_FILE).exists():
            raise PairError(f"{path} is no result folder (no {RUN_FILE} in it); give one, or the file of a field")
        SavedResult(path).require_complete()
        return load_map(path / FIELD_FILE)
    if path.suffix == ".pt":
        return saved_network(path).map()
    return load_map(path)
