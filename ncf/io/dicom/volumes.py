"""The planes of one series, parted into volumes: by geometry, then by the tags that tell repeated places apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ncf.core.errors import PairError
from ncf.io.dicom.stack import Plane, places, stacked, unlike
from ncf.io.dicom.tags import IN_ORDER, TELLING, dimensions, in_words, value_of

DIRECTIONS = ("sagittal", "coronal", "axial")  # by the axis of LPS that the normal follows
OBLIQUE = 0.9  # a normal whose largest part is below this is called oblique
STACKS = ("StackID", "ImageType", "FrameType")  # that part stacks of one orientation at different places
TOGETHER = 3  # most tags that split a series together: times x echoes x kinds of image
Columns = list[tuple[str, list[Any]]]


@dataclass(frozen=True)
class Volume:
    """Planes that belong together.

    Attributes:
        planes: sorted along their normal where they are one stack.
        told: what tells it from the other volumes of its series, such as EchoTime 4.6.
        problem: why it cannot be read, with what to do; nothing where it can.
        copies: planes that lay in it twice and are left out.
    """

    planes: tuple[Plane, ...]
    told: str = ""
    problem: str = ""
    copies: int = 0


def direction(plane: Plane) -> str:
    """Return axial, coronal, sagittal or oblique."""
    part = np.abs(plane.normal)
    return DIRECTIONS[int(part.argmax())] if part.max() >= OBLIQUE else "oblique"


def volumes_of(planes: Sequence[Plane], same_pixels: Callable[[Plane, Plane], bool]) -> list[Volume]:
    """Part the planes of a series into volumes.

    Args:
        planes: in any order.
        same_pixels: tells whether two planes hold the same stored values.

    Returns:
        The volumes in order: by geometry as it comes, then by the values of the tag that parts them.
    """
    found: list[Volume] = []
    groups = _alike(planes)
    for alike in groups:
        unique, copies = _once(alike)
        shape = _geometry(alike[0], groups)
        for part, told in _parts(unique):
            words = ", ".join(word for word in (shape, told) if word)
            found.append(_checked(part, words, copies=copies, same_pixels=same_pixels))
    return found


def _geometry(plane: Plane, groups: Sequence[Sequence[Plane]]) -> str:
    """Return what tells a plane from the planes of other groups, beside their numbers of voxels."""
    others = {unlike(plane, group[0]) for group in groups}
    words = []
    if "orientations" in others:
        words.append("orientation " + "\\".join(f"{value:.3g}" for value in plane.axes.ravel()))
    if "pixel sizes" in others:
        words.append("pixels of " + "x".join(f"{value:.4g}" for value in plane.spacing) + " mm")
    if len({_frame(group[0]) for group in groups}) > 1:
        words.append(f"frame of reference {_frame(plane)[-12:]}")
    return ", ".join(words)


def _alike(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Part planes by shape, orientation, pixel size, and the frame of reference that positions count in."""
    groups: list[list[Plane]] = []
    for plane in planes:
        home = next((g for g in groups if not unlike(plane, g[0]) and _frame(plane) == _frame(g[0])), None)
        if home is None:
            groups.append([plane])
        else:
            home.append(plane)
    return groups


def _frame(plane: Plane) -> str:
    return str(plane.groups[-1].get("FrameOfReferenceUID", "")) if plane.groups else ""


def _once(planes: Sequence[Plane]) -> tuple[list[Plane], int]:
    """Leave out files that are there twice: one SOPInstanceUID, one frame, one place, the same bytes."""
    kept: dict[Hashable, Plane] = {}
    for plane in planes:
        key = (plane.instance, plane.frame, tuple(plane.position)) if plane.instance else (plane.file, plane.frame)
        if key in kept and _digest(plane) != _digest(kept[key]):
            key = (plane.file, plane.frame)
        kept.setdefault(key, plane)
    return list(kept.values()), len(planes) - len(kept)


def _digest(plane: Plane) -> str:
    return hashlib.sha256(plane.file.read_bytes()).hexdigest()


