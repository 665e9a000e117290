"""Reading a pair: from paths to volumes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Transform

from ncf.core.errors import PairError
from ncf.core.labels import Wanted, sides_of
from ncf.core.names import GRID_OF, IMAGES, LABEL_KEYS
from ncf.fit.rounding import Rounded
from ncf.fit.warm_start import WarmStart
from ncf.io.checkpoint import load_checkpoint
from ncf.io.image_files import read_image
from ncf.io.label_files import read_label
from ncf.io.label_partners import matched
from ncf.io.mask_files import read_mask
from ncf.pair.keys import Pair, PairFiles
from ncf.space.geometry import spacing_mm
from ncf.space.grids import Grid

logger = logging.getLogger(__name__)


class ReadPaird(Transform):
    """Reads each image, label and mask of a pair.

    Args:
        labels: which labels are read, by name or number (`ncf.core.labels.sides_of`); by default all.

    Raises:
        PairError: one of the labels is no name.
    """

    def __init__(self, labels: str | Sequence[Wanted] | None = None) -> None:
        self.sides = sides_of(labels)

    def __call__(self, data: PairFiles) -> Pair:
        """Read the volumes of a pair.

        Returns:
            The pair with MetaTensors, float32 (1, W, H, D), instead of paths, affine voxel -> RAS mm. Values are the
            real ones (slope and intercept applied); array axes are those of the file. Label maps are as
            `ncf.io.label_files.read_label` gives them; where both have names, equal names have equal numbers.

        Raises:
            PairError: what `read_image`, `read_mask` and `read_label` raise.
        """
        named: dict[str, Any] = dict(data)
        pair = {**named, **{key: read_image(key, named[key]) for key in IMAGES}}
        masks = [key for key in GRID_OF if key in named and key not in LABEL_KEYS]
        pair |= {key: read_mask(key, named[key], pair[GRID_OF[key]]) for key in masks}
        for key in (*IMAGES, *masks):
            logger.debug("%s: %s voxels of %s mm, %s", key, *size_in_words(pair[key]), named[key])
        for side, key in enumerate(LABEL_KEYS):
            if key in named:
                wanted = [names[side] for names in self.sides]
                pair[key] = read_label(key, named[key], pair[GRID_OF[key]], wanted=wanted)
        if "start" in named:
            pair["start"] = read_start(named["start"], pair["fixed"])
        return cast(Pair, matched(pair, self.sides))


def size_in_words(image: MetaTensor) -> tuple[str, str]:
    """Return the voxels along the axes of a volume (1, W, H, D), and their spacing in mm, as in 96 x 96 x 104."""
    spacing = spacing_mm(np.asarray(image.affine, dtype=np.float64))
    return " x ".join(map(str, image.shape[1:])), " x ".join(f"{step:.4g}" for step in spacing)


def read_start(path: str | Path, fixed: MetaTensor) -> WarmStart:
    """Read the network of a neighbour, to begin a fit with it.

    Args:
        path: of the neighbour's network.pt.
        fixed: the fixed scan of the pair, which must be the neighbour's.

    Raises:
        PairError: the file cannot be read, or its network lives on another grid.
    """
    state, grid = load_checkpoint(path), Grid(tuple(fixed.shape[1:]), np.asarray(fixed.affine, np.float64))
    if not grid.same_as(Grid(tuple(state["fixed_shape"]), state["fixed_affine"].numpy())):
        raise PairError(f"{path} lives on another grid than the fixed scan; a start needs the same fixed scan")
    weights = {name: Rounded(*kept) for name, kept in state["weights"].items()}
    return WarmStart(Path(path).parent.name, weights, state["initial_transform"].numpy(), state["control_points"])
