"""Interpolation from one lattice to another, linear or by cubic B-splines, as one matrix for each axis."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from ncf.space.grids import Lattice


def interpolation_matrix(source: int, positions: torch.Tensor, *, order: int) -> torch.Tensor:
    """Return the weights that interpolate a row of nodes at given positions.

    The B-spline is uniform and cubic (Unser 1999, doi:10.1109/79.799930; for registration Rueckert et al. 1999,
    doi:10.1109/42.796284). It approximates: nodes are control points. Nodes beyond either end are extrapolated
    linearly, so that both orders reproduce a linear row exactly.

    Args:
        source: number of nodes.
        positions: in nodes.
        order: 1 is linear, 3 is the cubic B-spline.

    Returns:
        Weights (len(positions), source), float32.

    Raises:
        ValueError: the order is another.
    """
    if order not in (1, 3):
        raise ValueError(f"interpolation order is 1 (linear) or 3 (cubic B-spline), not {order}")
    if source == 1:
        return torch.ones(len(positions), 1)
    positions = positions.double()
    base = positions.floor().clamp(0, source - 2)
    t = positions - base
    if order == 1:
        weights, first = [1 - t, t], 0
    else:
        first = -1
        weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3]
        weights = [w / 6 for w in weights]
    matrix = torch.zeros(len(positions), source + 2, dtype=torch.float64)
    rows = torch.arange(len(positions))
    for k, weight in enumerate(weights):
        matrix.index_put_((rows, base.long() + first + k + 1), weight, accumulate=True)
    inner = matrix[:, 1:-1].clone()
    inner[:, 0] += 2 * matrix[:, 0]
    inner[:, 1] -= matrix[:, 0]
    inner[:, -1] += 2 * matrix[:, -1]
    inner[:, -2] -= matrix[:, -1]
    return inner.float()


def cardinal_matrix(source: int, positions: torch.Tensor) -> torch.Tensor:
    """Return the weights that read a row of samples at given positions by the cubic B-spline that goes through them.

    Linear reading blurs most between samples and not at all on them; this one hardly blurs (Thevenaz et al. 2000,
    doi:10.1109/42.875199). It overshoots beside a step, by up to a tenth of it.

    Args:
        source: number of samples.
        positions: in samples.

    Returns:
        Weights (len(positions), source), float32.
    """
    return (interpolation_matrix(source, positions, order=3).double() @ _control_values(source)).float()


@lru_cache(maxsize=6)  # those of a pair
def _control_values(source: int) -> torch.Tensor:
    """Return the matrix that gives the spline's control values of a row of so many samples, (source, source)."""
    return torch.linalg.inv(interpolation_matrix(source, torch.arange(source), order=3).double())


def separable(volume: torch.Tensor, matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Apply one matrix along each of the last three axes of a volume.

    Args:
        volume: (..., W, H, D).
        matrices: three of shape (out, in), for the axes W, H and D.
    """
    first, second, third = matrices
    volume = volume @ third.T
    volume = second @ volume
    lead, (w, h, d) = volume.shape[:-3], volume.shape[-3:]
    return (first @ volume.reshape(*lead, w, h * d)).reshape(*lead, first.shape[0], h, d)


class Upsampler:
    """Interpolates values on a control lattice to a finer lattice, by three small matrix products.

    Args:
        control: the lattice of the control values.
        fine: the lattice of the result, in the voxel space of the same image.
        order: 1 is linear, 3 is the cubic B-spline (`interpolation_matrix`).
        device: of the matrices.
    """

    def __init__(self, control: Lattice, fine: Lattice, *, order: int, device: torch.device | str = "cpu") -> None:
        self.matrices = []
        for a in range(3):
            nodes = (fine.axis(a) - control.origin_vox[a]) / control.step_vox[a]
            self.matrices.append(interpolation_matrix(control.shape[a], nodes, order=order).to(device))

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Interpolate control values (B, C, *control); return values (B, C, *fine)."""
        return separable(values, self.matrices)