def _parts(planes: Sequence[Plane]) -> Iterator[tuple[list[Plane], str]]:
    """Yield whole volumes with what tells them apart; all planes as one where that is even, or where no tag tells."""
    most = max(map(len, places(planes)))
    if most == 1 and _is_even(planes):
        yield list(planes), ""
        return
    columns = _columns(planes)
    labels = (_by_value(planes, columns, most) or _by_order(planes, most)) if most > 1 else _by_stack(planes, columns)
    if labels is None:
        yield list(planes), ""
        return
    for label in sorted(set(labels)):
        yield [plane for plane, own in zip(planes, labels, strict=True) if own == label], label[-1]


def _columns(planes: Sequence[Plane]) -> Columns:
    """Return the tags that differ between planes, each with its name and a value for every plane."""
    found = [(tag.word, [value_of(plane, tag) for plane in planes]) for tag in TELLING]
    found += [] if planes[0].groups == () else dimensions(planes)
    return [(name, values) for name, values in found if len(set(values)) > 1]


def _labels(columns: Sequence[tuple[str, list[Any]]]) -> list[Any]:
    """Return a label for every plane that sorts by the values and ends in words."""
    names = [name for name, _ in columns]
    rows = zip(*(values for _, values in columns), strict=True)
    return [(row, ", ".join(f"{n} {in_words(v)}" for n, v in zip(names, row, strict=True))) for row in rows]


def _by_value(planes: Sequence[Plane], columns: Columns, most: int) -> list[Any] | None:
    """Return labels by the fewest tags that make as many volumes as planes lie at one place; None without such."""
    usable = [column for column in columns if len(set(column[1])) <= most]
    for count in range(1, TOGETHER + 1):
        for chosen in combinations(usable, count):
            labels = _labels(chosen)
            if len(set(labels)) == most and not _repeated(planes, labels):
                return labels
    return None


def _repeated(planes: Sequence[Plane], labels: Sequence[Any]) -> bool:
    """Tell whether two planes of one label lie at one place."""
    own = {id(plane): label for plane, label in zip(planes, labels, strict=True)}
    at = [[own[id(plane)] for plane in place] for place in places(planes)]
    return any(len(set(names)) < len(names) for names in at)


def _by_order(planes: Sequence[Plane], most: int) -> list[Any] | None:
    """Return labels by the order of a time at each place, where every place has as many planes; None without such."""
    at = places(planes)
    if min(map(len, at)) < most:
        return None
    for tag in IN_ORDER:
        labels: dict[int, tuple[int, str]] = {}
        for place in at:
            values = [value_of(plane, tag) for plane in place]
            if () in values or len(set(values)) < most:
                break
            for rank, (_, n) in enumerate(sorted(zip(values, range(most), strict=True))):
                labels[id(place[n])] = (rank, f"{tag.word} {rank + 1} of {most}")
        else:
            return [labels[id(plane)] for plane in planes]
    return None


def _by_stack(planes: Sequence[Plane], columns: Columns) -> list[Any] | None:
    """Return labels by the first of `STACKS` that parts an uneven stack into even ones; None without such."""
    for column in (column for column in columns if column[0] in STACKS):
        labels = _labels([column])
        parts = [[p for p, own in zip(planes, labels, strict=True) if own == label] for label in set(labels)]
        if all(len(part) > 1 and _is_even(part) for part in parts):
            return labels
    return None


def _is_even(planes: Sequence[Plane]) -> bool:
    try:
        stacked(planes)
    except PairError:
        return False
    return True


def _checked(planes: Sequence[Plane], told: str, *, copies: int, same_pixels: Callable[[Plane, Plane], bool]) -> Volume:
    """Return planes as a volume, sorted and without copies, or with the reason why they are none."""
    at = places(planes)
    if len(at) > 1 and max(map(len, at)) > 1 and all(same_pixels(place[0], p) for place in at for p in place[1:]):
        copies += len(planes) - len(at)
        planes = [place[0] for place in at]
    try:
        return Volume(tuple(stacked(planes)), told, "", copies)
    except PairError as error:
        return Volume(tuple(planes), told, str(error), copies)
