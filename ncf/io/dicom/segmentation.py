"""DICOM SEG: segments as a label map on the grid of their own frames.

Read by pydicom. Frames may come in any order; planes without a frame are empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ncf.core.errors import PairError
from ncf.core.labels import Labels
from ncf.io.masks import Codes
from ncf.space.geometry import RAS_TO_LPS
from ncf.space.grids import Grid

BINARY, FRACTIONAL, LABELMAP = "BINARY", "FRACTIONAL", "LABELMAP"
HALF = 0.5  # a share, or a probability, from which a voxel of a fractional segment counts
OFF_STEP = 0.05  # of the distance of planes: positions are often rounded
TURN_TOLERANCE = 1e-3  # of direction cosines
MOST_PLANES = 10_000  # of a stack: positions that ask for more are wrong
SHARED, FRAMES = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"


@dataclass(frozen=True)
class Frames:
    """Where the frames of a SEG lie.

    Attributes:
        grid: columns, rows and planes of all frames together.
        plane: (N,), the plane of each frame.
    """

    grid: Grid
    plane: np.ndarray


def segments_of(data: Any, what: str) -> dict[int, str]:
    """Return the names of the segments, by number.

    Args:
        data: the data set.
        what: how messages begin.

    Raises:
        PairError: it lists none, or two of one number.
    """
    told = [item for item in data.get("SegmentSequence") or () if item.get("SegmentNumber") is not None]
    names = {
        int(item.SegmentNumber): " ".join(str(item.get("SegmentLabel") or f"segment {item.SegmentNumber}").split())
        for item in told
        if int(item.SegmentNumber) > 0  # in a label map, 0 may be listed as the background
    }
    if not names or len(names) < sum(int(item.SegmentNumber) > 0 for item in told):
        raise PairError(f"{what} lists no segments, or two of one number; export it again")
    return names


def read_segments(
    data: Any, what: str, *, chosen: Sequence[int], note: Callable[[str], None]
) -> tuple[np.ndarray, Grid, Labels]:
    """Read segments as a label map on their own grid.

    Args:
        data: the data set with its pixels.
        what: how messages begin.
        chosen: numbers of the segments to read.
        note: takes what a user must know, in words.

    Returns:
        Codes (W, H, D), int32, columns, rows and planes; their grid; and what the codes stand for.

    Raises:
        PairError: frames have no place in the patient, are no even stack, or cannot be decoded.
    """
    count = int(data.get("NumberOfFrames", 1) or 1)
    groups = list(data.get(FRAMES) or ())
    if len(groups) != count:
        raise PairError(f"{what} tells the places of {len(groups)} frames and holds {count}; copy it again")
    frames = _places(data, groups, what)
    kind = str(data.get("SegmentationType", ""))
    if kind not in (BINARY, FRACTIONAL, LABELMAP):
        raise PairError(
            f"{what} is a segmentation of type {kind or '(none)'}, expected {BINARY}, {FRACTIONAL} or {LABELMAP}"
        )
    pixels = _pixels(data, (count, int(data.Rows), int(data.Columns)), what)
    if kind == FRACTIONAL:
        note(f"fractional segments: {HALF:g} and more of a voxel counts")
        pixels = pixels >= HALF * float(data.get("MaximumFractionalValue", 1) or 1)
    codes = Codes(frames.grid.shape)
    names = segments_of(data, what)
    for number in chosen:
        own = (
            range(count) if kind == LABELMAP else [n for n in range(count) if _segment(data, groups[n], what) == number]
        )
        mask = np.zeros(frames.grid.shape, dtype=bool)
        for n in own:
            mask[:, :, frames.plane[n]] |= (pixels[n] == number if kind == LABELMAP else pixels[n] > 0).T
        codes.add(number, mask)
    volume, labels = codes.finished({number: names[number] for number in chosen}, note)
    return volume, frames.grid, labels


def _pixels(data: Any, shape: tuple[int, int, int], what: str) -> np.ndarray:
    try:
        return np.asarray(data.pixel_array).reshape(shape)
    except Exception as error:  # whatever decoders raise for damaged pixels, or for a compression that none knows
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
        raise PairError(f"{what}: cannot read its frames ({reason}); copy it again, or decompress it") from error


def _told(data: Any, group: Any, macro: str, word: str) -> Any:
    """Return the value of an attribute in the functional groups of a frame, or of all frames; None without any."""
    for where in (group, *(data.get(SHARED) or ())):
        inner = where.get(macro)
        if inner and inner[0].get(word) is not None and str(inner[0].get(word)) != "":
            return inner[0].get(word)
    return None


def _segment(data: Any, group: Any, what: str) -> int:
    told = _told(data, group, "SegmentIdentificationSequence", "ReferencedSegmentNumber")
    if told is None:
        raise PairError(f"{what}: a frame does not say of which segment it is; export it again")
    return int(told)


def _vector(data: Any, group: Any, what: str, *, macro: str, word: str, length: int) -> np.ndarray:
    told = _told(data, group, macro, word)
    numbers = np.array([float(v) for v in np.atleast_1d(told)]) if told is not None else np.empty(0)
    if len(numbers) != length or not np.isfinite(numbers).all():
        raise PairError(f"{what}: a frame tells no {word}, so it has no place in the patient; convert it to NIfTI")
    return numbers


def _places(data: Any, groups: Sequence[Any], what: str) -> Frames:
    """Return where all frames lie; raise PairError unless they are parallel planes at even distances, some left out."""
    turns = np.array([_orientation(data, group, what) for group in groups])
    sizes = np.array([_sizes(data, group, what) for group in groups])
    if np.abs(turns - turns[0]).max() > TURN_TOLERANCE or np.abs(sizes - sizes[0]).max() > TURN_TOLERANCE:
        raise PairError(f"{what}: its frames have different orientations or pixel sizes; export each in a file")
    axes, normal = turns[0].reshape(2, 3), np.cross(*turns[0].reshape(2, 3))
    positions = np.array([_position(data, group, what) for group in groups])
    along = positions @ normal
    step = _step(data, groups[0], along, what)
    plane = np.rint((along - along.min()) / step).astype(int)
    first = positions[int(np.argmin(along))]
    drift = positions - first - np.outer(along - along.min(), normal)
    if np.linalg.norm(drift, axis=1).max() > sizes[0].min() / 2:
        raise PairError(f"{what}: its frames are shifted sideways; resample it to a straight grid first")
    affine = np.eye(4)
    affine[:3, :3] = RAS_TO_LPS @ np.column_stack([*(axes * sizes[0][::-1, None]), normal * step])
    affine[:3, 3] = RAS_TO_LPS @ first
    return Frames(Grid((int(data.Columns), int(data.Rows), int(plane.max()) + 1), affine), plane)


def _position(data: Any, group: Any, what: str) -> np.ndarray:
    return _vector(data, group, what, macro="PlanePositionSequence", word="ImagePositionPatient", length=3)


def _orientation(data: Any, group: Any, what: str) -> np.ndarray:
    return _vector(data, group, what, macro="PlaneOrientationSequence", word="ImageOrientationPatient", length=6)


def _sizes(data: Any, group: Any, what: str) -> np.ndarray:
    return _vector(data, group, what, macro="PixelMeasuresSequence", word="PixelSpacing", length=2)


def _step(data: Any, group: Any, along: np.ndarray, what: str) -> float:
    """Return the distance of planes, mm: the one that is told where it fits the positions, else the least."""
    places = np.unique(along.round(3))
    words = ("SpacingBetweenSlices", "SliceThickness")
    told = [_told(data, group, "PixelMeasuresSequence", word) for word in words]
    between, thick = (abs(float(value)) if value else 0.0 for value in told)
    if len(places) == 1:
        return between or thick or 1.0
    apart = np.diff(places)
    least = float(apart[apart > OFF_STEP * apart.max()].min())
    for step in (between, least):
        off = np.abs((places - places[0]) / step - np.rint((places - places[0]) / step)) if step else np.ones(1)
        if off.max() <= OFF_STEP and np.ptp(places) / step < MOST_PLANES:
            return _exact(places, step)
    raise PairError(
        f"{what}: its frames lie at uneven distances, {apart.min():.3g} to {apart.max():.3g} mm; export again"
    )


def _exact(places: np.ndarray, step: float) -> float:
    """Return the step that fits the outermost positions, of which the given one is a rounding."""
    count = np.rint(np.ptp(places) / step)
    return float(np.ptp(places) / count) if count else step
