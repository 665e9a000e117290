"""How good a registration is: landmark errors, overlap of labels, similarity, and how the field folds.

This room knows arrays and numbers. It must not know files, configs, networks or how a field came about; the arithmetic
of space stays in `scripts.geometry`. Volumes may be large (512 x 512 x 600), so everything here walks through them in
pieces and sums in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.metrics import compute_dice

from scripts.errors import PairError
from scripts.geometry import jacobian_of_map, to_mm
from scripts.sampling import sample

PIECE_VOXELS = 2**21  # voxels worked on at a time: 8 MiB for each float32 temporary
NMI_BINS, NMI_RANGE, NMI_SAMPLES = 64, (0.5, 99.5), 2**18
VOXELS_A_BIN = 20  # of a joint histogram, at least: with fewer, noise looks like knowledge
TINY = 1e-12
EDGE_VOX = 1.0  # landmarks further outside the grid are refused; counting from 1 instead of 0 still passes


def _pieces(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Flat pieces, each (<= PIECE_VOXELS,), of tensors of one shape, in step; raises PairError when shapes differ."""
    shapes = {tuple(t.shape) for t in tensors}
    if len(shapes) != 1:
        raise PairError(f"expected volumes of one shape, got {sorted(shapes)}: bring them onto one grid first")
    yield from zip(*[t.reshape(-1).split(PIECE_VOXELS) for t in tensors], strict=True)


def tre_mm(
    field_vox: torch.Tensor | None, landmarks: np.ndarray, *, fixed_affine: np.ndarray, moving_affine: np.ndarray
) -> np.ndarray:
    """Target registration error of each landmark in mm, shape (N,), float64: ``|A_f (x + u(x)) - A_m y|``.

    The field is read between voxels (linearly); a landmark up to one voxel outside the grid takes the border's value.

    Args:
        field_vox: (3, W, H, D) in voxels on the fixed grid, fixed -> moving; None for no motion (the error before).
        landmarks: (N, 6), indices of the point x in the fixed image, then of its partner y in the moving image.
        fixed_affine, moving_affine: voxel -> RAS mm, (4, 4).

    Raises:
        PairError: landmarks of another shape, not finite, or off the fixed grid.
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
    """Displacements (N, 3) in voxels of a field (3, W, H, D) at points (N, 3); raises PairError off the grid."""
    _require_field(field_vox)
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
    """Mean, median, 95th percentile (linear) and maximum of errors (N,), in their unit, and how many (nan for none)."""
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


def _require_field(field_vox: torch.Tensor) -> None:
    """Nothing; raises PairError unless the field has shape (3, W, H, D) with two voxels or more along each axis."""
    shape = tuple(field_vox.shape)
    if len(shape) != 4 or shape[0] != 3 or min(shape[1:]) < 2:
        raise PairError(
            f"a field must have shape (3, W, H, D) with 2 voxels or more along each axis, got {shape}: "
            "pass one pair's field, without a batch axis"
        )


def jacobian_determinant(field_vox: torch.Tensor) -> torch.Tensor:
    """Determinant (W, H, D), float32, of the Jacobian of x -> x + u(x): local volume after over before, <= 0 is a fold.

    Taken in the index space of the fixed grid; in mm it is the same number, because the same affine stands on both
    sides (det(A J A^-1) = det(J)). Central differences inside, one-sided ones at the borders.

    Args:
        field_vox: (3, W, H, D) in voxels on the fixed grid, float32.
    """
    _require_field(field_vox)
    field_vox = field_vox.detach()
    width = field_vox.shape[1]
    planes = max(1, PIECE_VOXELS // (field_vox.shape[2] * field_vox.shape[3]))
    det = torch.empty(tuple(field_vox.shape[1:]), dtype=torch.float32, device=field_vox.device)
    for start in range(0, width, planes):
        stop = min(start + planes, width)
        low, high = max(start - 1, 0), min(stop + 1, width)  # a slab borrows one plane from each neighbour
        det[start:stop] = _slab_determinant(field_vox[:, low:high].float(), start - low, stop - low)
    return det


def _slab_determinant(slab: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Determinant on the planes first..last of a slab (3, P, H, D)."""
    return jacobian_of_map(slab)[first:last]


