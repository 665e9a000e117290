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
from ncf.core.labels import sides_of
from ncf.core.names import GRID_OF, IMAGES, TRUST_FILE, WARPED_FILE, WARPED_LABEL_FILE
from ncf.core.threads import beside
from ncf.io.image_files import read_image
from ncf.io.label_files import MOST_CODE, empty_scan, read_label, shown_labels, table_of
from ncf.io.trust_file import load_trust
from ncf.report.facts import Facts, facts_of
from ncf.report.paint import grey
from ncf.report.views import Cut, DisplaySpace
from ncf.result.folder import SavedResult
from ncf.space.sampling import inside, sample


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


def gathered(result: SavedResult, inputs: Mapping[str, Path] | None = None) -> Material:
    """Read the material of a result's report.

    Args:
        result: the saved result.
        inputs: scans that have moved since, by key.

    Raises:
        PairError: a scan cannot be read, or the result is not a registration.
    """
    paths = {**result.inputs, **(inputs or {})}
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
