"""A breathing chest over one breath, with exact maps: a 4DCT by formula, for tests and measurements.

The chest of `ncf.phantom.chest` at the phases of one breath. The wall follows the diaphragm a little later, so the way
in is not the way out, as in patients. The noise of every phase is its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ncf.phantom.chest import Breathing, Chest, PhantomPair, grid_of, noisy

LAG = 0.06  # of a breath, by which the wall follows the diaphragm


class Phase(Breathing):
    """The motion from exhale to one phase of a breath: diaphragm and wall each have moved a share of a deep breath."""

    def __init__(self, deep: Breathing, *, diaphragm: float, wall: float) -> None:
        self.motion, self.sides = 1.0, deep.sides
        self.diaphragm, self.wall = diaphragm, wall

    def _sideways(self, _: np.ndarray, y: np.ndarray, z: np.ndarray) -> tuple:
        centre, width, growth, shift = super()._sideways(_, y, z)
        return centre, width, self.wall * growth, shift

    def _to_front(self, x: np.ndarray, _: np.ndarray, z: np.ndarray) -> tuple:
        centre, width, growth, shift = super()._to_front(x, _, z)
        return centre, width, growth, self.wall * shift

    def _down(self, x: np.ndarray, y: np.ndarray, _: np.ndarray) -> tuple:
        centre, width, growth, shift = super()._down(x, y, _)
        return centre, width, growth, self.diaphragm * shift


def amplitudes(phases: int) -> list[tuple[float, float]]:
    """Return how far diaphragm and wall have moved at each phase after exhale, as shares of a deep breath.

    Args:
        phases: of one breath, with exhale, which comes first and is left out.
    """
    times = [number / phases for number in range(1, phases)]
    return [(float(np.sin(np.pi * t) ** 2), float(np.sin(np.pi * (t - LAG)) ** 2)) for t in times]


def breathing_series(
    shape: Sequence[int] = (112, 96, 104),
    *,
    phases: int = 10,
    seed: int = 0,
    noise_hu: float = 20.0,
    landmarks: int = 100,
) -> Iterator[PhantomPair]:
    """Make one breath: pairs of exhale, which is fixed, and every other phase in the order of time.

    Args:
        shape: of the grid, which all phases share.
        phases: of the breath, with exhale.
        seed: of anatomy, motion, noise and landmarks.
        noise_hu: standard deviation of the noise, in HU.
        landmarks: how many; they are the same points of the fixed scan in all pairs.

    Yields:
        A pair for each phase after exhale.

    Raises:
        PairError: the shape makes no sense.
    """
    grid = grid_of(shape)
    own, spots, *noise = np.random.SeedSequence(seed).spawn(2 + phases)
    deep = Chest.filling(grid, motion=1.0, seed=own)
    fixed, fixed_label = deep.image(grid, inhale=False)
    fixed = noisy(fixed, noise_hu, seed=noise[0])
    for (diaphragm, wall), of_phase in zip(amplitudes(phases), noise[1:], strict=True):
        chest = replace(deep, breathing=Phase(deep.breathing, diaphragm=diaphragm, wall=wall))
        moving, moving_label = chest.image(grid, inhale=True)
        marks = chest.landmarks(grid, grid, count=landmarks, seed=spots)
        moving = noisy(moving, noise_hu, seed=of_phase)
        field = chest.field_vox(grid)
        yield PhantomPair(fixed, moving, fixed_label, moving_label, grid.affine, grid.affine, field, marks)
