"""What DICOM files say of their planes before any pixel is read: one plane for each slice file or frame, by series.

Files are parsed by pydicom. Points are in LPS mm here, as in DICOM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ncf.core.errors import PairError
from ncf.core.packages import optional
from ncf.io.dicom.stack import TURN_TOLERANCE, Plane

PREAMBLE, MAGIC = 128, b"DICM"
LIST_FILE = "DICOMDIR"  # names other files
MAC_SHADOW = "._"  # macOS writes such a file beside every other file on foreign disks
HEADER_TAGS = (
    "SOPClassUID", "SeriesInstanceUID", "Modality", "SeriesDescription", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
    "RescaleIntercept", "SpacingBetweenSlices", "SliceThickness",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip


@dataclass(frozen=True)
class Series:
    """The planes of one SeriesInstanceUID, in no order, and what its files call it.

    Attributes:
        uid: the SeriesInstanceUID.
        modality: such as CT.
        description: the SeriesDescription.
        planes: of all files.
        spacings: all values of the tag SpacingBetweenSlices, mm; for notes, never used for the geometry.
        thicknesses: all values of the tag SliceThickness, mm; for notes, never used for the geometry.
    """

    uid: str
    modality: str
    description: str
    planes: tuple[Plane, ...]
    spacings: frozenset[float]
    thicknesses: frozenset[float]

    def __str__(self) -> str:
        words = [self.modality, repr(self.description) if self.description else "", f"{len(self.planes)} slices"]
        return ", ".join(word for word in words if word)


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM by its name or its first bytes, and is not a list of other files."""
    if path.name.upper() == LIST_FILE or path.name.startswith(MAC_SHADOW) or not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix.lower() == ".dcm" or file.read(PREAMBLE + len(MAGIC)).endswith(MAGIC)


def series_in(folder: str | Path, what: str) -> list[Series]:
    """Read the headers of all DICOM images in a folder, by series.

    Args:
        folder: its own files are read, not those of its subfolders.
        what: how messages begin.

    Raises:
        PairError: the folder cannot be listed, or a DICOM file in it cannot be read.
    """
    found: dict[str, list[tuple[Any, list[Plane]]]] = {}
    broken: list[Path] = []
    try:
        files = [path for path in sorted(Path(folder).iterdir()) if is_dicom(path)]
    except OSError as error:
        raise PairError(f"{what}: cannot list {folder} ({error.strerror}); correct the path or permissions") from error
    for path in files:
        header = _header(path)
        if header is None:
            broken.append(path)
        elif "Rows" in header:  # other objects have no image: structures, reports, presentation states
            planes = list(_planes_of(header, path, what))
            found.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((header, planes))
    if broken:
        raise PairError(f"{what}: {len(broken)} slices cannot be read, {broken[0]} for one; copy the series again")
    return [_series(uid, members) for uid, members in found.items()]


def _series(uid: str, members: Sequence[tuple[Any, Sequence[Plane]]]) -> Series:
    first, _ = members[0]

    def values(word: str) -> frozenset[float]:
        """Return all values of one tag."""
        return frozenset(float(h[word].value) for h, _ in members if word in h and h[word].value is not None)

    return Series(
        uid,
        str(first.get("Modality", "")),
        str(first.get("SeriesDescription", "")),
        tuple(plane for _, planes in members for plane in planes),
        values("SpacingBetweenSlices"),
        values("SliceThickness"),
    )


def _header(path: Path) -> Any | None:
    """Return the data set of a file without its pixels; None where it is damaged, or lacks its class or its size."""
    pydicom = optional("pydicom")
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(HEADER_TAGS))
        kind = pydicom.uid.UID(str(header.get("SOPClassUID", "")))
        image = "Rows" in header and "Columns" in header
        if not kind or ("Image Storage" in kind.name and not image):
            return None
        if image:
            int(header.Rows), int(header.Columns)
    except Exception:  # whatever pydicom meets in a damaged file
        return None
    return header


def _planes_of(header: Any, path: Path, what: str) -> Iterator[Plane]:
    """Yield the planes of one file, each with the values that its frames share."""
    if int(header.get("SamplesPerPixel", 1) or 1) != 1:
        raise PairError(
            f"{what}: {path.name} holds {header.SamplesPerPixel}-component voxels, expected one real number each; "
            "extract one channel"
        )
    frames = header.get("PerFrameFunctionalGroupsSequence")
    count = int(header.get("NumberOfFrames", 1) or 1)
    if not frames:
        if count > 1:
            raise PairError(f"{what}: {path.name} holds {count} frames without their places; convert it to NIfTI")
        frames = [header]
    elif len(frames) != count:
        raise PairError(
            f"{what}: {path.name} tells the places of {len(frames)} frames and holds {count}; copy it again"
        )
    shared = (header.get("SharedFunctionalGroupsSequence") or [header])[0]
    for number, own in enumerate(frames):
        yield _plane(path, number, own, shared, header, what=what)


def _plane(path: Path, number: int, *groups: Any, what: str) -> Plane:
    """Return one plane, with each number from the first of ``groups`` (frame, all frames, file) that has it."""
    name = path.name if groups[0] is groups[-1] else f"frame {number + 1} of {path.name}"
    values: dict[str, np.ndarray] = {}
    for word, macro, length in (
        ("ImagePositionPatient", "PlanePositionSequence", 3),
        ("ImageOrientationPatient", "PlaneOrientationSequence", 6),
        ("PixelSpacing", "PixelMeasuresSequence", 2),
        ("RescaleSlope", "PixelValueTransformationSequence", 1),
        ("RescaleIntercept", "PixelValueTransformationSequence", 1),
    ):
        told = _told(word, macro, groups)
        if told is None and word.startswith("Rescale"):
            told = [float(word.endswith("Slope"))]
        numbers = np.array([float(v) for v in np.atleast_1d(told)]) if told is not None else np.empty(0)
        if len(numbers) != length or not np.isfinite(numbers).all():
            raise PairError(
                f"{what}: {name} tells no {word}; it does not say where its voxels lie, convert it to NIfTI by hand"
            )
        values[word] = numbers
    axes = values["ImageOrientationPatient"].reshape(2, 3)
    spacing = values["PixelSpacing"][::-1]  # in DICOM the spacing between rows is first
    square = abs(axes @ axes.T - np.eye(2)).max() <= TURN_TOLERANCE * 10
    if not square or (spacing <= 0).any():
        raise PairError(
            f"{what}: {name} has the orientation {axes.ravel().tolist()} and pixels of {spacing.tolist()} mm; "
            "correct the header"
        )
    shape = (int(groups[-1].Rows), int(groups[-1].Columns))
    slope, intercept = float(values["RescaleSlope"][0]), float(values["RescaleIntercept"][0])
    return Plane(path, number, shape, values["ImagePositionPatient"], axes, spacing, slope, intercept)


def _told(word: str, macro: str, groups: Iterable[Any]) -> Any:
    """Return the value of an attribute in the first group that has it, directly or in its macro; None without any."""
    for group in groups:
        inner = group.get(macro)
        value = (inner[0] if inner else group).get(word)
        if value is not None and str(value) != "":
            return value
    return None
