"""The schedule of a fit: what a level is asked for, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Level:
    """One level of a coarse-to-fine fit.

    Attributes:
        voxels: number of nodes of the image lattice.
        control_points: number of nodes of the control lattice, where the network is evaluated.
        iterations: steps of Adam.
        learning_rate: at the first iteration (paper: 1e-3).
        learning_rate_end: at the last iteration (paper: 1e-6). A cosine leads from the first rate to this one.
        offset_points: nodes of a finer lattice of free offsets, which are added to the network's output; fewer where
            the fixed scan is small; 0 for none. Only the last level may have them, because they belong to its nodes.
        offset_rate: learning rate of the offsets, as a share of the network's for each unit of the mean square
            intensity difference that the earlier levels have left, up to that of 0.1 (intensities run from 0 to 1, and
            a scale and an offset of them count for nothing). Where the images agree up to their noise there is little
            to gain, and offsets would follow the noise.
        follow_within: the moving scan is read again, and the occupancy counted, once the field has moved by so many
            nodes (root mean square), and both are followed along their slopes until then (`ncf.fit.following`); 0
            reads at every step.
        bfloat16: the network is evaluated in bfloat16 here where the ``amp`` of the fit allows it. Its noise is tenths
            of a percent of a displacement, which matters where motion is still being found.
        guidance: factor of the terms by which a person guides the fit (`ncf.fit.guidance`). A point is clicked less
            exactly than images can be compared, so it is small on the last level.

    Raises:
        ValueError: a number that must be above zero is not, one that may be zero is below, or offsets have points
            without a rate.
    """

    voxels: int
    control_points: int
    iterations: int
    learning_rate: float
    learning_rate_end: float = 1e-6
    offset_points: int = 0
    offset_rate: float = 0.0
    follow_within: float = 0.0
    bfloat16: bool = False
    guidance: float = 1.0

    def __post_init__(self) -> None:
        counts = (self.voxels, self.control_points, self.iterations)
        if not min(*counts, self.learning_rate, self.learning_rate_end) > 0:
            raise ValueError(f"a level of a fit needs numbers above zero, got {self}")
        if min(self.guidance, self.follow_within) < 0:
            raise ValueError(f"guidance and follow_within are zero or more, got {self}")
        if min(self.offset_points, self.offset_rate) < 0 or (self.offset_points > 0) != (self.offset_rate > 0):
            raise ValueError(f"free offsets need offset_points and offset_rate, both above zero or neither, got {self}")


def at_offset_rate(levels: Mapping[str, Mapping[str, Any]], rate: float) -> dict[str, dict[str, Any]]:
    """Return levels of a config with another rate of the free offsets, where they have any.

    Args:
        levels: the entries of `Level` by the level's name.
        rate: see `Level`.
    """
    return {
        name: {**entries, "offset_rate": rate} if entries.get("offset_points") else dict(entries)
        for name, entries in levels.items()
    }


def schedule(levels: Mapping[str, Mapping[str, Any]]) -> dict[str, Level]:
    """Read the levels of a config, coarse first.

    Args:
        levels: the entries of `Level` by the level's name.

    Raises:
        ValueError: there is no level, a level is not what `Level` wants, or a level before the last has free offsets.
    """
    if not isinstance(levels, Mapping) or not levels:
        raise ValueError(f"a fit needs at least one level, each under a name, got {levels!r:.60}")
    found = {name: Level(**entries) for name, entries in levels.items()}
    if any(level.offset_points for level in list(found.values())[:-1]):
        raise ValueError("free offsets belong to the nodes of the last level, an earlier one has them too")
    return found
