"""What Learn2Reg's evaluation script calls TRE, Dice, HD95 and LogJacDetStd, to the letter, quirks included.

The challenge is described by Hering et al. 2023 (doi:10.1109/TMI.2022.3213983). All of it is on stored indices:
displacements (3, X, Y, Z) with ``x_moving = x_fixed + u(x_fixed)``. Our own metrics, in millimetres and without the
quirks, are in `ncf.evaluate.metrics`. This module has arrays in and numbers out; it knows no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics.utils import get_mask_edges, get_surface_distance
from scipy.ndimage import map_coordinates

DROPPED = 2  # voxels at both ends of every axis that LogJacDetStd leaves out
LIFT = 3.0  # added to every determinant before the logarithm
CLIP = (1e-9, 1e9)
PERCENTILE = 95
BEST_SHARE = 0.7  # the quantile over cases that "TRE30" means: 30 % of the cases are worse


def learn2reg_tre(
    displacement: np.ndarray, fixed_points: np.ndarray, moving_points: np.ndarray, *, moving_zooms: Sequence[float]
) -> np.ndarray:
    """Return the target registration errors in mm (N,).

    The displacement is read by a cubic spline at the fixed points, 0 outside. Differences are multiplied by the moving
    zooms.

    Args:
        displacement: (3, X, Y, Z), in voxels, fixed to moving.
        fixed_points: indices (N, 3).
        moving_points: indices (N, 3).
        moving_zooms: voxel size of the moving image in mm (3,).
    """
    at = [map_coordinates(channel, fixed_points.T, order=3, mode="constant") for channel in displacement]
    return np.linalg.norm((fixed_points + np.stack(at, axis=1) - moving_points) * np.asarray(moving_zooms), axis=1)


def learn2reg_tre30(case_means: Sequence[float]) -> float:
    """Return the 0.7 quantile of the cases' mean errors, in mm."""
    return float(np.quantile(np.asarray(case_means, dtype=np.float64), BEST_SHARE))


def warped_labels(displacement: np.ndarray, moving_label: np.ndarray) -> np.ndarray:
    """Return the moving labels at x + u(x), by nearest neighbour, 0 outside.

    Args:
        displacement: u, (3, X, Y, Z), in voxels.
        moving_label: the label map.

    Returns:
        (X, Y, Z), in the label map's type.
    """
    places = np.indices(displacement.shape[1:]) + displacement
    return map_coordinates(moving_label, places, order=0, mode="constant")


def learn2reg_dice(
    fixed_label: np.ndarray, warped: np.ndarray, moving_label: np.ndarray, labels: Sequence[int]
) -> list[float]:
    """Return the Dice coefficient (Dice 1945, doi:10.2307/1932409) of each label.

    Args:
        fixed_label: (X, Y, Z).
        warped: the warped moving labels (X, Y, Z).
        moving_label: the moving label map before warping.
        labels: which to score.

    Returns:
        One number a label; nan where the fixed or the moving map does not have it.
    """
    found = []
    for label in labels:
        truth, other = fixed_label == label, warped == label
        there = truth.any() and (moving_label == label).any()
        found.append(2 * (truth & other).sum() / (truth.sum() + other.sum()) if there else np.nan)
    return [float(value) for value in found]


def learn2reg_hd95(
    fixed_label: np.ndarray, warped: np.ndarray, moving_label: np.ndarray, labels: Sequence[int]
) -> list[float]:
    """Return the 95th percentile of the distances between the surfaces of each label, in voxels.

    It is the larger one of both directions. Surfaces are weighted by their area (surfels of marching cubes, spacing 1).

    Args:
        fixed_label: (X, Y, Z).
        warped: the warped moving labels (X, Y, Z).
        moving_label: the moving label map before warping.
        labels: which to score.

    Returns:
        One number a label; nan where a map does not have it, and where nothing of it was warped into the image.
    """
    found = []
    for label in labels:
        truth, other = fixed_label == label, warped == label
        there = truth.any() and other.any() and (moving_label == label).any()
        found.append(_area_weighted_hd95(truth, other) if there else np.nan)
    return found


def _area_weighted_hd95(truth: np.ndarray, other: np.ndarray) -> float:
    edges: Any = get_mask_edges(torch.from_numpy(truth), torch.from_numpy(other), spacing=(1, 1, 1))
    ways = (
        (edges[0], edges[1], edges[2]),
        (edges[1], edges[0], edges[3]),
    )  # a surface, the other surface, the areas of the first
    distances = [get_surface_distance(here, there, spacing=(1, 1, 1)) for here, there, _ in ways]
    areas = [area[here] for here, _, area in ways]
    return max(weighted_percentile(np.asarray(d), np.asarray(a)) for d, a in zip(distances, areas, strict=True))


def weighted_percentile(distances: np.ndarray, areas: np.ndarray) -> float:
    """Return the first distance, in rising order, with at least 95 % of the area at or below it.

    Args:
        distances: (N,).
        areas: (N,), the weights.
    """
    order = np.argsort(distances, kind="stable")
    reached = np.cumsum(areas[order]) / areas.sum()
    place = min(int(np.searchsorted(reached, PERCENTILE / 100)), len(order) - 1)
    return float(distances[order][place])


def learn2reg_log_jac_det_std(displacement: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the standard deviation of ln(det J + 3), which Learn2Reg calls LogJacDetStd.

    Central differences. Two voxels are left out at both ends of each axis, and values are clipped to [1e-9, 1e9] before
    the logarithm.

    Args:
        displacement: (3, X, Y, Z), in voxels.
        mask: (X, Y, Z), the voxels with exactly 1 count; None for all.
    """
    slopes = [np.gradient(channel.astype(np.float64)) for channel in displacement]
    inner = (slice(DROPPED, -DROPPED),) * 3
    jacobian = np.array([[slope[inner] for slope in row] for row in slopes])
    jacobian += np.eye(3).reshape(3, 3, 1, 1, 1)
    logs = np.log(np.clip(np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1))) + LIFT, *CLIP))
    return float(logs.std() if mask is None else logs[mask[inner] == 1].std())
