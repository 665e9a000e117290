"""One DICOM series as one volume: where its planes lie follows from their positions and orientations, and from nothing else.

A plane is a slice file, or a frame of an enhanced multi-frame file. Files are parsed by pydicom; tags that repeat the
geometry in other words (spacing between slices, slice thickness, instance numbers) are not asked, because scanners write
them wrong (a negative spacing between slices made ITK 5.4 read a patient upside down). Points are in LPS mm here, as DICOM
has them; what leaves the room is in RAS mm.
"""

from __future__ import annotations

import importlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from monai.utils import optional_import

from scripts.errors import PairError
from scripts.geometry import RAS_TO_LPS, spacing_mm

notes = logging.getLogger("scripts.notes")

PREAMBLE, MARK = 128, b"DICM"
LIST_FILE = "DICOMDIR"  # names other files
MAC_SHADOW = "._"  # macOS leaves such a file beside every other one on foreign disks
SLICE_TOLERANCE = 0.2  # of a step; positions are often rounded to 0.1 mm, a missing slice is a whole step
TURN_TOLERANCE = 1e-3  # of direction cosines; they are written with four digits or more
SPACING_TOLERANCE = 0.01  # relative, of tags beside the positions
SIZE_TOLERANCE = 1e-3  # relative, of a pixel's side
TILT_TOLERANCE = 0.5  # pixels that a stack may drift sideways from its first to its last plane
HEADER_TAGS = (
    "SOPClassUID", "SeriesInstanceUID", "Modality", "SeriesDescription", "Rows", "Columns", "NumberOfFrames",
    "SamplesPerPixel", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
    "RescaleIntercept", "SpacingBetweenSlices", "SliceThickness",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip


@dataclass(frozen=True)
class Plane:
    """One plane of voxels and where it lies.

    file, frame: where its pixels are. shape: rows, columns. position: (3,) of the first pixel's centre, LPS mm. axes:
    (2, 3), unit vectors along a row (to the next column) and along a column (to the next row). spacing: mm between columns
    and between rows. slope, intercept: stored value to real value; None where a lookup table says it.
    """

    file: Path
    frame: int
    shape: tuple[int, int]
    position: np.ndarray
    axes: np.ndarray
    spacing: np.ndarray
    slope: float
    intercept: float

    @property
    def normal(self) -> np.ndarray:
        """Unit vector (3,) across the plane, LPS."""
        return np.cross(self.axes[0], self.axes[1])


@dataclass(frozen=True)
class Series:
    """The planes of one SeriesInstanceUID, in no order, and what its files call it.

    spacings, thicknesses: all values of the tags SpacingBetweenSlices and SliceThickness, mm; told, never used.
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


def pydicom_package() -> Any:
    """Return the package pydicom; raise PairError where it is not installed."""
    pydicom, found = optional_import("pydicom")
    if not found:
        raise PairError("DICOM needs the package pydicom: run pip install pydicom, or convert to NIfTI")
    return pydicom


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM by its name or its first bytes, and no list of others."""
    if path.name.upper() == LIST_FILE or path.name.startswith(MAC_SHADOW) or not path.is_file():
        return False
    with path.open("rb") as file:
        return path.suffix.lower() == ".dcm" or file.read(PREAMBLE + len(MARK)).endswith(MARK)


def series_in(folder: str | Path, what: str) -> list[Series]:
    """Read the headers of all DICOM images right in a folder, by series.

    Args:
        folder: its files are looked at, subfolders are not.
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
        elif "Rows" in header:  # other objects hold no image: structures, reports, presentation states
            planes = list(_planes_of(header, path, what))
            found.setdefault(str(header.get("SeriesInstanceUID", "")), []).append((header, planes))
    if broken:
        raise PairError(f"{what}: {len(broken)} slices cannot be read, {broken[0]} for one; copy the series again")
    return [_series(uid, members) for uid, members in found.items()]


def _series(uid: str, members: Sequence[tuple[Any, Sequence[Plane]]]) -> Series:
    first, _ = members[0]

    def values(word: str) -> frozenset[float]:
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
    """The data set of a file without its pixels, of an image with its class alone; None where it is damaged."""
    pydicom = pydicom_package()
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
    """The planes of one file, with what its frames share filled in."""
    if int(header.get("SamplesPerPixel", 1) or 1) != 1:
        raise PairError(
            f"{what}: {path.name} holds {header.SamplesPerPixel}-component voxels, expected one real number each; extract "
            "one channel"
        )
    frames = header.get("PerFrameFunctionalGroupsSequence")
    count = int(header.get("NumberOfFrames", 1) or 1)
    if not frames:
        if count > 1:
            raise PairError(f"{what}: {path.name} holds {count} frames without their places; convert it to NIfTI")
        frames = [header]
    elif len(frames) != count:
        raise PairError(f"{what}: {path.name} tells the places of {len(frames)} frames and holds {count}; copy it again")
    shared = (header.get("SharedFunctionalGroupsSequence") or [header])[0]
    for number, own in enumerate(frames):
        yield _plane(path, number, own, shared, header, what=what)


def _plane(path: Path, number: int, *groups: Any, what: str) -> Plane:
    """One plane by the first of ``groups`` (of the frame, of all frames, of the file) that tells each number."""
    name = path.name if len(groups) < 2 or groups[0] is groups[-1] else f"frame {number + 1} of {path.name}"
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
    spacing = values["PixelSpacing"][::-1]  # DICOM tells that between rows first
    square = abs(axes @ axes.T - np.eye(2)).max() <= TURN_TOLERANCE * 10
    if not square or (spacing <= 0).any():
        raise PairError(
            f"{what}: {name} has the orientation {axes.ravel().tolist()} and pixels of {spacing.tolist()} mm; correct the "
            "header"
        )
    shape = (int(groups[-1].Rows), int(groups[-1].Columns))
    slope, intercept = float(values["RescaleSlope"][0]), float(values["RescaleIntercept"][0])
    return Plane(path, number, shape, values["ImagePositionPatient"], axes, spacing, slope, intercept)


def _told(word: str, macro: str, groups: Iterable[Any]) -> Any:
    """The value of an attribute in the first group that has it, by itself or in its macro; None in none."""
    for group in groups:
        inner = group.get(macro)
        value = (inner[0] if inner else group).get(word)
        if value is not None and str(value) != "":
            return value
    return None


def only_series(folder: str | Path, what: str) -> Series:
    """Return the one series in a folder, its planes sorted along their normal and found to fill a box.

    Raises:
        PairError: there is not exactly one series, or its planes are no evenly spaced stack of one shape and orientation.
    """
    series = series_in(folder, what)
    if len(series) != 1:
        told = f" ({'; '.join(map(str, series))})" if series else ""
        advice = "keep one series a folder" if series else "name an image file, or the folder right above the slices"
        raise PairError(f"{what}: {folder} holds {len(series)} DICOM series{told}, expected exactly one; {advice}")
    return replace(series[0], planes=tuple(stacked(series[0].planes, f"{what}: {folder}")))


def stacked(planes: Sequence[Plane], what: str) -> list[Plane]:
    """Sort planes along their normal; raise PairError unless they are one even, straight stack.

    Refused are planes of several shapes, pixel sizes or orientations, planes at one place (several times, echoes or
    stacks), gaps, and stacks that lean sideways (gantry tilt): as one box of voxels all of them would lie.
    """
    first = planes[0]
    for name, differs in (
        ("sizes", lambda p: p.shape != first.shape),
        ("orientations", lambda p: np.abs(p.axes - first.axes).max() > TURN_TOLERANCE),
        ("pixel sizes", lambda p: (np.abs(p.spacing - first.spacing) > SIZE_TOLERANCE * first.spacing).any()),
    ):
        others = sum(map(differs, planes))
        if others:
            raise PairError(
                f"{what}: slices have different {name}, {others} of {len(planes)} are unlike {first.file.name}; keep the "
                "slices of one volume"
            )
    planes = sorted(planes, key=lambda p: float(p.position @ first.normal))
    if len(planes) > 1:
        _check_even(planes, what)
    return planes


def _check_even(planes: Sequence[Plane], what: str) -> None:
    first, positions = planes[0], np.array([p.position for p in planes])
    steps = np.diff(positions, axis=0)
    apart = steps @ first.normal
    middle = float(np.median(apart))
    at_one_place = Counter(np.round(positions @ first.normal, 2).tolist())
    most = max(at_one_place.values())
    if most > 1 and min(at_one_place.values()) > 1:
        raise PairError(
            f"{what}: slices must be evenly spaced, here {most} lie at each place (several time points, echoes or stacks); "
            "keep the slices of one volume"
        )
    if middle <= 0 or np.abs(apart - middle).max() > SLICE_TOLERANCE * middle:
        raise PairError(
            f"{what}: slices must be evenly spaced, these are {apart.min():.3g} to {apart.max():.3g} mm apart (missing "
            "slices, or several time points); complete the series, or convert one volume to NIfTI"
        )
    drift = (positions[-1] - positions[0]) - first.normal * apart.sum()
    if np.linalg.norm(drift) > TILT_TOLERANCE * first.spacing.min():
        raise PairError(f"{what}: slices are shifted sideways (gantry tilt); resample the scan to a straight grid first")


def affine_of(planes: Sequence[Plane]) -> np.ndarray:
    """Return the affine (4, 4), voxel (column, row, plane) -> RAS mm, of sorted planes."""
    first = planes[0]
    step = first.normal
    if len(planes) > 1:
        step = step * float((planes[-1].position - first.position) @ step) / (len(planes) - 1)
    affine = np.eye(4)
    affine[:3, :3] = RAS_TO_LPS @ np.column_stack([*(first.axes * first.spacing[:, None]), step])
    affine[:3, 3] = RAS_TO_LPS @ first.position
    return affine


def read_series(folder: str | Path, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the one series in a folder.

    Returns:
        The volume (W, H, D), float32, real values: columns, rows and planes of the series; and its affine (4, 4), voxel ->
        RAS mm.

    Raises:
        PairError: what `only_series` refuses, and pixels that cannot be decoded.
    """
    series = only_series(folder, what)
    planes = series.planes
    for note in _notes(series, folder):
        notes.warning("note: %s: %s", what, note)
    rows, columns = planes[0].shape
    volume = np.empty((columns, rows, len(planes)), dtype=np.float32)
    for number, plane in enumerate(planes):
        volume[:, :, number] = _pixels(plane, what).T
    _decoded.cache_clear()
    return volume, affine_of(planes)


def _notes(series: Series, folder: str | Path) -> Iterator[str]:
    """What was left out of a folder, and tags that contradict the positions of the planes."""
    shadows = sum(path.name.startswith(MAC_SHADOW) for path in Path(folder).iterdir())
    if shadows:
        yield f"{shadows} files of macOS ({MAC_SHADOW}*) are left out"
    step = spacing_mm(affine_of(series.planes))[2]
    odd = sorted(value for value in series.spacings if abs(value - step) > SPACING_TOLERANCE * step)
    if odd:
        yield f"SpacingBetweenSlices says {odd[0]:g} mm; by their positions slices lie {step:.4g} mm apart, which counts"
    if len(series.thicknesses) > 1:
        low, high = min(series.thicknesses), max(series.thicknesses)
        yield f"slices are {low:g} to {high:g} mm thick; by their positions they lie {step:.4g} mm apart, which counts"


def _pixels(plane: Plane, what: str) -> np.ndarray:
    """Real values (rows, columns) of a plane, float32."""
    try:
        stored, table = _decoded(plane.file)
    except Exception as error:  # whatever decoders raise over a damaged file or a compression that none of them knows
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
        raise PairError(f"{what}: cannot read slice {plane.file} ({reason}); copy the series again") from error
    values = stored[plane.frame] if stored.ndim == 3 else stored
    if values.shape != plane.shape:
        raise PairError(f"{what}: {plane.file} holds pixels of {values.shape}, its header says {plane.shape}; copy it again")
    return table(values) if table is not None else values.astype(np.float64) * plane.slope + plane.intercept


@lru_cache(maxsize=1)
def _decoded(file: Path) -> tuple[np.ndarray, Any]:
    """Stored values (frames, rows, columns) or (rows, columns) of a file, and the function of its lookup table, or None.

    Nothing is turned round for MONOCHROME1: that says how to show values, not what they are.
    """
    pydicom = pydicom_package()
    data = pydicom.dcmread(file, force=True)
    if not getattr(data.file_meta, "TransferSyntaxUID", None):
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    stored = data.pixel_array
    table = None
    if data.get("ModalityLUTSequence"):
        home = "pydicom.pixels" if int(pydicom.__version__.split(".")[0]) > 2 else "pydicom.pixel_data_handlers.util"
        table = partial(importlib.import_module(home).apply_modality_lut, ds=data)
    return stored, table
