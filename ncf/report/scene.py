"""What a viewer shows of a result, as plain data and volumes: in the page reduced to a budget, for a server whole.

All that lies on the fixed grid is in display space (`ncf.report.views`), the moving scan on its own grid. Positions and
displacements are RAS mm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ncf.evaluate.trust import FINEST_MM
from ncf.report import paint
from ncf.report.error_bounds import bounds_shown, margin_maps, scale_of, trust_volume
from ncf.report.label_maps import label_maps, label_numbers, label_rows
from ncf.report.material import Material
from ncf.report.views import VIEWS, Cut
from ncf.report.volumes import (
    FIELD_STEP_MM,
    LARGEST,
    Factors,
    Volume,
    coded,
    factors_for,
    field_nodes,
    labels_coded,
    reduced,
    step_of,
)
from ncf.report.windows import windows_for
from ncf.space.geometry import spacing_mm, to_mm

FIXED_BYTES, MOVING_BYTES = 2_400_000, 1_200_000  # of the scans in a page, packed; base64 makes them a third larger
PAGE_NODES, SERVED_NODES = 90_000, 12_000_000  # of the field
DET_STEP = 0.01
AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Scene:
    """What a viewer shows.

    Attributes:
        told: plain data; ``volumes`` holds every volume by its name, coded for a page, or with the ``url`` of a server.
        served: volumes for a server by their names, (W, H, D).
    """

    told: dict[str, Any]
    served: dict[str, np.ndarray] = field(default_factory=dict)


def scene(material: Material, *, whole: bool = False) -> Scene:
    """Return what a viewer shows of a result.

    Args:
        material: of the result.
        whole: True for every voxel, to be served; False for a page.
    """
    own = Volume(material.scans["fixed"], material.space.affine)
    warped = Volume(material.scans["warped"], material.space.affine)
    moving = Volume(material.moving[0, 0].numpy(), material.moving_affine)
    factors: Factors = (1, 1, 1) if whole else factors_for([own, warped], FIXED_BYTES)
    moving_factors: Factors = (1, 1, 1) if whole else factors_for([moving], MOVING_BYTES)
    scans = {
        "fixed": reduced(own, factors),
        "warped": reduced(warped, factors),
        "moving": reduced(moving, moving_factors),
    }
    numbers = label_numbers(material)
    maps = label_maps(material, numbers, factors=factors, moving_factors=moving_factors)
    rest = {"det": reduced(Volume(material.det, own.affine), factors, how="min"), **_masks(material, factors)}
    bounds, bar = bounds_shown(material, factors), scale_of(material)
    rest |= {"trust": trust_volume(bounds[-1])} if bounds else {}
    maps |= margin_maps(maps["warped_label"], bounds[0]) if bounds and "warped_label" in maps else {}
    nodes, nodes_affine = _field(material, SERVED_NODES if whole else PAGE_NODES)
    rest |= {f"field_{axis}": Volume(nodes[..., a], nodes_affine) for a, axis in enumerate(AXES)}
    told = {
        **_told(material),
        "before_affine": _before_affine(material, scans["moving"].affine).tolist(),
        "labels": label_rows(material, numbers),
        "bounds": None if bar is None else {"top_mm": bar.top_mm, "ticks": bar.ticks},
        "reduction": _reduction(factors, moving_factors),
        "field_every": [round(float(s), 3) for s in spacing_mm(nodes_affine)],
    }
    if whole:
        return _to_serve(told, {**scans, **maps, **rest})
    shared = step_of(material.scans["fixed"]), step_of(moving.values)
    steps = {"fixed": shared[0], "warped": shared[1], "moving": shared[1]}
    volumes = {name: coded(v, step=steps[name][0], shift=steps[name][1]) for name, v in scans.items()}
    volumes |= {name: labels_coded(v) for name, v in maps.items()}
    volumes |= {name: coded(v, step=_step(name, v.values), up=name == "trust") for name, v in rest.items()}
    return Scene({**told, "volumes": volumes})


def _told(material: Material) -> dict[str, Any]:
    """Return what a viewer is told of a result, however many of its voxels it has."""
    return {
        "placed_by": "the map that the fit began with" if material.by_initial_transform else "the headers",
        **_windows(material),
        "landmarks": landmark_rows(material),
        "start_mm": _start(material),
        "fold_mm": _worst_fold(material),
        "doubt_mm": _largest_bound(material),
        "spacing_mm": spacing_mm(material.space.affine).tolist(),
        "colours": {
            "difference": paint.DIFFERENCE_SCALE,
            "volume": paint.VOLUME_SCALE,
            "trust": paint.TRUST_SCALE,
            "fold": paint.FOLD,
        },
    }


def _windows(material: Material) -> dict[str, Any]:
    """Return the windows of both scans, and whether these are the same."""
    shared = bool(material.result.run["intensity"].get("shared", False))
    chosen = windows_for(material.scans, shared=shared)
    return {"windows": {key: windows.plain() for key, windows in chosen.items()}, "shared": shared}


def _step(name: str, values: np.ndarray) -> float:
    if name == "det":
        return DET_STEP
    if name.startswith("field_"):
        return max(FIELD_STEP_MM, float(np.abs(values).max()) / LARGEST)
    return max(FINEST_MM, float(values.max()) / LARGEST) if name == "trust" else 1.0


def _to_serve(told: dict[str, Any], volumes: Mapping[str, Volume]) -> Scene:
    """Return a scene whose volumes are fetched: each in the smallest type that holds it exactly."""
    served = {name: _exact(volume.values) for name, volume in volumes.items()}
    listed = {
        name: {
            "shape": list(volume.values.shape),
            "affine": volume.affine.tolist(),
            "type": served[name].dtype.name,
            "step": 1.0,
            "shift": 0.0,
            "url": f"volumes/{name}",
        }
        for name, volume in volumes.items()
    }
    return Scene({**told, "volumes": listed}, served)


def _exact(values: np.ndarray) -> np.ndarray:
    """Return values in a whole type of 8 or 16 bits where that loses nothing, else as float32."""
    for kind in (np.uint8, np.int16, np.uint16):
        with np.errstate(invalid="ignore"):
            stored = values.astype(kind)
        if np.array_equal(stored, values):
            return stored
    return values.astype(np.float32)


def _field(material: Material, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the field in RAS mm on nodes in display space, and their affine."""
    turned = material.space.turned(np.moveaxis(material.field_vox, 0, -1))
    found, affine = field_nodes(turned, material.space.affine, nodes)
    return found @ material.space.grid.affine[:3, :3].T.astype(np.float32), affine


