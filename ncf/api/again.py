"""A saved result opened with its scans, and registered once more: as it was, disturbed, or the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from monai.data import MetaTensor

from ncf.core.errors import PairError
from ncf.core.files import unchanged
from ncf.core.names import GRID_OF, GUIDE_POINTS, IMAGES, METRICS_FILE, POINTS, RUN_FILE
from ncf.core.presets import config_files
from ncf.core.refusals import explanation
from ncf.core.scan_paths import is_there
from ncf.fit.fitted import Fit
from ncf.pair.checks import GRID_TOLERANCE_VOX, CheckFilesd, CheckPaird
from ncf.pair.keys import Pair, affine_of
from ncf.pair.read import ReadPaird
from ncf.result.folder import SavedResult
from ncf.result.record import RunRecord
from ncf.run.session import IN_MEMORY, Session
from ncf.space.grids import Grid

SETTINGS = ("fit", "weights", "modality", "similarity", "transform", "seed", "align_centres")
OF_PRESETS = ("fit", "weights")  # a preset says these itself
WISHES = ("guide_labels", "rigid_label", "keep_volume_label")
OTHER_SIDE = {"fixed": "moving", "moving": "fixed"}


def read_again(result: SavedResult, inputs: Mapping[str, Path]) -> Pair:
    """Read the scans of a result with labels and points; nothing is prepared for a fit.

    Args:
        result: a result folder.
        inputs: files that have moved since, by key; labels and points may be new.

    Raises:
        PairError: the result is not complete or of another program, or a file is not there, has changed or is another
            scan than the one that was registered.
    """
    if not (result.folder / RUN_FILE).exists():
        raise PairError(f"{result.folder} is no result folder (no {RUN_FILE} in it); give one that register wrote")
    result.require_complete()
    if not (result.folder / METRICS_FILE).exists():
        raise PairError(f"{result.name} is a field of another program; ncf evaluate measures such fields")
    paths = {**result.inputs, **inputs}
    for key in IMAGES:
        if key not in paths:
            raise PairError(f"{result.name} was saved from Python and knows no {key} scan; name it with --{key}=PATH")
    for key, path in paths.items():
        if not is_there(path):
            raise PairError(f"{result.name}: {key} {path} is not there any more; name it with --{key}=PATH")
        if (key in IMAGES or key not in inputs) and key in result.inputs:
            _check_same(key, path, result, named=key in inputs)
    named = {key: str(path) for key, path in paths.items() if key in (*IMAGES, *GRID_OF, *POINTS, *GUIDE_POINTS)}
    pair = ReadPaird(result.run["config"].get("labels"))(CheckFilesd()({**named, "name": result.name}))
    for key in IMAGES:
        _check_grid(paths[key], pair[key], result.grid(key))  # type: ignore[literal-required]
    return CheckPaird(min_size=2, align_centres=True)(pair)


def exchanged(pair: Pair) -> Pair:
    """Return a pair with fixed and moving exchanged; without landmarks, which a fit does not look at."""
    given: dict[str, Any] = {key: pair[OTHER_SIDE[key]] for key in IMAGES}  # type: ignore[literal-required]
    for key, owner in GRID_OF.items():
        partner = key.replace(owner, OTHER_SIDE[owner])
        if partner in pair:
            given[key] = pair[partner]  # type: ignore[literal-required]
    if "guide_points" in pair:
        given["guide_points"] = pair["guide_points"][:, [3, 4, 5, 0, 1, 2]]
    return cast(Pair, given)


class Again:
    """Registers pairs with the settings of a result.

    Args:
        result: a result folder.
        preset: says how long to fit, in place of the settings of the result.
        transform: what the maps may do, in place of that of the result.
        search: False begins every fit without motion, so that it may end elsewhere.
        progress: True shows the bars of every fit, in a terminal alone.

    Raises:
        PairError: there is no such preset.
    """

    def __init__(
        self,
        result: SavedResult,
        preset: str | None = None,
        *,
        transform: str | None = None,
        search: bool = True,
        progress: bool = False,
    ) -> None:
        config = result.run["config"]
        wanted = [key for key in SETTINGS if preset is None or key not in OF_PRESETS]
        settings = {key: config[key] for key in (*wanted, *WISHES) if config.get(key) is not None}
        settings |= {} if transform is None else {"transform": transform}
        settings |= {} if search else {"search": None}
        self.seed = int(config.get("seed") or 0)
        self._session = Session(config_files(preset), {**settings, **IN_MEMORY, "progress": progress})

    def __call__(self, pair: Pair, what: str, *, seed: int | None = None) -> tuple[Fit, RunRecord]:
        """Register a pair in memory.

        Args:
            pair: scans with masks, labels and guide points.
            what: for the error, such as "the second registration".
            seed: of the network's first weights, by default that of the result.

        Raises:
            PairError: the pair cannot be registered.
        """
        try:
            self._session.reseed(self.seed if seed is None else seed)
            done, record = self._session.register_images(cast(Pair, {"files": {}, "begun_s": 0.0, **pair}))
        except Exception as error:
            told = explanation(error, face="command")
            if told is None:
                raise
            raise PairError(f"{what} failed: {told}") from error
        return done["pred"], record


def _check_same(key: str, path: Path, result: SavedResult, *, named: bool) -> None:
    """Raise PairError unless a file holds what was registered.

    Args:
        key: of the file.
        path: where it lies now.
        result: of the registration.
        named: whether a person named the file for this.
    """
    if unchanged(path, result.run["inputs"][key]):
        return
    if named:
        raise PairError(
            f"{path} is not the {key} scan that {result.name} was made of (its SHA-256 is another); name that one"
        )
    raise PairError(f"{path} has changed since it was registered; register again")


def _check_grid(path: Path, image: MetaTensor, expected: Grid) -> None:
    """Raise PairError unless a scan lies where the registered one lay."""
    found = Grid(tuple(image.shape[1:]), affine_of(image))
    if tuple(found.shape) != tuple(expected.shape) or not found.off_vox(expected) <= GRID_TOLERANCE_VOX:
        raise PairError(f"{path} does not lie on the grid of the scan that was registered; name the right file")
