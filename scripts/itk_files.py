"""Fields and transforms in files of ITK, beyond NIfTI: .nrrd, .mha, .h5 and .tfm, written and read back as maps.

On disk all of them are in LPS mm; this room knows how ITK orders a field's numbers and a composite's parts. Reading is
left to the package itk, which knows every kind of affine transform. Every function raises PairError for a file that cannot
be read or holds something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import optional_import

from scripts.errors import PairError
from scripts.exporters import load_itk_field, save_itk_field
from scripts.files import unreadable, write_whole
from scripts.geometry import RAS_TO_LPS, Grid, field_to_mm, field_to_vox, from_lps, spacing_mm
from scripts.maps import SpatialMap

NIFTI, IMAGE = (".nii", ".nii.gz"), (".nrrd", ".nhdr", ".mha", ".mhd")
HDF5, TEXT = (".h5", ".hdf5"), (".tfm", ".txt")
MATRIX = (".tfm", ".mat", ".h5", ".hdf5")  # ITK's affine transforms; a .txt may be either
KIND = "DisplacementFieldTransform_float_3_3"
SQUARE = 1e-3  # how far from 90 degrees, as a cosine, axes may be: ITK's directions are rotations
ITK_ERRORS = (OSError, EOFError, ValueError, RuntimeError, TypeError, KeyError, AttributeError)  # by damaged files


def itk_package() -> Any:
    """The package ``itk``; raises PairError where it is not installed."""
    itk, found = optional_import("itk")
    if not found:
        raise PairError("this format needs the package itk: run pip install itk, or use .nii.gz")
    return itk


# --- writing ---------------------------------------------------------------------------------------------------------


def save_field(path: str | Path, field_vox: torch.Tensor, affine: np.ndarray) -> None:
    """Nothing; a field (3, W, H, D), in voxels of its grid, as the file that the suffix of ``path`` names.

    .nii, .nii.gz, .nrrd and .mha hold a vector image, .h5 and .tfm ITK's transform; the same bytes each time.
    """
    path = Path(path)
    name = path.name.lower()
    if name.endswith(NIFTI):
        save_itk_field(path, field_vox, affine)
        return
    origin, spacing, direction = _itk_grid(affine, path)
    lps_mm = field_to_mm(field_vox.float(), RAS_TO_LPS @ np.asarray(affine)[:3, :3]).numpy()
    values = np.ascontiguousarray(lps_mm.transpose(3, 2, 1, 0))  # ITK: x runs fastest but for the components
    if name.endswith(IMAGE):
        itk = itk_package()
        image = itk.image_from_array(values, ttype=itk.Image[itk.Vector[itk.F, 3], 3])
        image.SetOrigin(origin.tolist())
        image.SetSpacing(spacing.tolist())
        image.SetDirection(itk.matrix_from_array(direction))
        write_whole(path, lambda temporary: itk.imwrite(image, str(temporary), compression=True))
    else:
        fixed = np.concatenate([field_vox.shape[1:], origin, spacing, direction.ravel()]).astype(np.float64)
        _save_transform(path, fixed, values.ravel())


def _itk_grid(affine: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Origin, spacing and direction in LPS of a grid; PairError for a sheared one, which ITK cannot hold."""
    lps = RAS_TO_LPS @ np.asarray(affine, dtype=np.float64)[:3]
    spacing = spacing_mm(affine)
    direction = lps[:, :3] / spacing
    if np.abs(direction.T @ direction - np.eye(3)).max() > SQUARE:
        raise PairError(f"cannot save {path}: the grid's axes are not at right angles, which ITK's files cannot hold")
    return lps[:, 3], spacing, direction


def _save_transform(path: Path, fixed: np.ndarray, values: np.ndarray) -> None:
    if path.name.lower().endswith(TEXT):
        numbers = [" ".join(repr(float(v)) for v in fixed), " ".join(map(str, values))]
        head = f"#Insight Transform File V1.0\n#Transform 0\nTransform: {KIND}\n"
        text = f"{head}Parameters: {numbers[1]}\nFixedParameters: {numbers[0]}\n"
        write_whole(path, lambda temporary: temporary.write_bytes(text.encode()))
        return
    if not path.name.lower().endswith(HDF5):
        raise PairError(f"cannot save {path}: a field's file ends in .nii.gz, .nrrd, .mha, .h5 or .tfm")
    write_whole(path, lambda temporary: _write_hdf5(temporary, fixed, values))


def _write_hdf5(path: Path, fixed: np.ndarray, values: np.ndarray) -> None:
    """As ITK's HDF5TransformIO lays it out, which itself puts the time into the file."""
    h5py, found = optional_import("h5py")
    if not found:
        raise PairError("ITK's .h5 needs the package h5py: run pip install h5py, or use .nrrd")
    text = h5py.string_dtype("ascii")  # ITK cannot read UTF-8 ones
    with h5py.File(path, "w", track_order=False) as file:
        for name, value in (("ITKVersion", "5.4.0"), ("HDFVersion", h5py.version.hdf5_version), ("OSName", "")):
            file.create_dataset(name, data=[value], dtype=text, track_times=False)
        group = file.create_group("TransformGroup").create_group("0")
        group.create_dataset("TransformType", data=[KIND], dtype=text, track_times=False)
        group.create_dataset("TransformFixedParameters", data=fixed, track_times=False)
        group.create_dataset("TransformParameters", data=values, compression="gzip", compression_opts=1, track_times=False)