def _before_affine(material: Material, moving: np.ndarray) -> np.ndarray:
    """Return where the moving scan lies before the fit: its own affine, or what the initial transform makes of it."""
    back = material.space.affine @ np.linalg.inv(material.placed)
    return back @ moving


def _masks(material: Material, factors: Factors) -> dict[str, Volume]:
    """Return where the moving scan has no data on the fixed grid, before and after; only masks that hold something."""
    at = [
        np.minimum(np.arange(-(-n // f)) * f + f // 2, n - 1)
        for n, f in zip(material.space.shape, factors, strict=True)
    ]
    cut = Cut(VIEWS[0], slices=at[2], across=at[0], down=at[1])
    affine = reduced(Volume(material.scans["fixed"], material.space.affine), factors, how="middle").affine
    masks = {"nothing_before": material.before(cut)["nothing"], "nothing_after": material.nothing_after(cut)}
    return {name: Volume(m.transpose(2, 1, 0).astype(np.uint8), affine) for name, m in masks.items() if m.any()}


def landmark_rows(material: Material) -> list[dict[str, Any]]:
    """Return number, places and errors of every landmark, largest error first.

    Args:
        material: of the result.
    """
    if material.landmarks is None:
        return []
    fixed = to_mm(material.landmarks[:, :3], material.space.grid.affine).round(3)
    moving = to_mm(material.landmarks[:, 3:], material.moving_affine).round(3)
    before, after = (material.errors_mm[when] for when in ("before", "after"))
    return [
        {
            "number": int(i) + 1,
            "fixed_mm": fixed[i].tolist(),
            "moving_mm": moving[i].tolist(),
            "before": round(float(before[i]), 3),
            "after": round(float(after[i]), 3),
        }
        for i in np.argsort(-after, kind="stable")
    ]


def _start(material: Material) -> list[float]:
    """Return where a viewer opens: the centre of mass of the fixed scan, RAS mm."""
    weight = np.asarray(material.fixed[::4, ::4, ::4], dtype=np.float64)
    if not weight.any():
        weight = np.ones_like(weight)
    sums = [weight.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    centre = np.array([[4 * (np.arange(len(s)) @ s) / s.sum() for s in sums]]).round()
    return to_mm(centre, material.space.affine)[0].round(3).tolist()


def _worst_fold(material: Material) -> list[float] | None:
    """Return where the map folds most, RAS mm; None where it does not fold."""
    worst = np.unravel_index(int(np.argmin(material.det)), material.det.shape)
    if material.det[worst] > 0:
        return None
    return to_mm(np.array([worst]), material.space.affine)[0].round(3).tolist()


def _largest_bound(material: Material) -> list[float] | None:
    """Return where the bound of the error is largest, RAS mm; None where no bounds are known."""
    largest = (material.result.trust or {}).get("largest")
    return None if largest is None else list(largest["at_mm"])


def _reduction(factors: Factors, moving: Factors) -> str:
    """Say by how much the volumes are reduced."""
    told = {"fixed grid": factors, "moving scan": moving}
    said = [f"{name} {' x '.join(map(str, f))}" for name, f in told.items() if f != (1, 1, 1)]
    return f"blocks of voxels are averaged: {', '.join(said)}" if said else ""
