"""Pairs of points of two scans: six columns in one CSV, or one file for each scan.

A CSV holds voxel indices. A file for one scan may also be of any format that says itself where its points lie, such as
the markups of 3D Slicer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ncf.core.errors import PairError
from ncf.core.names import IMAGES
from ncf.core.paths import file_there
from ncf.io.points.base import in_ras
from ncf.io.points.table import read_points_file
from ncf.io.text_tables import table_of
from ncf.space.geometry import to_vox

CSV = ".csv"


def read_landmarks(
    files: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
    affines: Mapping[str, np.ndarray],
    *,
    kind: str = "landmarks",
) -> np.ndarray:
    """Read pairs of points.

    Args:
        files: under the name of the kind, six columns of a CSV (the numbers themselves if they are in memory); or
            ``fixed_<kind>`` and ``moving_<kind>``, row by row: three columns of a CSV, or points in mm.
        shapes: of the images ``fixed`` and ``moving``, which hold the points.
        affines: of these images, voxel to RAS mm.
        kind: what the points are: ``landmarks`` or ``guide_points``.

    Returns:
        Float64 (N, 6): fixed voxel indices, then moving voxel indices.

    Raises:
        PairError: what `read_points` refuses, both forms at once, one file of two, or files of different lengths.
    """
    names = [f"{image}_{kind}" for image in shapes]
    twice = [name for name in names if kind in files and name in files]
    if twice:
        raise PairError(f"{kind} and {twice[0]} are both named; give one file of six columns, or one for each scan")
    if isinstance(files.get(kind), np.ndarray):
        return _in_memory(files[kind], shapes, kind)
    if kind in files:
        return read_points(files[kind], shapes, kind=kind)
    missing = [name for name in names if name not in files]
    if missing:
        raise PairError(f"{missing[0]} is missing; give {kind} in one file of six columns, or one file for each scan")
    halves = [
        _of_one(files[name], {image: shapes[image]}, affines[image], kind=kind)
        for name, image in zip(names, shapes, strict=True)
    ]
    if len(halves[0]) != len(halves[1]):
        counts = f"{len(halves[0])} and {len(halves[1])}"
        raise PairError(
            f"{files[names[0]]} and {files[names[1]]} have {counts} points; row by row they must belong together"
        )
    return np.hstack(halves)


def _of_one(path: str, shapes: Mapping[str, Sequence[int]], affine: np.ndarray, *, kind: str) -> np.ndarray:
    """Read the points of one scan as voxel indices (N, 3)."""
    if Path(path).suffix.lower() == CSV:
        return read_points(path, shapes, kind=kind)
    file = read_points_file(path, None)
    points = to_vox(in_ras(file.points, file.space), affine)
    found = outside(points, shapes)
    if found is not None:
        raise PairError(f"{kind} {path}: point {found[0] + 1} is {found[1]}; were the points set on another scan?")
    return points


def read_points(path: str, shapes: Mapping[str, Sequence[int]], *, kind: str = "landmarks") -> np.ndarray:
    """Read the points of a CSV file. A first line without any number is a header.

    Args:
        path: of the file.
        shapes: of the images that hold the points, in the order of the columns.
        kind: what the points are, for messages.

    Returns:
        Float64 (N, 3 times the number of images): voxel indices in each image.

    Raises:
        PairError: the file cannot be read, has another width, holds a number that is not finite, or a point outside its
            image's voxels (-0.5 to n - 0.5); the message has the line's number.
    """
    what, width = f"{kind} {path}", 3 * len(shapes)
    try:
        table = table_of(file_there(path).read_text(encoding="utf-8-sig"))
    except PairError:
        raise
    except (OSError, ValueError) as error:
        raise PairError(f"{what}: cannot be read as csv text ({error}); save it as plain csv") from error
    _check_header(what, table.header or [], list(shapes))
    lines = list(zip(table.numbers, table.rows, strict=True))
    if not lines:
        raise PairError(f"{what}: holds no points; write lines of {width} numbers, or leave {kind} out")
    points = np.empty((len(lines), width))
    for i, (number, row) in enumerate(lines):
        if len(row) != width:
            raise PairError(
                f"{what}: expected {width} comma-separated columns, line {number} has {len(row)}; correct it"
            )
        points[i] = [_number(cell) for cell in row]
        if not np.isfinite(points[i]).all():
            raise PairError(
                f"{what}: line {number} holds {','.join(row)!r}, expected {width} finite numbers; correct it"
            )
    found = outside(points, shapes)
    if found is not None:
        i, place = found
        raise PairError(f"{what}: line {lines[i][0]} has {place}; give voxel indices of that file, counted from 0")
    return points


def _check_header(what: str, header: Sequence[str], images: Sequence[str]) -> None:
    """Raise PairError where the names of the columns say that they are of the other scan, or in mm."""
    for column, name in enumerate(header):
        other = next((image for image in IMAGES if image in name.lower() and column < 3 * len(images)), None)
        if other is not None and other != images[column // 3]:
            raise PairError(f"{what}: column {column + 1} is called {name!r:.40}, expected {images[column // 3]} there")
        if re.search(r"[\[(_\s]mm\b", name.lower()):
            raise PairError(f"{what}: its column {name!r:.40} is in mm, expected voxel indices; convert them")


def outside(points: np.ndarray, shapes: Mapping[str, Sequence[int]]) -> tuple[int, str] | None:
    """Return the first point that lies in no voxel of its image, as its row and its place in words, or None.

    Args:
        points: (N, 3 times the number of images), voxel indices.
        shapes: of the images, in the order of the columns.
    """
    for half, (name, shape) in zip(np.hsplit(points, len(shapes)), shapes.items(), strict=True):
        off = ((half < -0.5) | (half > np.array(shape) - 0.5)).any(axis=1)
        if off.any():
            i = int(off.argmax())
            return i, f"the {name} point {half[i].tolist()} outside the {name} image of shape {tuple(shape)}"
    return None


def _in_memory(points: np.ndarray, shapes: Mapping[str, Sequence[int]], kind: str) -> np.ndarray:
    if points.ndim != 2 or points.shape[1] != 6 or not len(points) or not np.isfinite(points).all():
        raise PairError(f"{kind}: expected finite numbers of shape (N, 6), got shape {points.shape}; correct them")
    found = outside(points, shapes)
    if found is not None:
        raise PairError(f"{kind}: row {found[0]} has {found[1]}; give voxel indices, counted from 0")
    return points


def _number(text: str) -> float:
    """Return the number that a cell holds, NaN if it holds none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
