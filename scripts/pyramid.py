"""One pair of images on the levels of a coarse-to-fine fit.

A level is a budget of points, not a factor: it is spread over the fixed image as evenly in mm as its voxels allow, so that
one recipe serves thin-slice and thick-slice scans of any size. The moving image keeps its own axes and extent, so what lies
outside the fixed field of view can be brought in, and it is interpolated once (docs/decisions/0011-read-once.md). No
networks, no losses here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from scripts.geometry import (
    Lattice,
    lattice_over,
    lattice_over_moving,
    nodes_for_budget,
    offset_between,
    spacing_mm,
    step_along,
)
from scripts.sampling import image_on_lattice

DATA_SHARE = 0.5  # a fixed node counts as far as the fit goes when at least half its neighbourhood holds data
DENSITY = 1.5  # nodes an image is kept on for each of the level's, along an axis; what lies between is interpolated
NEARLY_ALL = 0.75  # of an axis's voxels: rather than so many nodes, the voxels themselves, which nothing has blurred


@dataclass(frozen=True)
class PairImages:
    """A pair as the fit takes it: intensities in [0, 1] and data weights, each (1, 1, W, H, D) on its own grid.

    fixed_affine, moving_affine: 4x4 voxel -> RAS mm. start: 4x4, the affine map in RAS mm, from a fixed to a moving point,
    that the fit begins with; the field that is fitted is what remains to be found before it, start(x + v(x)).
    """

    fixed: torch.Tensor
    moving: torch.Tensor
    fixed_weight: torch.Tensor
    moving_weight: torch.Tensor
    fixed_affine: np.ndarray
    moving_affine: np.ndarray
    start: np.ndarray

    @property
    def started_affine(self) -> np.ndarray:
        """The moving affine as a header would have it where the start is the right map: a fit then begins with nothing."""
        return np.linalg.solve(self.start, self.moving_affine)

    @property
    def fixed_shape(self) -> tuple[int, int, int]:
        """The fixed image's grid."""
        w, h, d = self.fixed.shape[2:]
        return w, h, d


@dataclass(frozen=True)
class LevelImages:
    """A pair on one level: fixed and its weight on `lattice`, the moving image on nodes in its own axes.

    moving: (1, 2, W, H, D), intensity times weight, then weight: interpolated together and divided after, they give the
    average of the data alone, where the intensity by itself would fade to 0 towards missing data.
    to_moving: 4x4, node of `lattice` -> node of `moving`, where the fit begins.
    visited: `lattice` continued over all of the moving image, whose visits are counted; offset: where node 0 of `lattice`
    lies on it, in nodes.
    """

    lattice: Lattice
    fixed: torch.Tensor
    fixed_weight: torch.Tensor
    moving: torch.Tensor
    to_moving: np.ndarray
    visited: Lattice
    offset: tuple[float, float, float]


def level_images(pair: PairImages, points: int, *, least: int) -> LevelImages:
    """The pair on a level of about ``points`` fixed nodes, at least ``least`` along each axis that has them."""
    spacing, moving_shape = spacing_mm(pair.fixed_affine), pair.moving.shape[2:]
    lattice = lattice_over(pair.fixed_shape, nodes_for_budget(pair.fixed_shape, spacing, points, least=least))
    affine = lattice.affine(pair.fixed_affine)
    step = step_along(pair.started_affine, affine)
    dense, own = _dense(pair.fixed_shape, lattice.step_vox), _dense(moving_shape, step)
    visited = lattice_over_moving(lattice, pair.fixed_affine, moving_affine=pair.started_affine, moving_shape=moving_shape)
    fixed, weight = image_on_lattice(pair.fixed, pair.fixed_weight, lattice, step_vox=lattice.step_vox, through=dense)
    moving, moving_weight = image_on_lattice(pair.moving, pair.moving_weight, own, step_vox=step)
    return LevelImages(
        lattice=lattice,
        fixed=fixed,
        fixed_weight=torch.where(weight < DATA_SHARE, 0.0, weight),
        moving=torch.cat([moving * moving_weight, moving_weight], dim=1),
        to_moving=np.linalg.solve(own.affine(pair.started_affine), affine),
        visited=visited,
        offset=offset_between(lattice, visited),
    )


def _dense(shape: Sequence[int], step_vox: Sequence[float] | np.ndarray) -> Lattice:
    """The nodes on which an image is kept, when the level's nodes lie ``step_vox`` of its voxels apart.

    The fixed image is interpolated from such nodes as well, so that two equal images are equal where the fit begins.
    """
    counts = [max(2, int(np.ceil((n - 1) * DENSITY / s)) + 1) for n, s in zip(shape, step_vox, strict=True)]
    return lattice_over(shape, [n if m > NEARLY_ALL * n else m for n, m in zip(shape, counts, strict=True)])
