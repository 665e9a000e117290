"""Bounds of the map's error for a reader: numbers, pictures, and inner and outer outlines of the carried labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ncf.evaluate.margins import label_maps, margin_of
from ncf.evaluate.trust import told_region
from ncf.report.material import Material
from ncf.report.volumes import Factors, Volume, reduced
from ncf.space.geometry import spacing_mm

TOP_MM, LEAST_TOP_MM = 10.0, 1.0  # of the colour bar: beyond it all is wrong
LIMITS = (
    "Bounds of the error are estimates, by how far other fits of this pair lead elsewhere. They hold for 95 % of all "
    "points on average, not in every pair or place: where all fits follow the same wrong edge, an error is many times "
    "its bound. They show where to look first and are no guarantee."
)


@dataclass(frozen=True)
class BoundScale:
    """The colour bar of bounds.

    Attributes:
        top_mm: its end.
        more: whether there are larger bounds, which have the colour of its end.
    """

    top_mm: float
    more: bool

    @property
    def ticks(self) -> tuple[str, str, str]:
        """What stands at its beginning, middle and end."""
        return "0", f"{self.top_mm / 2:.3g}", f"{'≥ ' * self.more}{self.top_mm:.3g} mm"


def scale_of(material: Material) -> BoundScale | None:
    """Return the colour bar of a result's bounds; None where it has none."""
    if not material.bounds:
        return None
    largest = float(np.nan_to_num(material.bounds[-1], nan=0.0).max())
    return BoundScale(min(max(LEAST_TOP_MM, largest), TOP_MM), largest > TOP_MM)


def bound_rows(numbers: Mapping[str, Any] | None) -> list[tuple[str, float]]:
    """Return what a table of numbers tells of bounds: words, and the value in mm.

    Args:
        numbers: the content of trust.json; None for nothing.
    """
    region = None if numbers is None else told_region(numbers)
    if numbers is None or region is None:
        return []
    where, told = region
    rows = [
        (f"bound of the error (95 %) {where}, median", told["median_mm"]),
        (f"bound of the error (95 %) {where}, 95th percentile", told["p95_mm"]),
    ]
    if numbers.get("largest") is not None:
        rows.append(("largest bound of the error (95 %) in the body", numbers["largest"]["bound_mm"]))
    return rows


def bounds_shown(material: Material, factors: Factors) -> list[Volume]:
    """Return the 68 % and the 95 % bound in mm, nan where nothing is known; none where the result has no bounds.

    A block has the largest bound in it, and none where one of its voxels has none: no bound is made smaller.

    Args:
        material: of the result.
        factors: blocks of the fixed grid.
    """
    return [reduced(Volume(values, material.space.affine), factors, how="max") for values in material.bounds]


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
