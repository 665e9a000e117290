"""The material of a report: the files of a result and the scans it was made of, read once and turned for display.

This room reads a `SavedResult` and the inputs that its run.json names. It must not know pictures or HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ncf.core.errors import PairError
from ncf.core.files import unchanged
from ncf.core.labels import sides_of
from ncf.core.names import GRID_OF, IMAGES, POINTS, TRUST_FILE, WARPED_FILE, WARPED_LABEL_FILE
from ncf.core.scan_paths import is_there
from ncf.core.threads import beside
from ncf.evaluate.metrics import tre_mm
from ncf.io.image_files import read_image
from ncf.io.label_files import MOST_CODE, empty_scan, read_label, shown_labels, table_of
from ncf.io.landmarks import read_landmarks
from ncf.io.trust_file import load_trust
from ncf.report.motion import Motion, motion_of
from ncf.report.paint import grey
from ncf.report.views import Cut, DisplaySpace
from ncf.result.folder import SavedResult
from ncf.space.geometry import to_mm
from ncf.space.jacobian import jacobian_determinant
from ncf.space.sampling import inside, sample

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


@dataclass(frozen=True)
class Material(Facts):
    """Everything a report shows.

    Attributes:
        scans: ``fixed`` and ``warped``, intensities in display space, float32.
        fixed: grey values (uint8) in display space.
        warped: grey values (uint8) in display space.
        moving: (1, 1, W, H, D), intensities on its own grid.
        moving_affine: (4, 4), voxel to RAS mm.
        labels: ``fixed`` and ``warped`` in display space, ``moving`` on its own grid.
        bounds: of the error in mm, for 68 and for 95 %, in display space, nan where nothing is known; empty without.
    """

    scans: Mapping[str, np.ndarray]
    fixed: np.ndarray
    warped: np.ndarray
    moving: torch.Tensor
    moving_affine: np.ndarray
    labels: Mapping[str, np.ndarray | torch.Tensor] = field(default_factory=dict)
    bounds: tuple[np.ndarray, ...] = ()

    def before(self, cut: Cut) -> dict[str, np.ndarray]:
        """Return slices of the moving scan and its labels, where its header (or the initial transform) puts them.

        Args:
            cut: which voxels are shown.

        Returns:
            ``before`` and ``label_before``, each (n, rows, columns), read as for warped.nii.gz; and ``nothing``, True
            where the moving scan has no voxel.
        """
        positions = cut.positions(np.linalg.inv(self.moving_affine) @ self.placed)
        there = inside(positions, self.moving.shape[2:])
        read = sample(self.moving, positions, padding_mode="border")
        found = {"before": torch.where(there, read, self.moving.min()), "nothing": ~there}
        label = self.labels.get("moving")
        if isinstance(label, torch.Tensor):
            read = sample(label, positions, mode="nearest", padding_mode="border")
            found["label_before"] = torch.where(there, read, label.new_zeros(()))
        return {name: volume[0, 0].numpy() for name, volume in found.items()}

    def nothing_after(self, cut: Cut) -> np.ndarray:
        """Return where the map leads out of the moving scan, bool (n, rows, columns)."""
        back = np.linalg.inv(self.moving_affine)
        field = torch.from_numpy(cut.take(self.space.turned(np.moveaxis(self.field_vox, 0, -1))))
        own = torch.from_numpy((back @ self.space.grid.affine)[:3, :3]).float()
        positions = cut.positions(back @ self.space.affine) + (field @ own.T).movedim(-1, 0)
        return ~inside(positions, self.moving.shape[2:])[0, 0].numpy()

    def displacement(self, cut: Cut) -> np.ndarray:
        """Return the field at the pixels of a cut, (3, n, rows, columns), in voxels along the axes of display space."""
        turned = self.space.turned(np.moveaxis(self.field_vox, 0, -1))
        back = np.linalg.inv(self.space.to_file[:3, :3])
        return np.moveaxis(cut.take(turned) @ back.T.astype(np.float32), -1, 0)


def windows(result: SavedResult) -> dict[str, tuple[float, float]]:
    """Return what is black and what is white in each scan: the range that the fit scaled to 0 and 1.

    Args:
        result: the saved result.

    Returns:
        Lowest and highest intensity for ``fixed`` and ``moving``.
    """
    told = result.run["intensity"]
    return {key: (float(told[key][0]), float(told[key][1])) for key in IMAGES}


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


def gathered(result: SavedResult, inputs: Mapping[str, Path] | None = None) -> Material:
    """Read the material of a result's report.

    Args:
        result: the saved result.
        inputs: scans that have moved since, by key.

    Raises:
        PairError: a scan cannot be read, or the result is not a registration.
    """
    paths = {**result.inputs, **(inputs or {})}
    _check_scans(result, paths)
    with beside(_scans, result, paths) as read:
        facts = facts_of(result, inputs)
        fixed, warped, moving = read()
    space, paths = facts.space, {key: path for key, path in paths.items() if key not in facts.lost}
    return Material(
        **vars(facts),
        scans={"fixed": fixed, "warped": warped},
        fixed=grey(fixed, windows(result)["fixed"]),
        warped=grey(warped, windows(result)["moving"]),
        moving=moving,
        moving_affine=result.grid("moving").affine,
        labels=_labels(result, space, {key: paths[key] for key in GRID_OF if key in paths}),
        bounds=_bounds(result, space),
    )


def _scans(result: SavedResult, paths: Mapping[str, Path]) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Read the fixed and the warped scan, turned for display, and the moving one on its own grid."""
    space = DisplaySpace(result.grid("fixed"))
    moving = read_image("moving", str(paths["moving"])).as_tensor()[None]
    _check_grid(paths["moving"], tuple(moving.shape[2:]), result.grid("moving").shape)
    return _read(space, "fixed", paths["fixed"]), _read(space, "warped", result.folder / WARPED_FILE), moving


