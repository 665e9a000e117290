"""Files carried by a saved map: scans onto a reference grid, points and surfaces in both directions.

This room reads and writes files around `ncf.space.mapping`. It must not know the fit or its networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ncf.core.errors import PairError
from ncf.core.files import claim_folder, unchanged
from ncf.core.names import RESULT_FILES, RUN_FILE, TRUST_FILE, image_stem
from ncf.core.scan_paths import is_there, scan_path
from ncf.io.image_files import read_image
from ncf.io.itk_fields import load_affine
from ncf.io.named_files import save_field, save_volume
from ncf.io.points.base import in_ras
from ncf.io.points.table import read_points_file
from ncf.pair.checks import check_finite
from ncf.result.folder import SavedResult, saved_map
from ncf.space.geometry import to_mm, to_vox
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap
from ncf.space.resampling import in_type_of, warp
from ncf.use.odd import note_what_is_elsewhere, note_what_is_odd
from ncf.use.trust import SUFFIX, write_errors


@dataclass(frozen=True)
class Applied:
    """A saved map, opened to be applied.

    Attributes:
        map: fixed to moving.
        reference: the grid that results lie on.
        moving: the moving grid, None where it is not known.
        inputs: the files that were registered, by key; empty where they are not known.
        records: of these files, as run.json has them.
        read: the files that the map and the grids come from, with all files of a result folder.
        moving_scan: the scan on the moving grid, where it is known.
        matrix: (4, 4), RAS mm, the same map where it is that of a rigid or affine result; None for others.
        trust: the file of bounds of its error, where the result has one and nothing was put before or behind it.
    """

    map: SpatialMap
    reference: Grid
    moving: Grid | None
    inputs: dict[str, Path]
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    read: tuple[Path, ...] = ()
    moving_scan: Path | None = None
    matrix: np.ndarray | None = None
    trust: Path | None = None

    def registered(self, key: str) -> Path:
        """Return the file of a key that was registered.

        Args:
            key: of the pair, such as ``moving_label``.

        Raises:
            PairError: there is none, it is not there any more, or it has changed since.
        """
        what = f"{key.removesuffix('_label').replace('_', ' ')} {'label map' if key.endswith('_label') else 'scan'}"
        advice = "name it with --reference=PATH" if key == "fixed" else "name the file after RESULT"
        if key not in self.inputs:
            why = f"no {what} was registered" if self.inputs else "the map was saved from Python or is a field's file"
            raise PairError(f"which {what}? {why}; {advice}")
        if not is_there(self.inputs[key]):
            raise PairError(f"the {what} {self.inputs[key]} is not there any more; {advice}")
        record = self.records.get(key)
        if record is not None and not unchanged(self.inputs[key], record):
            raise PairError(
                f"{self.inputs[key]} has changed since it was registered; register again, or name the files"
            )
        return self.inputs[key]


def open_map(
    path: str | Path,
    *,
    reference: str | Path | None = None,
    moving: str | Path | None = None,
    pre_transform: str | Path | None = None,
    post_transform: str | Path | None = None,
) -> Applied:
    """Open the map of a result folder, a network.pt or a field's file, with its grids.

    Args:
        path: one of these.
        reference: a scan whose grid results lie on; by default the field's own grid, that of the fixed scan.
        moving: a scan on the moving grid; by default the one that was registered. A field's file does not know it.
        pre_transform: file of an affine (`ncf.io.itk_fields.load_affine`) that a reference point goes through first.
        post_transform: file of an affine that the moving point goes through last.

    Raises:
        PairError: a file cannot be read, or the result is not complete.
    """
    first, last = (None if file is None else load_affine(file) for file in (pre_transform, post_transform))
    mapping = saved_map(path).composed(pre_transform=first, post_transform=last)
    result = SavedResult(Path(path)) if Path(path).is_dir() and (Path(path) / RUN_FILE).exists() else None
    onto = mapping.grid if reference is None else grid_of(reference, "reference")
    own = None if result is None else result.grid("moving")
    there = own if moving is None else grid_of(moving, "moving")
    if result is None:
        read = _read(path, reference, moving, pre_transform, post_transform)
        return Applied(mapping, onto, there, {}, read=read, moving_scan=None if moving is None else Path(moving))
    own_files = (result.folder / name for name in RESULT_FILES)
    read = _read(*own_files, reference, moving, pre_transform, post_transform)
    scan = result.inputs.get("moving") if moving is None else Path(moving)
    matrix = result.matrix()
    if matrix is not None:
        matrix = mapping.post_transform @ matrix @ mapping.pre_transform
    bounds = result.folder / TRUST_FILE
    trust = bounds if bounds.exists() and first is None and last is None else None
    return Applied(mapping, onto, there, result.inputs, result.run["inputs"], read, scan, matrix, trust)


def _read(*paths: str | Path | None) -> tuple[Path, ...]:
    """Return the paths that were given."""
    return tuple(Path(path) for path in paths if path is not None)


def grid_of(path: str | Path, what: str) -> Grid:
    """Return the grid of an image's file.

    Args:
        path: of the image.
        what: the image's name in an error message.

    Raises:
        PairError: the file cannot be read.
    """
    image = read_image(what, str(path))
    return Grid(tuple(image.shape[1:]), np.asarray(image.affine, dtype=np.float64))


def apply_to_images(
    opened: Applied, files: Sequence[str | Path], output_dir: str | Path, *, mode: str, named: Path | None = None
) -> list[Path]:
    """Carry scans of the moving side onto the reference grid; label maps are for `ncf.use.carry_labels`.

    Args:
        opened: the map.
        files: each on a grid of its own in the moving scan's space.
        output_dir: where the results go, as <name>.nii.gz.
        mode: of `ncf.space.resampling.Reader`, for images.
        named: the file of the result, in place of the folder, where one is carried (`ncf.io.named_files.WRITTEN`).

    Returns:
        The files that were written.

    Raises:
        PairError: two files have one name, an output is an input, or a file cannot be read or written.
    """
    names = [f"{image_stem(str(file))}.nii.gz" for file in files] if named is None else [named.name]
    targets = output_paths(names, output_dir if named is None else named.parent, read=[*files, *opened.read])
    for file, target in zip(files, targets, strict=True):
        image = read_image("image", str(file))
        check_finite(str(file), image)
        note_what_is_odd(opened.inputs, file, image.as_tensor())
        volume, affine = image.as_tensor()[0], np.asarray(image.affine, dtype=np.float64)
        note_what_is_elsewhere(opened.map, opened.reference, file=file, own=Grid(tuple(volume.shape), affine))
        found = warp(opened.map, volume, moving=affine, reference=opened.reference, mode=mode)
        save_volume(target, in_type_of(found, volume), opened.reference.affine)
    return targets


def apply_to_points(
    opened: Applied, files: Sequence[str | Path], output_dir: str | Path, *, side: str, space: str | None
) -> tuple[list[Path], int]:
    """Carry the points of files to the other side.

    Args:
        opened: the map.
        files: of points or surfaces.
        output_dir: where the results go, under the same names; where bounds of the map's error are known, with a
            table of them beside each.
        side: where the points are: ``fixed`` (the reference side; the map carries them) or ``moving``
            (its inverse does).
        space: of the numbers, see `ncf.io.points.table.read_points_file`. Voxel indices count in that side's grid and
            become indices of the other's.

    Returns:
        The files that were written, and how many points lie outside the range of the map.

    Raises:
        PairError: voxel indices have no moving grid, two files have one name, an output is an input, or a file cannot
            be read or written.
    """
    targets = output_paths([Path(file).name for file in files], output_dir, read=[*files, *opened.read])
    outside, tables = 0, []
    for file, target in zip(files, targets, strict=True):
        points = read_points_file(file, space)
        points = points if points.of_side is None else points.of_side(side)
        grids = {"fixed": opened.reference, "moving": opened.moving} if points.space == "voxel" else {}
        here, there = (grids.get(name) for name in (side, "moving" if side == "fixed" else "fixed"))
        if grids and (here is None or there is None):
            raise PairError(
                f"{file}: voxel indices need the grid that the map leads to; name a scan on it as the moving one"
            )
        at = in_ras(points.points, points.space) if here is None else to_mm(points.points, here.affine)
        found, known = opened.map.to_moving(at) if side == "fixed" else opened.map.to_reference(at)
        points.save(target, in_ras(found, points.space) if there is None else to_vox(found, there.affine), known)
        outside += int((~known).sum())
        if opened.trust is not None:
            of_fixed = np.where(known[:, None], at if side == "fixed" else found, np.nan)
            tables.append(target.with_name(target.stem + SUFFIX))
            write_errors(opened.trust, of_fixed, tables[-1])
    return [*targets, *tables], outside


def write_field(opened: Applied, path: Path) -> Path:
    """Write a map as one displacement field on the reference grid.

    Args:
        opened: the map.
        path: of the file; its ending names the format (`ncf.io.named_files.FIELDS`).

    Raises:
        PairError: the file was read, cannot be written, or cannot hold the grid.
    """
    (target,) = output_paths([path.name], path.parent, read=opened.read)
    found, _ = opened.map.on(opened.reference)
    save_field(target, found.field, found.grid.affine)
    return target


def output_paths(names: Sequence[str], output_dir: str | Path, *, read: Sequence[str | Path]) -> list[Path]:
    """Return the paths to write, and make their folder.

    Args:
        names: of the files.
        output_dir: their folder.
        read: files that must not be overwritten.

    Raises:
        PairError: two paths are the same, one is a file that is read, or the folder cannot be made.
    """
    folder = Path(output_dir).absolute()
    targets = [folder / name for name in names]
    double = next((t for n, t in enumerate(targets) if t in targets[:n]), None)
    if double is not None:
        raise PairError(f"two files would become {double}; name them in two calls, with two folders")
    sources = {scan_path(file).path.resolve() for file in read}
    over = next((t for t in targets if t.resolve() in sources), None)
    if over is not None:
        raise PairError(f"{over} is to be read and would be overwritten; choose another output folder")
    claim_folder(folder)
    return targets
