"""A saved result judged by AAPM's task group 132, with a second registration for its consistency if wanted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from monai.data import MetaTensor

from ncf.core.errors import PairError
from ncf.core.files import encoded, load_json, save_json, unchanged, write_whole
from ncf.core.names import GRID_OF, GUIDE_POINTS, IMAGES, METRICS_FILE, POINTS, RUN_FILE, TG132_FILE, TG132_TABLE
from ncf.core.presets import config_files
from ncf.core.refusals import explanation
from ncf.core.scan_paths import is_there
from ncf.evaluate.label_overlap import label_sets, overlap
from ncf.evaluate.measured import names_told
from ncf.evaluate.metrics import landmark_summary, tre_mm
from ncf.evaluate.structures import Measurable
from ncf.evaluate.tg132 import Limits, body_of, default_limits, judged_by_tg132, measurable
from ncf.evaluate.tg132_text import as_markdown
from ncf.pair.checks import GRID_TOLERANCE_VOX, CheckFilesd, CheckPaird
from ncf.pair.keys import Pair, affine_of
from ncf.pair.read import ReadPaird
from ncf.result.folder import SavedResult
from ncf.run.session import IN_MEMORY, Session
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap
from ncf.space.resampling import warp
from ncf.use.invert import inverse_consistency_error

SETTINGS = ("fit", "weights", "modality", "similarity", "transform", "seed", "align_centres")
WISHES = ("guide_labels", "rigid_label", "keep_volume_label")
COMPARED = ("fit", "weights", "loss", "network_def", "initial_alignment", "search", "transform")
OTHER_SIDE = {"fixed": "moving", "moving": "fixed"}


def tg132(
    folder: str | Path,
    *,
    inputs: Mapping[str, Path] | None = None,
    limit_mm: float | None = None,
    limit_dice: float | None = None,
    consistency: bool = False,
    preset: str | None = None,
) -> tuple[dict[str, Any], list[Path]]:
    """Judge a saved result by the measures of AAPM's task group 132; write tg132.json and tg132.md to its folder.

    Args:
        folder: of the result.

    Keyword Args:
        inputs: scans, label maps or landmarks that have moved since or are new, by key.
        limit_mm: largest mean error or distance; by default the largest edge of a fixed voxel.
        limit_dice: least Dice, 0.8 by default.
        consistency: True registers once more with fixed and moving exchanged, with the settings in run.json.
        preset: another preset for that second registration.

    Returns:
        What `ncf.evaluate.tg132.judged_by_tg132` returns, and the files that were written.

    Raises:
        PairError: the result is not complete or of another program, a file is not there or has changed, or the second
            registration fails.
    """
    result = SavedResult(Path(folder))
    pair = _read(result, inputs or {})
    field, _ = result.field()
    back = _exchanged(result, pair, preset) if consistency else None
    own = SpatialMap(field, Grid(tuple(field.shape[1:]), affine_of(pair["fixed"])))
    case = measurable(pair, field, _carried(pair, own))
    given = {"mm": limit_mm, "dice": limit_dice}
    limits = Limits(
        **{**vars(default_limits(case)), **{key: value for key, value in given.items() if value is not None}}
    )
    errors = None if back is None else _both_ways(case, own, back[0]) | back[1]
    found = judged_by_tg132(case, _numbers(result, pair, case), limits=limits, consistency=errors)
    files = [result.folder / name for name in (TG132_FILE, TG132_TABLE)]
    save_json(files[0], found)
    text = as_markdown(result.name, load_json(files[0]))
    write_whole(files[1], lambda temporary: temporary.write_bytes(encoded(text)))
    return found, files


def _read(result: SavedResult, inputs: Mapping[str, Path]) -> Pair:
    """Read the scans of a result with labels and points; nothing is prepared for a fit."""
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
        if key not in inputs and not unchanged(path, result.run["inputs"][key]):
            raise PairError(f"{path} has changed since it was registered; register again")
    named = {key: str(path) for key, path in paths.items() if key in (*IMAGES, *GRID_OF, *POINTS, *GUIDE_POINTS)}
    pair = ReadPaird(result.run["config"].get("labels"))(CheckFilesd()({**named, "name": result.name}))
    for key in IMAGES:
        _check_grid(paths[key], pair[key], result.grid(key))  # type: ignore[literal-required]
    return CheckPaird(min_size=2, align_centres=True)(pair)


def _check_grid(path: Path, image: MetaTensor, expected: Grid) -> None:
    """Raise PairError unless a scan lies where the registered one lay."""
    found = Grid(tuple(image.shape[1:]), affine_of(image))
    if tuple(found.shape) != tuple(expected.shape) or not found.off_vox(expected) <= GRID_TOLERANCE_VOX:
        raise PairError(f"{path} does not lie on the grid of the scan that was registered; name the right file")


def _carried(pair: Pair, own: SpatialMap) -> dict[str, torch.Tensor]:
    """Return the moving labels on the fixed grid, before and after."""
    if "moving_label" not in pair:
        return {}
    still = SpatialMap(torch.zeros_like(own.field), own.grid)
    label, affine = pair["moving_label"].as_tensor()[0], affine_of(pair["moving"])
    return {
        when: warp(mapping, label, moving=affine, reference=own.grid, mode="nearest")
        for when, mapping in (("before", still), ("after", own))
    }


def _numbers(result: SavedResult, pair: Pair, case: Measurable) -> dict[str, Any]:
    """Return landmark errors and Dice as metrics.json has them, and the names of labels that it knows."""
    found: dict[str, Any] = names_told(pair)
    if "landmarks" in pair:
        affines = {"fixed_affine": case.fixed.affine, "moving_affine": case.moving.affine}
        fields = {"before": None, "after": result.field()[0]}
        errors = {when: tre_mm(u, pair["landmarks"], **affines) for when, u in fields.items()}
        found["tre_mm"] = {when: landmark_summary(e) for when, e in errors.items()}
    if case.fixed.label is not None and case.moving.label is not None:
        tables = case.fixed.table, case.moving.table
        shared = label_sets(case.fixed.label, case.moving.label, tables).shared
        found["dice"] = {when: overlap(case.fixed.label, moved, shared, tables) for when, moved in case.carried.items()}
        found["dice"]["guided"] = bool(result.metrics.get("dice", {}).get("guided"))
    return found


def _exchanged(result: SavedResult, pair: Pair, preset: str | None) -> tuple[SpatialMap, dict[str, Any]]:
    """Register with fixed and moving exchanged; return that map, and whether its settings were those of the first."""
    config = result.run["config"]
    wanted = SETTINGS if preset is None else tuple(key for key in SETTINGS if key not in ("fit", "weights"))
    settings = {key: config[key] for key in (*wanted, *WISHES) if config.get(key) is not None}
    given: dict[str, Any] = {"name": result.name, "files": {}, "begun_s": 0.0}
    given |= {key: pair[OTHER_SIDE[key]] for key in IMAGES}  # type: ignore[literal-required]
    for key, owner in GRID_OF.items():
        partner = key.replace(owner, OTHER_SIDE[owner])
        if partner in pair:
            given[key] = pair[partner]  # type: ignore[literal-required]
    if "guide_points" in pair:
        given["guide_points"] = pair["guide_points"][:, [3, 4, 5, 0, 1, 2]]
    try:
        session = Session(config_files(preset), {**settings, **IN_MEMORY, "progress": False})
        done, record = session.register_images(cast(Pair, given))
    except Exception as error:
        told = explanation(error, face="command")
        if told is None:
            raise
        raise PairError(f"the second registration, with fixed and moving exchanged, failed: {told}") from error
    used = record.settings()
    same = all(used.get(key) == config.get(key) for key in COMPARED)
    grid = Grid(tuple(pair["moving"].shape[1:]), affine_of(pair["moving"]))
    return SpatialMap(done["pred"].field_vox[0].cpu(), grid), {"preset": preset, "same_settings": same}


def _both_ways(case: Measurable, own: SpatialMap, back: SpatialMap) -> dict[str, Any]:
    """Return the inverse consistency errors inside the body of the scan where each way begins and ends."""
    found = {}
    bodies = {"fixed_to_fixed": case.body, "moving_to_moving": body_of(case.moving)}
    ways = {"fixed_to_fixed": (own, back), "moving_to_moving": (back, own)}
    for name, (first, second) in ways.items():
        off, known = inverse_consistency_error(first, second, torch.ones(second.grid.shape, dtype=torch.bool))
        body = bodies[name]
        share = float((known & body).sum() / body.sum()) if body.any() else 0.0
        found[name] = {**landmark_summary(off[known & body].numpy()), "known_share": share}
    return found
