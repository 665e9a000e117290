"""Image files read as tensors: NIfTI, MetaImage, NRRD and DICOM series.

A pair goes through `ncf.pair.checks.CheckFilesd`, `ReadPaird`, `ncf.pair.checks.CheckPaird`, `DataWeightd` and
`RobustScaled`. Original intensities stay under ``fixed`` and ``moving``; what is added has a key of its own. This
module must not know networks, losses or configs, and must not resample anything.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from monai.data import ITKReader, MetaTensor
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError

from ncf.core.errors import PairError
from ncf.core.names import IMAGE_SUFFIXES, MODALITY
from ncf.core.notes import note
from ncf.core.packages import optional
from ncf.core.paths import there
from ncf.core.scan_paths import MARK, scan_path
from ncf.io.dicom.folder import is_read_as_dicom
from ncf.io.dicom.series import read_series
from ncf.io.itk_headers import checked_header
from ncf.io.layout import row_major
from ncf.io.nifti_read import first_bytes, one_volume, open_nifti, placement
from ncf.space.geometry import is_solid

# what readers raise for damaged files: truncated ones, and ones with random bytes
READ_ERRORS = (OSError, EOFError, ValueError, RuntimeError, OverflowError, MemoryError, zlib.error)
NIFTI = (".nii", ".nii.gz")
SCALAR = "scalar"
NIFTI_SIZES = {348, 540}  # the first number of a header: of NIfTI-1 (or Analyze) and -2
HEADER_ERRORS = (ImageFileError, HeaderDataError, HeaderTypeError)


class _Found(NamedTuple):
    """What a reader has found: what a voxel is (`SCALAR` or a word for the message), the values, the affine in mm.

    Then what DICOM calls it, and what a person should know of it.
    """

    voxel: str
    array: np.ndarray
    affine: np.ndarray
    modality: str = ""
    notes: tuple[str, ...] = ()


def read_image(key: str, path: str) -> MetaTensor:
    """Read one volume.

    Args:
        key: what messages call it.
        path: of a file, or of a folder of DICOM files; behind it, # and a number choose one volume of several.

    Returns:
        MetaTensor float32 (1, W, H, D) with its affine, voxel -> RAS mm. Trailing axes of length 1 are dropped.

    Raises:
        PairError: the file cannot be read, or is anything but one 3D volume of real numbers.
    """
    found = _found(key, path, exact=False)
    array, affine = found.array, found.affine
    meta = {"filename_or_obj": path, "space": "RAS", "spatial_shape": np.array(array.shape), "original_affine": affine}
    meta[MODALITY] = found.modality
    return MetaTensor(row_major(array)[None], affine=torch.as_tensor(affine, dtype=torch.float64), meta=meta)


def read_values(key: str, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one volume without rounding: `read_image` keeps 24 bits of a number, which is too few for large labels.

    Args:
        key: what messages call it.
        path: of a file, or of the folder of a DICOM series.

    Returns:
        The values (W, H, D), in the file's type where it holds whole numbers; and the affine (4, 4), voxel -> RAS mm.

    Raises:
        PairError: as of `read_image`.
    """
    found = _found(key, path, exact=True)
    return found.array, found.affine


def _found(key: str, path: str, *, exact: bool) -> _Found:
    """Return what is in a file, a scalar volume (W, H, D)."""
    there(path, key)
    try:
        found = _reader(path, key, exact=exact)(path)
    except PairError:
        raise
    except (*READ_ERRORS, *HEADER_ERRORS) as error:
        raise unreadable_scan(key, path, error) from error
    for line in found.notes:
        note(f"{path}: {line}", key)
    array = found.array
    if found.voxel != SCALAR:
        raise PairError(f"{key}: {path} holds {found.voxel} voxels, expected one real number each; extract one channel")
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        advice = "extract one or stack slices"
        if array.ndim == 4 and path.lower().endswith(NIFTI):
            advice = f"choose one, such as {path}{MARK}1, or take all by ncf series"
        raise PairError(f"{key}: {path} has shape {array.shape}, expected one 3D volume; {advice}")
    if not is_solid(found.affine):
        raise PairError(f"{key} {path}: affine {found.affine[:3].tolist()} cannot be inverted; correct the header")
    return found._replace(array=array)


