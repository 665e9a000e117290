"""Files carried through a saved map: scans and label maps onto a reference grid, points and surfaces either way.

This room reads and writes files around `scripts.maps`. It must not know the fit or its networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scripts.checks import check_finite, check_largest_label
from scripts.errors import PairError
from scripts.exporters import save_image
from scripts.files import claim_folder, unchanged
from scripts.geometry import Grid, to_mm, to_vox
from scripts.itk_files import load_affine
from scripts.maps import SpatialMap
from scripts.names import RESULT_FILES, RUN_FILE, image_stem
from scripts.point_files import in_ras, read_points_file
from scripts.saved import SavedResult, saved_map
from scripts.transforms import read_image
from scripts.warping import IMAGE_MODES, in_type_of, label_type, warp

LABEL_ROUNDING = 1e-3  # a label file whose values are further from whole numbers was interpolated


@dataclass(frozen=True)
class Applied:
    """What a saved map is applied with: the map, both grids, and the files that were registered; None where not known.

    read: the files that the map and the grids come from, all those of a result folder among them.
    """

    map: SpatialMap
    reference: Grid
    moving: Grid | None
    inputs: dict[str, Path]
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of these files, as run.json has them
    read: tuple[Path, ...] = ()

    def registered(self, key: str) -> Path:
        """The file of a key that was registered; PairError where there is none, or where it has changed since."""
        if key not in self.inputs:
            raise PairError(f"which files? the result does not know a {key.replace('_', ' ')}; name them after RESULT")
        record = self.records.get(key)
        if record is not None and not unchanged(self.inputs[key], record):
            raise PairError(f"{self.inputs[key]} has changed since it was registered; register again, or name the files")
        return self.inputs[key]


def open_map(
    path: str | Path,
    *,
    reference: str | Path | None = None,
    moving: str | Path | None = None,
    before: str | Path | None = None,
    after: str | Path | None = None,
) -> Applied:
    """The map of a result folder, a network.pt or a field's file, with its grids.

    Args:
        reference: a scan whose grid results go onto; by default the field's own, the fixed scan's.
        moving: a scan on the moving grid; by default the one that was registered, of which a field's file knows nothing.
        before, after: files of affines (`itk_files.load_affine`) that a reference point goes through first, and that the
            moving point goes through last.
    """
    first, last = (None if file is None else load_affine(file) for file in (before, after))
    mapping = saved_map(path).composed(before=first, after=last)
    result = SavedResult(Path(path)) if Path(path).is_dir() and (Path(path) / RUN_FILE).exists() else None
    onto = mapping.grid if reference is None else grid_of(reference, "reference")
    own = None if result is None else result.grid("moving")
    there = own if moving is None else grid_of(moving, "moving")
    if result is None:
        return Applied(mapping, onto, there, {}, read=_read(path, reference, moving, before, after))
    own_files = (result.folder / name for name in RESULT_FILES)
    read = _read(*own_files, reference, moving, before, after)
    return Applied(mapping, onto, there, result.inputs, result.run["inputs"], read)


def _read(*paths: str | Path | None) -> tuple[Path, ...]:
    return tuple(Path(path) for path in paths if path is not None)


def grid_of(path: str | Path, what: str) -> Grid:
    """The grid of an image's file."""
    image = read_image(what, str(path))
    return Grid(tuple(image.shape[1:]), np.asarray(image.affine, dtype=np.float64))


def apply_to_images(opened: Applied, files: Sequence[str | Path], output_dir: str | Path, *, mode: str) -> list[Path]:
    """The files written: each scan or label map of the moving side on the reference grid, as <name>.nii.gz.

    Args:
        files: each on a grid of its own in the moving scan's space. mode: see `warping.Reader`.

    Raises:
        PairError: two files of one name, an output that is an input, values that are no labels, besides what reading and
            writing refuse.
    """
    names = [f"{image_stem(str(file))}.nii.gz" for file in files]
    targets = output_paths(names, output_dir, read=[*files, *opened.read])
    for file, target in zip(files, targets, strict=True):
        image = read_image("image" if mode in IMAGE_MODES else "label", str(file))
        check_finite(str(file), image)
        volume = image.as_tensor()[0]
        if mode not in IMAGE_MODES:
            if (volume - volume.round()).abs().max() > LABEL_ROUNDING or volume.min() < 0:
                raise PairError(f"{file} is no label map, its values are not whole numbers from 0; use --to=image")
            volume = volume.round()
            check_largest_label(str(file), volume)
        affine = np.asarray(image.affine, dtype=np.float64)
        found = warp(opened.map, volume, moving=affine, reference=opened.reference, mode=mode)
        array = in_type_of(found, volume) if mode in IMAGE_MODES else label_type(found)
        save_image(target, array, opened.reference.affine)
    return targets


def apply_to_points(
    opened: Applied, files: Sequence[str | Path], output_dir: str | Path, *, side: str, space: str | None
) -> tuple[list[Path], int]:
    """The files written, each with its points moved, and how many points lie outside the range of the map.

    Args:
        side: where the points are: ``fixed`` (the reference side; they go along the map) or ``moving`` (they go back, by
            its inverse). space: of the numbers, see `point_files.read_points_file`; voxel indices count in that side's
            grid and become indices of the other's.
    """
    targets = output_paths([Path(file).name for file in files], output_dir, read=[*files, *opened.read])
    outside = 0
    for file, target in zip(files, targets, strict=True):
        points = read_points_file(file, space)
        grids = {"fixed": opened.reference, "moving": opened.moving} if points.space == "voxel" else {}
        here, there = (grids.get(name) for name in (side, "moving" if side == "fixed" else "fixed"))
        if grids and (here is None or there is None):
            raise PairError(f"{file}: voxel indices need the grid that the map leads to; name a scan on it with --moving")
        at = in_ras(points.points, points.space) if here is None else to_mm(points.points, here.affine)
        found, known = opened.map.to_moving(at) if side == "fixed" else opened.map.to_reference(at)
        points.save(target, in_ras(found, points.space) if there is None else to_vox(found, there.affine), known)
        outside += int((~known).sum())
    return targets, outside


def output_paths(names: Sequence[str], output_dir: str | Path, *, read: Sequence[str | Path]) -> list[Path]:
    """The paths to write, none of them a file that is read, no two the same (PairError); the folder is made."""
    folder = Path(output_dir).absolute()
    targets = [folder / name for name in names]
    double = next((t for n, t in enumerate(targets) if t in targets[:n]), None)
    if double is not None:
        raise PairError(f"two files would become {double}; name them in two calls, with two folders")
    sources = {Path(file).resolve() for file in read}
    over = next((t for t in targets if t.resolve() in sources), None)
    if over is not None:
        raise PairError(f"{over} is to be read and would be overwritten; choose another --output_dir")
    claim_folder(folder)
    return targets
