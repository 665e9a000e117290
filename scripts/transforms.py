"""Files to tensors: the dictionary transforms that MONAI lacks, as far as a pair's images are concerned.

A pair goes through `scripts.checks.CheckFilesd`, `ReadPaird`, `scripts.checks.CheckPaird`, `DataWeightd` and
`RobustScaled`. Original intensities stay under ``fixed`` and ``moving``; what is added has a key of its own. This room
must not know networks, losses or configs, nor resample anything.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import ITKReader, MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import optional_import
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError

from scripts.dicom import read_series
from scripts.errors import PairError
from scripts.names import GRID_OF, IMAGES
from scripts.nifti import affine_mm, open_nifti

READ_ERRORS = (OSError, EOFError, ValueError, RuntimeError, OverflowError, MemoryError, zlib.error)  # by damaged files,
HEADER_ERRORS = (ImageFileError, HeaderDataError, HeaderTypeError)  # truncated and with random bytes

AIR_HU = -1024.0  # the lowest value that means air; scanners and converters pad below it (-2000, -2048, -3024)
PADDING_SHARE = 1e-3  # of the voxels: a value held by fewer is a dark spot, and leaving it in costs nothing
PADDING_GAP = 0.25  # of the range of the other values: what no scanner noise bridges
PADDING_REST = (10.0, 99.0)  # percentiles for that range; resampling blurs padding into a few percent of the rest
SLAB_CONTRAST = 0.25  # of the robust range: what differs more from an empty slab belongs to the patient
SLAB_SECTION = 0.1  # of a slice: how much the largest cross-section must fill for its ends to tell anything
SLAB_EDGE = 0.03  # of the axis' length, the depth within which a cut patient shows; bodies round off more slowly
SLAB_CUT = 0.6  # of the largest cross-section, seen within that depth; measured: cuts 0.76 to 1, natural ends to 0.47
SLAB_NOISE = 1e-3  # of a slice: with fewer voxels of contrast it is empty
SLAB_RANGE = (0.5, 99.5)  # percentiles for that robust range

HOUNSFIELD_BELOW = -50.0  # fat is -100, air -1000 HU; MR, PET and shifted CT start near 0, z-scores above -10


class ReadPaird(Transform):
    """The pair with each image, label and mask read: MetaTensor float32 (1, W, H, D), affine voxel -> RAS mm.

    Values are the real ones (slope and intercept applied), array axes are the file's. Raises what `read_image` raises.
    """

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A new dictionary with tensors in the place of paths."""
        return {key: read_image(key, data[key]) if key in (*IMAGES, *GRID_OF) else data[key] for key in data}


def read_image(key: str, path: str) -> MetaTensor:
    """One volume as MetaTensor float32 (1, W, H, D) with its affine voxel -> RAS mm; messages call it ``key``.

    Trailing axes of length 1 are dropped. Raises `PairError` for a file that cannot be read and for anything but one 3D
    volume of real numbers.
    """
    if not os.path.exists(path):
        raise PairError(f"{key}: there is no {path}; correct the path")
    try:
        voxel, array, affine = _reader(path, key)(path)
    except PairError:
        raise
    except (*READ_ERRORS, *HEADER_ERRORS) as error:
        raise PairError(f"{key}: cannot read {path} ({_reason(error)}); it is damaged, write or copy it again") from error
    if voxel != "scalar":
        raise PairError(f"{key}: {path} holds {voxel} voxels, expected one real number each; extract one channel")
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise PairError(f"{key}: {path} has shape {array.shape}, expected one 3D volume; extract one or stack slices")
    meta = {"filename_or_obj": path, "space": "RAS", "spatial_shape": np.array(array.shape), "original_affine": affine}
    values = torch.from_numpy(np.array(array, dtype=np.float32, order="C", copy=True))
    return MetaTensor(values[None], affine=torch.as_tensor(affine, dtype=torch.float64), meta=meta)


def _reader(path: str, key: str) -> Callable[[str], tuple[str, np.ndarray, np.ndarray]]:
    """What reads a path; a folder is a DICOM series."""
    if os.path.isdir(path):
        return lambda folder: ("scalar", *read_series(folder, key))
    return _read_nifti if path.lower().endswith((".nii", ".nii.gz")) else _read_itk


def _reason(error: Exception) -> str:
    """What a reader complained about, in one line, without ITK's source files, addresses and stale errno."""
    text = re.split(r"ITK ERROR: |itk::ERROR: |\[nrrd\] ", str(error))[-1].partition("Reason:")[0]
    text = " ".join(re.sub(r"\(0x[0-9a-f]+\)", "", text).split())
    return f"{type(error).__name__}: {text[:200]}".rstrip(": ")


