"""The facts about a result: its numbers and its field, as they are saved, without any scan.

This room reads a `SavedResult` and what its run.json names. It must not know pictures or HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ncf.core.errors import PairError
from ncf.core.files import unchanged
from ncf.core.names import IMAGES, POINTS
from ncf.core.scan_paths import is_there
from ncf.evaluate.metrics import tre_mm
from ncf.io.landmarks import read_landmarks
from ncf.report.motion import Motion, motion_of
from ncf.report.views import DisplaySpace
from ncf.result.folder import SavedResult
from ncf.space.geometry import to_mm
from ncf.space.jacobian import jacobian_determinant

# share of the fixed grid: with less of the moving scan on it, "before" is shown by the initial transform
SHOWN_OVERLAP = 0.02


@dataclass(frozen=True)
class Facts:
    """What the findings about a result are drawn from: its files of numbers and its field, no scans.

    Attributes:
        result: the saved result.
        space: the fixed grid, turned for display.
        placed: (4, 4), index in display space to RAS mm of the moving scan, before the fit.
        by_initial_transform: True where ``placed`` is by the initial transform instead of the headers.
        field_vox: (3, W, H, D), as it is saved, in fixed voxels, fixed to moving.
        det: Jacobian determinant of the map, in display space.
        motion: the field in numbers.
        lost: keys of inputs that are not there any more.
        changed: keys of inputs that have changed since.
        landmarks: (N, 6), voxel indices of points in the fixed, then in the moving file; None without any.
        errors_mm: of the landmarks, ``before`` and ``after``.
    """

    result: SavedResult
    space: DisplaySpace
    placed: np.ndarray
    by_initial_transform: bool
    field_vox: np.ndarray
    det: np.ndarray
    motion: Motion
    lost: tuple[str, ...]
    changed: tuple[str, ...]
    landmarks: np.ndarray | None
    errors_mm: Mapping[str, np.ndarray]


def facts_of(result: SavedResult, inputs: Mapping[str, Path] | None = None) -> Facts:
    """Read what the findings about a result are drawn from.

    Args:
        result: the saved result.
        inputs: scans that have moved since, by key.

    Raises:
        PairError: a scan is not there, or the result is not a registration.
    """
    paths = {**result.inputs, **(inputs or {})}
    _check_scans(result, paths)
    lost = tuple(key for key in paths if key not in IMAGES and not is_there(paths[key]))
    space = DisplaySpace(result.grid("fixed"))
    field_vox, _ = result.field()
    det = jacobian_determinant(field_vox)
    placed, by_initial_transform = _placed(result, space)
    landmarks = _landmarks(result, {key: path for key, path in paths.items() if key not in lost})
    return Facts(
        result=result,
        space=space,
        placed=placed,
        by_initial_transform=by_initial_transform,
        field_vox=field_vox.numpy(),
        det=space.turned(det.numpy()),
        motion=motion_of(field_vox, det, fixed=space.grid, moving=result.grid("moving")),
        lost=lost,
        changed=tuple(k for k, p in paths.items() if k not in lost and k in result.inputs and not _same(result, k, p)),
        landmarks=landmarks,
        errors_mm=_landmark_errors(result, field_vox, landmarks),
    )


def _check_scans(result: SavedResult, paths: Mapping[str, Path]) -> None:
    if "imported" in result.run:
        what = "a report tells of a registration of ours, with its losses and numbers"
        raise PairError(f"{result.name} is a field of another program; {what}. ncf evaluate judges such fields")
    for key in IMAGES:
        if key not in paths:
            raise PairError(f"{result.name} was saved from Python and knows no {key} scan; name it with --{key}=PATH")
        if not is_there(paths[key]):
            raise PairError(
                f"{result.name}: the {key} scan {paths[key]} is not there any more; name it with --{key}=PATH"
            )


def _same(result: SavedResult, key: str, path: Path) -> bool:
    return unchanged(path, result.run["inputs"][key])


def _landmarks(result: SavedResult, paths: Mapping[str, Path]) -> np.ndarray | None:
    files = {key: str(paths[key]) for key in POINTS if key in paths}
    if not files:
        return None
    grids = {key: result.grid(key) for key in IMAGES}
    shapes = {key: grid.shape for key, grid in grids.items()}
    return read_landmarks(files, shapes, {key: grid.affine for key, grid in grids.items()})


def _landmark_errors(result: SavedResult, field_vox: torch.Tensor, points: np.ndarray | None) -> dict[str, np.ndarray]:
    if points is None:
        return {}
    affines = {f"{key}_affine": result.grid(key).affine for key in IMAGES}
    return {when: tre_mm(u, points, **affines) for when, u in (("before", None), ("after", field_vox))}


def _placed(result: SavedResult, space: DisplaySpace) -> tuple[np.ndarray, bool]:
    """Return the affine that "before" is shown with, and whether it is by the initial transform, not the headers."""
    moving = result.grid("moving")
    corners = np.indices((9, 9, 9)).reshape(3, -1).T / 8 * (np.array(space.shape) - 1)
    at = to_mm(corners, np.linalg.inv(moving.affine) @ space.affine)
    share = ((at > -0.5) & (at < np.array(moving.shape) - 0.5)).all(axis=1).mean()
    if share >= SHOWN_OVERLAP:
        return space.affine, False
    return np.array(result.run["initial_transform"], dtype=np.float64) @ space.affine, True
