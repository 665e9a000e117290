"""Landmark pairs from CSV: six columns in one file, or three in each of two, in voxel indices of the images."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ncf.core.errors import PairError


def read_landmarks(files: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Read landmark pairs.

    Args:
        files: ``landmarks`` (six columns; the numbers themselves if they are in memory), or ``fixed_landmarks`` and
            ``moving_landmarks`` (three columns each, row by row).
        shapes: of the images ``fixed`` and ``moving``, which hold the points.

    Returns:
        Float64 (N, 6): fixed voxel indices, then moving voxel indices.

    Raises:
        PairError: what `read_points` refuses, one file of two, or files of different lengths.
    """
    if isinstance(files.get("landmarks"), np.ndarray):
        return _in_memory(files["landmarks"], shapes)
    if "landmarks" in files:
        return read_points(files["landmarks"], shapes)
    names = [f"{image}_landmarks" for image in shapes]
    missing = [name for name in names if name not in files]
    if missing:
        raise PairError(f"{missing[0]} is missing; give landmarks in one file of six columns, or two files of three")
    halves = [read_points(files[name], {image: shapes[image]}) for name, image in zip(names, shapes, strict=True)]
    if len(halves[0]) != len(halves[1]):
        counts = f"{len(halves[0])} and {len(halves[1])}"
        raise PairError(
            f"{files[names[0]]} and {files[names[1]]} have {counts} points; row by row they must belong together"
        )
    return np.hstack(halves)


def read_points(path: str, shapes: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Read the points of a CSV file. A first line without any number is a header.

    Args:
        path: of the file.
        shapes: of the images that hold the points, in the order of the columns.

    Returns:
        Float64 (N, 3 times the number of images): voxel indices in each image.

    Raises:
        PairError: the file cannot be read, has another width, holds a number that is not finite, or a point outside its
            image's voxels (-0.5 to n - 0.5); the message has the line's number.
    """
    what, width = f"landmarks {path}", 3 * len(shapes)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [(n, row) for n, row in enumerate(csv.reader(file), start=1) if any(c.strip() for c in row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise PairError(f"{what}: cannot be read as csv text ({error}); save it as plain csv") from error
    if lines and not any(np.isfinite(_number(cell)) for cell in lines[0][1]):
        lines = lines[1:]
    if not lines:
        raise PairError(f"{what}: holds no points; write lines of {width} numbers, or leave landmarks out")
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


def _in_memory(points: np.ndarray, shapes: Mapping[str, Sequence[int]]) -> np.ndarray:
    if points.ndim != 2 or points.shape[1] != 6 or not len(points) or not np.isfinite(points).all():
        raise PairError(f"landmarks: expected finite numbers of shape (N, 6), got shape {points.shape}; correct them")
    found = outside(points, shapes)
    if found is not None:
        raise PairError(f"landmarks: row {found[0]} has {found[1]}; give voxel indices, counted from 0")
    return points


def _number(text: str) -> float:
    """Return the number that a cell holds, NaN if it holds none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")