def _read_nifti(path: str) -> tuple[str, np.ndarray, np.ndarray]:
    """What a voxel is ("scalar" or a word for the message), the array, and the affine in mm of a NIfTI file.

    Not by MONAI's NibabelReader: where a header has an sform but its pixdim was never set, that one overwrites the good
    sform by a qform that was never set either (`monai.data.utils.rectify_header_sform_qform`).
    """
    with open_nifti(path) as image:
        dtype = image.get_data_dtype()
        if dtype.fields or dtype.kind == "c":
            return "RGB" if dtype.fields else "complex", np.empty(0), np.eye(4)
        return "scalar", image.get_fdata(dtype=np.float32, caching="unchanged"), affine_mm(image)


def _read_itk(path: str) -> tuple[str, np.ndarray, np.ndarray]:
    """The same of a MetaImage or NRRD, by MONAI's ITKReader.

    ``pixel_type``: without it int8 and int64 files are refused. With it ITK turns RGB into grey without a word, hence the
    look at the header.
    """
    itk = itk_package()
    header = itk.ImageIOFactory.CreateImageIO(path, itk.CommonEnums.IOFileMode_ReadMode)
    if header is None:
        raise ValueError("no reader knows its content")
    header.SetFileName(path)
    header.ReadImageInformation()
    if header.GetNumberOfDimensions() not in (2, 3, 4):
        raise ValueError(f"it has {header.GetNumberOfDimensions()} axes, expected 3")
    if header.GetNumberOfComponents() != 1:
        return f"{header.GetNumberOfComponents()}-component", np.empty(0), np.eye(4)
    reader = ITKReader(pixel_type=itk.F)
    image = reader.read(path)
    try:
        array, meta = reader.get_data(image)
    except TypeError as error:  # from ITK's bindings, for a name in the header that is no UTF-8
        raise ValueError("its header is no plain text") from error
    return "scalar", array, np.asarray(meta["affine"], dtype=np.float64)


def itk_package() -> Any:
    """The package ``itk``, loaded when the first file needs it; raises `PairError` where it is not installed."""
    itk, found = optional_import("itk")
    if not found:
        raise PairError("MetaImage and NRRD need the package itk: run pip install itk, or convert to NIfTI")
    return itk


class DataWeightd(MapTransform):
    """The pair with, for each key, ``<key>_valid`` (1, W, H, D), bool, and ``<key>_weight``, float32 0 to 1.

    ``valid`` is False where the file has no data. Only two patterns are sure signs of that; all else is information
    (empty air beside a patient says where the skin is), and a user who knows better gives a mask:

    * *Padding* (`padding`): the image's lowest value, when it lies below air, is held by many voxels, reaches a face of
      the array, and leaves a gap below nearly all others that scanner noise does not bridge. Zero is never padding: it
      is also the background of MR, PET, shifted CT and masked images.
    * *Slabs* (`slab`): empty slices at an end of an axis, where the patient starts at once with a full cross-section:
      the scan was cut there. A body that ends by itself starts with a small one. A box that floats in an empty
      background looks like a cut; slabs tilted by more than 1 or 2 degrees are not found, they need a mask.

    ``weight`` is ``valid`` times the user's ``<key>_mask`` if there is one (any weights, scaled to a maximum of 1).
    ``valid`` is kept beside it because intensities are scaled by all data, not by a mask that only one image has.
    """

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A new dictionary; raises `PairError` when no voxel of an image has both data and weight."""
        pair = dict(data)
        for key in self.keys:
            image = pair[str(key)]
            valid = data_region(image.as_tensor()[0])[None]
            weight = valid.float()
            mask = pair.get(f"{key}_mask")
            if mask is not None:
                weight = weight * (mask.as_tensor() / mask.as_tensor().max())
            if not (weight > 0).any():
                name = image.meta["filename_or_obj"]
                raise PairError(f"{key} {name}: no voxel has both data and weight; check the mask")
            pair[f"{key}_valid"] = valid
            pair[f"{key}_weight"] = MetaTensor(weight, meta=dict(image.meta))
        return pair


def data_region(volume: torch.Tensor) -> torch.Tensor:
    """Where ``volume`` (W, H, D) holds data, bool of that shape; the rules are those of `DataWeightd`."""
    valid = ~padding(volume)
    sample = (slice(None, None, 2),) * 3  # every 8th voxel tells the range as well
    bottom, top = np.percentile(volume[sample][valid[sample]].numpy(), SLAB_RANGE)
    contrast = SLAB_CONTRAST * float(top - bottom)
    slabs = [(a, end, slab(volume.movedim(a, 0), end=end, contrast=contrast)) for a in range(3) for end in (0, -1)]
    for axis, end, empty in slabs:
        along = valid.movedim(axis, 0)
        along = along[: len(empty)] if end == 0 else along[len(along) - len(empty) :]
        along &= ~empty
    return valid


def padding(volume: torch.Tensor) -> torch.Tensor:
    """Where ``volume`` (W, H, D) holds a scanner's padding value, bool of that shape, mostly False everywhere."""
    none = torch.zeros_like(volume, dtype=torch.bool)
    lowest = float(volume.min())
    if lowest >= AIR_HU:
        return none
    held = volume == lowest
    on_a_face = any(bool(held.select(axis, end).any()) for axis in range(3) for end in (0, -1))
    if held.float().mean() < PADDING_SHARE or held.all() or not on_a_face:
        return none
    low, high = np.percentile(volume[~held].numpy(), PADDING_REST)
    low = min(float(low), AIR_HU)  # where the scan shows no air, the gap still ends there
    if low - lowest <= PADDING_GAP * (high - low):
        return none
    return volume < (lowest + low) / 2  # the middle of the gap also takes what resampling blurred


