"""The inverse of a saved map as files: a field on the moving grid, where it is known, and how exact it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.apply import Applied, output_paths
from scripts.checks import GRID_TOLERANCE_VOX
from scripts.errors import PairError
from scripts.exporters import save_image, save_itk_field
from scripts.files import save_json
from scripts.geometry import Grid, placed
from scripts.inverse import preimages
from scripts.maps import SpatialMap, slabs
from scripts.metrics import landmark_summary
from scripts.names import INVERSE_FILE, VALID_FILE
from scripts.results import command
from scripts.sampling import through
from scripts.transforms import read_image

ERRORS_FILE = "inverse.json"


def inverse_field(mapping: SpatialMap, moving: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """The field (3, W, H, D) on a moving grid, in its voxels, float32, back to the reference; and where it is known, bool.

    Where it is not known, the origin lies outside the map's field: the values there carry on what its border says, so that
    reading between voxels stays sound up to the last one that is known. They are no result.
    """
    field = torch.empty(3, *moving.shape)
    known = torch.empty(tuple(moving.shape), dtype=torch.bool)
    to_own = np.linalg.inv(mapping.after @ mapping.grid.affine) @ moving.affine
    back = np.linalg.inv(mapping.before @ moving.affine) @ mapping.grid.affine
    for planes in slabs(moving):
        at = moving.planes(planes.start, planes.stop).double()
        targets = placed(at, to_own).flatten(1).T
        found, there = preimages(mapping.field, targets)
        field[:, planes] = (placed(found.T.reshape(at.shape), back) - at).float()
        known[planes] = there.reshape(at.shape[1:])
    return field, known


def there_and_back(mapping: SpatialMap, inverse: SpatialMap, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far, in mm, each point ends from itself when it goes there and back, (W, H, D), and where that is known.

    The points are those that the map takes to the voxels of its field first: where nothing stands before it, these voxels.

    The way back reads the inverse field between its voxels, as every program does that uses the file; it counts as known
    where all voxels around are.

    Args:
        inverse: the map of `inverse_field`. known: the mask of it.
    """
    reference = Grid(mapping.grid.shape, np.linalg.solve(mapping.before, mapping.grid.affine))
    off, sure = torch.empty(tuple(reference.shape)), torch.empty(tuple(reference.shape), dtype=torch.bool)
    to_mm = reference.affine.copy()
    to_mm[:3, 3] = 0
    home = np.linalg.inv(reference.affine) @ inverse.grid.affine
    both = SpatialMap(inverse.field, inverse.grid, valid=known)
    for planes, at, valid in mapping.positions(reference, inverse.grid.affine):
        back, inside = through(inverse.field[None], at.double())
        apart = placed(placed(back, home) - reference.planes(planes.start, planes.stop), to_mm)
        off[planes] = apart[0].norm(dim=0).float()
        sure[planes] = (valid & inside & both.sure(at))[0, 0]
    return off, sure


def invert_map(opened: Applied, output_dir: str | Path, *, label: str | Path | None) -> tuple[list[Path], dict[str, Any]]:
    """The files written, and the numbers of inverse.json.

    Args:
        label: a label map on the map's own grid; by default the fixed label that was registered, if there was one.

    Raises:
        PairError: where no moving grid is known, or the label lies on another grid.
    """
    if opened.moving is None:
        raise PairError("the inverse lies on the moving grid, which a field's file does not know; name a scan with --moving")
    read = [*opened.read, *([] if label is None else [label])]
    written = output_paths((INVERSE_FILE, VALID_FILE, ERRORS_FILE), output_dir, read=read)
    mask = _label(opened, label)
    field, known = inverse_field(opened.map, opened.moving)
    off, sure = there_and_back(opened.map, SpatialMap(field, opened.moving), known)
    regions = {"all": sure} if mask is None else {"all": sure, "in_label": sure & mask, "outside_label": sure & ~mask}
    errors: dict[str, Any] = {
        "command": command(),
        "there_and_back_mm": {name: landmark_summary(off[where].numpy()) for name, where in regions.items()},
    }
    errors["known_share"] = {"of_moving_grid": float(known.float().mean()), "of_fixed_grid": float(sure.float().mean())}
    if mask is not None:
        errors["known_share"]["of_label"] = float((sure & mask).sum() / mask.sum()) if mask.any() else None
    save_itk_field(written[0], field, opened.moving.affine)
    save_image(written[1], known.numpy().astype(np.uint8), opened.moving.affine)
    save_json(written[2], errors)
    return written, errors


def _label(opened: Applied, path: str | Path | None) -> torch.Tensor | None:
    """Where the label map is not 0, (W, H, D), bool."""
    registered = opened.inputs.get("fixed_label")
    if path is None and registered is not None and registered.exists():
        path = opened.registered("fixed_label")
    if path is None:
        return None
    image = read_image("label", str(path))
    grid = Grid(tuple(image.shape[1:]), np.asarray(image.affine, dtype=np.float64))
    if tuple(grid.shape) != tuple(opened.map.grid.shape) or not grid.off_vox(opened.map.grid) <= GRID_TOLERANCE_VOX:
        raise PairError(f"{path} does not lie on the grid of the field; resample it onto that (nearest neighbour)")
    return image.as_tensor()[0] > 0


def told(errors: Mapping[str, Any]) -> list[str]:
    """The numbers in lines for a person."""
    lines = [
        f"there and back, {name.replace('_', ' ')}: mean {e['mean']:.4f}, 95 % {e['p95']:.4f}, max {e['max']:.4f} mm"
        for name, e in errors["there_and_back_mm"].items()
    ]
    shares = [f"{100 * v:.1f} % {name.replace('_', ' ')}" for name, v in errors["known_share"].items() if v is not None]
    return [*lines, f"known: {', '.join(shares)}"]