def unreadable_scan(key: str, path: str, error: Exception) -> PairError:
    """Return the refusal of a file that its reader could not read.

    Args:
        key: what messages call it.
        path: of the file.
        error: of the reader.
    """
    what = "it is damaged, write or copy it again"
    if _is_no_nifti(path):
        what = "it is no NIfTI file, although its name says so; convert it, or name the right file"
    return PairError(f"{key}: cannot read {path} ({_reason(error)}); {what}")


def _is_no_nifti(path: str) -> bool:
    """Tell whether a file is named as NIfTI and begins like something else."""
    if not path.lower().endswith(NIFTI):
        return False
    try:
        begin = first_bytes(path)
    except (OSError, EOFError, zlib.error):
        return False  # begins as gzip, and breaks off
    sizes = {int.from_bytes(begin[:4], order) for order in ("little", "big")}
    return len(begin) >= 4 and not sizes & NIFTI_SIZES


def _reader(path: str, key: str, *, exact: bool) -> Callable[[str], _Found]:
    """Return the function that reads a path; a folder is DICOM, as is a file that begins like it."""
    place, choice = scan_path(path)
    name = place.name.lower()
    if is_read_as_dicom(place):
        return lambda folder: _Found(SCALAR, *read_series(folder, key))
    if not name.endswith(IMAGE_SUFFIXES):
        raise PairError(f"{key}: {place} is of no known format; give {', '.join(IMAGE_SUFFIXES)}, or DICOM")
    if choice and not name.endswith(NIFTI):
        raise PairError(f"{key}: {place} holds one volume, {MARK}{choice} chooses none; leave it out")
    return partial(_read_nifti if name.endswith(NIFTI) else _read_itk, exact=exact)


def _reason(error: Exception) -> str:
    """Return a reader's complaint in one line, without ITK's source files, addresses and stale errno."""
    text = re.split(r"ITK ERROR: |itk::ERROR: |\[nrrd\] ", str(error))[-1].partition("Reason:")[0]
    text = " ".join(re.sub(r"\(0x[0-9a-f]+\)", "", text).split())
    return f"{type(error).__name__}: {text[:200]}".rstrip(": ")


def _read_nifti(path: str, *, exact: bool) -> _Found:
    """Return what is in a NIfTI file.

    MONAI's NibabelReader is not used: where a header has an sform but its pixdim was never set, it overwrites the good
    sform by a qform that was never set either (`monai.data.utils.rectify_header_sform_qform`).
    """
    file, choice = scan_path(path)
    with open_nifti(file) as image:
        dtype = image.get_data_dtype()
        if dtype.fields or dtype.kind == "c":
            return _Found("RGB" if dtype.fields else "complex", np.empty(0), np.eye(4))
        place = placement(image)
        if choice:
            values = one_volume(image, choice, path=file)
        elif math.prod(image.shape[3:]) > 1:
            values = np.broadcast_to(np.float32(0), image.shape)  # it is refused by its shape, before it is read
        else:
            values = np.asarray(image.dataobj) if exact else image.get_fdata(dtype=np.float32, caching="unchanged")
        return _Found(SCALAR, values, place.affine, notes=place.notes)


def _read_itk(path: str, *, exact: bool) -> _Found:
    """Return what is in a MetaImage or NRRD, by MONAI's ITKReader.

    Without ``pixel_type``, int8 and int64 files are refused. With it, ITK silently turns RGB into grey, so the header
    is checked first.
    """
    itk, told = optional("itk"), checked_header(path)
    header = itk.ImageIOFactory.CreateImageIO(path, itk.CommonEnums.IOFileMode_ReadMode)
    if header is None:
        raise ValueError("no reader knows its content")
    header.SetFileName(path)
    header.ReadImageInformation()
    if header.GetNumberOfDimensions() not in (2, 3, 4):
        raise ValueError(f"it has {header.GetNumberOfDimensions()} axes, expected 3")
    if header.GetNumberOfComponents() != 1:
        return _Found(f"{header.GetNumberOfComponents()}-component", np.empty(0), np.eye(4))
    reader = ITKReader(pixel_type=itk.D if exact else itk.F)
    image = reader.read(path)
    try:
        array, meta = reader.get_data(image)
    except TypeError as error:  # from ITK's bindings, for a name in the header that is not UTF-8
        raise ValueError("its header is no plain text") from error
    affine = np.asarray(meta["affine"], dtype=np.float64)
    affine[:3] *= told.unit_mm
    return _Found(SCALAR, array, affine, notes=told.notes)