def fold_share(det: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Share (0 to 1, not percent) of voxels with determinant <= 0; a nan counts as folded; nan over an empty mask.

    Args:
        det: (W, H, D) from `jacobian_determinant`. mask: the same shape, voxels other than 0 count; None for all.
    """
    folded = total = 0
    for piece, inside in _pieces(det, torch.ones_like(det, dtype=torch.bool) if mask is None else mask != 0):
        folded += int((inside & ~(piece > 0)).sum())
        total += int(inside.sum())
    return folded / total if total else float("nan")


def log_jacobian_spread(det: torch.Tensor, mask: torch.Tensor | None = None) -> float:
    """Standard deviation of ln(det) over the voxels with det > 0: 0 for a rigid motion, large for a restless field.

    A fold has no logarithm, so folded voxels are left out here: report `fold_share` beside it. nan where none is left.

    Args:
        det: (W, H, D) from `jacobian_determinant`. mask: the same shape, voxels other than 0 count; None for all.
    """
    count, total, squares = 0, 0.0, 0.0
    for piece, inside in _pieces(det, torch.ones_like(det, dtype=torch.bool) if mask is None else mask != 0):
        logs = piece[inside & (piece > 0)].double().log()
        count += logs.numel()
        total += float(logs.sum())
        squares += float((logs * logs).sum())
    return max(squares / count - (total / count) ** 2, 0.0) ** 0.5 if count else float("nan")


def dice_per_label(a: torch.Tensor, b: torch.Tensor, labels: Sequence[int] | None = None) -> dict[int, float]:
    """Dice coefficient of each label, 0 to 1, by MONAI's `compute_dice`, one label at a time to stay small in memory.

    A label that the reference has and the other lacks scores 0; one that the reference lacks scores nan (MONAI's rule).

    Args:
        a: the reference, the fixed image's label map, (W, H, D), whole numbers in any type. b: the other, same shape.
        labels: which to score; by default those of the reference other than 0.

    Raises:
        PairError: shapes differ, or a map holds values that are no labels (an interpolated map).
    """
    if a.shape != b.shape:
        raise PairError(f"label maps must share a grid, got {tuple(a.shape)} and {tuple(b.shape)}: resample one of them")
    for name, volume in (("fixed", a), ("other", b)):
        if not all(bool((piece == piece.round()).all()) for (piece,) in _pieces(volume)):
            raise PairError(f"the {name} label map holds values between whole numbers: resample it by nearest neighbour")
    if labels is None:
        labels = sorted({int(v) for (piece,) in _pieces(a) for v in torch.unique(piece)} - {0})
    return {int(label): _dice(a == label, b == label) for label in labels}


@dataclass(frozen=True)
class LabelSets:
    """The labels, other than 0, of two maps. shared: of both. not_in_moving, not_in_fixed: those that one of them lacks."""

    shared: list[int]
    not_in_moving: list[int]
    not_in_fixed: list[int]

    @property
    def absent(self) -> dict[str, list[int]]:
        """The labels that count in no mean, by the map that lacks them."""
        return {"not_in_moving": self.not_in_moving, "not_in_fixed": self.not_in_fixed}


def label_sets(fixed: torch.Tensor, moving: torch.Tensor) -> LabelSets:
    """Sort the labels of a fixed and a moving map, each (W, H, D) on its own grid, by which of the two hold them."""
    own, other = ({int(v) for (piece,) in _pieces(m) for v in torch.unique(piece)} - {0} for m in (fixed, moving))
    return LabelSets(sorted(own & other), sorted(own - other), sorted(other - own))


def overlap(fixed: torch.Tensor, carried: torch.Tensor, labels: Sequence[int]) -> dict[str, Any]:
    """Return the Dice coefficient of each label and their ``mean``, None without any.

    This is what the project calls Dice everywhere: the mean over the labels that the fixed and the moving map both hold
    (`LabelSets.shared`). A label that one of them lacks says nothing of the map, and is not part of it.

    Args:
        fixed, carried: label maps (W, H, D) on the fixed grid. labels: those of both scans' own maps.
    """
    scores = dice_per_label(fixed, carried, labels)
    return {"mean": float(np.mean(list(scores.values()))) if scores else None, "labels": scores}


def _dice(truth: torch.Tensor, other: torch.Tensor) -> float:
    """MONAI's Dice coefficient of two binary masks of one shape."""
    either = truth | other  # voxels outside both change nothing, and MONAI's sums over them are most of the time
    return float(compute_dice(other[either][None, None], truth[either][None, None]))


def similarity(fixed: torch.Tensor, warped: torch.Tensor, weight: torch.Tensor) -> dict[str, float]:
    """Weighted mean squared difference ``mse``, Pearson correlation ``ncc`` and `normalised_mutual_information` ``nmi``.

    Over the voxels with weight > 0; ``ncc`` is nan where one image is constant; all are nan where no voxel has weight.
    Values of weight 0 are never read, so padding may hold anything.

    Args:
        fixed, warped: intensities, any one shape. weight: the same shape, 0 and up.
    """
    sums = np.zeros(4)
    for f, g, w in _weighted_pieces(fixed, warped, weight):
        sums += [float(v.sum()) for v in (w, w * f, w * g, w * (f - g) ** 2)]
    if sums[0] == 0:
        return {"mse": float("nan"), "ncc": float("nan"), "nmi": float("nan")}
    mean_fixed, mean_warped, mse = (float(s) for s in sums[1:] / sums[0])
    moments = np.zeros(3)  # a second pass about the means, so that nothing cancels
    for f, g, w in _weighted_pieces(fixed, warped, weight):
        f, g = f - mean_fixed, g - mean_warped
        moments += [float(v.sum()) for v in (w * f * f, w * g * g, w * f * g)]
    spread = float(np.sqrt(moments[0] * moments[1]))
    ncc = float(moments[2]) / spread if spread > 0 else float("nan")
    return {"mse": mse, "ncc": ncc, "nmi": normalised_mutual_information(fixed, warped, weight)}


def normalised_mutual_information(fixed: torch.Tensor, warped: torch.Tensor, weight: torch.Tensor) -> float:
    """How well the intensities of two images tell each other: 1 not at all, 2 fully, whatever the two contrasts.

    (H(f) + H(w)) / H(f, w) of Studholme et al. 1999, by a histogram of NMI_BINS x NMI_BINS (fewer where there are few
    voxels) over the voxels with weight > 0, each range that of NMI_RANGE. nan where there are none, or both images are
    constant.
    """
    edges = [_range(image, weight) for image in (fixed, warped)]
    size = int(np.clip(np.sqrt(float((weight > 0).sum()) / VOXELS_A_BIN), 2, NMI_BINS))
    counts = np.zeros(size**2)
    for f, g, _ in _weighted_pieces(fixed, warped, weight):
        bins = [
            ((v - low) * (size / max(high - low, TINY))).clamp(0, size - 1).long()
            for v, (low, high) in zip((f, g), edges, strict=True)
        ]
        counts += torch.bincount(bins[0] * size + bins[1], minlength=size**2).cpu().numpy()
    joint = counts.reshape(size, size) / max(counts.sum(), 1)
    own, other, both = (_entropy(p) for p in (joint.sum(axis=1), joint.sum(axis=0), joint))
    return (own + other) / both if both > 0 else float("nan")


def _range(image: torch.Tensor, weight: torch.Tensor) -> tuple[float, float]:
    """Percentiles NMI_RANGE of the voxels with weight > 0, of some of them where there are many."""
    every = max(1, image.numel() // NMI_SAMPLES)
    some = image.reshape(-1)[::every][weight.reshape(-1)[::every] > 0].double().cpu().numpy()
    low, high = np.percentile(some, NMI_RANGE) if some.size else (0.0, 0.0)
    return float(low), float(high)


def _entropy(shares: np.ndarray) -> float:
    there = shares[shares > 0]
    return float(-(there * np.log(there)).sum())


def _weighted_pieces(*volumes: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Pieces in float64 of (fixed, warped, weight), only the voxels with weight > 0."""
    for fixed, warped, weight in _pieces(*volumes):
        inside = weight > 0
        yield fixed[inside].double(), warped[inside].double(), weight[inside].double()
