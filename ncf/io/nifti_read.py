"""NIfTI files opened and understood: where their voxels begin, and where their grid lies in space.

A header has two places for a grid, sform and qform, and may fill both, one or none. `placement` says which one counts,
and what a person should know of it. The rules of nibabel, FSL and ITK for these cases differ; docs/formats.md has ours.
"""

from __future__ import annotations

import gzip
import logging
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import logger
from nibabel.spatialimages import HeaderDataError

from ncf.core.errors import PairError
from ncf.core.paths import file_there
from ncf.space.geometry import RAS_TO_LPS, is_sheared, is_solid, spacing_mm, to_mm

ISAL_ERROR: Any = isal_zlib.error
GZIP_MAGIC = b"\x1f\x8b"
READ_BYTES = 2**20  # bytes read at a time
PACKING = 1032  # zlib's best, for one byte
HEADER_BYTES = 540  # of NIfTI-2, the longer one
UNIT_BITS = 7  # the bits of the header's xyzt_units that hold the unit of length
S_OF = {8: 1.0, 16: 0.001, 24: 1e-6}  # of the bits that hold the unit of time: s, ms, us
MM_OF = {1: 1000.0, 3: 0.001}  # metres, micrometres; 2 is millimetres, and 0 is taken as millimetres, as in ITK
SCANNER = 1  # the one code of an sform that ITK prefers to a qform
APART_VOX = 0.01  # two grids whose corners differ by less are one: headers are float32
ITK = "SimpleITK and 3D Slicer"


class Placement(NamedTuple):
    """Where a header says that its grid lies.

    Attributes:
        affine: (4, 4), float64, voxel -> RAS mm.
        notes: what a person should know of it, a line each.
    """

    affine: np.ndarray
    notes: tuple[str, ...]


@contextmanager
def open_nifti(path: str | Path) -> Iterator[Any]:
    """Open a NIfTI file as nibabel's image, whose voxels must be read inside the ``with``; compressed or not.

    What counts is how the file begins, not how it is named. nibabel stops at the last voxel, before the checksum of a
    compressed file; here the checksum is verified at the end. What nibabel, gzip and zlib raise for a damaged file is
    not caught.
    """
    with _opened(file_there(path)) as stream:
        image, raw = _understood(stream, Path(path).stat().st_size)
        image.extra["raw_header"] = raw
        yield image
        while isinstance(stream, gzip.GzipFile) and stream.read(READ_BYTES):
            pass


def _understood(stream: IO[bytes], held: int) -> tuple[Any, Any]:
    """Return nibabel's image of a file of so many bytes, and its header as it is stored."""
    kind, raw = _header(stream)
    _check_offset(raw)
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # nibabel would print what it corrects in the header
    try:
        _check_size(raw, held, packed=isinstance(stream, gzip.GzipFile))
        stream.seek(0)
        return kind.from_stream(stream), raw
    except KeyError as error:  # what nibabel raises for a code that it does not know
        raise HeaderDataError(f"its header has the code {error}, which NIfTI does not know") from error
    finally:
        logger.setLevel(level)


def read_header(path: str | Path) -> Any:
    """Return the header of a NIfTI file as nibabel has it; nothing in it is corrected.

    What nibabel, gzip and zlib raise for a damaged file is not caught.
    """
    with _opened(file_there(path)) as stream:
        return _header(stream)[1]


def first_bytes(path: str | Path) -> bytes:
    """Return the first bytes of a file as far as a header goes, unpacked where it is compressed."""
    with _opened(file_there(path)) as stream:
        return stream.read(HEADER_BYTES)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file, unpacked where it is compressed; what ISA-L complains of is raised as zlib's."""
    with path.open("rb") as file:
        packed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    try:
        with igzip.open(path) if packed else path.open("rb") as stream:
            yield stream
    except ISAL_ERROR as error:
        raise zlib.error(str(error)) from error


def _header(stream: IO[bytes]) -> tuple[Any, Any]:
    """Return nibabel's class for a file, and the file's header."""
    block = stream.read(HEADER_BYTES)
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        header = kind.header_class
        if len(block) >= header.sizeof_hdr and header.may_contain_header(block):
            return kind, header(block[: header.sizeof_hdr], check=False)
    raise ImageFileError("no header of NIfTI")


def _check_offset(raw: Any) -> None:
    """Raise HeaderDataError where the voxels would begin inside the header: programs differ in where they read then."""
    offset = float(raw["vox_offset"])
    if not offset >= raw.single_vox_offset:  # not "<", which a NaN would pass
        raise HeaderDataError(f"vox_offset is {offset:g}, voxels begin at {raw.single_vox_offset} or later")


def _check_size(raw: Any, held: int, *, packed: bool) -> None:
    """Raise HeaderDataError where a file cannot hold the voxels of its header: memory would be made for them first."""
    wanted = math.prod(max(int(n), 0) for n in raw.get_data_shape()) * raw.get_data_dtype().itemsize
    if wanted > held * (PACKING if packed else 1):
        raise HeaderDataError(f"its header asks for {wanted} bytes, the file holds {held}")


def volumes_of(header: Any) -> int:
    """Return how many volumes a header tells of: the length of its fourth axis; later axes must not be there."""
    shape = [int(n) for n in header.get_data_shape()]
    return shape[3] if len(shape) > 3 and math.prod(shape[4:]) == 1 else 1


def times_s(header: Any) -> list[float] | None:
    """Return the times of a header's volumes in s, from 0; None where it names no step or no unit."""
    unit, step = S_OF.get(int(header["xyzt_units"]) & ~UNIT_BITS), float(header["pixdim"][4])
    return [n * step * unit for n in range(volumes_of(header))] if unit and step > 0 else None


