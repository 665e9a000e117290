"""RTDOSE files, told from scans: what a dose says of its units, and the scan it belongs to."""

from __future__ import annotations

from pathlib import Path

from ncf.core.errors import PairError
from ncf.core.names import IMAGE_SUFFIXES
from ncf.core.scan_paths import scan_path
from ncf.io.dicom.folder import is_dicom, is_list
from ncf.io.dicom.planes import RTDOSE
from ncf.io.dicom.written.source import Scan, headers_of

TOLD = ("DoseUnits", "DoseType", "DoseSummationType")


def dose_of(path: str | Path) -> Scan | None:
    """Read the headers of an RTDOSE.

    Args:
        path: of its file, or of a folder with its files.

    Returns:
        The headers, None for a file of another format.

    Raises:
        PairError: it is a DICOM object, and no dose; or it cannot be read.
    """
    place = scan_path(path).path
    image = str(path).lower().endswith(IMAGE_SUFFIXES)
    if not (place.is_dir() or is_list(place) or (place.is_file() and not image and is_dicom(place))):
        return None
    scan = headers_of(path, "dose")
    if str(scan.header.get("SOPClassUID", "")) != RTDOSE:
        raise PairError(f"{path} is a scan ({scan.modality}), expected a dose; name an RTDOSE, or use --to=image")
    return scan


def said(dose: Scan, word: str) -> str:
    """Return what a dose says under a keyword of `TOLD`, empty where it says nothing."""
    return str(dose.header.get(word, "") or "")
