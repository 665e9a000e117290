"""Bounds of the map's error for a viewer: as a picture, and as inner and outer outlines of the carried labels."""

from __future__ import annotations

import numpy as np

from ncf.core.names import TRUST_FILE
from ncf.evaluate.margins import label_maps, margin_of
from ncf.io.trust_file import load_trust
from ncf.report.material import Material
from ncf.report.volumes import Factors, Volume, reduced
from ncf.space.geometry import spacing_mm


def bounds_shown(material: Material, factors: Factors) -> list[Volume]:
    """Return the 68 % and the 95 % bound in mm, nan where nothing is known; none where the result has no bounds.

    A block has the largest bound in it, and none where one of its voxels has none: no bound is made smaller.

    Args:
        material: of the result.
        factors: blocks of the fixed grid.
    """
    path = material.result.folder / TRUST_FILE
    if not path.exists():
        return []
    bounds, grid = load_trust(path)
    if not grid.same_as(material.space.grid):
        return []
    turned = (material.space.turned(bounds[..., channel]) for channel in range(bounds.shape[3]))
    return [reduced(Volume(values, material.space.affine), factors, how="max") for values in turned]


def trust_volume(bounds: Volume) -> Volume:
    """Return a bound as a viewer takes it: 0 where nothing is known."""
    return Volume(np.nan_to_num(bounds.values, nan=0.0), bounds.affine)


def margin_maps(carried: Volume, bounds: Volume) -> dict[str, Volume]:
    """Return label maps of the inner and the outer structures (`ncf.evaluate.margins`).

    Args:
        carried: codes of the carried labels.
        bounds: the 68 % bound, on the same grid.
    """
    codes, spacing = carried.values, spacing_mm(carried.affine)
    margins = (margin_of(codes == code, bounds.values, spacing, number=int(code)) for code in np.unique(codes) if code)
    inner, outer = label_maps(codes, margins)
    return {"warped_inner": Volume(inner, carried.affine), "warped_outer": Volume(outer, carried.affine)}
