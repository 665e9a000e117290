"""One DICOM volume, chosen and read, with notes about its files for the user. The result is in RAS mm."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ncf.core.errors import PairError
from ncf.core.scan_paths import MARK, scan_path
from ncf.io.dicom.folder import MAC_SHADOW, Files
from ncf.io.dicom.headers import NAMED, Found, Series, found_in
from ncf.io.dicom.pixels import volume_of
from ncf.io.dicom.stack import affine_of_planes
from ncf.io.dicom.suv import unit_of_pet
from ncf.space.geometry import spacing_mm

notes = logging.getLogger("ncf.notes")
SPACING_TOLERANCE = 0.01  # relative difference between a tag and the positions
PET = "PT"


def only_series(folder: str | Path, what: str) -> Series:
    """Return the volume that a path names, its planes sorted along their normal and checked to fill a box.

    Args:
        folder: of the DICOM files, which may lie in subfolders; a DICOMDIR; or one file. Behind it, # and the number of
            a volume or the UID of a series choose one of several.
        what: how messages begin.

    Raises:
        PairError: there is not exactly one volume and none is chosen, a file is damaged, or the planes are not an
            evenly spaced stack of one shape and orientation.
    """
    return _chosen(folder, what)[0]


def read_series(folder: str | Path, what: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Read the volume that a path names.

    Args:
        folder: see `only_series`.
        what: how messages begin.

    Returns:
        The volume (W, H, D), float32, real values: columns, rows and planes of the series (PET in SUV by body weight
        where its tags tell how, see `ncf.io.dicom.suv`); its affine (4, 4), voxel -> RAS mm; and its modality, such as
        CT.

    Raises:
        PairError: what `only_series` refuses, and pixels that cannot be decoded.
    """
    series, files = _chosen(folder, what)
    planes = series.planes
    for note in _notes(series, files):
        notes.warning("note: %s: %s", what, note)
    if series.modality == PET:
        unit = unit_of_pet(series.headers)
        notes.warning("note: %s: %s", what, unit.note)
        planes = tuple(replace(p, slope=p.slope * unit.factor, intercept=p.intercept * unit.factor) for p in planes)
    return volume_of(planes, what), affine_of_planes(planes), series.modality


def _chosen(path: str | Path, what: str) -> tuple[Series, Files]:
    """Return the volume that a path names, and which files were looked at for it."""
    place, choice = scan_path(path)
    found = found_in(place, what)
    if found.broken:
        many = len(found.broken)
        named = "1 DICOM file" if many == 1 else f"{many} DICOM files"
        raise PairError(f"{what}: {named} cannot be read, {found.broken[0]} for one; copy the series again")
    series = _by_choice(found, place, choice, what) if choice else _single(found, place, what)
    if series.problem:
        raise PairError(f"{what}: {path}: {series.problem}")
    return series, found.files


def _single(found: Found, place: Path, what: str) -> Series:
    """Return the only volume; raise PairError where there are several, or none."""
    if len(found.volumes) == 1:
        return found.volumes[0]
    if found.volumes:
        good = next((volume.number for volume in found.volumes if not volume.problem), None)
        how = f"choose one by its number, such as {place}{MARK}{good} (ncf files {place} lists them)"
        advice = how if good is not None else f"ncf files {place} says why none can be read"
        raise PairError(f"{what}: {place} holds {len(found.volumes)} DICOM volumes: {_told(found)}; {advice}")
    objects = ", ".join(f"{count} {name}" for name, count in found.objects.items())
    instead = f" ({objects} instead)" if objects else ""
    raise PairError(f"{what}: {place} holds no DICOM scan{instead}; name an image file, or the folder of a series")


def _by_choice(found: Found, place: Path, choice: str, what: str) -> Series:
    """Return the volume of a number, or of the UID of a series with one volume."""
    fits = [v for v in found.volumes if choice == v.uid or (choice.isdecimal() and int(choice) == v.number)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        numbers = ", ".join(str(volume.number) for volume in fits)
        raise PairError(f"{what}: series {choice} of {place} has {len(fits)} volumes; choose by number: {numbers}")
    raise PairError(
        f"{what}: {place} has no volume {choice}; it holds {len(found.volumes)} DICOM volumes: "
        f"{_told(found) or 'none'}; choose by one of these numbers"
    )


def _told(found: Found) -> str:
    """List volumes in one line, the first `NAMED` of them."""
    rest = len(found.volumes) - NAMED
    words = [f"{volume.number} {volume}" for volume in found.volumes[:NAMED]]
    return "; ".join(words) + (f"; and {rest} more" if rest > 0 else "")


def _notes(series: Series, files: Files) -> Iterator[str]:
    """Yield what was left out, and tags that contradict the positions of the planes."""
    if files.shadows:
        yield f"{files.shadows} files of macOS ({MAC_SHADOW}*) are left out"
    if series.copies:
        yield f"{series.copies} slices are there twice, with the same pixels at the same place; the copies are left out"
    step = spacing_mm(affine_of_planes(series.planes))[2]
    odd = sorted(value for value in series.spacings if abs(value - step) > SPACING_TOLERANCE * step)
    if odd:
        yield (
            f"SpacingBetweenSlices says {odd[0]:g} mm; by their positions slices lie {step:.4g} mm apart, which counts"
        )
    if len(series.thicknesses) > 1:
        low, high = min(series.thicknesses), max(series.thicknesses)
        yield f"slices are {low:g} to {high:g} mm thick; by their positions they lie {step:.4g} mm apart, which counts"
