"""Label maps of every format, on the grid of their scan: image files, DICOM RTSTRUCT and DICOM SEG.

Every label map that anything reads comes through here. Labels are read exactly, as whole numbers. `ncf.core.labels`
says what a voxel holds in memory, and `ncf.io.label_names` where names come from.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ncf.core.errors import PairError
from ncf.core.labels import LABELS, Labels, Wanted, listed, number_of
from ncf.core.names import IMAGE_SUFFIXES
from ncf.core.scan_paths import scan_path
from ncf.io.dicom.objects import RTSTRUCT, check_frame, label_object, opened
from ncf.io.dicom.segmentation import read_segments, segments_of
from ncf.io.dicom.structures import rasterised, structures_of
from ncf.io.image_files import read_values
from ncf.io.label_names import names_beside
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap
from ncf.space.resampling import warp

notes = logging.getLogger("ncf.notes")
MOST_CODE = 2**24 - 1  # float32, the type of all volumes, holds every whole number up to here
MOST_LABEL = 2**32 - 1  # of the types that every NIfTI program reads
ROUNDING = 1e-3  # values further from whole numbers have been interpolated
Names = dict[int, str]
Note = Callable[[str], None]


def read_label(
    key: str,
    path: str | os.PathLike[str],
    image: MetaTensor | None = None,
    *,
    wanted: Sequence[Wanted] = (),
    own_grid: bool = False,
    note: Note | None = None,
) -> MetaTensor:
    """Read one label map.

    Args:
        key: what messages call it.
        path: of an image file, a DICOM RTSTRUCT or a DICOM SEG; names behind a # choose (`chosen_labels`).
        image: the scan on whose grid the labels are wanted. An RTSTRUCT needs it; a SEG is brought onto its grid by
            nearest neighbour; another file has a grid of its own, which is not changed.
        wanted: names or numbers of labels; by default all.
        own_grid: True leaves a SEG on the grid of its frames.
        note: takes what a user must know, in words; by default it is logged.

    Returns:
        MetaTensor float32 (1, W, H, D) of codes with its affine, voxel -> RAS mm; ``meta["labels"]`` says what they
        stand for (`ncf.core.labels.Labels`).

    Raises:
        PairError: the file cannot be read, holds no whole numbers from 0, lies in another frame of reference, or has
            none of the labels that are wanted.
    """
    place, chosen_here = chosen_labels(path)
    wanted = chosen_here or wanted
    source, note = label_object(place), note or partial(_note, key)
    if source is None:
        array, affine = read_values(key, str(place))
        return labels_of(key, array, affine, path=str(path), names=names_beside(place), wanted=wanted, note=note)
    what = f"{key}: {source}"
    data, kind = opened(source, what)
    if kind == RTSTRUCT:
        if image is None:
            raise PairError(f"{what} holds contours, which have no grid of their own; name the scan they belong to")
        volume, grid, table = _contours(data, what, image, wanted=wanted, note=note)
    else:
        check_frame(data, image, what, note)
        names = segments_of(data, what)
        chosen = chosen_of(what, sorted(names), names, wanted, note)
        volume, grid, table = read_segments(data, what, chosen=chosen, note=note)
        if image is not None and not own_grid:
            volume, grid = _onto(volume, grid, image)
    if not volume.any():
        raise PairError(f"{what} has no voxel on the grid of the scan; is it of another scan?")
    return _meta_tensor(volume, grid.affine, table, str(path))


def _note(key: str, words: str) -> None:
    notes.warning("note: %s: %s", key, words)


def chosen_labels(path: str | os.PathLike[str]) -> tuple[Path, tuple[Wanted, ...]]:
    """Return the file of a label map, and the labels that are chosen behind it, as in RS.dcm#Heart,Lung_L.

    Behind the folder of DICOM scans a # chooses one of these (`ncf.core.scan_paths`), which stays in the path.

    Args:
        path: as a user names it.

    Raises:
        PairError: a name is empty.
    """
    place, choice = scan_path(path)
    if not choice or not (is_label_object(place) or place.name.lower().endswith(IMAGE_SUFFIXES)):
        return Path(path), ()
    names = tuple(name.strip() for name in choice.split(","))
    if "" in names:
        raise PairError(f"{place}: behind # are names with commas between them, got {choice!r}")
    return place, names


def is_label_object(path: str | os.PathLike[str]) -> bool:
    """Tell whether a path is a DICOM RTSTRUCT or SEG, or a folder with nothing but one of them."""
    return label_object(path) is not None


def _contours(
    data: Any, what: str, image: MetaTensor, *, wanted: Sequence[Wanted], note: Note
) -> tuple[np.ndarray, Grid, Labels]:
    """Return the structures of an RTSTRUCT on the grid of a scan."""
    structures = structures_of(data, what)
    names = {structure.number: structure.name for structure in structures}
    chosen = chosen_of(what, [s.number for s in structures], names, wanted, note)
    structures = [structure for structure in structures if structure.number in chosen]
    frames = {structure.frame for structure in structures if structure.contours}
    kept = check_frame(data, image, what, note, frames=frames)
    elsewhere = [s.name for s in structures if s.contours and s.frame not in kept]
    if elsewhere:
        note(f"{listed(elsewhere)} lie in another frame of reference than the scan; left out")
    structures = [s for s in structures if s.frame in kept or not s.contours]
    grid = _grid_of(image)
    volume, table = rasterised(structures, grid, note=note)
    return volume, grid, table


def _grid_of(image: MetaTensor) -> Grid:
    return Grid(tuple(int(n) for n in image.shape[1:]), np.asarray(image.affine, dtype=np.float64))


def _onto(volume: np.ndarray, own: Grid, image: MetaTensor) -> tuple[np.ndarray, Grid]:
    """Bring codes onto the grid of a scan by nearest neighbour, 0 where they do not reach."""
    grid = _grid_of(image)
    still = SpatialMap(torch.zeros(()).expand(3, *grid.shape), grid)
    found = warp(still, torch.from_numpy(volume), moving=own.affine, reference=grid, mode="nearest")
    return found.numpy().astype(np.int32), grid


def chosen_of(what: str, labels: Sequence[int], names: Names, wanted: Sequence[Wanted], note: Note) -> list[int]:
    """Return the labels that are wanted among those of a map, in the order of the map; all where none are.

    Raises:
        PairError: the map has none of them.
    """
    if not wanted:
        return list(labels)
    found = {name: number_of(name, labels, names) for name in wanted}
    missing = [name for name, number in found.items() if number is None]
    if len(missing) == len(found):
        has = listed(names.get(number, number) for number in labels) or "none"
        raise PairError(f"{what} has no label {listed(missing)}; it has {has}")
    if missing:
        note(f"there is no label {listed(missing)}")
    return [number for number in labels if number in found.values()]


def labels_of(
    key: str,
    values: np.ndarray,
    affine: np.ndarray,
    *,
    path: str = "(in memory)",
    names: Names | None = None,
    wanted: Sequence[Wanted] = (),
    note: Note | None = None,
) -> MetaTensor:
    """Return whole numbers as a label map in memory.

    Args:
        key: what messages call it.
        values: (W, H, D), of any type.
        affine: (4, 4), voxel -> RAS mm.
        path: where they come from.
        names: of labels, by number.
        wanted: names or numbers of labels; by default all.
        note: takes what a user must know, in words; by default it is logged.

    Returns:
        As `read_label`.

    Raises:
        PairError: values are not finite, not whole, below 0 or too large; or none of the wanted labels is there.
    """
    what = f"{key} {path}"
    whole = _whole(what, values)
    codes: np.ndarray
    if whole.max(initial=0) <= MOST_CODE and not names and not wanted:
        codes, table = whole, Labels()
    else:
        there, place = np.unique(whole, return_inverse=True)
        labels = [int(number) for number in there if number]
        kept = chosen_of(what, labels, names or {}, wanted, note or partial(_note, key))
        small = there.max(initial=0) <= MOST_CODE
        code = {number: number if small else n for n, number in enumerate(labels, start=1) if number in kept}
        codes = np.array([code.get(int(number), 0) for number in there], dtype=np.int64)[place].reshape(whole.shape)
        own = {number: name for number, name in (names or {}).items() if number in kept}
        table = Labels({c: (number,) for number, c in code.items()}, own)
    return _meta_tensor(codes, affine, table, path)


def _whole(what: str, values: np.ndarray) -> np.ndarray:
    """Return values as whole numbers; raise PairError where they are none, or no labels."""
    if values.dtype.kind == "f":
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise PairError(
                f"{what}: {bad} of {values.size} voxels are NaN or infinite; replace them by a finite value"
            )
        odd = values[np.abs(values - values.round()) > ROUNDING]
        if len(odd):
            raise PairError(f"{what}: labels must be whole numbers, {len(odd)} are not ({odd[0]:g}); save as integers")
    if values.size and values.min() < 0:
        raise PairError(f"{what}: labels are 0 and more, the lowest here is {values.min():g}; is this a scan?")
    largest = float(values.max(initial=0))  # float32 would round the limit
    if largest > MOST_LABEL:
        raise PairError(f"{what}: labels go up to {MOST_LABEL}, the largest here is {largest:.0f}; number them anew")
    return values.round().astype(np.int64) if values.dtype.kind == "f" else values


def _meta_tensor(codes: np.ndarray, affine: np.ndarray, table: Labels, path: str) -> MetaTensor:
    """Return codes as a MetaTensor."""
    meta: dict[str, Any] = {"filename_or_obj": path, "space": "RAS", "original_affine": affine}
    meta |= {"spatial_shape": np.array(codes.shape), LABELS: table}
    values = torch.from_numpy(np.array(codes, dtype=np.float32, order="C", copy=True))
    return MetaTensor(values[None], affine=torch.as_tensor(affine, dtype=torch.float64), meta=meta)


def table_of(label: MetaTensor) -> Labels:
    """Return what the codes of a label map stand for."""
    found = label.meta.get(LABELS)
    return found if isinstance(found, Labels) else Labels()


def empty_scan(grid: Grid, path: str | os.PathLike[str] | None = None) -> MetaTensor:
    """Return a scan without values, for labels that are wanted on its grid.

    Args:
        grid: of the scan.
        path: of its file or folder, by which labels of another frame of reference are known.
    """
    meta = {"filename_or_obj": "" if path is None else str(path)}
    return MetaTensor(torch.zeros(()).expand(1, *grid.shape), affine=torch.as_tensor(grid.affine), meta=meta)


def shown_labels(codes: torch.Tensor, table: Labels) -> np.ndarray:
    """Return the label on top in each voxel, in the smallest unsigned type that holds them all.

    Args:
        codes: of a label map, or of a map that was carried.
        table: of `table_of`.
    """
    return table.shown(codes.cpu().numpy())


def plain_map(codes: torch.Tensor, table: Labels, affine: np.ndarray) -> MetaTensor:
    """Return a label map as users have it: the label on top in each voxel.

    Args:
        codes: (W, H, D), of a label map, or of a map that was carried.
        table: of `table_of`.
        affine: (4, 4), voxel -> RAS mm.

    Returns:
        MetaTensor (1, W, H, D), float32; int64 where labels are too large for float32.
    """
    shown = shown_labels(codes, table)
    values = torch.from_numpy(shown.astype(np.float32 if shown.max(initial=0) <= MOST_CODE else np.int64))[None]
    meta = {"space": "RAS", "spatial_shape": np.array(shown.shape), "original_affine": affine}
    return MetaTensor(values, affine=torch.as_tensor(affine, dtype=torch.float64), meta=meta)
