"""Images in memory: from nibabel, SimpleITK, MONAI or plain arrays to the project's MetaTensors, and back.

Only this module knows how those programs say where a volume lies. Nothing is resampled or reoriented; no file is read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ncf.core.errors import PairError
from ncf.core.labels import Wanted
from ncf.core.packages import optional
from ncf.io.label_files import labels_of, read_label
from ncf.io.mask_files import read_mask
from ncf.io.nifti_read import affine_mm
from ncf.space.geometry import RAS_TO_LPS, field_to_mm, spacing_mm

REAL = "biuf"  # kinds of numpy's types in which a voxel is one real number
FORMS = "an array with its affine as (array, affine), a MetaTensor, or an image of nibabel or SimpleITK"


def image_of(key: str, given: Any) -> MetaTensor:
    """Return an image in memory as a MetaTensor, as `ncf.io.image_files.read_image` returns a file.

    Args:
        key: what messages call it.
        given: one of `FORMS`; an array (W, H, D), a MetaTensor (1, W, H, D) or (W, H, D). It is not changed.

    Returns:
        MetaTensor float32 (1, W, H, D) with its affine, voxel -> RAS mm.

    Raises:
        PairError: it is of another form, or is anything but one 3D volume of real numbers.
    """
    values, affine = _parts(key, given)
    _check(key, values, affine)
    shape = np.array(values.shape)
    meta = {"filename_or_obj": "(in memory)", "space": "RAS", "spatial_shape": shape, "original_affine": affine}
    copied = torch.from_numpy(np.array(values, dtype=np.float32, order="C", copy=True))
    return MetaTensor(copied[None], affine=torch.as_tensor(affine, dtype=torch.float64), meta=meta)


def label_of(key: str, given: Any, image: MetaTensor, *, wanted: Sequence[Wanted] = ()) -> MetaTensor:
    """Return a label map in memory, or the path of one, as `ncf.io.label_files.read_label` returns a file.

    Args:
        key: what messages call it.
        given: one of `FORMS`, or a path.
        image: the scan on whose grid contours and segments are wanted.
        wanted: names or numbers of labels; by default all.

    Raises:
        PairError: what `image_of` and `read_label` raise.
    """
    if isinstance(given, (str, os.PathLike)):
        return read_label(key, os.path.expanduser(given), image, wanted=wanted)
    values, affine = _parts(key, given, exact=True)
    _check(key, values, affine)
    return labels_of(key, values, affine, wanted=wanted)


def mask_of(key: str, given: Any, image: MetaTensor) -> MetaTensor:
    """Return a mask in memory, or the path of one, as `ncf.io.mask_files.read_mask` returns a file.

    Args:
        key: what messages call it.
        given: one of `FORMS`, or a path, perhaps with # and names of structures behind it.
        image: the scan on whose grid structures are wanted.

    Raises:
        PairError: what `image_of` and `read_mask` raise.
    """
    if isinstance(given, (str, os.PathLike)):
        return read_mask(key, os.path.expanduser(given), image)
    return image_of(key, given)


def _check(key: str, values: np.ndarray, affine: np.ndarray) -> None:
    """Raise PairError unless values are one 3D volume of real numbers with an affine."""
    if values.dtype.kind not in REAL:
        raise PairError(f"{key}: voxels are {values.dtype}, expected one real number each; extract one channel")
    if values.ndim != 3:
        raise PairError(f"{key}: shape {values.shape}, expected one 3D volume (W, H, D); extract one")
    if affine.shape != (4, 4):
        raise PairError(f"{key}: the affine has shape {affine.shape}, expected (4, 4), voxel -> RAS mm")


def _parts(key: str, given: Any, *, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return values (W, H, D) and affine (4, 4)."""
    if isinstance(given, MetaTensor):
        return _of_meta_tensor(key, given)
    if isinstance(given, tuple) and len(given) == 2:
        array, affine = given
        array = array.detach().cpu() if isinstance(array, torch.Tensor) else array
        return np.asarray(array), np.asarray(affine, dtype=np.float64)
    if hasattr(given, "dataobj"):  # nibabel's
        kind = given.get_data_dtype()
        if kind.kind not in REAL:
            return np.empty(0, kind), affine_mm(given)
        values = given.get_fdata(dtype=np.float32, caching="unchanged") if not exact else np.asarray(given.dataobj)
        return values, affine_mm(given)
    if hasattr(given, "GetDirection"):  # SimpleITK's
        return _of_sitk(key, given)
    raise PairError(f"{key}: expected {FORMS}, got {type(given).__name__}; of files, ncf.register takes the paths")


def _of_meta_tensor(key: str, given: MetaTensor) -> tuple[np.ndarray, np.ndarray]:
    space = str(given.meta.get("space", "RAS"))
    if not space.endswith("RAS"):
        raise PairError(f"{key}: the MetaTensor's affine is in {space}, expected RAS; load with affine_lps_to_ras=True")
    values = given.as_tensor().detach().cpu().numpy()
    if values.ndim == 4 and len(values) != 1:
        raise PairError(f"{key}: a MetaTensor of shape {values.shape}, expected one channel, (1, W, H, D); select it")
    return values[0] if values.ndim == 4 else values, given.affine.cpu().numpy().astype(np.float64)


def _of_sitk(key: str, image: Any) -> tuple[np.ndarray, np.ndarray]:
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        what = f"{image.GetDimension()} axes, {image.GetNumberOfComponentsPerPixel()} values a voxel"
        raise PairError(f"{key}: a SimpleITK image of {what}; expected 3 axes and one value")
    affine = np.eye(4)
    affine[:3, :3] = RAS_TO_LPS @ (np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing())
    affine[:3, 3] = RAS_TO_LPS @ image.GetOrigin()
    return optional("SimpleITK").GetArrayViewFromImage(image).T, affine


def to_sitk(image: MetaTensor) -> Any:
    """Return the same volume as a SimpleITK image.

    Args:
        image: (1, W, H, D), or (3, W, H, D), which becomes a vector image.

    Raises:
        PairError: SimpleITK is not installed.
    """
    values = image.as_tensor().cpu().numpy()
    affine, step = image.affine.cpu().numpy().astype(np.float64), spacing_mm(image.affine.cpu().numpy())
    array = values[0].T if len(values) == 1 else np.moveaxis(values, 0, -1).transpose(2, 1, 0, 3)
    made = optional("SimpleITK").GetImageFromArray(np.ascontiguousarray(array), isVector=len(values) > 1)
    made.SetSpacing(step.tolist())
    made.SetOrigin((RAS_TO_LPS @ affine[:3, 3]).tolist())
    made.SetDirection((RAS_TO_LPS @ affine[:3, :3] / step).flatten().tolist())
    return made


def to_sitk_field_transform(field_vox: MetaTensor) -> Any:
    """Return a displacement field as a transform of SimpleITK, in LPS mm.

    Args:
        field_vox: (3, W, H, D), in voxels of its own grid, fixed to moving.

    Raises:
        PairError: SimpleITK is not installed.
    """
    affine = field_vox.affine.cpu().numpy().astype(np.float64)
    lps_mm = field_to_mm(field_vox.as_tensor().cpu().double(), RAS_TO_LPS @ affine[:3, :3])
    vectors = to_sitk(MetaTensor(lps_mm, affine=field_vox.affine))
    return optional("SimpleITK").DisplacementFieldTransform(vectors)
