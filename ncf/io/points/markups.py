"""Markups of 3D Slicer."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np

from ncf.core.errors import PairError
from ncf.core.files import save_json
from ncf.io.points.base import PointFile, PointFormat, checked_points, marked, text_of

SLICER_KINDS = {"Fiducial", "Line", "Angle", "Curve", "ClosedCurve"}  # markups that are fully given by their points
UNSET = "undefined"  # Slicer's status of a control point that has no position


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
        points = checked_points([lists[m]["controlPoints"][p]["position"] for m, p in where], path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PairError(f"{path} is no markups file of 3D Slicer ({error!r}); save it from Slicer again") from error
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
        for (m, p), position, valid in zip(where, found, known, strict=True):
            point = changed["markups"][m]["controlPoints"][p]
            if valid:
                point["position"] = [round(float(v), 6) for v in position]
            else:
                point.update(
                    position=[0.0, 0.0, 0.0], positionStatus=UNSET, description=marked(point.get("description"))
                )
        for markup in changed["markups"]:
            markup.pop("measurements", None)  # lengths and angles of the old points
        save_json(target, changed)

    return PointFile(points, systems.pop().lower(), save)


FORMATS = (
    PointFormat(
        name="markups",
        suffixes=(".mrk.json",),
        sentence="markups of 3D Slicer: points, lines, angles, curves",
        read=read,
    ),
)
