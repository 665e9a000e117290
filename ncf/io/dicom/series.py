"""One DICOM series as one volume, with notes about its files for the user. The result is in RAS mm."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ncf.core.errors import PairError
from ncf.core.packages import optional
from ncf.io.dicom.headers import MAC_SHADOW, Series, series_in
from ncf.io.dicom.stack import Plane, affine_of_planes, stacked
from ncf.space.geometry import spacing_mm

notes = logging.getLogger("ncf.notes")
NO_DECODER = "missing dependencies"  # in pydicom's message where a compression needs a package
SPACING_TOLERANCE = 0.01  # relative difference between a tag and the positions


def only_series(folder: str | Path, what: str) -> Series:
    """Return the one series in a folder, its planes sorted along their normal and checked to fill a box.

    Args:
        folder: of the DICOM files.
        what: how messages begin.

    Raises:
        PairError: there is not exactly one series, or its planes are not an evenly spaced stack of one shape and
            orientation.
    """
    series = series_in(folder, what)
    if len(series) != 1:
        told = f" ({'; '.join(map(str, series))})" if series else ""
        advice = "keep one series a folder" if series else "name an image file, or the folder right above the slices"
        raise PairError(f"{what}: {folder} holds {len(series)} DICOM series{told}, expected exactly one; {advice}")
    return replace(series[0], planes=tuple(stacked(series[0].planes, f"{what}: {folder}")))


def read_series(folder: str | Path, what: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Read the one series in a folder.

    Args:
        folder: of the DICOM files.
        what: how messages begin.

    Returns:
        The volume (W, H, D), float32, real values: columns, rows and planes of the series; its affine (4, 4), voxel ->
        RAS mm; and its modality, such as CT.

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
    return volume, affine_of_planes(planes), series.modality


def _notes(series: Series, folder: str | Path) -> Iterator[str]:
    """Yield what was left out of a folder, and tags that contradict the positions of the planes."""
    shadows = sum(path.name.startswith(MAC_SHADOW) for path in Path(folder).iterdir())
    if shadows:
        yield f"{shadows} files of macOS ({MAC_SHADOW}*) are left out"
    step = spacing_mm(affine_of_planes(series.planes))[2]
    odd = sorted(value for value in series.spacings if abs(value - step) > SPACING_TOLERANCE * step)
    if odd:
        yield (
            f"SpacingBetweenSlices says {odd[0]:g} mm; by their positions slices lie {step:.4g} mm apart, which counts"
        )
    if len(series.thicknesses) > 1:
        low, high = min(series.thicknesses), max(series.thicknesses)
        yield f"slices are {low:g} to {high:g} mm thick; by their positions they lie {step:.4g} mm apart, which counts"


def _pixels(plane: Plane, what: str) -> np.ndarray:
    """Return the real values (rows, columns) of a plane, float32."""
    try:
        stored, table = _decoded(plane.file)
    except Exception as error:  # whatever decoders raise for a damaged file, or a compression that none of them knows
        if NO_DECODER in str(error):
            raise PairError(
                f"{what}: {plane.file} is compressed, and no decoder is installed: run pip install python-gdcm (the "
                "extra dicom), or decompress the series"
            ) from error
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
        raise PairError(f"{what}: cannot read slice {plane.file} ({reason}); copy the series again") from error
    values = stored[plane.frame] if stored.ndim == 3 else stored
    if values.shape != plane.shape:
        raise PairError(
            f"{what}: {plane.file} holds pixels of {values.shape}, its header says {plane.shape}; copy it again"
        )
    return table(values) if table is not None else values.astype(np.float64) * plane.slope + plane.intercept


@lru_cache(maxsize=1)
def _decoded(file: Path) -> tuple[np.ndarray, Any]:
    """Return the stored values of a file, (frames, rows, columns) or (rows, columns), and its lookup table, or None.

    The lookup table is a function. Nothing is inverted for MONOCHROME1: that says how to show values, not what they
    are.
    """
    pydicom = optional("pydicom")
    data = pydicom.dcmread(file, force=True)
    if not getattr(data.file_meta, "TransferSyntaxUID", None):
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    stored = data.pixel_array
    table = None
    if data.get("ModalityLUTSequence"):
        home = "pydicom.pixels" if int(pydicom.__version__.split(".")[0]) > 2 else "pydicom.pixel_data_handlers.util"
        table = partial(importlib.import_module(home).apply_modality_lut, ds=data)
    return stored, table
