"""Reading a pair: from paths to volumes."""

from __future__ import annotations

from typing import Any, cast

from monai.transforms import Transform

from ncf.core.names import GRID_OF, IMAGES
from ncf.io.image_files import read_image
from ncf.pair.keys import Pair, PairFiles


class ReadPaird(Transform):
    """Reads each image, label and mask of a pair."""

    def __call__(self, data: PairFiles) -> Pair:
        """Read the volumes of a pair.

        Returns:
            The pair with MetaTensors, float32 (1, W, H, D), instead of paths, affine voxel -> RAS mm. Values are the
            real ones (slope and intercept applied); array axes are those of the file.

        Raises:
            PairError: what `read_image` raises.
        """
        named: dict[str, Any] = dict(data)
        return cast(Pair, {k: read_image(k, v) if k in (*IMAGES, *GRID_OF) else v for k, v in named.items()})
