"""How good a registration is: landmark errors, similarity, and folding of the field; labels are in `label_overlap`.

This module knows arrays and numbers. It must not know files, configs, networks or how a field was made; the arithmetic
of space is in `ncf.space.geometry`. Volumes may be large (512 x 512 x 600), so everything here works in pieces and sums
in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ncf.core.errors import PairError
from ncf.space.geometry import to_mm
from ncf.space.jacobian import require_field
from ncf.space.sampling import sample

PIECE_VOXELS = 2**21  # voxels processed at a time: 8 MiB for each float32 temporary
NMI_BINS, NMI_RANGE, NMI_SAMPLES = 64, (0.5, 99.5), 2**18
VOXELS_A_BIN = 20  # least number in a joint histogram: with fewer, noise looks like information
TINY = 1e-12
EDGE_VOX = 1.0  # landmarks further outside the grid are refused; indices counted from 1 instead of 0 still pass


def pieces(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield flat pieces (<= PIECE_VOXELS,) of tensors of one shape, in step.

    Args:
        tensors: of any one shape.

    Raises:
        PairError: shapes differ.
    """
    shapes = {tuple(t.shape) for t in tensors}
    if len(shapes) != 1:
        raise PairError(f"expected volumes of one shape, got {sorted(shapes)}: bring them onto one grid first")
    yield from zip(*[t.reshape(-1).split(PIECE_VOXELS) for t in tensors], strict=True)


def tre_mm(
    field_vox: torch.Tensor | None, landmarks: np.ndarray, *, fixed_affine: np.ndarray, moving_affine: np.ndarray
) -> np.ndarray:
    """Return the target registration error of each landmark in mm, shape (N,), float64: ``|A_f (x + u(x)) - A_m y|``.

    The field is read linearly between voxels. A landmark up to one voxel outside the grid takes the value at the
    border.

    Args:
        field_vox: u, (3, W, H, D), in voxels on the fixed grid, fixed to moving; None for no motion (the error before).
        landmarks: (N, 6), indices of the point x in the fixed image, then of its partner y in the moving image.
        fixed_affine, moving_affine: (4, 4), voxel -> RAS mm.

    Raises:
        PairError: landmarks of another shape, not finite, or outside the fixed grid.
    """
    landmarks = np.asarray(landmarks, dtype=np.float64)
    if landmarks.ndim != 2 or landmarks.shape[1] != 6:
        raise PairError(
            f"landmarks must have shape (N, 6), fixed then moving voxel indices, got {landmarks.shape}: "
            "give one row of six numbers for each pair of points"
        )
    if not np.isfinite(landmarks).all():
        row = int(np.argmin(np.isfinite(landmarks).all(axis=1)))
        raise PairError(f"landmarks must be finite, row {row} is {landmarks[row].tolist()}: correct or drop that row")
    fixed, moving = landmarks[:, :3], landmarks[:, 3:]
    if field_vox is not None:
        fixed = fixed + field_at(field_vox, fixed)
    return np.linalg.norm(to_mm(fixed, fixed_affine) - to_mm(moving, moving_affine), axis=1)


def field_at(field_vox: torch.Tensor, points_vox: np.ndarray) -> np.ndarray:
    """Return the displacements (N, 3), in voxels, of a field at points.

    Args:
        field_vox: (3, W, H, D), in voxels.
        points_vox: (N, 3), in voxels; up to one voxel outside the grid.

    Raises:
        PairError: a point lies further outside the grid.
    """
    require_field(field_vox)
    last = np.array(field_vox.shape[1:]) - 1
    off = ((points_vox < -EDGE_VOX) | (points_vox > last + EDGE_VOX)).any(axis=1)
    if off.any():
        row = int(np.argmax(off))
        raise PairError(
            f"landmark {row} lies at voxel {points_vox[row].tolist()}, outside the fixed grid "
            f"{tuple(field_vox.shape[1:])}: landmarks are voxel indices of the fixed image (not mm)"
        )
    if not len(points_vox):
        return np.zeros((0, 3))
    positions = torch.as_tensor(points_vox.T.copy(), dtype=field_vox.dtype, device=field_vox.device)
    values = sample(field_vox.detach()[None], positions.view(1, 3, -1, 1, 1), padding_mode="border")
    return values.reshape(3, -1).T.double().cpu().numpy()


