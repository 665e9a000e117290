"""A saved result judged by AAPM's task group 132, with a second registration for its consistency if wanted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from ncf.api.again import Again, exchanged, read_again
from ncf.core.files import encoded, load_json, save_json, write_whole
from ncf.core.names import TG132_FILE, TG132_TABLE
from ncf.evaluate.label_overlap import label_sets, overlap
from ncf.evaluate.measured import names_told
from ncf.evaluate.metrics import landmark_summary, tre_mm
from ncf.evaluate.structures import Measurable
from ncf.evaluate.tg132 import Limits, body_of, default_limits, judged_by_tg132, measurable
from ncf.evaluate.tg132_text import as_markdown
from ncf.pair.keys import Pair, affine_of
from ncf.result.folder import SavedResult
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap
from ncf.space.resampling import warp
from ncf.use.invert import inverse_consistency_error

COMPARED = ("fit", "weights", "loss", "network_def", "initial_alignment", "search", "transform")


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
    pair = read_again(result, inputs or {})
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
    other = cast(Pair, {"name": result.name, **exchanged(pair)})
    fit, record = Again(result, preset)(other, "the second registration, with fixed and moving exchanged,")
    config = result.run["config"]
    used = record.settings()
    same = all(used.get(key) == config.get(key) for key in COMPARED)
    grid = Grid(tuple(pair["moving"].shape[1:]), affine_of(pair["moving"]))
    return SpatialMap(fit.field_vox[0].cpu(), grid), {"preset": preset, "same_settings": same}


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
