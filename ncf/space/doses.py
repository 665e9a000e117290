"""Doses carried by a map, by one of two rules: the dose at a point, or the energy of its tissue."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ncf.core.names import DOSE_RULES
from ncf.space.grids import Grid
from ncf.space.jacobian import jacobian_determinant
from ncf.space.mapping import SpatialMap
from ncf.space.sampling import inside, sample


@dataclass(frozen=True)
class CarriedDose:
    """A dose on a reference grid.

    Attributes:
        values: (W, H, D), float32, in the unit of the moving dose.
        outside: share of the reference grid, 0 to 1, that the map leads outside the moving dose grid, or nowhere.
        folded: share of the reference grid with a dose where the map folds; there energy has no meaning.
    """

    values: np.ndarray
    outside: float
    folded: float


def carry_dose(
    mapping: SpatialMap, volume: torch.Tensor, *, moving: np.ndarray, reference: Grid, rule: str
) -> CarriedDose:
    """Carry a moving dose onto a reference grid. Outside the moving dose grid the dose is 0.

    With T the map, from a reference point x to its moving point, and D the moving dose, read linearly:

    - ``dose``: D(T(x)), the dose that the tissue at x received. It is also what energy and mass give together where the
      mass goes along with its tissue, as in a lung that breathes.
    - ``energy``: D(T(x)) det J(x), with J the Jacobian of T. The energy of each piece of tissue is kept, and divided by
      the mass that the reference scan has there: the energy transfer of Siebers and Zhong (2008,
      doi:10.1118/1.2968215; with mass, Zhong and Siebers 2009, doi:10.1088/0031-9155/54/19/010) with one density
      everywhere, because no density is known. Tissue that is pressed into half its volume has twice the dose, and the
      integral of dose over volume is the same on both sides. Where the map folds (det J < 0) it is 0.

    Args:
        mapping: T.
        volume: D, (W, H, D), on its own grid.
        moving: its affine (4, 4), voxel -> RAS mm.
        reference: the grid.
        rule: of `ncf.core.names.DOSE_RULES`.

    Raises:
        ValueError: the rule is another.
    """
    if rule not in DOSE_RULES:
        raise ValueError(f"rule is one of {', '.join(DOSE_RULES)}, not {rule}")
    dose = volume[None, None].float()
    out, there = torch.empty(tuple(reference.shape)), 0
    for planes, positions, known in mapping.positions(reference, moving):
        found = known & inside(positions, volume.shape)
        out[planes] = (sample(dose, positions, padding_mode="border") * found)[0, 0]
        there += int(found.sum())
    folded = 0.0
    if rule == "energy":
        change = jacobian_determinant(mapping.on(reference)[0].field)
        folded = float(((change <= 0) & (out != 0)).float().mean())
        out *= change.clamp(min=0)
    return CarriedDose(out.numpy(), 1 - there / out.numel(), folded)
