"""Markups of 3D Slicer."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ncf.core.errors import PairError
from ncf.core.files import save_json
from ncf.io.points.base import PointFile, PointFormat, checked_points, marked, text_of

SLICER_KINDS = {"Fiducial", "Line", "Angle", "Curve", "ClosedCurve"}  # markups that are fully given by their points
UNSET = "undefined"  # Slicer's status of a control point that has no position
# millimetres of a file's unit of length, by the codes of UCUM and Slicer's words
UNIT_MM = {"mm": 1.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "nm": 1e-6, "cm": 10.0, "dm": 100.0, "m": 1000.0}
DIGITS = 6  # after the point, of a coordinate in mm


def read(path: Path, space: str | None) -> PointFile:
    """Read the control points of a markups file, which says itself in which space they lie.

    Args:
        path: of the file.
        space: None; the file says it.

    Raises:
        PairError: the file cannot be read, or holds other things than control points in one space.
    """
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
        units = np.array([_unit_mm(lists[m], path) for m, _ in where])
        points = checked_points([lists[m]["controlPoints"][p]["position"] for m, p in where], path) * units[:, None]
    except PairError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise PairError(f"{path} is no markups file of 3D Slicer ({error!r:.80}); save it from Slicer again") from error
    if not kinds <= SLICER_KINDS:
        what = f"{path} holds a {' and a '.join(sorted(kinds - SLICER_KINDS))}, which is more than its points"
        raise PairError(f"{what}; save {', '.join(sorted(SLICER_KINDS))}")
    if not len(points) or len(systems) != 1 or not systems <= {"LPS", "RAS"}:
        raise PairError(
            f"{path}: expected control points in LPS or RAS, got {len(points)} in {sorted(systems)}; correct it"
        )

    def save(target: Path, found: np.ndarray, known: np.ndarray) -> None:
        """Write the same markups with other points; a point that is not known becomes undefined."""
        changed = copy.deepcopy(content)
        for (m, p), unit, position, valid in zip(where, units.tolist(), found, known, strict=True):
            point = changed["markups"][m]["controlPoints"][p]
            if valid:
                digits = DIGITS + max(0, round(math.log10(unit)))
                point["position"] = [round(float(v) / unit, digits) for v in position]
            else:
                point.update(
                    position=[0.0, 0.0, 0.0], positionStatus=UNSET, description=marked(point.get("description"))
                )
        for markup in changed["markups"]:
            markup.pop("measurements", None)  # lengths and angles of the old points
        save_json(target, changed)

    return PointFile(points, systems.pop().lower(), save)


def _unit_mm(markup: Any, path: Path) -> float:
    """Return the millimetres of the unit of a markup: a code, or a code with its scheme and meaning; mm by default."""
    told = markup.get("coordinateUnits", "mm")
    code = told[0] if isinstance(told, list) and told else told
    if not isinstance(code, str) or code.strip() not in UNIT_MM:
        raise PairError(
            f"{path}: its coordinateUnits are {told!r:.60}, expected one of {', '.join(UNIT_MM)}; convert it"
        )
    return UNIT_MM[code.strip()]


FORMATS = (
    PointFormat(
        name="markups",
        suffixes=(".mrk.json",),
        sentence="markups of 3D Slicer: points, lines, angles, curves",
        read=read,
    ),
)
