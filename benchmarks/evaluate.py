"""The referee: how good a displacement field is for a pair, from files alone, the same for every method.

It reads the field as any ITK program does (NIfTI, (W, H, D, 1, 3), LPS millimetres, on the fixed grid) and works in
millimetres. It uses only numpy, scipy and nibabel and nothing of `ncf`, so it judges our own code as it judges others.

``python -m benchmarks.evaluate FIELD --fixed F --moving M [--fixed_label ...] [--moving_label ...] [--landmarks ...]``,
and ``--landmarks_NAME=...`` for each of several sets of landmarks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy.ndimage import map_coordinates

LPS = np.array([-1.0, -1.0, 1.0])  # factors between RAS mm and LPS mm
SLAB_PLANES = 16  # planes worked on at a time
GRID_SLACK_VOX = 0.05  # corners of the field's grid and the fixed scan's may lie so far apart (float32 headers)
NOT_A_LABEL = 0
LANDMARKS = "landmarks"


def evaluate(field: Path | None, files: Mapping[str, Path]) -> dict[str, Any]:
    """Evaluate a field on a pair.

    Args:
        field: a saved displacement field, fixed to moving; None for no registration (the same place in millimetres).
        files: paths by name: fixed, moving and any of fixed_label, moving_label, landmarks (six columns: voxel indices
            in the fixed scan, then in the moving one), landmarks_NAME for a set of landmarks with a name.

    Returns:
        ``tre_mm`` {mean, median, p95, max, count} and ``tre_voxel`` (mean over the cubic root of a voxel's volume) of
        all landmarks where there are some, and ``tre_mm_of`` {NAME: {mean, ...}} of named sets; ``dice`` {mean, labels}
        where there are both label maps; ``folding_fraction`` and ``sd_log_jacobian`` {all, in_label}. Shares run from 0
        to 1. What cannot be known is left out.

    Raises:
        ValueError: the field is no vector field, holds nan, or lies on another grid than the fixed scan.
    """
    fixed, moving = _opened(files["fixed"]), _opened(files["moving"])
    affines = (np.asarray(fixed.affine, np.float64), np.asarray(moving.affine, np.float64))
    shape = (int(fixed.shape[0]), int(fixed.shape[1]), int(fixed.shape[2]))
    u = np.zeros((*shape, 3), np.float32) if field is None else read_field(field, shape=shape, affine=affines[0])
    found: dict[str, Any] = {}
    sets = {key: landmark_errors(u, read_landmarks(files[key]), affines=affines) for key in landmark_keys(files)}
    if sets:
        errors = np.concatenate(list(sets.values()))
        found["tre_mm"] = _summary(errors)
        found["tre_voxel"] = float(errors.mean() / abs(np.linalg.det(affines[0][:3, :3])) ** (1 / 3))
        named = {key.removeprefix(f"{LANDMARKS}_"): _summary(own) for key, own in sets.items() if key != LANDMARKS}
        found |= {"tre_mm_of": named} if named else {}
    label = read_labels(files["fixed_label"]) if "fixed_label" in files else None
    if label is not None and "moving_label" in files:
        there = read_labels(files["moving_label"])
        scores = dice(label, warp_labels(u, there, affines=(affines[0], _opened(files["moving_label"]).affine)), there)
        if scores:
            found["dice"] = {"mean": float(np.mean(list(scores.values()))), "labels": scores}
    return {**found, **regularity(u, affine=affines[0], label=label)}


def landmark_keys(files: Mapping[str, Path]) -> list[str]:
    """Return the keys under which a pair has landmarks: landmarks, landmarks_NAME."""
    return [key for key in files if key == LANDMARKS or key.startswith(f"{LANDMARKS}_")]


def _summary(errors: np.ndarray) -> dict[str, float]:
    """Return mean, median, 95th percentile, maximum and count of errors in mm."""
    numbers = {
        "mean": errors.mean(),
        "median": np.median(errors),
        "p95": np.percentile(errors, 95),
        "max": errors.max(),
    }
    return {**{key: float(value) for key, value in numbers.items()}, "count": len(errors)}


def read_field(path: Path, *, shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
    """Read displacements from a field's file.

    Args:
        path: of the file.
        shape: of the fixed grid, on which the field must lie.
        affine: of the fixed grid.

    Returns:
        (W, H, D, 3), float32, RAS mm.

    Raises:
        ValueError: as of `evaluate`.
    """
    image = _opened(path)
    if image.shape != (*shape, 1, 3):
        raise ValueError(f"{path}: expected a vector field of shape {(*shape, 1, 3)}, got {image.shape}")
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(shape) - 1)
    apart = np.linalg.inv(affine) @ np.asarray(image.affine, np.float64)
    if np.abs(_moved(corners, apart) - corners).max() > GRID_SLACK_VOX:
        raise ValueError(f"{path}: the field's affine is not the fixed scan's: {np.round(image.affine, 4).tolist()}")
    lps = np.asarray(image.dataobj, dtype=np.float32)[:, :, :, 0]
    if not np.isfinite(lps).all():
        raise ValueError(f"{path}: the field holds {int((~np.isfinite(lps)).sum())} values that are not finite")
    return lps * LPS.astype(np.float32)


def read_landmarks(path: Path) -> np.ndarray:
    """Read voxel indices (N, 6); a first line of names is skipped."""
    lines = [line for line in Path(path).read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if lines and any(character.isalpha() and character not in "eE" for character in lines[0]):
        lines = lines[1:]
    return np.array([[float(value) for value in line.replace(";", ",").split(",")] for line in lines])


def read_labels(path: Path) -> np.ndarray:
    """Read whole numbers (W, H, D)."""
    return np.rint(np.asarray(_opened(path).dataobj)).astype(np.int32)


def _opened(path: Path) -> Any:
    """Open an image whose values are not read yet."""
    return nib.load(path)


def _moved(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Map points (..., 3) by a 4x4 matrix."""
    return points @ affine[:3, :3].T + affine[:3, 3]


def landmark_errors(u: np.ndarray, landmarks: np.ndarray, *, affines: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the distance between the place where the field takes each fixed landmark and the landmark's partner.

    The field is read linearly.

    Args:
        u: field (W, H, D, 3), RAS mm.
        landmarks: voxel indices (N, 6).
        affines: of the fixed and the moving scan.

    Returns:
        (N,), mm.
    """
    fixed, moving = landmarks[:, :3], landmarks[:, 3:]
    step = [map_coordinates(u[..., axis], fixed.T, order=1, mode="nearest", output=np.float64) for axis in range(3)]
    return np.linalg.norm(_moved(fixed, affines[0]) + np.stack(step, axis=-1) - _moved(moving, affines[1]), axis=1)


def warp_labels(u: np.ndarray, labels: np.ndarray, *, affines: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Carry moving labels to the fixed grid by nearest neighbour; 0 off the moving grid.

    Args:
        u: field (W, H, D, 3), RAS mm.
        labels: on the moving grid.
        affines: of the fixed scan and of the moving labels.
    """
    back = np.linalg.inv(affines[1])
    warped = np.zeros(u.shape[:3], labels.dtype)
    for planes in _slabs(u.shape[0]):
        rows = np.arange(planes.start, planes.stop)
        places = np.stack(np.meshgrid(rows, *map(np.arange, u.shape[1:3]), indexing="ij"), axis=-1)
        nearest = np.rint(_moved(_moved(places, affines[0]) + u[planes], back)).astype(np.int64)
        inside = ((nearest >= 0) & (nearest < labels.shape)).all(axis=-1)
        warped[planes][inside] = labels[tuple(nearest[inside].T)]
    return warped


def dice(fixed: np.ndarray, warped: np.ndarray, moving: np.ndarray) -> dict[str, float]:
    """Return Dice by label, of every label except 0 that the own maps of both scans hold.

    Dice 1945, doi:10.2307/1932409.

    Args:
        fixed: labels on the fixed grid.
        warped: moving labels on the fixed grid.
        moving: labels on the moving grid.
    """
    shared = sorted(set(np.unique(fixed).tolist()) & set(np.unique(moving).tolist()) - {NOT_A_LABEL})
    size = int(max(fixed.max(), warped.max(), 0)) + 1
    in_fixed, in_warped, in_both = (
        np.bincount(volume[volume > 0], minlength=size) for volume in (fixed, warped, fixed[fixed == warped])
    )
    return {str(k): float(2 * in_both[k] / (in_fixed[k] + in_warped[k])) for k in shared if k > 0}


def regularity(u: np.ndarray, *, affine: np.ndarray, label: np.ndarray | None) -> dict[str, dict[str, float]]:
    """Return the folding fraction, and the standard deviation of the logarithm of the Jacobian determinant (SDlogJ).

    Leow et al. 2007, doi:10.1109/TMI.2007.892646. Differences of the map in mm are central, and one-sided at the
    borders of the grid. A determinant of 0 or less is a fold. It has no logarithm, so the deviation is over the others.

    Args:
        u: field (W, H, D, 3), RAS mm.
        affine: of the fixed grid.
        label: on the fixed grid; ``in_label`` is where it is not 0.
    """
    det = jacobian(u, affine)
    masks = {"all": np.ones(det.shape, bool)} | ({} if label is None else {"in_label": label != NOT_A_LABEL})
    found: dict[str, dict[str, float]] = {"folding_fraction": {}, "sd_log_jacobian": {}}
    for name, mask in masks.items():
        values = det[mask]
        if values.size:
            found["folding_fraction"][name] = float((values <= 0).mean())
        if (values > 0).any():
            found["sd_log_jacobian"][name] = float(np.log(values[values > 0], dtype=np.float64).std())
    return found


def jacobian(u: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the determinant (W, H, D) of the map p + u(p), p in mm.

    Args:
        u: field (W, H, D, 3), RAS mm.
        affine: of its grid.
    """
    to_grid = np.linalg.inv(affine[:3, :3])  # d(voxel) / d(mm)
    det = np.empty(u.shape[:3], np.float32)
    for planes in _slabs(u.shape[0]):
        first, last = max(planes.start - 1, 0), min(planes.stop + 1, u.shape[0])
        per_voxel = np.stack([np.gradient(u[first:last], axis=axis) for axis in range(3)], axis=-1)  # d(mm) / d(voxel)
        inner = per_voxel[planes.start - first : planes.stop - first]
        det[planes] = np.linalg.det(np.eye(3) + inner.astype(np.float64) @ to_grid)
    return det


def _slabs(count: int) -> Iterator[slice]:
    """Yield slices that cover ``count`` planes, each of at least 2 planes so that a difference can be taken."""
    starts = list(range(0, max(count - 1, 1), SLAB_PLANES))
    for start, stop in zip(starts, [*starts[1:], count], strict=True):
        yield slice(start, stop)


FILES = ("fixed", "moving", "fixed_label", "moving_label", LANDMARKS)


def main() -> None:
    """Print the numbers of one field as JSON; without FIELD those of no registration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("field", nargs="?", type=Path)
    for name in FILES:
        parser.add_argument(f"--{name}", type=Path, required=name in FILES[:2])
    known, more = parser.parse_known_args()
    given = vars(known)
    for word in more:
        key, _, path = word.removeprefix("--").partition("=")
        if not landmark_keys({key: Path(path)}) or not path:
            parser.error(f"unrecognized arguments: {word}")
        given[key] = Path(path)
    field = given.pop("field")
    print(json.dumps(evaluate(field, {key: path for key, path in given.items() if path is not None}), indent=2))


if __name__ == "__main__":
    main()
