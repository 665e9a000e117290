"""The values of planes, decoded by pydicom, as one volume in memory."""

from __future__ import annotations

import importlib
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ncf.core.errors import PairError
from ncf.core.packages import optional
from ncf.io.dicom.stack import Plane

NO_DECODER = "missing dependencies"  # in pydicom's message where a compression needs a package
SLAB = 16  # planes written at a time, so that the voxels along a line of planes share a line of the cache
THREADS = min(4, os.cpu_count() or 1)  # files are read while others are converted
EXACT_BITS = 16  # stored values of so many bits, and whole numbers added to them, are exact in float32
PIXEL_TAGS = (
    "SOPClassUID", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
    "FloatPixelData", "DoubleFloatPixelData", "ModalityLUTSequence", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "RescaleSlope", "RescaleIntercept",
)  # fmt: skip


class Stored(NamedTuple):
    """The stored values of a file, (frames, rows, columns), and its lookup table as a function, or None."""

    values: np.ndarray
    table: Any


def volume_of(planes: Sequence[Plane], what: str) -> np.ndarray:
    """Read planes as a volume.

    Nothing is inverted for MONOCHROME1: that says how to show values, not what they are.

    Args:
        planes: sorted, of one shape.
        what: how messages begin.

    Returns:
        Real values (W, H, D), float32: columns, rows and planes. Beside it, no more than a few slabs are in memory, or
        the stored values of files with several frames.

    Raises:
        PairError: pixels cannot be decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seen = Counter(plane.file for plane in planes if plane.native is None)
        framed = {file: _stored(file, what) for file, count in seen.items() if count > 1}
        first = _slab(planes[:1], framed, what)  # a damaged size fails here, before the memory for it is asked for
        try:
            volume = np.empty((*first.shape[:0:-1], len(planes)), dtype=np.float32)
        except MemoryError as error:
            raise PairError(f"{what}: {planes[0].file} needs more memory than there is; crop the scan") from error
        edges = [*range(0, len(planes), SLAB), len(planes)]

        def fill(ends: tuple[int, int]) -> None:
            """Read one slab."""
            slab = _slab(planes[ends[0] : ends[1]], framed, what)
            for row in range(slab.shape[1]):  # one row at a time: three times as fast as the whole slab
                volume[:, row, ends[0] : ends[1]] = slab[:, row].T

        with ThreadPoolExecutor(THREADS) as pool:
            jobs = [pool.submit(fill, ends) for ends in pairwise(edges)]
            try:
                for job in jobs:
                    job.result()
            finally:
                pool.shutdown(cancel_futures=True)
    return volume


def same_pixels(one: Plane, other: Plane) -> bool:
    """Tell whether two planes hold the same real values; planes that cannot be read do not."""
    try:
        values = [_slab([plane], {}, "")[0] for plane in (one, other)]
    except PairError:
        return False
    return np.array_equal(*values)


def _slab(planes: Sequence[Plane], framed: dict[Path, Stored], what: str) -> np.ndarray:
    """Return the real values of planes, (planes, rows, columns), float32."""
    slab = np.empty((len(planes), *planes[0].shape), dtype=np.float32)
    for number, plane in enumerate(planes):
        if plane.native is not None:
            _real(_plain(plane, what), plane, table=None, out=slab[number])
            continue
        stored = framed.get(plane.file) or _stored(plane.file, what)
        if plane.frame >= len(stored.values) or stored.values.shape[1:] != plane.shape:
            shape = stored.values.shape
            raise PairError(
                f"{what}: {plane.file} holds pixels of {shape}, its header says {plane.shape}; copy it again"
            )
        _real(stored.values[plane.frame], plane, table=stored.table, out=slab[number])
    return slab


def _real(stored: np.ndarray, plane: Plane, *, table: Any, out: np.ndarray) -> None:
    """Write the real values of stored ones."""
    if table is not None:
        out[:] = table(stored)
    elif (
        plane.slope == 1
        and plane.intercept.is_integer()
        and stored.dtype.kind in "iu"
        and stored.itemsize * 8 <= EXACT_BITS
    ):
        np.add(stored, np.float32(plane.intercept), out=out, dtype=np.float32, casting="unsafe")
    else:
        out[:] = stored * np.float64(plane.slope) + plane.intercept


def _plain(plane: Plane, what: str) -> np.ndarray:
    """Read stored values that lie in the file as plain numbers; raise PairError where it ends too early."""
    assert plane.native is not None
    try:
        stored = plane.native.frame(plane.file, plane.frame, plane.shape)
    except (OSError, ValueError) as error:
        raise PairError(f"{what}: cannot read slice {plane.file} ({error}); copy the series again") from error
    return _without_overlays(stored, plane.groups[-1])


def _stored(file: Path, what: str) -> Stored:
    """Decode a file; raise PairError where it cannot be done."""
    try:
        return _decoded(file)
    except Exception as error:  # whatever decoders raise for a damaged file, or a compression that none of them knows
        if NO_DECODER in str(error):
            raise PairError(
                f"{what}: {file} is compressed, and no decoder is installed: run pip install python-gdcm (the extra "
                "dicom), or decompress the series"
            ) from error
        reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:160]}"
        raise PairError(f"{what}: cannot read slice {file} ({reason}); copy the series again") from error


def _decoded(file: Path) -> Stored:
    pydicom = optional("pydicom")
    data = pydicom.dcmread(file, force=True, specific_tags=list(PIXEL_TAGS))
    if not getattr(data.file_meta, "TransferSyntaxUID", None):
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    stored = data.pixel_array
    if stored.ndim == 2:
        stored = stored[None]
    table = None
    if data.get("ModalityLUTSequence"):
        home = "pydicom.pixels" if int(pydicom.__version__.split(".")[0]) > 2 else "pydicom.pixel_data_handlers.util"
        table = partial(importlib.import_module(home).apply_modality_lut, ds=data)
    return Stored(_without_overlays(stored, data), table)


def _without_overlays(stored: np.ndarray, data: Any) -> np.ndarray:
    """Return stored values by their own bits alone: old scanners keep overlays in the bits above (or below) them."""
    if stored.dtype.kind not in "iu":
        return stored
    bits, own = stored.itemsize * 8, int(data.get("BitsStored", 0) or stored.itemsize * 8)
    high = int(data.get("HighBit", own - 1))
    if not 0 < own < bits or not own - 1 <= high < bits:
        return stored
    if high >= own and not data.file_meta.TransferSyntaxUID.is_compressed:
        stored = stored >> (high + 1 - own)
    shift = bits - own
    return (stored << shift) >> shift  # the sign, where there is one, is spread again
