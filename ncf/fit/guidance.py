"""What a person knows of a pair, beside its images: points that belong together.

They pull softly on the fit (`ncf.fit.terms.GuideTerm`), correct the motion that was searched for, and may give the
initial transform where the headers are far off. This room must not know networks or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ncf.space.geometry import spacing_mm, to_mm, to_vox
from ncf.space.grids import Lattice
from ncf.space.sampling import sample

REACH_MM = 15.0  # standard deviation of the Gaussian by which a point corrects what was found around it
FAR_MM = 20.0  # mean distance of the points by an initial transform, from which on another is fitted to the points
BETTER = 0.5  # a transform fitted to the points must leave less than this share of that distance
TURNING = 4  # points that a rotation needs; fewer give a translation
FLATNESS = 0.1  # second longest extent of the points over the longest, below which they lie on a line


@dataclass(frozen=True)
class GuidePoints:
    """Guide points on the lattice of a level.

    Attributes:
        nodes: (1, 3, N, 1, 1), where the fixed points lie, in nodes.
        wanted_mm: (1, 3, N, 1, 1), the displacement along each axis of the fixed grid, in mm, that leads to their
            partners, without the initial transform.
        node_mm: (1, 3, 1, 1, 1), distance of two nodes.
        strength: factor of the term on this level.
    """

    nodes: torch.Tensor
    wanted_mm: torch.Tensor
    node_mm: torch.Tensor
    strength: float = 1.0

    def left_mm(self, field: torch.Tensor) -> torch.Tensor:
        """Return what a field leaves of the displacements, along each axis of the fixed grid.

        Args:
            field: (1, 3, W, H, D), in nodes.

        Returns:
            (1, 3, N, 1, 1), mm.
        """
        return self.wanted_mm - sample(field, self.nodes, padding_mode="border") * self.node_mm


def on_lattice(
    points_mm: np.ndarray,
    lattice: Lattice,
    fixed_affine: np.ndarray,
    *,
    initial: np.ndarray,
    device: torch.device | str,
    strength: float = 1.0,
) -> GuidePoints:
    """Bring guide points to a lattice over the fixed grid.

    Args:
        points_mm: (N, 6), RAS mm: points of the fixed scan, then their partners in the moving one.
        lattice: of a level.
        fixed_affine: 4x4, voxel to RAS mm.
        initial: 4x4, the initial transform, which follows the displacement.
        device: where the tensors are needed.
        strength: factor of the term on this level.
    """
    axes, step = spacing_mm(fixed_affine), np.asarray(lattice.step_vox)
    fixed_vox = to_vox(points_mm[:, :3], fixed_affine)
    wanted_vox = to_vox(to_mm(points_mm[:, 3:], np.linalg.inv(initial)), fixed_affine) - fixed_vox

    def columns(values: np.ndarray) -> torch.Tensor:
        """Return (N, 3) as (1, 3, N, 1, 1)."""
        return torch.as_tensor(values.T[None, :, :, None, None].copy(), dtype=torch.float32, device=device)

    nodes = (fixed_vox - np.asarray(lattice.origin_vox)) / step
    return GuidePoints(columns(nodes), columns(wanted_vox * axes), columns((axes * step)[None]), strength)


def corrected(
    field_vox: torch.Tensor, lattice: Lattice, points_mm: np.ndarray, *, affine: np.ndarray, initial: np.ndarray
) -> torch.Tensor:
    """Return a field that was found, corrected around guide points: by Gaussians, so that far places stay.

    Args:
        field_vox: (1, 3, W, H, D), in fixed voxels, without the initial transform.
        lattice: of the field.
        points_mm: (N, 6), RAS mm.
        affine: 4x4, voxel to RAS mm, of the fixed grid.
        initial: 4x4, the initial transform.
    """
    step = torch.tensor([float(s) for s in lattice.step_vox], device=field_vox.device).view(1, 3, 1, 1, 1)
    guides = on_lattice(points_mm, lattice, affine, initial=initial, device=field_vox.device)
    left = guides.left_mm(field_vox / step)[0, :, :, 0, 0]  # (3, N)
    own = torch.stack(
        torch.meshgrid(*(torch.arange(n, device=left.device) for n in field_vox.shape[2:]), indexing="ij")
    )
    total, change = torch.zeros_like(field_vox[0, 0]), torch.zeros_like(field_vox[0])
    for place, pull in zip(guides.nodes[0, :, :, 0, 0].T, left.T, strict=True):
        far = (((own - place.view(3, 1, 1, 1)) * guides.node_mm[0]) ** 2).sum(dim=0)
        near = torch.exp(-far / (2 * REACH_MM**2))
        total += near
        change += near * pull.view(3, 1, 1, 1)
    spacing = torch.as_tensor(spacing_mm(affine), dtype=torch.float32, device=left.device).view(3, 1, 1, 1)
    return field_vox + (change / total.clamp(min=1) / spacing)[None]


def initial_by_points(points_mm: np.ndarray, initial: np.ndarray) -> np.ndarray | None:
    """Return a rigid map that brings guide points together, where an initial transform leaves them far apart.

    The rotation is the least-squares one (Kabsch 1976, doi:10.1107/S0567739476001873).

    Args:
        points_mm: (N, 6), RAS mm.
        initial: 4x4, from a fixed to a moving point.

    Returns:
        4x4; None where the initial transform is near enough, or no rigid map is much better.
    """
    fixed, moving = points_mm[:, :3], points_mm[:, 3:]
    before = np.linalg.norm(to_mm(fixed, initial) - moving, axis=1).mean()
    if before < FAR_MM:
        return None
    found = np.eye(4)
    centres = fixed.mean(axis=0), moving.mean(axis=0)
    extents = np.linalg.svd(fixed - centres[0], compute_uv=False)
    if len(fixed) >= TURNING and extents[1] > FLATNESS * extents[0]:
        u, _, v = np.linalg.svd((fixed - centres[0]).T @ (moving - centres[1]))
        found[:3, :3] = v.T @ np.diag([1, 1, np.sign(np.linalg.det(v.T @ u.T))]) @ u.T
    found[:3, 3] = centres[1] - found[:3, :3] @ centres[0]
    after = np.linalg.norm(to_mm(fixed, found) - moving, axis=1).mean()
    return found if after < BETTER * before else None
