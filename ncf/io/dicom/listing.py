"""What DICOM files a folder holds, told as data and as a table. Names of patients are not read."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ncf.core.scan_paths import MARK, scan_path
from ncf.io.dicom.folder import MAC_SHADOW
from ncf.io.dicom.headers import Series, found_in
from ncf.io.dicom.stack import affine_of_planes
from ncf.space.geometry import spacing_mm

HEAD = ("#", "modality", "description", "plane", "voxels", "spacing mm", "acquired", "what it is")


def listing(path: str | Path) -> dict[str, Any]:
    """Return what DICOM files hold.

    Args:
        path: of a folder, whose subfolders count too, a DICOMDIR, or a file.

    Returns:
        ``path``; ``volumes``, each with its ``number``, ``series_uid``, ``modality``, ``description``, ``plane``,
        ``size`` (voxels), ``spacing_mm``, ``acquired``, ``told`` (what tells it from others of its series),
        ``problem`` (None where it can be read), ``copies``, ``slices`` and ``folder``; and the files that are no
        volumes: ``other_objects`` by modality, ``damaged``, ``macos_shadows``, ``other_files``.

    Raises:
        PairError: a folder or file cannot be opened.
    """
    place = scan_path(path).path
    found = found_in(place, "files")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of values that break rules
        volumes = [_volume(series) for series in found.volumes]
    return {
        "path": str(place),
        "volumes": volumes,
        "other_objects": dict(sorted(found.objects.items())),
        "damaged": [str(file) for file in found.broken],
        "macos_shadows": found.files.shadows,
        "other_files": found.files.others,
    }


def _volume(series: Series) -> dict[str, Any]:
    header = series.headers[0]
    date = str(header.get("AcquisitionDate", "") or header.get("SeriesDate", "") or header.get("StudyDate", "") or "")
    time = str(header.get("AcquisitionTime", "") or header.get("SeriesTime", "") or "")
    good = not series.problem
    return {
        "number": series.number,
        "series_uid": series.uid,
        "modality": series.modality,
        "description": series.description,
        "plane": series.direction,
        "size": series.size,
        "spacing_mm": [round(float(v), 4) for v in spacing_mm(affine_of_planes(series.planes))] if good else None,
        "acquired": f"{date} {time.partition('.')[0]}".strip(),
        "told": series.told,
        "problem": series.problem or None,
        "copies": series.copies,
        "slices": len(series.planes) or len(series.files),
        "folder": str(series.files[0].parent),
    }


def in_lines(told: dict[str, Any]) -> str:
    """Write a listing as a table, with how to choose a volume.

    Args:
        told: what `listing` returned.
    """
    rows = [HEAD, *(_row(volume) for volume in told["volumes"])]
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEAD))]
    lines = ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if not told["volumes"]:
        lines = [f"no DICOM scan below {told['path']}"]
    elif len(told["volumes"]) > 1:
        lines.append(f"choose one by its number, such as {told['path']}{MARK}{told['volumes'][0]['number']}")
    others = [f"{count} {name}" for name, count in told["other_objects"].items()]
    others += [f"{told['macos_shadows']} files of macOS ({MAC_SHADOW}*)"] if told["macos_shadows"] else []
    others += [f"{told['other_files']} other files"] if told["other_files"] else []
    if others:
        lines.append(f"not scans: {', '.join(others)}")
    lines += [f"cannot be read (damaged, or no DICOM): {file}" for file in told["damaged"]]
    return "\n".join(lines)


def _row(volume: dict[str, Any]) -> tuple[str, ...]:
    size = "x".join(map(str, volume["size"])) if volume["size"] else f"{volume['slices']} files"
    spacing = "x".join(f"{value:.4g}" for value in volume["spacing_mm"] or ())
    problem = f"cannot be read: {volume['problem']}" if volume["problem"] else ""
    copies = f"{volume['copies']} copies left out" if volume["copies"] else ""
    words = "; ".join(word for word in (volume["told"], copies, problem) if word)
    cells = (str(volume["number"]), volume["modality"], volume["description"], volume["plane"], size, spacing)
    return (*cells, volume["acquired"], words)
