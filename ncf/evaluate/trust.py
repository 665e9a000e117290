"""How far a map can be trusted: bounds of its error in mm, by how much other fits of the same pair disagree with it.

A fit alone does not know where it is wrong. Fits of the same scans, disturbed a little and the other way round, end in
other places where the scans do not hold them. So their distance from the map (the geometric mean of all of them,
because one may be lost itself) tells its error, up to a factor that was found on pairs with landmarks
(docs/decisions/0030-trust.md has these, and how far the bounds hold). Nothing is fitted here, and no file is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ncf.core.words import percent
from ncf.fit.mind import box_mean
from ncf.space.geometry import placed, spacing_mm, to_mm
from ncf.space.grids import Grid, Lattice, lattice_over, nodes_for_budget
from ncf.space.interpolation import Upsampler
from ncf.space.mapping import SpatialMap
from ncf.space.sampling import inside, through

NODES, LEAST_NODES = 1_000_000, 12  # on which maps are compared; disagreement is smooth
NEAR_MM = 10.0  # half the edge of the cube over which disagreement is averaged
FLOOR = 0.2  # of the largest edge of a fixed voxel: an error that no disagreement shows
# times the disagreement, floor included: below it 68 and 95 % of the landmarks' errors lay
FACTORS = {68: 1.13, 95: 2.91}
FINEST_MM = 1 / 64  # bounds are multiples of it: a small file
LARGE_MM = 5.0  # a bound that the summary counts as large
# of what a summary is told, the first that there is: air around the patient says little
REGIONS = {"labels": "inside the fixed labels", "body": "in the body", "everywhere": "in the whole scan"}


@dataclass(frozen=True)
class Trust:
    """Bounds of the error of a map.

    Attributes:
        bounds_mm: (W, H, D, 2), float32: bounds that hold for 68 and for 95 % of all points; nan where the map leads
            out of the moving scan.
        members: what the map was compared with, in words.
        numbers: the content of trust.json; empty before it was made.
    """

    bounds_mm: np.ndarray
    members: tuple[str, ...]
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Trust({trust_in_words(self.numbers or {'everywhere': self.summary()})})"

    def summary(self, where: np.ndarray | None = None) -> dict[str, float | None]:
        """Return the median and the 95th percentile of the 95 % bound, and the share of voxels with a large one.

        Args:
            where: (W, H, D), bool; by default everywhere.
        """
        values = self.bounds_mm[..., 1]
        values = values[np.isfinite(values) if where is None else np.isfinite(values) & where]
        if not values.size:
            return {"median_mm": None, "p95_mm": None, "large_share": None}
        median, high = np.percentile(values, (50, 95))
        large = float((values > LARGE_MM).mean())
        return {"median_mm": round(float(median), 3), "p95_mm": round(float(high), 3), "large_share": round(large, 4)}

    def largest(self, affine: np.ndarray, where: np.ndarray) -> dict[str, Any] | None:
        """Return the largest 95 % bound and where it is; None where none is known.

        Args:
            affine: (4, 4), of the fixed grid, voxel -> RAS mm.
            where: (W, H, D), bool: in these voxels.

        Returns:
            ``bound_mm``, and ``at_mm`` (3,), RAS mm.
        """
        values = np.where(where, np.nan_to_num(self.bounds_mm[..., 1], nan=0.0), 0.0)
        at = np.unravel_index(int(values.argmax()), values.shape)
        if not values[at] > 0:
            return None
        return {"bound_mm": round(float(values[at]), 3), "at_mm": to_mm(np.array([at]), affine)[0].round(2).tolist()}


def trust_of(
    own: SpatialMap, moving: Grid, there: Sequence[SpatialMap], back: Sequence[SpatialMap], members: Sequence[str]
) -> Trust:
    """Bound the error of a map by other maps of the same pair.

    Args:
        own: the map, fixed to moving, on the fixed grid.
        moving: the grid of the moving scan; where the map leads out of it, agreement tells nothing.
        there: other maps, fixed to moving, on grids of their own.
        back: maps from moving to fixed.
        members: what these are, in words.
    """
    spacing = spacing_mm(own.grid.affine)
    shape = (own.grid.shape[0], own.grid.shape[1], own.grid.shape[2])
    lattice = lattice_over(shape, nodes_for_budget(shape, spacing, NODES, least=LEAST_NODES))
    reach = [max(0, round(NEAR_MM / mm)) for mm in spacing * lattice.step_vox]
    floor = (FLOOR * float(spacing.max())) ** 2
    logs = counts = torch.zeros(1, 1, *lattice.shape)
    for squares, sure in apart(own, moving, there, back, lattice):
        share = sure.float()
        near = box_mean(squares * share, reach) / box_mean(share, reach).clamp(min=1e-6)
        logs = logs + torch.where(sure, ((squares + near) / 2 + floor).log(), 0.0)
        counts = counts + share
    error, known = (logs / (2 * counts.clamp(min=1))).exp(), counts > 0
    up = Upsampler(lattice, lattice_over(shape, shape), order=1, device=error.device)
    dense, seen = up(error)[0, 0], up(known.float())[0, 0] > 0.5
    bounds = np.empty((*shape, len(FACTORS)), dtype=np.float32)
    for channel, factor in enumerate(FACTORS.values()):
        steps = (dense * (factor / FINEST_MM)).ceil() * FINEST_MM
        bounds[..., channel] = torch.where(seen, steps, torch.nan).numpy()
    return Trust(bounds, tuple(members))


def apart(
    own: SpatialMap, moving: Grid, there: Sequence[SpatialMap], back: Sequence[SpatialMap], lattice: Lattice
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield for every other map how far it leads from where a map leads.

    Args:
        own: the map, on whose grid the lattice lies.
        moving: the grid of the moving scan.
        there: other maps, fixed to moving.
        back: maps from moving to fixed: they should lead home.
        lattice: over the fixed grid.

    Yields:
        The squared distance in mm^2, 0 where it is not known, and where it is, bool; both (1, 1, w, h, d).
    """
    nodes = lattice.points()[None]
    led, known = through(own.field[None], nodes)
    known = known & inside(placed(led, np.linalg.solve(moving.affine, own.grid.affine)), moving.shape)
    to_mm_apart = np.eye(4)
    to_mm_apart[:3, :3] = own.grid.affine[:3, :3]
    for begin, end, other in (*((nodes, led, m) for m in there), *((led, nodes, m) for m in back)):
        at = placed(begin, np.linalg.solve(other.grid.affine, own.grid.affine))
        found, sure = through(other.field[None], at)
        short_of = placed(found, np.linalg.solve(own.grid.affine, other.grid.affine)) - end
        squares = (placed(short_of, to_mm_apart) ** 2).sum(dim=1, keepdim=True)
        yield torch.where(sure & known, squares, 0.0), sure & known


def told_region(numbers: Mapping[str, Any]) -> tuple[str, dict[str, float]] | None:
    """Return where the bounds are summed up for a person, in words, and the summary; None where no bound is known.

    Args:
        numbers: the content of trust.json.

    Returns:
        The fixed labels where there are some, else the body; the whole scan in files of older versions.
    """
    for region, words in REGIONS.items():
        told = numbers.get(region)
        if told is not None and told["median_mm"] is not None:
            return words, told
    return None


def trust_in_words(numbers: Mapping[str, Any]) -> str:
    """Tell the numbers of trust.json in one line."""
    region = told_region(numbers)
    if region is None:
        return "nothing is known of the error: the map leads out of the moving scan everywhere"
    where, told = region
    return (
        f"95 % bound of the error {where}: {told['median_mm']:.1f} mm in half of the voxels, "
        f"{told['p95_mm']:.1f} mm in 95 %; above {LARGE_MM:.0f} mm in {percent(told['large_share'])}"
    )
