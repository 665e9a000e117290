"""The volumes that a path names: one scan, the volumes of a 4D NIfTI file, or those of a DICOM folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ncf.core.errors import PairError
from ncf.core.paths import there
from ncf.core.scan_paths import MARK, scan_path
from ncf.io.dicom.headers import series_in
from ncf.io.image_files import HEADER_ERRORS, NIFTI, READ_ERRORS, unreadable_scan
from ncf.io.nifti_read import read_header, times_s, volumes_of

TRIGGER = re.compile(r"(?:TriggerTime|TriggerDelayTime)\s+([\d.]+)")  # in ms
BY_CLOCK = ("MR", "PT", "NM", "US")  # a gated CT is sorted by phase, not by the time of its slices


@dataclass(frozen=True)
class ListedVolume:
    """One volume.

    Attributes:
        path: by which every command takes it, such as FOLDER#3.
        time_s: in s, counted as its files do; None where they do not tell it.
        told: what its files call it, in words.
        kind: modality and voxels of a DICOM volume.
    """

    path: str
    time_s: float | None = None
    told: str = ""
    kind: str = ""


def volumes_in(path: str | Path, what: str) -> list[ListedVolume]:
    """List the volumes of a path, in their order.

    Args:
        path: of a scan, a 4D NIfTI file, or a folder of DICOM files; a path that chooses one volume is that volume.
        what: how messages begin.

    Returns:
        Of a DICOM folder with several volumes, those that can be read.

    Raises:
        PairError: there is nothing, or it cannot be read.
    """
    place, choice = scan_path(there(path, what))
    if choice:
        return [ListedVolume(str(path))]
    if place.is_dir():
        return _of_dicom(place, what)
    return _of_nifti(place, what) if place.name.lower().endswith(NIFTI) else [ListedVolume(str(path))]


def _of_nifti(path: Path, what: str) -> list[ListedVolume]:
    try:
        header = read_header(path)
        count, times = volumes_of(header), times_s(header)
    except PairError:
        raise
    except (*READ_ERRORS, *HEADER_ERRORS) as error:
        raise unreadable_scan(what, str(path), error) from error
    if count == 1:
        return [ListedVolume(str(path))]
    return [ListedVolume(f"{path}{MARK}{n + 1}", times[n] if times else None) for n in range(count)]


def _of_dicom(folder: Path, what: str) -> list[ListedVolume]:
    found = [series for series in series_in(folder, what) if not series.problem]
    if len(found) <= 1:  # where there is none, its reader says why
        return [ListedVolume(str(folder))]
    words = [", ".join(word for word in (series.description, series.told) if word) for series in found]
    times = _times(found)
    return [
        ListedVolume(f"{folder}{MARK}{series.number}", time, word, f"{series.modality} {series.size}")
        for series, word, time in zip(found, words, times, strict=True)
    ]


def _times(found: Sequence[Any]) -> list[float | None]:
    """Return the times of DICOM volumes: after the trigger, else by the clock where all tell another time."""
    triggered = [TRIGGER.search(series.told) for series in found]
    if all(triggered):
        return [float(match[1]) / 1000 for match in triggered if match]
    if any(series.modality not in BY_CLOCK for series in found):
        return [None] * len(found)
    clocks = [_clock_s(series.headers[0]) for series in found]
    known = [clock for clock in clocks if clock is not None]
    if len(set(known)) < len(found):
        return [None] * len(found)
    return [clock - min(known) for clock in known]


def _clock_s(header: Any) -> float | None:
    """Return the time of day at which a volume was acquired, in s."""
    text = str(header.get("AcquisitionTime", "") or header.get("ContentTime", "") or "")
    match = re.fullmatch(r"(\d{2})(\d{2})(\d{2}(?:\.\d+)?)", text.strip())
    return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3]) if match else None
