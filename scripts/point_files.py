"""Points and surfaces in files of other programs, read and written back where a map has carried them.

Known are CSV, 3D Slicer's markups (.mrk.json) and its older .fcsv, and surface meshes by `mesh_files`. A file that
says nothing of its axes needs a word from the user; RAS mm are used inside. Every reader raises PairError for what it
cannot read. Nothing is known here of maps.
"""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scripts.errors import PairError
from scripts.files import save_json, unreadable, write_whole
from scripts.geometry import RAS_TO_LPS
from scripts.names import IMAGES

SPACES = ("lps", "ras", "voxel")
MARK = "outside the range of the map"
SLICER_KINDS = {"Fiducial", "Line", "Angle", "Curve", "ClosedCurve"}  # markups that their points say all of
UNSET = "undefined"  # Slicer's status of a control point that has no position
FCSV_FLAGS = {"vis": 8, "sel": 9, "desc": 12, "status": 14}  # columns of .fcsv; the status only in newer files
FCSV_SYSTEMS = {"LPS": "lps", "1": "lps", "RAS": "ras", "0": "ras"}


@dataclass(frozen=True)
class PointFile:
    """The points of a file and how to write the same file with others.

    points: (N, 3) in the unit of ``space``: lps or ras, in mm, or voxel indices. save: takes a path, the new points in the
    same space, and which of them are known (N,), bool.
    """

    points: np.ndarray
    space: str
    save: Callable[[Path, np.ndarray, np.ndarray], None]


def read_points_file(path: str | Path, space: str | None) -> PointFile:
    """The points of a CSV, .mrk.json, .fcsv, .vtk, .ply or .stl file.

    Args:
        space: one of SPACES, for CSV; lps or ras for meshes. Slicer's point files name their own and want None.
    """
    path = Path(path)
    name = path.name.lower()
    own = name.endswith((".mrk.json", ".fcsv"))
    if own and space is not None:
        raise PairError(f"{path} names its own coordinate system; leave --space out")
    if not own and space is None:
        raise PairError(f"{path} does not say what its numbers mean; give --space: {', '.join(SPACES)}")
    if name.endswith(".mrk.json"):
        return _slicer_json(path)
    if name.endswith(".fcsv"):
        return _slicer_fcsv(path)
    if name.endswith(".csv"):
        return _csv(path, str(space))
    from scripts.mesh_files import MESH_SUFFIXES, read_mesh

    if name.endswith(MESH_SUFFIXES):
        points, save = read_mesh(path, str(space))
        return PointFile(points, str(space), save)
    raise PairError(f"{path}: points come as .csv, .mrk.json, .fcsv, {', '.join(MESH_SUFFIXES)}; convert the file")


def in_ras(points: np.ndarray, space: str) -> np.ndarray:
    """Points (N, 3) in mm, of lps or ras, in RAS mm; the other way round it is the same."""
    return points @ RAS_TO_LPS if space == "lps" else points


