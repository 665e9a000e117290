"""Results as DICOM objects on the fixed scan's planes: what export and apply write for a hospital's archive.

A result folder names its scans; the objects take patient, study and frame of reference over from the fixed one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from ncf.core.files import write_folder_whole
from ncf.core.labels import Wanted
from ncf.core.names import image_stem
from ncf.core.scan_paths import scan_path
from ncf.evaluate.margins import Margin
from ncf.io.dicom.objects import RTSTRUCT, SEGMENTATIONS, class_of, label_object
from ncf.io.dicom.written.between import Between, between
from ncf.io.dicom.written.segments import save_labelmap, save_segments
from ncf.io.dicom.written.series import Warped, save_series
from ncf.io.dicom.written.structures import Structure, save_structures, structures_of
from ncf.io.dicom.written.table import DICOM_OBJECTS
from ncf.io.fields.base import FieldToSave
from ncf.io.fields.table import field_formats
from ncf.io.image_files import read_image
from ncf.pair.checks import check_finite
from ncf.space.grids import Grid
from ncf.space.resampling import in_type_of, planes_read, warp
from ncf.use.carry import Applied, open_map, output_paths
from ncf.use.carry_labels import SIDES, carried, margin_names, margins, told
from ncf.use.export import name_of, sources_of

Writer = Callable[[Applied, Between, Path], None]  # of an object: the map, the two scans, the path
STRUCTURES = {"rtstruct": save_structures, "seg": save_segments, "seg-labelmap": save_labelmap}
OF_CLASS = dict(zip((RTSTRUCT, *SEGMENTATIONS), STRUCTURES, strict=True))


def warped_series(opened: Applied, scans: Between, path: Path, *, mode: str = "bilinear") -> None:
    """Write the moving scan, warped onto the fixed one, as a folder with one file a plane.

    Args:
        opened: the map.
        scans: the fixed scan, and the one that is carried.
        path: of the folder.
        mode: of `ncf.space.resampling.Reader`, for images.

    Raises:
        PairError: the moving scan cannot be read, the grids differ, or the folder cannot be written.
    """
    image = read_image("moving", str(scans.moving.path))
    check_finite(str(scans.moving.path), image)
    volume, affine = image.as_tensor()[0], np.asarray(image.affine, dtype=np.float64)
    own = scans.require_grid(opened.reference)
    values = in_type_of(warp(opened.map, volume, moving=affine, reference=opened.reference, mode=mode), volume)
    read = planes_read(opened.map, moving=Grid(tuple(volume.shape), affine), reference=opened.reference)
    warped = Warped(values, own, read)
    write_folder_whole(path, lambda folder: _save(folder, warped, scans))


def _save(folder: Path, warped: Warped, scans: Between) -> None:
    """Write the files of a series."""
    save_series(folder, warped, fixed=scans.fixed, moving=scans.moving, anonymous=scans.anonymous)


def registration(opened: Applied, scans: Between, path: Path) -> None:
    """Write the map as a DICOM registration: a matrix where the result is rigid or affine, else a grid.

    Args:
        opened: the map.
        scans: the fixed scan, and the moving one.
        path: of the file.

    Raises:
        PairError: the grid is none of DICOM's, or the file cannot be written.
    """
    found, _ = opened.map.on(opened.reference)
    own = scans.require_grid(opened.reference)
    field = FieldToSave(found.field, own, opened.moving, scans=scans, matrix=opened.matrix)
    field_formats()["dicom-reg"].save(path, field)


def carried_structures(
    opened: Applied, scans: Between, file: str | Path, *, mode: str = "nearest", wanted: Sequence[Wanted] = ()
) -> list[Structure]:
    """Return moving labels, carried onto the fixed grid.

    Args:
        opened: the map.
        scans: the fixed scan, on whose grid results lie, and the moving one.
        file: of the labels.
        mode: see `ncf.space.resampling.Reader`, for labels.
        wanted: names or numbers of labels; by default all.

    Raises:
        PairError: the labels cannot be read, or none lies on the fixed grid.
    """
    scans.require_grid(opened.reference)
    codes, table = carried(opened, file, mode=mode, wanted=wanted)
    return structures_of(codes.numpy(), table)


def _registered(kind: str) -> Writer:
    """Return what writes the labels that were registered as one of `STRUCTURES`."""

    def write(opened: Applied, scans: Between, path: Path) -> None:
        """Write the carried labels."""
        STRUCTURES[kind](path, carried_structures(opened, scans, opened.registered("moving_label")), scans)

    return write


WRITERS: dict[str, Writer] = {
    "dicom": warped_series,
    "dicom-reg": registration,
    **{kind: _registered(kind) for kind in STRUCTURES},
}


def export_dicom(
    path: str | Path,
    output_dir: str | Path,
    *,
    kind: str,
    reference: str | Path | None = None,
    moving: str | Path | None = None,
    pre_transform: str | Path | None = None,
    post_transform: str | Path | None = None,
    anonymous: bool = False,
) -> list[Path]:
    """Write maps as DICOM objects.

    Args:
        path: a result folder, a folder of such, or what `ncf.result.folder.saved_map` opens.
        output_dir: where the objects go.
        kind: a key of `ncf.io.dicom.written.table.DICOM_OBJECTS`, or a field format that is made of scans.
        reference: folder of the DICOM series that the objects lie on and belong to; by default the fixed scan.
        moving: folder of the DICOM series that is carried; by default the moving scan.
        pre_transform: see `ncf.use.carry.open_map`.
        post_transform: the same.
        anonymous: objects tell no patient, and their UIDs lead back to no scan.

    Returns:
        The files and folders that were written.

    Raises:
        PairError: a scan is not known or no DICOM series, the scans are of two patients, an output is an input, or a
            file cannot be read or written.
    """
    suffix = DICOM_OBJECTS[kind].suffix if kind in DICOM_OBJECTS else field_formats()[kind].suffix
    sources = sources_of(path)
    transforms = {"pre_transform": pre_transform, "post_transform": post_transform}
    maps = [open_map(source, reference=reference, moving=moving, **transforms) for source in sources]
    read = [file for opened in maps for file in opened.read]
    targets = output_paths([f"{name}{suffix}" for name in map(name_of, sources)], output_dir, read=read)
    for opened, target in zip(maps, targets, strict=True):
        fixed = opened.registered("fixed") if reference is None else reference
        carried = opened.registered("moving") if moving is None else moving
        WRITERS[kind](opened, between(fixed, carried, anonymous=anonymous, what=f"the format {kind}"), target)
    return targets


def carry_series(
    opened: Applied,
    files: Sequence[str | Path],
    output_dir: str | Path,
    *,
    mode: str,
    reference: str | Path | None = None,
    anonymous: bool = False,
) -> list[Path]:
    """Carry DICOM series of the moving side onto the reference grid, each as a new series.

    Args:
        opened: the map.
        files: folders, each with one series.
        output_dir: where a folder <name>_warped of each goes.
        mode: see `ncf.space.resampling.Reader`, for images.
        reference: folder of the series that the new ones belong to; by default the fixed scan.
        anonymous: see `export_dicom`.

    Returns:
        The folders that were written.

    Raises:
        PairError: as of `export_dicom`.
    """
    fixed = opened.registered("fixed") if reference is None else reference
    names = [f"{image_stem(str(file))}_warped" for file in files]
    targets = output_paths(names, output_dir, read=[*files, *opened.read])
    for file, target in zip(files, targets, strict=True):
        scans = between(fixed, file, anonymous=anonymous, what="a warped DICOM series")
        warped_series(opened, scans, target, mode=mode)
    return targets


def carry_structures(
    opened: Applied,
    files: Sequence[str | Path],
    output_dir: str | Path,
    *,
    kind: str | None = None,
    mode: str = "nearest",
    wanted: Sequence[Wanted] = (),
    reference: str | Path | None = None,
    anonymous: bool = False,
) -> tuple[list[Path], list[str]]:
    """Carry labels of the moving side onto the fixed series, each file as a new object.

    Where bounds of the map's error are known, the inner and the outer structures are objects of their own beside it.

    Args:
        opened: the map; its moving scan is a DICOM series, by which dates and patient are known.
        files: RTSTRUCT, SEG or label maps.
        output_dir: where the objects go, as <name>_rtstruct.dcm, <name>_inner_rtstruct.dcm and the like.
        kind: a key of `STRUCTURES`; by default what the file is, and RTSTRUCT for label maps in image files.
        mode: see `ncf.space.resampling.Reader`, for labels.
        wanted: names or numbers of labels; by default all.
        reference: folder of the series that the objects lie on; by default the fixed scan.
        anonymous: see `export_dicom`.

    Returns:
        The files that were written, and the volumes of the structures in words.

    Raises:
        PairError: as of `export_dicom`, and labels that cannot be read.
    """
    kinds = [kind or _kind_of(file) for file in files]
    suffixes = [DICOM_OBJECTS[own].suffix for own in kinds]
    names = [f"{image_stem(str(file))}{suffix}" for file, suffix in zip(files, suffixes, strict=True)]
    beside = [margin_names(name, suffix) for name, suffix in zip(names, suffixes, strict=True) if opened.trust]
    targets = output_paths([*names, *chain(*beside)], output_dir, read=[*files, *opened.read])
    moving = opened.registered("moving") if opened.moving_scan is None else opened.moving_scan
    fixed = opened.registered("fixed") if reference is None else reference
    scans = between(fixed, moving, anonymous=anonymous, what="an object of carried labels")
    scans.require_grid(opened.reference)
    written, lines = [], []
    for number, (file, own) in enumerate(zip(files, kinds, strict=True)):
        codes, table = carried(opened, file, mode=mode, wanted=wanted)
        STRUCTURES[own](targets[number], structures_of(codes.numpy(), table), scans)
        written.append(targets[number])
        found = list(margins(opened, codes.numpy(), table))
        lines += told(found)
        place = len(files) + len(SIDES) * number
        for side, target in zip(SIDES if found else (), targets[place : place + len(SIDES)], strict=True):
            structures = _one_side(found, side)
            if structures:
                STRUCTURES[own](target, structures, scans)
                written.append(target)
            else:
                target.unlink(missing_ok=True)  # of an earlier map
    return written, lines


def _one_side(found: Sequence[Margin], side: str) -> list[Structure]:
    """Return the inner or the outer structures that hold a voxel."""
    parts = [(margin, getattr(margin, side)) for margin in found]
    return [Structure(m.number, f"{m.name} ({side})", m.whole(part)) for m, part in parts if part.any()]


def _kind_of(file: str | Path) -> str:
    """Return what an RTSTRUCT or SEG is written as again; RTSTRUCT for other label maps."""
    found = label_object(scan_path(file).path)
    return OF_CLASS.get("" if found is None else class_of(found), next(iter(STRUCTURES)))
