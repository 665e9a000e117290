"""DICOM objects that hold labels, and whether they belong to a scan."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from monai.data import MetaTensor

from ncf.core.errors import PairError
from ncf.core.packages import optional
from ncf.core.scan_paths import scan_path
from ncf.io.dicom.folder import is_dicom, is_read_as_dicom
from ncf.io.dicom.series import only_series
from ncf.io.dicom.structures import references

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # of bits, and of label maps
SURFACES = "1.2.840.10008.5.1.4.1.1.66.5"
CLASS_TAG = 0x00080016
MEMBERS = 2  # of a folder that are looked at: one that is alone in it


def label_object(path: str | os.PathLike[str]) -> Path | None:
    """Return the file of an RTSTRUCT or SEG: the path itself, or the one DICOM file of a folder; None for any other.

    Raises:
        PairError: pydicom is not installed.
    """
    place = scan_path(path).path
    try:
        files = sorted(place.iterdir())[:MEMBERS] if place.is_dir() else [place]
        if len(files) != 1 or not is_dicom(files[0]):
            return None
    except OSError:
        return None  # whoever reads it says why it cannot be read
    return files[0] if class_of(files[0]) in (RTSTRUCT, *SEGMENTATIONS, SURFACES) else None


def class_of(file: Path) -> str:
    """Return the SOPClassUID of a file, empty where it has none.

    Raises:
        PairError: pydicom is not installed.
    """
    pydicom = optional("pydicom")
    try:
        with file.open("rb") as stream:  # the rest of an RTSTRUCT takes seconds to read
            begin = pydicom.filereader.read_partial(stream, stop_when=_behind_class, force=True)
        return str(begin.get("SOPClassUID", ""))
    except Exception:  # whatever pydicom meets in a damaged file
        return ""


def _behind_class(tag: Any, *_: Any) -> bool:
    """Tell whether a tag comes after that of the SOPClassUID."""
    return bool(tag > CLASS_TAG)


def opened(file: Path, what: str) -> tuple[Any, str]:
    """Read an RTSTRUCT or SEG.

    Args:
        file: of it.
        what: how messages begin.

    Returns:
        The data set and its SOPClassUID.

    Raises:
        PairError: it is damaged, or holds surfaces.
    """
    pydicom = optional("pydicom")
    try:
        data = pydicom.dcmread(file, force=True)
        kind = str(data.SOPClassUID)
        if kind != RTSTRUCT and not getattr(data.file_meta, "TransferSyntaxUID", None):
            data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    except Exception as error:  # whatever pydicom meets in a damaged file
        raise PairError(f"{what} is damaged ({type(error).__name__}); copy it again") from error
    if kind == SURFACES:
        raise PairError(f"{what} holds surfaces, expected voxels or contours; export an RTSTRUCT or a SEG of voxels")
    return data, kind


def check_frame(
    data: Any, image: MetaTensor | None, what: str, note: Callable[[str], None], *, frames: Collection[str] = ()
) -> set[str]:
    """Check that labels lie in the frame of reference of a scan, where both say which that is.

    Args:
        data: of the labels.
        image: the scan; nothing is known of one that is no DICOM series.
        what: how messages begin.
        note: takes what a user must know, in words.
        frames: the frames of reference of the contours; by default the one of the file.

    Returns:
        The frames of reference that may be used.

    Raises:
        PairError: all lie in other frames of reference than the scan.
    """
    given = set(frames) or {str(data.get("FrameOfReferenceUID", ""))}
    header = None if image is None else _header_of(image)
    if header is None:
        return given
    own, series = (str(header.get(word, "")) for word in ("FrameOfReferenceUID", "SeriesInstanceUID"))
    drawn_on = _referenced(data) - {""}
    if own and any(given) and not given & {own, ""}:
        if series not in drawn_on:
            raise PairError(
                f"{what} lies in another frame of reference than the scan {_place(image)}; name what "
                "belongs to this scan"
            )
        note("its frame of reference is not that of the scan, but it names the scan as its own, which counts")
        return given
    if drawn_on and series not in drawn_on:
        note("it was drawn on another series than the scan, in the same frame of reference")
    return {frame for frame in given if frame in (own, "") or not own}


def _referenced(data: Any) -> set[str]:
    """Return the series that an RTSTRUCT or SEG says it was drawn on."""
    told = {str(item.get("SeriesInstanceUID", "")) for item in data.get("ReferencedSeriesSequence") or ()}
    return told | references(data)


def _place(image: MetaTensor | None) -> str:
    return "" if image is None else str(image.meta["filename_or_obj"])


def _header_of(image: MetaTensor) -> Any | None:
    """Return the data set of one slice of a scan, without its pixels; None where the scan is no DICOM series."""
    place = _place(image)
    if not place or not is_read_as_dicom(scan_path(place).path):
        return None
    words = ["FrameOfReferenceUID", "SeriesInstanceUID"]
    file = only_series(place, "scan").planes[0].file
    return optional("pydicom").dcmread(file, stop_before_pixels=True, force=True, specific_tags=words)
