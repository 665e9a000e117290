"""Images and displacement fields as NIfTI files, written and read; the same content gives the same bytes.

This module knows where voxels become the millimetres and the LPS axes of ITK. It must not know networks, losses, the
optimiser or configs; the arithmetic of space is in `ncf.space.geometry`. Every function here raises PairError for a
disk or folder that refuses (`ncf.core.files`), for a damaged file, and for content that the file could not hold.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from isal import isal_zlib
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from ncf.core.errors import PairError
from ncf.core.files import DAMAGE, unreadable, write_whole
from ncf.core.notes import note
from ncf.io.layout import row_major
from ncf.io.nifti_read import open_nifti, placement
from ncf.space.geometry import RAS_TO_LPS, field_to_mm, field_to_vox, to_mm

INTENT_VECTOR = 1007  # NIFTI_INTENT_VECTOR of nifti1.h: ITK, Slicer and ANTs know a displacement field by it
INTENT_RAS = 1006  # NIFTI_INTENT_DISPVECT, which 3D Slicer writes: ITK from 5.4 on takes its vectors for RAS mm
STORABLE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")  # read by every NIfTI program
GZIP_WBITS = 31  # the largest window, and a gzip header without name or time
PACKING_LEVEL = 1  # of ISA-L, 0 to 3; a higher one saves almost nothing on noisy images
SLAB_PLANES = 16  # planes copied and compressed at a time
QFORM_SLACK_VOX = 0.01  # a quaternion that moves no corner by more is as good as the matrix (float32 rounding)


def save_image(path: str | Path, array: np.ndarray | torch.Tensor, affine: np.ndarray) -> None:
    """Write a volume as a NIfTI file (.nii or .nii.gz) in its own type.

    Args:
        path: of the file.
        array: (W, H, D), or (W, H, D, C) for several values a voxel; one of the types of `STORABLE`.
        affine: (4, 4), voxel -> RAS mm. A sheared one is stored in the sform alone, because a quaternion cannot hold
            shears (ITK reads no such file; nibabel and FSL do).

    Raises:
        PairError: the file cannot be written, or cannot hold this array or affine.
    """
    data = _plain(array)
    if data.dtype.name not in STORABLE or data.ndim not in (3, 4):
        what = f"expected (W, H, D) or (W, H, D, C) of {', '.join(STORABLE)}, got {data.shape} of {data.dtype}"
        raise PairError(f"cannot save {path}: {what}; convert it first")
    _save_nifti(Path(path), data, affine, intent=0)


def save_itk_field(path: str | Path, field_vox: np.ndarray | torch.Tensor, affine: np.ndarray) -> None:
    """Write a field as an ITK displacement field (NIfTI, 5D, intent 1007, LPS mm, float32).

    ITK, 3D Slicer and ANTs resample the moving image onto the fixed grid with it.

    Args:
        path: of the file.
        field_vox: (3, W, H, D), in voxels on the fixed grid, fixed to moving.
        affine: (4, 4), the fixed image's voxel -> RAS mm; it is the affine of the file, too.

    Raises:
        PairError: the file cannot be written, or the field or affine has another shape.
    """
    data = np.require(_plain(field_vox), np.float32, ["C", "W"])
    if data.ndim != 4 or data.shape[0] != 3:
        raise PairError(f"cannot save {path}: a field must have shape (3, W, H, D), got {data.shape}")
    lps_mm = field_to_mm(torch.from_numpy(data), _lps_matrix(path, affine)).numpy()
    _save_nifti(Path(path), np.moveaxis(lps_mm, 0, -1)[:, :, :, None], affine, intent=INTENT_VECTOR)


def load_itk_field(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read an ITK displacement field, from files of ITK, ANTs or 3D Slicer too: the inverse of `save_itk_field`.

    Returns:
        The field (3, W, H, D), float32, in voxels on its own grid, and the affine (4, 4) of that grid, voxel -> RAS mm.

    Raises:
        PairError: the file cannot be read, is no such field, or holds values that are not finite.
    """
    try:
        with open_nifti(path) as image:
            intent, place = int(image.header["intent_code"]), placement(image)
            lps_mm = np.asarray(image.dataobj, dtype=np.float32)
    except (*DAMAGE, OverflowError, zlib.error, ImageFileError, HeaderDataError) as error:
        raise unreadable(path, error) from error
    if intent not in (INTENT_VECTOR, INTENT_RAS) or lps_mm.ndim != 5 or lps_mm.shape[3:] != (1, 3):
        wanted = f"expected shape (W, H, D, 1, 3) with intent {INTENT_VECTOR} or {INTENT_RAS}"
        what = f"{wanted}, got {image.shape} with intent {intent}"
        raise PairError(f"{path} is no ITK displacement field: {what}; give the file of a field")
    if not np.isfinite(lps_mm).all():
        raise PairError(f"{path} holds values that are not finite; every voxel needs a displacement")
    for line in place.notes:
        note(line, str(path))
    affine = place.affine
    channels = torch.stack([row_major(lps_mm[:, :, :, 0, axis]) for axis in range(3)])
    if intent == INTENT_RAS:
        channels *= torch.tensor(RAS_TO_LPS.diagonal(), dtype=torch.float32).view(3, 1, 1, 1)
    return field_to_vox(channels, _lps_matrix(path, affine)).numpy(), affine


