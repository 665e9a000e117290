"""What a written object takes over from a DICOM series: its headers, its instances, and where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ncf.core.errors import PairError
from ncf.core.packages import optional
from ncf.core.scan_paths import scan_path
from ncf.io.dicom.folder import is_read_as_dicom
from ncf.io.dicom.series import PET, only_series
from ncf.io.dicom.stack import affine_of_planes
from ncf.io.dicom.suv import IN_SUV, unit_of_pet
from ncf.io.dicom.written.uids import uid_of
from ncf.space.grids import Grid

OLDEST_WRITER = 3  # pydicom's version from which it writes files as this room asks for


@dataclass(frozen=True)
class Scan:
    """A DICOM series by its headers, its planes in the order of the third axis of its volume.

    Attributes:
        path: of its folder, or of one file with frames.
        header: pydicom's data set of the first plane's file, without pixels.
        instances: SOP class UID, SOP instance UID and number of the frame (None for single frames), by plane.
        scales: slope and intercept of stored to real values, by plane.
        grid: of the volume.
        files: all of them, in the order of planes.
        in_suv: True where its values are read in SUV by body weight, which its headers do not say.
    """

    path: Path
    header: Any
    instances: tuple[tuple[str, str, int | None], ...]
    scales: tuple[tuple[float, float], ...]
    grid: Grid
    files: tuple[Path, ...]
    in_suv: bool = False

    @property
    def series(self) -> str:
        """The SeriesInstanceUID."""
        return str(self.header.get("SeriesInstanceUID", ""))

    @property
    def study(self) -> str:
        """The StudyInstanceUID."""
        return str(self.header.get("StudyInstanceUID", "")) or uid_of("study", self.series)

    @property
    def frame(self) -> str:
        """The FrameOfReferenceUID; where the files name none, one that follows from the series."""
        return str(self.header.get("FrameOfReferenceUID", "")) or uid_of("frame of reference", self.series)

    @property
    def modality(self) -> str:
        """What DICOM calls it, such as CT."""
        return str(self.header.get("Modality", ""))

    @property
    def patient(self) -> tuple[str, str]:
        """The patient's ID and name, empty where the files name none."""
        return str(self.header.get("PatientID", "") or ""), str(self.header.get("PatientName", "") or "")

    def references(self, first: int = 0, last: int | None = None) -> list[Any]:
        """Return an item of a reference for each file of some planes, with the numbers of frames where there are some.

        Args:
            first: the first plane.
            last: the plane after the last one; None for all.
        """
        dataset = optional("pydicom").Dataset
        frames: dict[tuple[str, str], list[int]] = {}
        for kind, instance, frame in self.instances[first:last]:
            frames.setdefault((kind, instance), []).extend([] if frame is None else [frame])
        items = []
        for (kind, instance), numbers in frames.items():
            item = dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kind, instance
            if numbers:
                item.ReferencedFrameNumber = sorted(numbers)
            items.append(item)
        return items


def scan_of(path: str | Path, key: str, *, what: str = "a DICOM object") -> Scan:
    """Read the headers of the series that an object is written about.

    Args:
        path: of the scan.
        key: ``fixed``, ``moving`` or another word for messages.
        what: the object, for messages.

    Raises:
        PairError: the scan is no DICOM series, it cannot be read, or pydicom is missing or too old to write.
    """
    pydicom = optional("pydicom")
    if int(pydicom.__version__.split(".")[0]) < OLDEST_WRITER:
        raise PairError(
            f"{what} is written by pydicom {OLDEST_WRITER} or later, here is {pydicom.__version__}; run pip install "
            "'pydicom>=3' (the extra dicom)"
        )
    if not is_read_as_dicom(scan_path(path).path):
        option = "reference" if key == "fixed" else key
        raise PairError(
            f"{what} takes over patient, study and frame of reference, and the {key} scan {path} is no DICOM series; "
            f"name its series by --{option}=FOLDER, or choose another format"
        )
    return headers_of(path, key)


def headers_of(path: str | Path, key: str) -> Scan:
    """Read the headers of a DICOM volume, of a series or of one file.

    Args:
        path: of a folder or a file.
        key: a word for messages.

    Raises:
        PairError: it cannot be read, or pydicom is missing.
    """
    pydicom = optional("pydicom")
    with pydicom.config.disable_value_validation():
        series = only_series(path, key)
        planes = series.planes
        read: dict[Path, Any] = {}
        for plane in planes:
            if plane.file not in read:
                read[plane.file] = pydicom.dcmread(plane.file, stop_before_pixels=True, force=True)
        for header in read.values():
            header.decode()
    instances = tuple(_instance(read[p.file], p.frame) for p in planes)
    rows, columns = planes[0].shape
    grid = Grid((columns, rows, len(planes)), affine_of_planes(planes))
    scales = tuple((p.slope, p.intercept) for p in planes)
    files = tuple(dict.fromkeys(p.file for p in planes))
    in_suv = series.modality == PET and unit_of_pet(series.headers).note == IN_SUV
    return Scan(Path(path), read[planes[0].file], instances, scales, grid, files, in_suv)


def _instance(header: Any, frame: int) -> tuple[str, str, int | None]:
    """Return the class and the UID of a file, and the number of a frame in it, from 1, where it has frames."""
    many = "PerFrameFunctionalGroupsSequence" in header or int(header.get("NumberOfFrames", 1) or 1) > 1
    return str(header.SOPClassUID), str(header.SOPInstanceUID), frame + 1 if many else None


def require_one_patient(scans: Sequence[Scan], *, anonymous: bool) -> None:
    """Raise PairError where two scans name different patients, unless the object names none.

    Args:
        scans: that the object is made of.
        anonymous: the object names no patient.

    Raises:
        PairError: two patient IDs differ.
    """
    known = {scan.patient[0]: scan for scan in scans if scan.patient[0]}
    if len(known) > 1 and not anonymous:
        first, second = list(known.values())[:2]
        raise PairError(
            f"{first.path} and {second.path} name different patients, and one's images do not belong in the other's "
            "record; write with --anonymous=true, or choose another format"
        )