def _bounds(result: SavedResult, space: DisplaySpace) -> tuple[np.ndarray, ...]:
    """Read the bounds of the error and turn them for display."""
    path = result.folder / TRUST_FILE
    if not path.exists():
        return ()
    bounds, grid = load_trust(path)
    if not grid.same_as(space.grid):
        return ()
    return tuple(space.turned(bounds[..., channel]) for channel in range(bounds.shape[3]))


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


def _check_grid(path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != tuple(expected):
        what = f"has shape {shape}, the registered one had {tuple(expected)}"
        raise PairError(f"{path} is not the scan that was registered: it {what}; name the right file")


def _read(space: DisplaySpace, key: str, path: Path) -> np.ndarray:
    """Read a volume on the fixed grid and turn it for display."""
    volume = read_image(key, str(path)).as_tensor()[0].numpy()
    _check_grid(path, volume.shape, space.grid.shape)
    return space.turned(volume)


def _labels(
    result: SavedResult, space: DisplaySpace, paths: Mapping[str, Path]
) -> dict[str, np.ndarray | torch.Tensor]:
    found: dict[str, np.ndarray | torch.Tensor] = {}
    if "fixed_label" in paths:
        shown = _shown(result, "fixed", paths["fixed_label"])
        _check_grid(paths["fixed_label"], shown.shape, space.grid.shape)
        found["fixed"] = space.turned(shown)
    if "moving_label" in paths and (result.folder / WARPED_LABEL_FILE).exists():
        shown = _shown(result, "moving", paths["moving_label"])
        ranks = np.unique(shown, return_inverse=True)[1] if shown.max(initial=0) > MOST_CODE else shown
        found["moving"] = torch.from_numpy(ranks.astype(np.float32))[None, None]  # large labels are told apart too
        warped = read_label("warped_label", result.folder / WARPED_LABEL_FILE)
        found["warped"] = space.turned(shown_labels(warped.as_tensor()[0], table_of(warped)))
    return found


def _told_before(words: str) -> None:
    """Take a note about labels that the registration has told."""


def _shown(result: SavedResult, side: str, path: Path) -> np.ndarray:
    """Read the label map of a side as a viewer shows it, (W, H, D)."""
    wanted = [names[IMAGES.index(side)] for names in sides_of(result.run["config"].get("labels"))]
    scan = empty_scan(result.grid(side), result.inputs.get(side))
    label = read_label(f"{side}_label", path, scan, wanted=wanted, note=_told_before)
    return shown_labels(label.as_tensor()[0], table_of(label))


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
