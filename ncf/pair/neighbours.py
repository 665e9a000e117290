"""Which scans of a series are alike, so that each can begin with the result of the one that is most like it.

All are read at the same places of the fixed scan, on a coarse lattice, and compared by correlation. So nothing depends
on the order in which a user names them. Two scans that are equally alike are told apart by their names.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from monai.data import MetaTensor

from ncf.pair.keys import affine_of
from ncf.space.geometry import placed, spacing_mm
from ncf.space.grids import lattice_over, nodes_for_budget, step_along
from ncf.space.sampling import PADDING_NOISE, inside, sample
from ncf.space.smoothing import image_on_lattice

NODES, LEAST_NODES = 30_000, 8  # of the lattice on which scans are compared
NOTHING_ALIKE = -1.0  # the correlation of scans that have nothing in common


class Neighbours:
    """The scans of a series, small.

    Args:
        fixed: the fixed scan, (1, W, H, D).
    """

    def __init__(self, fixed: MetaTensor) -> None:
        shape, affine = tuple(int(n) for n in fixed.shape[1:]), affine_of(fixed)
        self.lattice = lattice_over(shape, nodes_for_budget(shape, spacing_mm(affine), NODES, least=LEAST_NODES))
        self.affine = self.lattice.affine(affine)
        self.fixed = self._small(fixed)
        self.scans: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def add(self, name: str, scan: MetaTensor) -> None:
        """Add a scan.

        Args:
            name: of the scan.
            scan: (1, W, H, D), on a grid of its own.
        """
        self.scans[name] = self._small(scan)

    def _small(self, scan: MetaTensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a scan at the nodes of the lattice, and where it has voxels there, both flat."""
        values, own = scan.as_tensor()[None].float(), affine_of(scan)
        step = np.maximum(step_along(own, self.affine), 1.0)
        shape = values.shape[2:]
        coarse = lattice_over(shape, [max(2, int(np.ceil(n / s))) for n, s in zip(shape, step, strict=True)])
        small, _ = image_on_lattice(values, torch.ones_like(values), coarse, step_vox=step)
        nodes = lattice_over(self.lattice.shape, self.lattice.shape).points()[None]
        at = placed(nodes, np.linalg.solve(coarse.affine(own), self.affine))
        return sample(small, at, padding_mode="border").flatten(), inside(at, small.shape[2:]).flatten()

    def alike(self, name: str, other: str | None = None) -> float:
        """Return the correlation of two scans, -1 to 1.

        Args:
            name: of a scan.
            other: of another; None for the fixed scan.
        """
        (a, in_a), (b, in_b) = self.scans[name], self.fixed if other is None else self.scans[other]
        both = in_a & in_b
        if not both.any():
            return NOTHING_ALIKE
        x, y = (values[both].double() - values[both].double().mean() for values in (a, b))
        return float((x * y).sum() / torch.sqrt((x * x).sum() * (y * y).sum()).clamp(min=PADDING_NOISE))

    def order(self) -> list[str]:
        """Return the names in the order of fitting: first the scan most like the fixed one, then always the one that is
        most like any before it (Prim 1957, doi:10.1002/j.1538-7305.1957.tb01515.x)."""
        left, found = sorted(self.scans), list[str]()
        best = {name: self.alike(name) for name in left}
        while left:
            following = max(left, key=lambda name: best[name])  # of equal ones the first by name
            left.remove(following)
            like = {name: self.alike(name, following) for name in left}
            best = like if not found else {name: max(best[name], like[name]) for name in left}
            found.append(following)
        return found

    def ranked(self, name: str, among: Collection[str]) -> list[str]:
        """Return some scans, the one that is most like another first.

        Args:
            name: of the other.
            among: names of the scans.
        """
        return sorted(among, key=lambda other: (-self.alike(name, other), other))