def text_of(path: Path) -> str:
    """What a text file holds, UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error


def checked_points(values: Any, path: Path) -> np.ndarray:
    """The points (N, 3), float64; PairError unless all are finite."""
    points = np.asarray(values, dtype=np.float64).reshape(-1, 3)
    if not np.isfinite(points).all():
        row = int(np.argmin(np.isfinite(points).all(axis=1))) + 1
        raise PairError(f"{path}: point {row} is {points[row - 1].tolist()}, expected three finite numbers; correct it")
    return points


# --- CSV -------------------------------------------------------------------------------------------------------------


def _csv(path: Path, space: str) -> PointFile:
    try:
        rows = [row for row in csv.reader(io.StringIO(text_of(path))) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise unreadable(path, error) from error
    header = rows[0] if rows and not _is_number(rows[0][0]) else None
    body = rows[1:] if header else rows
    if not body:
        raise PairError(f"{path} holds no points; write lines of x,y,z")
    columns = _columns(header)
    if header is not None and len(header) <= max(columns):
        raise PairError(f"{path}: its first line, {header[0]!r:.40}, is no header of x,y,z; correct or remove it")
    try:
        points = checked_points([[float(row[c]) for c in columns] for row in body], path)
    except (IndexError, ValueError) as error:
        what = "expected three numbers in every line, in the columns x, y, z or else the first three"
        raise PairError(f"{path}: {what} ({error}); correct it") from error

    def save(target: Path, found: np.ndarray, known: np.ndarray) -> None:
        lines = [] if header is None else [[*_carried_names(header, columns), "valid"]]
        for row, point, valid in zip(body, found, known, strict=True):
            filled = list(row)
            for c, value in zip(columns, point, strict=True):
                filled[c] = _number_text(value) if valid else ""
            lines.append([*filled, str(int(valid))])
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(lines)
        write_whole(target, lambda temporary: temporary.write_bytes(out.getvalue().encode()))

    return PointFile(points, space, save)


def _columns(header: list[str] | None) -> list[int]:
    names = [cell.strip().lower() for cell in header or []]
    return [names.index(axis) for axis in "xyz"] if set("xyz") <= set(names) else [0, 1, 2]


def _carried_names(header: list[str], columns: list[int]) -> list[str]:
    """The header with "carried" before those names of moved columns that say on which side they were, such as fixed_i."""
    moved = {c for c in columns if any(side in header[c].lower() for side in IMAGES)}
    return [f"carried_{name}" if c in moved else name for c, name in enumerate(header)]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _number_text(value: float) -> str:
    """The shortest text of a number to a millionth."""
    return repr(round(float(value), 6) + 0.0)


# --- 3D Slicer -------------------------------------------------------------------------------------------------------


def _slicer_json(path: Path) -> PointFile:
    text = text_of(path)
    try:
        content = json.loads(text)
        lists = content["markups"]
        kinds = {str(markup.get("type", "Fiducial")) for markup in lists}
        systems = {str(markup.get("coordinateSystem", "LPS")).upper() for markup in lists}
        where = [
            (m, p)
            for m, markup in enumerate(lists)
            for p, point in enumerate(markup.get("controlPoints", []))
            if point.get("positionStatus") != UNSET and "position" in point
        ]
        points = checked_points([lists[m]["controlPoints"][p]["position"] for m, p in where], path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PairError(f"{path} is no markups file of 3D Slicer ({error!r}); save it from Slicer again") from error
    if not kinds <= SLICER_KINDS:
        what = f"{path} holds a {' and a '.join(sorted(kinds - SLICER_KINDS))}, which is more than its points"
        raise PairError(f"{what}; save {', '.join(sorted(SLICER_KINDS))}")
    if not len(points) or len(systems) != 1 or not systems <= {"LPS", "RAS"}:
        raise PairError(f"{path}: expected control points in LPS or RAS, got {len(points)} in {sorted(systems)}; correct it")

    def save(target: Path, found: np.ndarray, known: np.ndarray) -> None:
        changed = copy.deepcopy(content)
        for (m, p), position, valid in zip(where, found, known, strict=True):
            point = changed["markups"][m]["controlPoints"][p]
            if valid:
                point["position"] = [round(float(v), 6) for v in position]
            else:
                point.update(position=[0.0, 0.0, 0.0], positionStatus=UNSET, description=_marked(point.get("description")))
        for markup in changed["markups"]:
            markup.pop("measurements", None)  # lengths and angles of the points as they were
        save_json(target, changed)

    return PointFile(points, systems.pop().lower(), save)


def _slicer_fcsv(path: Path) -> PointFile:
    lines = text_of(path).splitlines()
    told = [line.partition("=")[2].strip().upper() for line in lines if line.startswith("# CoordinateSystem")]
    space = FCSV_SYSTEMS.get(told[0]) if told else None
    if space is None:
        raise PairError(f"{path}: expected a line '# CoordinateSystem = LPS' or RAS, got {told}; add it")
    rows = {n: next(csv.reader([line])) for n, line in enumerate(lines) if line.strip() and not line.startswith("#")}
    try:
        points = checked_points([[float(cell) for cell in row[1:4]] for row in rows.values()], path)
    except ValueError as error:
        raise PairError(f"{path}: expected id,x,y,z in every line ({error}); correct it") from error
    if not len(points):
        raise PairError(f"{path} holds no points")

    def save(target: Path, found: np.ndarray, known: np.ndarray) -> None:
        changed = list(lines)
        for (n, row), point, valid in zip(rows.items(), found, known, strict=True):
            changed[n] = _fcsv_line(row, point, valid=bool(valid))
        write_whole(target, lambda temporary: temporary.write_bytes(("\n".join(changed) + "\n").encode()))

    return PointFile(points, space, save)


def _fcsv_line(row: list[str], point: np.ndarray, *, valid: bool) -> str:
    """One line with its point moved; one that is not known is at 0, hidden, not selected, described and without status."""
    filled = row + [""] * (14 - len(row))
    filled[1:4] = [_number_text(value) if valid else "0" for value in point]
    if not valid:
        filled[FCSV_FLAGS["vis"]] = filled[FCSV_FLAGS["sel"]] = "0"
        filled[FCSV_FLAGS["desc"]] = _marked(filled[FCSV_FLAGS["desc"]])
        if len(filled) > FCSV_FLAGS["status"]:
            filled[FCSV_FLAGS["status"]] = "0"
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(filled)
    return out.getvalue()


def _marked(description: object) -> str:
    return f"{description}; {MARK}" if description else MARK