def _plain(array: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return the same values as a numpy array in this machine's byte order, without a copy where possible."""
    data = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
    return data.astype(data.dtype.newbyteorder("="), copy=False)


def _lps_matrix(path: str | Path, affine: np.ndarray) -> np.ndarray:
    """Return the matrix (3, 3) from voxels to LPS mm; raise PairError for what is no affine with an inverse."""
    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise PairError(f"{path}: the affine must be 4x4, finite and have an inverse, got {affine.tolist()}")
    return RAS_TO_LPS @ affine[:3, :3]


def _save_nifti(path: Path, data: np.ndarray, affine: np.ndarray, *, intent: int) -> None:
    """Write header and data as a whole, compressed where the name ends in .gz."""
    if not path.name.endswith((".nii", ".nii.gz")):
        raise PairError(f"cannot save {path}: images are NIfTI files, give a name that ends in .nii or .nii.gz")
    _lps_matrix(path, affine)
    chunks = _nifti_chunks(data, _nifti_header(data, affine, intent))
    if path.name.endswith(".gz"):
        chunks = _deflated(chunks)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.writelines(chunks)

    write_whole(path, write)


def _nifti_header(data: np.ndarray, affine: np.ndarray, intent: int) -> nib.Nifti1Header:
    """Return a header with the affine as sform, and as qform where a rotation and voxel sizes say the same."""
    header = nib.Nifti1Header()
    header.set_data_shape(data.shape)
    header.set_data_dtype(data.dtype)
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm")
    header["intent_code"] = intent
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(data.shape[:3]) - 1)
    apart_mm = np.abs(to_mm(corners, header.get_qform()) - to_mm(corners, affine)).max()
    if apart_mm > QFORM_SLACK_VOX * min(header.get_zooms()[:3]):
        header.set_qform(None, code=0)
    return header


def _nifti_chunks(data: np.ndarray, header: nib.Nifti1Header) -> Iterator[bytes]:
    """Yield the bytes of a single-file NIfTI by slabs, as the first axis runs fastest on disk; no full copy is made."""
    head = io.BytesIO()
    header.write_to(head)
    yield head.getvalue()
    for index in np.ndindex(*data.shape[:2:-1]):
        volume = data[(..., *reversed(index))]
        for start in range(0, volume.shape[2], SLAB_PLANES):
            yield volume[:, :, start : start + SLAB_PLANES].tobytes("F")


def _deflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the same bytes as a gzip stream without time and name; ISA-L takes a sixth of zlib's time."""
    packer = isal_zlib.compressobj(PACKING_LEVEL, isal_zlib.DEFLATED, GZIP_WBITS)
    for chunk in chunks:
        yield packer.compress(chunk)
    yield packer.flush()
