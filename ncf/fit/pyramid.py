"""One pair of images on the levels of a coarse-to-fine fit.

A level is a budget of points, not a factor. The points are placed over the fixed image as evenly in mm as its voxels
allow, so the same settings serve thin-slice and thick-slice scans of any size. The moving image keeps its own axes and
extent, so the fit can bring in what lies outside the fixed field of view. It is interpolated once
(docs/decisions/0011-read-once.md). No networks and no losses here.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from ncf.fit.label_guidance import LabelWishes
from ncf.space.geometry import spacing_mm
from ncf.space.grids import Lattice, lattice_over, lattice_over_moving, nodes_for_budget, offset_between, step_along
from ncf.space.smoothing import image_on_lattice

DATA_SHARE = 0.5  # the fit uses a fixed node when at least this share of its neighbourhood holds data
# nodes on which an image is kept for one node of the level, along an axis; it is interpolated between. Two where the
# image then still fits the processor's cache: between fewer, noise is smoothed, and places between them look better
DENSITY, FINE_DENSITY, CACHED = 1.5, 2.0, 2**19
KEPT = (
    100_000  # levels of at most so many nodes are kept as long as the fixed scan: several parts of a fit ask for them
)
NEARLY_ALL = 0.75  # of an axis's voxels: instead of more nodes than this the voxels are kept, which are not blurred


@dataclass(frozen=True)
class PairImages:
    """A pair as the fit takes it: intensities in [0, 1] and data weights, each (1, 1, W, H, D) on its own grid.

    Attributes:
        fixed: intensities of the fixed image.
        moving: intensities of the moving image.
        fixed_weight: data weights of the fixed image.
        moving_weight: data weights of the moving image.
        fixed_affine: 4x4, voxel to RAS mm.
        moving_affine: 4x4, voxel to RAS mm.
        initial: 4x4 affine map in RAS mm from a fixed to a moving point: the initial transform. The fit finds v, the
            rest of the map, which comes before it: initial(x + v(x)).
        guide_points_mm: (N, 6), RAS mm: points of the fixed image, then their partners in the moving one; or None.
        labels: what is wanted of labelled organs, or None.
        start: the network of a neighbour to begin with (`ncf.fit.warm_start`), or None.
        modalities: of the fixed and of the moving scan as DICOM calls them, such as CT; empty where nobody has said.
    """

    fixed: torch.Tensor
    moving: torch.Tensor
    fixed_weight: torch.Tensor
    moving_weight: torch.Tensor
    fixed_affine: np.ndarray
    moving_affine: np.ndarray
    initial: np.ndarray
    guide_points_mm: np.ndarray | None = None
    labels: LabelWishes | None = None
    modalities: tuple[str, str] = ("", "")
    start: Any = None

    @property
    def initial_affine(self) -> np.ndarray:
        """The moving affine as a header would have it if the initial transform were right.

        With this header a fit begins with a zero field.
        """
        return np.linalg.solve(self.initial, self.moving_affine)

    @property
    def fixed_shape(self) -> tuple[int, int, int]:
        """The shape of the fixed image's grid."""
        w, h, d = self.fixed.shape[2:]
        return w, h, d


@dataclass(frozen=True)
class LevelImages:
    """A pair on one level: the fixed image and its weight on ``lattice``, the moving image on nodes in its own axes.

    Attributes:
        lattice: the nodes of the level.
        fixed: (1, 1, W, H, D), intensities.
        fixed_weight: (1, 1, W, H, D), 0 to 1.
        moving: (1, 2, W, H, D), intensity times weight, then weight. Interpolated together and then divided, they give
            the average of the data alone. The intensity by itself would fade to 0 towards missing data.
        to_moving: 4x4, node of ``lattice`` to node of ``moving`` by the initial transform.
        visited: ``lattice`` continued over the whole moving image; the occupancy is counted on it.
        offset: where node 0 of ``lattice`` lies on ``visited``, in nodes.
    """

    lattice: Lattice
    fixed: torch.Tensor
    fixed_weight: torch.Tensor
    moving: torch.Tensor
    to_moving: np.ndarray
    visited: Lattice
    offset: tuple[float, float, float]


_kept: MutableMapping[torch.Tensor, dict[tuple, tuple[LevelImages, tuple]]] = WeakTensorKeyDictionary()


def level_images(pair: PairImages, points: int, *, least: int) -> LevelImages:
    """Bring a pair to a level of about ``points`` fixed nodes. A small one that was asked for before is given again.

    Args:
        pair: on its own grids.
        points: about how many nodes.
        least: fewest nodes along each axis that has so many voxels.

    Returns:
        The images of the level.
    """
    if points > KEPT:
        return _level(pair, points, least=least)
    scans = (pair.fixed, pair.moving, pair.fixed_weight, pair.moving_weight)
    affines = (pair.fixed_affine, pair.moving_affine, pair.initial)
    key = (points, least, *(id(scan) for scan in scans), *(affine.tobytes() for affine in affines))
    of_fixed = _kept.setdefault(pair.fixed, {})
    if key not in of_fixed:  # with the scans, so that no other one can get the id of one of them
        of_fixed[key] = (_level(pair, points, least=least), scans[1:])
    return of_fixed[key][0]


def _level(pair: PairImages, points: int, *, least: int) -> LevelImages:
    """Bring a pair to a level."""
    spacing, moving_shape = spacing_mm(pair.fixed_affine), pair.moving.shape[2:]
    lattice = lattice_over(pair.fixed_shape, nodes_for_budget(pair.fixed_shape, spacing, points, least=least))
    affine = lattice.affine(pair.fixed_affine)
    step = step_along(pair.initial_affine, affine)
    dense, own = _dense(pair.fixed_shape, lattice.step_vox), _dense(moving_shape, step)
    visited = lattice_over_moving(
        lattice, pair.fixed_affine, moving_affine=pair.initial_affine, moving_shape=moving_shape
    )
    fixed, weight = image_on_lattice(pair.fixed, pair.fixed_weight, lattice, step_vox=lattice.step_vox, through=dense)
    moving, moving_weight = image_on_lattice(pair.moving, pair.moving_weight, own, step_vox=step)
    return LevelImages(
        lattice=lattice,
        fixed=fixed,
        fixed_weight=torch.where(weight < DATA_SHARE, 0.0, weight),
        moving=torch.cat([moving * moving_weight, moving_weight], dim=1),
        to_moving=np.linalg.solve(own.affine(pair.initial_affine), affine),
        visited=visited,
        offset=offset_between(lattice, visited),
    )


def _dense(shape: Sequence[int], step_vox: Sequence[float] | np.ndarray) -> Lattice:
    """Return the nodes on which an image is kept, when the level's nodes lie ``step_vox`` of its voxels apart.

    The fixed image is interpolated from such nodes too, so that two equal images are equal where the fit begins.
    """
    lattices = []
    for density in (FINE_DENSITY, DENSITY):
        counts = [max(2, int(np.ceil((n - 1) * density / s)) + 1) for n, s in zip(shape, step_vox, strict=True)]
        counts = [n if m > NEARLY_ALL * n else m for n, m in zip(shape, counts, strict=True)]
        lattices.append(lattice_over(shape, counts))
    fine, usual = lattices
    return fine if math.prod(fine.shape) <= CACHED else usual