def landmark_summary(errors: np.ndarray) -> dict[str, float]:
    """Return mean, median, 95th percentile (linear), maximum and count of errors (N,), in their unit; nan for none."""
    errors = np.asarray(errors, dtype=np.float64)
    if not errors.size:
        return {"mean": float("nan"), "median": float("nan"), "p95": float("nan"), "max": float("nan"), "count": 0}
    return {
        "mean": float(errors.mean()),
        "median": float(np.median(errors)),
        "p95": float(np.percentile(errors, 95)),
        "max": float(errors.max()),
        "count": int(errors.size),
    }


def folding_fraction(det: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Return the fraction (0 to 1, not percent) of voxels with determinant <= 0; nan over an empty mask.

    Args:
        det: (W, H, D), from `jacobian_determinant`; a nan counts as folded.
        mask: (W, H, D), voxels other than 0 count; None for all.
    """
    folded = total = 0
    for piece, inside in pieces(det, torch.ones_like(det, dtype=torch.bool) if mask is None else mask != 0):
        folded += int((inside & ~(piece > 0)).sum())
        total += int(inside.sum())
    return folded / total if total else float("nan")


def regularity(det: torch.Tensor, label: torch.Tensor | None = None) -> dict[str, dict[str, float]]:
    """Return how regular a map is: ``folding_fraction`` and ``sd_log_jacobian``, over ``all`` voxels and ``in_label``.

    Args:
        det: (W, H, D), from `jacobian_determinant`.
        label: (W, H, D), voxels above 0 are inside; None leaves ``in_label`` out.
    """
    regions = {"all": None} if label is None else {"all": None, "in_label": label > 0}
    measures = {"folding_fraction": folding_fraction, "sd_log_jacobian": sd_log_jacobian}
    return {name: {where: of(det, mask) for where, mask in regions.items()} for name, of in measures.items()}


def sd_log_jacobian(det: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Return SDlogJ, the standard deviation of ln(det) over the voxels with det > 0 (nan if there are none).

    It is 0 for a rigid motion, and large for an irregular field (Leow et al. 2007, doi:10.1109/TMI.2007.892646). A fold
    has no logarithm, so folded voxels are left out here: report `folding_fraction` beside it.

    Args:
        det: (W, H, D), from `jacobian_determinant`.
        mask: (W, H, D), voxels other than 0 count; None for all.
    """
    count, total, squares = 0, 0.0, 0.0
    for piece, inside in pieces(det, torch.ones_like(det, dtype=torch.bool) if mask is None else mask != 0):
        logs = piece[inside & (piece > 0)].double().log()
        count += logs.numel()
        total += float(logs.sum())
        squares += float((logs * logs).sum())
    return max(squares / count - (total / count) ** 2, 0.0) ** 0.5 if count else float("nan")


def similarity(fixed: torch.Tensor, warped: torch.Tensor, weight: torch.Tensor) -> dict[str, float]:
    """Return the weighted mean squared difference ``mse``, Pearson correlation ``ncc`` and mutual information ``nmi``.

    Over the voxels with weight > 0. ``ncc`` is nan where one image is constant; all are nan where no voxel has weight.
    Values of weight 0 are never read, so padding may hold anything. ``nmi`` is `normalised_mutual_information`.

    Args:
        fixed, warped: intensities, of any one shape.
        weight: the same shape, 0 or more.
    """
    joint = _JointHistogram(fixed, warped, weight)
    near = [sum(edges) / 2 for edges in joint.edges]  # of the means; what is summed about them does not cancel
    sums, mse = np.zeros(6), 0.0
    for f, g, w in _weighted_pieces(fixed, warped, weight):
        joint.add(f, g)
        mse += float((w * (f - g) ** 2).sum())
        f, g = f - near[0], g - near[1]
        wf, wg = w * f, w * g
        sums += [float(v.sum()) for v in (w, wf, wg, wf * f, wg * g, wf * g)]
    if sums[0] == 0:
        return {"mse": float("nan"), "ncc": float("nan"), "nmi": float("nan")}
    mean_f, mean_g, square_f, square_g, product = (float(s) for s in sums[1:] / sums[0])
    own, other = (max(square - mean**2, 0.0) for square, mean in ((square_f, mean_f), (square_g, mean_g)))
    spread = float(np.sqrt(own * other))
    ncc = float(np.clip((product - mean_f * mean_g) / spread, -1, 1)) if spread > 0 else float("nan")
    return {"mse": mse / float(sums[0]), "ncc": ncc, "nmi": joint.mutual_information()}


def normalised_mutual_information(fixed: torch.Tensor, warped: torch.Tensor, weight: torch.Tensor) -> float:
    """Return how well the intensities of two images predict each other: 1 not at all, 2 fully, for any two contrasts.

    (H(f) + H(w)) / H(f, w) of Studholme et al. 1999 (doi:10.1016/S0031-3203(98)00091-0), by a histogram of NMI_BINS x
    NMI_BINS (fewer where there are few voxels), each over NMI_RANGE. nan where no voxel has weight > 0, or both images
    are constant.

    Args:
        fixed, warped: intensities, of any one shape.
        weight: the same shape; only voxels with weight > 0 count.
    """
    joint = _JointHistogram(fixed, warped, weight)
    for f, g, _ in _weighted_pieces(fixed, warped, weight):
        joint.add(f, g)
    return joint.mutual_information()


class _JointHistogram:
    """How often two intensities lie on each other."""

    def __init__(self, fixed: torch.Tensor, warped: torch.Tensor, weight: torch.Tensor) -> None:
        self.edges = [_range(image, weight) for image in (fixed, warped)]
        self.size = int(np.clip(np.sqrt(float((weight > 0).sum()) / VOXELS_A_BIN), 2, NMI_BINS))
        self.counts = np.zeros(self.size**2)

    def add(self, fixed: torch.Tensor, warped: torch.Tensor) -> None:
        """Count some voxels, each image (n,)."""
        own, other = (
            ((v - low) * (self.size / max(high - low, TINY))).clamp(0, self.size - 1).long()
            for v, (low, high) in zip((fixed, warped), self.edges, strict=True)
        )
        self.counts += torch.bincount(own * self.size + other, minlength=self.size**2).cpu().numpy()

    def mutual_information(self) -> float:
        """Return `normalised_mutual_information` of what was counted."""
        joint = self.counts.reshape(self.size, self.size) / max(self.counts.sum(), 1)
        own, other, both = (_entropy(p) for p in (joint.sum(axis=1), joint.sum(axis=0), joint))
        return (own + other) / both if both > 0 else float("nan")


def _range(image: torch.Tensor, weight: torch.Tensor) -> tuple[float, float]:
    """Return the percentiles NMI_RANGE of the voxels with weight > 0, of a sample of them where there are many."""
    every = max(1, image.numel() // NMI_SAMPLES)
    some = image.reshape(-1)[::every][weight.reshape(-1)[::every] > 0].double().cpu().numpy()
    low, high = np.percentile(some, NMI_RANGE) if some.size else (0.0, 0.0)
    return float(low), float(high)


def _entropy(shares: np.ndarray) -> float:
    there = shares[shares > 0]
    return float(-(there * np.log(there)).sum())


def _weighted_pieces(*volumes: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield pieces in float64 of (fixed, warped, weight), only the voxels with weight > 0."""
    for fixed, warped, weight in pieces(*volumes):
        inside = weight > 0
        yield fixed[inside].double(), warped[inside].double(), weight[inside].double()
