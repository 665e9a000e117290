"""The volumes that DICOM files hold, numbered, as their headers tell before any pixel is read.

Files are parsed by pydicom. Points are in LPS mm here, as in DICOM.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from ncf.core.errors import PairError
from ncf.core.files import unreadable
from ncf.core.scan_paths import scan_path
from ncf.io.dicom.folder import Files, dicom_files, is_dicom, is_list
from ncf.io.dicom.pixels import same_pixels
from ncf.io.dicom.planes import Head, head_of, is_scan, planes_of
from ncf.io.dicom.stack import Plane
from ncf.io.dicom.volumes import Volume, direction, volumes_of

KEPT = 2  # of the scans whose headers were read last: a fixed and a moving one
NAMED = 6  # most volumes named in one line
LONGEST_DESCRIPTION = 64


@dataclass(frozen=True)
class Series:
    """One volume of a series, and what its files call it.

    Attributes:
        uid: the SeriesInstanceUID.
        modality: such as CT.
        description: the SeriesDescription.
        planes: of all files; sorted along their normal where they are one stack.
        spacings: all values of the tag SpacingBetweenSlices, mm; for notes, never used for the geometry.
        thicknesses: all values of the tag SliceThickness, mm; for notes, never used for the geometry.
        number: by which a user chooses it, from 1.
        told: what tells it from other volumes of its series, such as EchoTime 4.6.
        problem: why it cannot be read, with what to do; nothing where it can.
        copies: planes that were there twice and are left out.
        headers: pydicom data sets of its files, without pixels.
        files: all its files.
    """

    uid: str
    modality: str
    description: str
    planes: tuple[Plane, ...]
    spacings: frozenset[float]
    thicknesses: frozenset[float]
    number: int = 0
    told: str = ""
    problem: str = ""
    copies: int = 0
    headers: tuple[Any, ...] = field(default=(), repr=False, compare=False)
    files: tuple[Path, ...] = ()

    @property
    def size(self) -> tuple[int, int, int] | None:
        """Voxels along rows, columns and planes; None where the planes are not known."""
        if not self.planes:
            return None
        rows, columns = self.planes[0].shape
        return columns, rows, len(self.planes)

    @property
    def direction(self) -> str:
        """Return axial, coronal, sagittal or oblique; nothing where the planes are not known."""
        return direction(self.planes[0]) if self.planes else ""

    def __str__(self) -> str:
        size = "x".join(map(str, self.size)) if self.size else f"{len(self.files)} files"
        words = [self.modality, repr(self.description) if self.description else "", self.direction, size, self.told]
        told = " ".join(word for word in words if word)
        return f"{told} (cannot be read: {re.split('[;,(]', self.problem)[0].strip()})" if self.problem else told


@dataclass(frozen=True)
class Found:
    """What lies below a path.

    Attributes:
        volumes: numbered.
        files: all that were looked at.
        broken: DICOM files that cannot be read.
        objects: how many files of other DICOM objects there are, by modality.
    """

    volumes: tuple[Series, ...]
    files: Files
    broken: tuple[Path, ...] = ()
    objects: dict[str, int] = field(default_factory=dict)


def found_in(path: str | Path, what: str) -> Found:
    """Read the headers of all DICOM files below a path and part them into volumes.

    Args:
        path: of a folder, a DICOMDIR or one file; a choice behind it is not looked at.
        what: how messages begin.

    Raises:
        PairError: a folder or file cannot be opened.
    """
    files = dicom_files(scan_path(path).path, what)
    try:
        stamps = tuple((told.st_ino, told.st_size, told.st_mtime_ns) for told in map(os.stat, files.dicom))
    except OSError as error:
        raise unreadable(error.filename, error) from error
    return _found(files, stamps)


@lru_cache(maxsize=KEPT)
def _found(files: Files, stamps: tuple[tuple[int, ...], ...]) -> Found:
    """Return what lies in files; of the last scans it is kept, because a pair is checked before it is read.

    Args:
        files: to read.
        stamps: what changes when a file changes.
    """
    by_series: dict[str, list[Head]] = {}
    broken, objects = [], dict[str, int]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of values that break rules which do not matter here
        for file in files.dicom:
            head = head_of(file)
            if head is None:
                broken.append(file)
            elif is_scan(head.data):
                by_series.setdefault(str(head.data.get("SeriesInstanceUID", "")), []).append(head)
            else:
                name = str(head.data.get("Modality", "")) or "other"
                objects[name] = objects.get(name, 0) + 1
        volumes = [volume for uid in sorted(by_series, key=lambda u: _rank(u, by_series[u][0].data))
                   for volume in _volumes(uid, by_series[uid])]  # fmt: skip
    numbered = tuple(replace(volume, number=number) for number, volume in enumerate(volumes, start=1))
    return Found(numbered, files, tuple(broken), objects)


def series_in(folder: str | Path, what: str) -> list[Series]:
    """Read the headers of all DICOM scans below a path, as numbered volumes.

    Args:
        folder: of a folder, whose subfolders count too, a DICOMDIR, or one file.
        what: how messages begin.

    Raises:
        PairError: a folder or file cannot be opened, or a DICOM file is damaged.
    """
    found = found_in(folder, what)
    if found.broken:
        many = len(found.broken)
        slices = "1 DICOM file" if many == 1 else f"{many} DICOM files"
        raise PairError(f"{what}: {slices} cannot be read, {found.broken[0]} for one; copy the series again")
    return list(found.volumes)


def _rank(uid: str, header: Any) -> tuple[str, float, str]:
    """Return what series are sorted by: date of the study, number, UID."""
    try:
        number = float(header.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        number = 0.0
    return str(header.get("StudyDate", "") or ""), number, uid


def _volumes(uid: str, members: Sequence[Head]) -> list[Series]:
    """Return the volumes of one series; files without known places are volumes with a problem."""
    planes: list[Plane] = []
    unplaced: dict[str, list[Path]] = {}
    for head in members:
        try:
            planes += planes_of(head)
        except PairError as error:
            unplaced.setdefault(str(error).replace(head.path.name, "", 1), []).append(head.path)
    headers = {head.path: head.data for head in members}
    found = [_series(uid, volume, headers) for volume in volumes_of(planes, same_pixels)] if planes else []
    for reason, files in unplaced.items():
        problem = f"{files[0].name}{reason}" + (f" ({len(files)} files like this)" if len(files) > 1 else "")
        found.append(_series(uid, Volume((), "", problem), {file: headers[file] for file in files}))
    return found


def _series(uid: str, volume: Volume, headers: dict[Path, Any]) -> Series:
    files = tuple(dict.fromkeys(plane.file for plane in volume.planes)) or tuple(headers)
    own = tuple(headers[file] for file in files)

    def values(word: str) -> frozenset[float]:
        """Return all values of one tag."""
        return frozenset(number for header in own if (number := _number(header.get(word))) is not None)

    return Series(
        uid=uid,
        modality=str(own[0].get("Modality", "")),
        description=" ".join(str(own[0].get("SeriesDescription", "") or "").split())[:LONGEST_DESCRIPTION],
        planes=volume.planes,
        spacings=values("SpacingBetweenSlices"),
        thicknesses=values("SliceThickness"),
        told=volume.told,
        problem=volume.problem,
        copies=volume.copies,
        headers=own,
        files=files,
    )


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


__all__ = ["Found", "Series", "found_in", "is_dicom", "is_list", "series_in"]
