"""The inverse of a saved map as files: a field on the moving grid, where it is known, and how exact it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ncf.core.errors import PairError
from ncf.core.files import save_json
from ncf.core.names import INVERSE_FILE, VALID_FILE
from ncf.core.process import command_line
from ncf.core.scan_paths import is_there
from ncf.evaluate.metrics import landmark_summary
from ncf.io.label_files import empty_scan, read_label
from ncf.io.nifti import save_image, save_itk_field
from ncf.pair.checks import GRID_TOLERANCE_VOX
from ncf.space.geometry import placed
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap, slabs
from ncf.space.preimages import preimages
from ncf.space.sampling import through
from ncf.use.carry import Applied, output_paths

ERRORS_FILE = "inverse.json"


def inverse_field(mapping: SpatialMap, moving: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the inverse of a map on a moving grid.

    Where the inverse is not known, the origin of a voxel lies outside the map's field. The values there continue what
    the field's border says, so that a program may interpolate up to the last voxel that is known. They are no result.

    Args:
        mapping: fixed to moving.
        moving: the grid of the result.

    Returns:
        The field (3, W, H, D), float32, in voxels of the moving grid, moving to reference; and where it is known,
        (W, H, D), bool.
    """
    field = torch.empty(3, *moving.shape)
    known = torch.empty(tuple(moving.shape), dtype=torch.bool)
    to_own = np.linalg.inv(mapping.post_transform @ mapping.grid.affine) @ moving.affine
    back = np.linalg.inv(mapping.pre_transform @ moving.affine) @ mapping.grid.affine
    for planes in slabs(moving):
        at = moving.planes(planes.start, planes.stop).double()
        targets = placed(at, to_own).flatten(1).T
        found, there = preimages(mapping.field, targets)
        field[:, planes] = (placed(found.T.reshape(at.shape), back) - at).float()
        known[planes] = there.reshape(at.shape[1:])
    return field, known


def inverse_consistency_error(
    mapping: SpatialMap, inverse: SpatialMap, known: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the inverse consistency error: the distance of each point from itself after the map and its inverse.

    Christensen and Johnson 2001, doi:10.1109/42.932742. The points are those that the pre-transform takes to the voxels
    of the map's field; without a pre-transform they are these voxels. The inverse field is read between its voxels, as
    every program that uses the file reads it. A value counts as known where all voxels around are.

    Args:
        mapping: fixed to moving.
        inverse: the map of `inverse_field`.
        known: the mask of `inverse_field`.

    Returns:
        The error (W, H, D) in mm, and where it is known, (W, H, D), bool.
    """
    reference = Grid(mapping.grid.shape, np.linalg.solve(mapping.pre_transform, mapping.grid.affine))
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


def invert_map(
    opened: Applied, output_dir: str | Path, *, label: str | Path | None
) -> tuple[list[Path], dict[str, Any]]:
    """Write the inverse of a map: its field, where it is known, and inverse.json.

    Args:
        opened: the map and the moving grid.
        output_dir: where the files go.
        label: a label map on the map's own grid; by default the fixed label that was registered, if there was one.

    Returns:
        The files that were written, and the numbers of inverse.json.

    Raises:
        PairError: no moving grid is known, or the label lies on another grid.
    """
    if opened.moving is None:
        raise PairError(
            "the inverse lies on the moving grid, which a field's file does not know; "
            "name a scan on it as the moving one"
        )
    read = [*opened.read, *([] if label is None else [label])]
    written = output_paths((INVERSE_FILE, VALID_FILE, ERRORS_FILE), output_dir, read=read)
    mask = _label(opened, label)
    field, known = inverse_field(opened.map, opened.moving)
    off, sure = inverse_consistency_error(opened.map, SpatialMap(field, opened.moving), known)
    regions = {"all": sure} if mask is None else {"all": sure, "in_label": sure & mask, "outside_label": sure & ~mask}
    errors: dict[str, Any] = {
        "command": command_line(),
        "inverse_consistency_error_mm": {name: landmark_summary(off[where].numpy()) for name, where in regions.items()},
    }
    errors["known_share"] = {"of_moving_grid": float(known.float().mean()), "of_fixed_grid": float(sure.float().mean())}
    if mask is not None:
        errors["known_share"]["of_label"] = float((sure & mask).sum() / mask.sum()) if mask.any() else None
    save_itk_field(written[0], field, opened.moving.affine)
    save_image(written[1], known.numpy().astype(np.uint8), opened.moving.affine)
    save_json(written[2], errors)
    return written, errors


def _label(opened: Applied, path: str | Path | None) -> torch.Tensor | None:
    """Return where the label map is not 0, (W, H, D), bool; None without one."""
    registered = opened.inputs.get("fixed_label")
    if path is None and registered is not None and is_there(registered):
        path = opened.registered("fixed_label")
    if path is None:
        return None
    image = read_label("label", path, empty_scan(opened.map.grid, opened.inputs.get("fixed")))
    grid = Grid(tuple(image.shape[1:]), np.asarray(image.affine, dtype=np.float64))
    if tuple(grid.shape) != tuple(opened.map.grid.shape) or not grid.off_vox(opened.map.grid) <= GRID_TOLERANCE_VOX:
        raise PairError(f"{path} does not lie on the grid of the field; resample it onto that (nearest neighbour)")
    return image.as_tensor()[0] > 0


def told(errors: Mapping[str, Any]) -> list[str]:
    """Return the numbers of inverse.json as lines for a person."""
    lines = [
        f"inverse consistency error, {name.replace('_', ' ')}: "
        f"mean {e['mean']:.4f}, 95 % {e['p95']:.4f}, max {e['max']:.4f} mm"
        for name, e in errors["inverse_consistency_error_mm"].items()
    ]
    shares = [f"{100 * v:.1f} % {name.replace('_', ' ')}" for name, v in errors["known_share"].items() if v is not None]
    return [*lines, f"known: {', '.join(shares)}"]