# --- reading ---------------------------------------------------------------------------------------------------------


def load_map(path: str | Path) -> SpatialMap:
    """The map of a field's file, whatever ITK format it is in; of a composite, with the affines before and after it."""
    path = Path(path)
    name = path.name.lower()
    if name.endswith(NIFTI):
        field, affine = load_itk_field(path)
        return SpatialMap(torch.from_numpy(field), Grid(field.shape[1:], affine))
    if name.endswith(IMAGE):
        return SpatialMap(*_field_of(_read_image(path), path))
    if name.endswith((*HDF5, *TEXT)):
        return _composite(_read_transforms(path), path)
    raise PairError(f"{path}: a field's file ends in .nii.gz, .nrrd, .mha, .h5 or .tfm; convert it")


def load_affine(path: str | Path) -> np.ndarray:
    """The 4x4 map in RAS mm of an ITK transform file, or of a text file of four rows of four numbers, in RAS mm."""
    path = Path(path)
    try:
        text = path.read_bytes()[:30]
        if not path.name.lower().endswith(MATRIX) and not text.startswith(b"#Insight Transform"):
            return np.loadtxt(path, dtype=np.float64, delimiter="," if b"," in path.read_bytes() else None)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return _product([_affine_of(t, path) for t in _parts(_read_transforms(path))])


def _read_image(path: Path) -> Any:
    try:
        return itk_package().imread(str(path))
    except ITK_ERRORS as error:
        raise unreadable(path, error) from error


def _read_transforms(path: Path) -> list[Any]:
    try:
        return list(itk_package().transformread(str(path)))
    except ITK_ERRORS as error:
        raise unreadable(path, error) from error


def _parts(transforms: Sequence[Any]) -> list[Any]:
    """The transforms one by one, composites taken apart, in ITK's order: a point goes through the last one first."""
    itk, found = itk_package(), []
    for transform in transforms:
        count = transform.GetNumberOfTransforms() if hasattr(transform, "GetNthTransform") else None
        found += (
            [transform] if count is None else _parts([itk.down_cast(transform.GetNthTransform(n)) for n in range(count)])
        )
    return found


def _composite(transforms: Sequence[Any], path: Path) -> SpatialMap:
    parts = _parts(transforms)
    fields = [n for n, part in enumerate(parts) if hasattr(part, "GetDisplacementField")]
    if len(fields) != 1:
        names = [part.GetNameOfClass() for part in parts]
        raise PairError(f"{path}: expected one displacement field, with affine transforms or alone, got {names}")
    n = fields[0]
    image = parts[n].GetDisplacementField()
    if image is None or not parts[n].GetNumberOfParameters():
        raise PairError(f"cannot read {path}: its field is not complete; make or copy the file again")
    after, before = ([_affine_of(part, path) for part in some] for some in (parts[:n], parts[n + 1 :]))
    field, grid = _field_of(image, path)
    return SpatialMap(field, grid, _product(before), _product(after))


def _product(affines: Sequence[np.ndarray]) -> np.ndarray:
    """One after the other, the last one first."""
    return np.linalg.multi_dot([np.eye(4), np.eye(4), *affines])


def _affine_of(transform: Any, path: Path) -> np.ndarray:
    """The 4x4 map in RAS mm of one of ITK's affine transforms, of which three points and the origin tell all."""
    if not (hasattr(transform, "IsLinear") and transform.IsLinear()):
        raise PairError(f"{path}: a {transform.GetNameOfClass()} is no affine transform")
    matrix = np.eye(4)
    matrix[:3, 3] = list(transform.TransformPoint([0.0, 0.0, 0.0]))
    for axis, corner in enumerate(np.eye(3).tolist()):
        matrix[:3, axis] = np.array(list(transform.TransformPoint(corner))) - matrix[:3, 3]
    return from_lps(matrix)


def _field_of(image: Any, path: Path) -> tuple[torch.Tensor, Grid]:
    """The field in voxels and its grid of an ITK image of vectors in LPS mm."""
    itk = itk_package()
    values = np.asarray(itk.array_from_image(image), dtype=np.float32)
    if values.ndim != 4 or values.shape[-1] != 3 or not np.isfinite(values).all():
        raise PairError(f"{path}: expected a 3D image of finite vectors of 3, got {values.shape[::-1]}; give a field's file")
    lps = np.column_stack([_matrix(image.GetDirection()) * list(image.GetSpacing()), list(image.GetOrigin())])
    affine = np.vstack([RAS_TO_LPS @ lps, [0.0, 0.0, 0.0, 1.0]])
    field_mm = torch.from_numpy(np.ascontiguousarray(values.transpose(3, 2, 1, 0)))
    return field_to_vox(field_mm, lps[:, :3]), Grid(tuple(field_mm.shape[1:]), affine)


def _matrix(direction: Any) -> np.ndarray:
    return np.asarray(itk_package().array_from_matrix(direction), dtype=np.float64)