def slab(slices: torch.Tensor, *, end: int, contrast: float) -> torch.Tensor:
    """Which voxels at one end (0 or -1) of the first axis of ``slices`` lie beyond the cut of a scan, bool (k, H, W).

    k is 0 where there is no such slab. What differs by more than ``contrast`` from the outermost slice's median belongs
    to the patient. Voxel columns are followed up to it, since resampling leaves the edge of a slab blurred or bent.
    """
    level = slices[end].median()
    if ((slices[end] - level).abs() > contrast).float().mean() > SLAB_NOISE:
        return torch.zeros_like(slices[:0], dtype=torch.bool)
    patient = (slices - level).abs() > contrast
    patient = patient.flip(0) if end else patient
    section = patient.count_nonzero((1, 2)) / patient[0].numel()
    start = int((section > SLAB_NOISE).int().argmax())
    reach = start + max(1, round(SLAB_EDGE * len(section)))
    full = (section[start:reach] >= SLAB_CUT * section.max()).nonzero()
    depth = start + int(full[0]) if start and len(full) and section.max() >= SLAB_SECTION else 0
    empty = patient[:depth].cumsum(0) == 0
    return empty.flip(0) if end else empty


class RobustScaled(MapTransform):
    """The pair with ``<key>_scaled``, float32 (1, W, H, D) in [0, 1], and ``intensity``: what became 0 and 1.

    The range of an image runs between two percentiles of its voxels with data (``<key>_valid`` of `DataWeightd`), so a
    few metal voxels do not squeeze the rest, and its unit does not matter. All images share one range (the union) when
    that means something: when all reach well below zero, which only Hounsfield units do, or when both ends of the
    ranges agree within ``agreement`` of the union. Then a density has the same value in both. Otherwise (CT against CT
    stored with an offset, MR against MR in other units) each image has its own range.

    Args:
        keys: the images to scale together.
        lower, upper: the percentiles, in percent. If they coincide (nearly all voxels are background), the lowest and
            the highest value with data stand in.
        agreement: largest difference of two ranges' ends, as a share of the union, for ranges in one unit.
    """

    def __init__(self, keys: KeysCollection, *, lower: float = 0.5, upper: float = 99.5, agreement: float = 0.15) -> None:
        super().__init__(keys)
        if not 0 <= lower < upper <= 100:
            raise ValueError(f"percentiles must satisfy 0 <= lower < upper <= 100, got {lower} and {upper}")
        self.percentiles = (lower, upper)
        self.agreement = agreement

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A new dictionary; ``intensity`` is {key: [low, high], ..., "shared": bool}, in each file's own unit."""
        pair = dict(data)
        names = [str(key) for key in self.keys]
        ranges = {key: self._range(key, pair[key], valid=pair[f"{key}_valid"]) for key in names}
        ends = np.array(list(ranges.values()))
        union = [float(ends[:, 0].min()), float(ends[:, 1].max())]
        hounsfield = bool((ends[:, 0] < HOUNSFIELD_BELOW).all())
        shared = hounsfield or bool((np.ptp(ends, axis=0) <= self.agreement * (union[1] - union[0])).all())
        if shared:
            ranges = {key: list(union) for key in names}
        for key, (low, high) in ranges.items():
            pair[f"{key}_scaled"] = (pair[key] - low).div_(high - low).clamp_(0, 1)
        pair["intensity"] = {**ranges, "shared": shared}
        return pair

    def _range(self, key: str, image: MetaTensor, *, valid: torch.Tensor) -> list[float]:
        values = image.as_tensor()[valid].numpy()
        low, high = (float(v) for v in np.percentile(values, self.percentiles))
        if high <= low:
            low, high = float(values.min()), float(values.max())
        if high <= low:
            name = image.meta["filename_or_obj"]
            raise PairError(f"{key} {name}: all voxels with data are {low:g}, nothing to register; check the file")
        return [low, high]
