"""The paths of points through a series: where points of the fixed scan lie in every phase."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ncf.core.errors import PairError
from ncf.core.files import write_whole
from ncf.io.image_files import read_image
from ncf.io.points.base import in_ras
from ncf.io.points.table import read_points_file
from ncf.space.geometry import to_mm

HEAD = ("point", "phase", "time_s", "x_ras_mm", "y_ras_mm", "z_ras_mm", "moved_mm", "known")


def fixed_points(told: Mapping[str, Any], fixed: str) -> np.ndarray | None:
    """Return the points of a series.

    Args:
        told: what the plan of the series keeps: ``points`` and ``space``.
        fixed: path of the fixed scan, in whose grid voxel indices count.

    Returns:
        (N, 3), RAS mm; None where there are none.

    Raises:
        PairError: the file cannot be read, holds no points, or does not say what its numbers mean.
    """
    if not told.get("points"):
        return None
    found = read_points_file(told["points"], told.get("space"))
    found = found if found.of_side is None else found.of_side("fixed")
    if not len(found.points):
        raise PairError(f"{told['points']} holds no points; leave --points out, or name another file")
    if found.space != "voxel":
        return in_ras(found.points, found.space)
    return to_mm(found.points, np.asarray(read_image("fixed", fixed).affine, dtype=np.float64))


def save_paths(
    path: Path, start_mm: np.ndarray, phases: Sequence[tuple[str, float | None, np.ndarray, np.ndarray]]
) -> None:
    """Write the paths of points as CSV: a row for each point and phase, the fixed scan first.

    Args:
        path: of the file.
        start_mm: (N, 3), RAS mm, in the fixed scan.
        phases: name, time in s or None, the points there (N, 3) in RAS mm, and which of them the map knows (N,), bool.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEAD)
    everywhere = np.ones(len(start_mm), dtype=bool)
    for name, time_s, points, known in (("fixed", None, start_mm, everywhere), *phases):
        moved = np.linalg.norm(points - start_mm, axis=1)
        for number, (at, far, sure) in enumerate(zip(points, moved, known, strict=True), start=1):
            place = [f"{value:.3f}" for value in (*at, far)]
            writer.writerow([number, name, "" if time_s is None else f"{time_s:g}", *place, "yes" if sure else "no"])
    write_whole(path, lambda temporary: temporary.write_text(text.getvalue(), encoding="utf-8", newline=""))
