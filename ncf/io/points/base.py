"""What a format of points is, and what its readers and writers share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ncf.core.errors import PairError
from ncf.core.files import unreadable
from ncf.core.paths import file_there

if TYPE_CHECKING:
    import numpy as np

MM_SPACES = ("lps", "ras")
SPACES = (*MM_SPACES, "voxel")
MARK = "outside the range of the map"


@dataclass(frozen=True)
class PointFile:
    """The points of a file, and how to write the same file with other points.

    Attributes:
        points: (N, 3), in the unit of ``space``.
        space: lps or ras, in mm, or voxel for voxel indices.
        save: takes a path, the new points in the same space, and which of them are known (N,), bool.
        of_side: of a file that holds points of both sides: the points of one side, ``fixed`` or ``moving``.
    """

    points: np.ndarray
    space: str
    save: Callable[[Path, np.ndarray, np.ndarray], None]
    of_side: Callable[[str], PointFile] | None = None


@dataclass(frozen=True)
class PointFormat:
    """One format of points.

    Attributes:
        name: for help and docs.
        suffixes: of its files, lower case.
        sentence: what it is, for help and docs.
        read: takes a path and the space of the numbers in it, None where ``spaces`` is empty.
        spaces: those of `SPACES` that a user may give; none where the file itself says where its points lie.
    """

    name: str
    suffixes: tuple[str, ...]
    sentence: str
    read: Callable[[Path, str | None], PointFile]
    spaces: tuple[str, ...] = ()


def in_ras(points: np.ndarray, space: str) -> np.ndarray:
    """Convert points to RAS mm; the way back is the same.

    Args:
        points: (N, 3), mm.
        space: lps or ras.
    """
    from ncf.space.geometry import RAS_TO_LPS

    return points @ RAS_TO_LPS if space == "lps" else points


def text_of(path: Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        PairError: the file cannot be read, or is not such a text.
    """
    try:
        return file_there(path).read_text(encoding="utf-8-sig")
    except PairError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(path, error) from error


def checked_points(values: Any, path: Path) -> np.ndarray:
    """Return values as points (N, 3), float64.

    Args:
        values: three numbers a point.
        path: of their file, for the message.

    Raises:
        PairError: a number is not finite.
    """
    import numpy as np

    odd = next((row for row, value in enumerate(values, start=1) if len(value) != 3), None)
    if odd is not None:
        raise PairError(f"{path}: point {odd} has {len(values[odd - 1])} numbers, expected three; correct it")
    points = np.asarray(values, dtype=np.float64).reshape(-1, 3)
    if not np.isfinite(points).all():
        row = int(np.argmin(np.isfinite(points).all(axis=1))) + 1
        raise PairError(f"{path}: point {row} is {points[row - 1].tolist()}, expected three finite numbers; correct it")
    return points


def number_text(value: float) -> str:
    """Write a number, rounded to a millionth, with as few digits as possible."""
    return repr(round(float(value), 6) + 0.0)


def marked(description: object) -> str:
    """Return a point's description with the remark that it lies outside the range of the map."""
    return f"{description}; {MARK}" if description else MARK
