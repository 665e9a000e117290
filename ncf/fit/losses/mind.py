"""The difference of two images' MIND-SSC descriptors, whatever their contrasts."""

from __future__ import annotations

import weakref

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from ncf.fit.mind import mind_ssc


class MindLoss(nn.Module):
    """The mean squared difference of twelve descriptors a place (`ncf.fit.mind.mind_ssc`), on a coarser lattice.

    Those of the target are computed once for a target.

    Args:
        pool: the images are first averaged over cubes of so many voxels a side.
        distance: of the patches that are compared, from their place, in nodes of the coarser lattice.
        radius: of the patches, in these nodes.

    Raises:
        ValueError: a number is below one.
    """

    def __init__(self, pool: int = 2, *, distance: int = 1, radius: int = 1) -> None:
        super().__init__()
        if min(pool, distance, radius) < 1:
            raise ValueError(f"MIND needs a pool, a distance and a radius of at least 1, got {pool, distance, radius}")
        self.pool, self.distance, self.radius = pool, distance, radius
        self._target: weakref.ref[torch.Tensor] | None = None
        self._of_target: torch.Tensor | None = None

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss, 0 to 1.

        Args:
            input: (1, 1, W, H, D), in [0, 1].
            target: (1, 1, W, H, D), in [0, 1].
        """
        if self._target is None or self._target() is not target or self._of_target is None:
            with torch.no_grad():
                self._of_target = self._described(target)
            self._target = weakref.ref(target)
        return ((self._described(input) - self._of_target) ** 2).mean()

    def _described(self, image: torch.Tensor) -> torch.Tensor:
        """Return the descriptors (1, 12, w, h, d)."""
        coarse = F.avg_pool3d(image, self.pool) if self.pool > 1 else image
        return mind_ssc(coarse, distance=self.distance, radius=self.radius)

    def extra_repr(self) -> str:
        """Return what run.json records of the loss."""
        return f"pool={self.pool}, distance={self.distance}, radius={self.radius}"