def one_volume(image: Any, choice: str, *, path: Path) -> np.ndarray:
    """Return one volume (W, H, D) of an image that `open_nifti` has opened; the others are not kept.

    Args:
        image: of one volume or several.
        choice: the number of the volume, from 1.
        path: of its file, for the message.

    Raises:
        PairError: there is no such volume.
    """
    count = volumes_of(image.extra["raw_header"])
    if not choice.isdecimal() or not 1 <= int(choice) <= count:
        raise PairError(f"{path} has no volume {choice}; it holds {count}, counted from 1")
    if len(image.shape) == 3:
        return np.asarray(image.dataobj)
    number = int(choice) - 1
    return np.asarray(image.dataobj[:, :, :, number : number + 1]).reshape(image.shape[:3])


def affine_mm(image: Any) -> np.ndarray:
    """Return the affine (4, 4), float64, voxel -> RAS mm, of a nibabel image in memory, for any unit in its header."""
    affine = np.array(image.affine, dtype=np.float64)
    if isinstance(image, nib.Nifti1Pair):
        affine[:3] *= _unit_mm(image.header)
    return affine


def _unit_mm(header: Any) -> float:
    """Return the millimetres of the unit of length that a header names."""
    return MM_OF.get(int(header["xyzt_units"]) & UNIT_BITS, 1.0)


def placement(image: Any) -> Placement:
    """Return where the grid of an image lies that `open_nifti` has opened.

    The sform counts where its code is above 0, as in nibabel, FSL and SPM; else the qform. Where neither is set, the
    grid begins at the origin and its axes run to L, P and S, as in ITK.

    Raises:
        HeaderDataError: the qform counts, and is none.
    """
    raw = image.extra["raw_header"]
    shape = (*image.shape, 1, 1, 1)[:3]
    sform, qform = _sform(raw), _qform(raw)
    if sform is not None:
        found, notes = sform, _beside_sform(raw, sform, qform, shape)
    elif int(raw["qform_code"]) > 0:
        if qform is None or (raw["pixdim"][1:4] < 0).any():
            raise HeaderDataError("its qform is no rotation with voxel sizes above 0")
        found, notes = qform, [*_unset_sizes(raw)]
    else:
        found = np.diag([*(RAS_TO_LPS.diagonal() * _sizes(raw)), 1.0])
        notes = [
            "its header says nothing of where it lies (sform and qform codes are 0); taken as L P S from the origin"
        ]
        notes += _unset_sizes(raw)
    found[:3] *= _unit_mm(raw)
    return Placement(found, tuple(notes))


def _sform(raw: Any) -> np.ndarray | None:
    """Return the sform in the header's unit, None where its code is not above 0."""
    if int(raw["sform_code"]) <= 0:
        return None
    rows = [np.asarray(raw[name], dtype=np.float64) for name in ("srow_x", "srow_y", "srow_z")]
    return np.vstack([*rows, [0.0, 0.0, 0.0, 1.0]])


def _qform(raw: Any) -> np.ndarray | None:
    """Return the qform in the header's unit, None where its code is not above 0, or its numbers are no rotation."""
    if int(raw["qform_code"]) <= 0:
        return None
    plain = raw.copy()
    plain["pixdim"][0] = -1.0 if raw["pixdim"][0] < 0 else 1.0
    plain["pixdim"][1:4] = np.abs(_sizes(raw))
    try:
        found = np.asarray(plain.get_qform(), dtype=np.float64)
    except (ValueError, HeaderDataError):  # a quaternion longer than 1
        return None
    return found if np.isfinite(found).all() else None


def _sizes(raw: Any) -> np.ndarray:
    """Return the voxel sizes in the header's unit, (3,); those that are not set are 1, as every program has them."""
    sizes = np.asarray(raw["pixdim"][1:4], dtype=np.float64)
    return np.where(sizes == 0, 1.0, sizes)


def _unset_sizes(raw: Any) -> Iterator[str]:
    if (raw["pixdim"][1:4] == 0).any():
        yield f"its voxel sizes (pixdim) are {_told(raw['pixdim'][1:4])}; those of 0 are taken as 1"


def _beside_sform(raw: Any, sform: np.ndarray, qform: np.ndarray | None, shape: tuple[int, ...]) -> list[str]:
    """Return what a person should know of an sform that counts: what else the header says, and who reads that."""
    if not is_solid(sform):
        return []  # refused by whoever reads it
    steps = spacing_mm(sform)
    code = int(raw["sform_code"])
    if qform is not None:
        ends = np.array(list(np.ndindex(2, 2, 2))) * (np.array(shape) - 1)
        apart = np.linalg.norm(to_mm(ends, qform) - to_mm(ends, sform), axis=1).max()
        if apart > APART_VOX * steps.min():
            both = f"sform (code {code}) and qform (code {int(raw['qform_code'])})"
            mm = apart * _unit_mm(raw)
            who = f"; {ITK} take the qform" if code != SCANNER or is_sheared(sform) else ""
            return [f"its {both} place voxels up to {mm:.3g} mm apart; the sform counts{who}; write one into both"]
    elif np.abs(np.abs(_sizes(raw)) - steps).max() > APART_VOX * steps.min():
        told = f"voxels are {_told(steps)} by the sform and {_told(raw['pixdim'][1:4])} by pixdim"
        return [f"its {told}; the sform counts; {ITK} take pixdim"]
    if is_sheared(sform):
        return [f"the axes of its sform are not at right angles, which {ITK} cannot read"]
    return []


def _told(sizes: np.ndarray) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes)
