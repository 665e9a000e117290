"""The Jacobian of a map: how it changes volumes from place to place, and where it folds."""

from __future__ import annotations

import torch

from ncf.core.errors import PairError

PIECE_VOXELS = 2**21  # voxels processed at a time: 8 MiB for each float32 temporary


def jacobian_of_map(field: torch.Tensor) -> torch.Tensor:
    """Return the determinant (W, H, D) of the Jacobian of x -> x + u(x).

    Central differences inside, one-sided ones at the borders. 0 or less is a fold. In mm the number is the same.

    Args:
        field: u, (3, W, H, D), in nodes of its own lattice.
    """
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = (_slopes(field, axis).unbind() for axis in (1, 2, 3))
    xx, yy, zz = xx + 1, yy + 1, zz + 1
    return xx * (yy * zz - yz * zy) - xy * (yx * zz - yz * zx) + xz * (yx * zy - yy * zx)


def _slopes(field: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the differences of a field from node to node along one axis.

    The numbers are those of torch.gradient, in a third of its time.
    """
    last = field.shape[axis] - 1
    inner = (field.narrow(axis, 2, last - 1) - field.narrow(axis, 0, last - 1)) * 0.5
    ends = [field.narrow(axis, n + 1, 1) - field.narrow(axis, n, 1) for n in (0, last - 1)]
    return torch.cat([ends[0], inner, ends[1]], axis)


def require_field(field_vox: torch.Tensor) -> None:
    """Raise PairError unless the field has shape (3, W, H, D) with two voxels or more along each axis."""
    shape = tuple(field_vox.shape)
    if len(shape) != 4 or shape[0] != 3 or min(shape[1:]) < 2:
        raise PairError(
            f"a field must have shape (3, W, H, D) with 2 voxels or more along each axis, got {shape}: "
            "pass one pair's field, without a batch axis"
        )


def jacobian_determinant(field_vox: torch.Tensor) -> torch.Tensor:
    """Return the determinant (W, H, D), float32, of the Jacobian of x -> x + u(x): local volume after over before.

    It is computed in the index space of the fixed grid. In mm the number is the same, because the same affine stands on
    both sides (det(A J A^-1) = det(J)). Central differences inside, one-sided ones at the borders. 0 or less is a fold.

    Args:
        field_vox: (3, W, H, D) in voxels on the fixed grid, float32.

    Raises:
        PairError: the field has another shape, see `require_field`.
    """
    require_field(field_vox)
    field_vox = field_vox.detach()
    width = field_vox.shape[1]
    planes = max(1, PIECE_VOXELS // (field_vox.shape[2] * field_vox.shape[3]))
    det = torch.empty(tuple(field_vox.shape[1:]), dtype=torch.float32, device=field_vox.device)
    for start in range(0, width, planes):
        stop = min(start + planes, width)
        low, high = max(start - 1, 0), min(stop + 1, width)  # with one plane of each neighbour, for the differences
        det[start:stop] = _slab_determinant(field_vox[:, low:high].float(), start - low, stop - low)
    return det


def _slab_determinant(slab: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Return the determinant on the planes first..last of a slab (3, P, H, D)."""
    return jacobian_of_map(slab)[first:last]
