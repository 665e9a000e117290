"""ITK's transform files (.h5, .tfm or .txt, and the .mat of ANTs) as affine maps and fields, in ITK's order.

The files are read here without ITK, whose own reader takes longer to load than most maps take to apply. Only for an
affine transform that is given by angles, the package itk computes the matrix. Everything is in LPS mm, as in the files.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from ncf.core.errors import PairError
from ncf.core.files import unreadable, write_whole
from ncf.core.packages import optional

HDF5, TEXT, MATLAB = (".h5", ".hdf5"), (".tfm", ".txt"), (".mat",)
FIELD, MATRIX, SHIFT, NOTHING = (
    "DisplacementFieldTransform",
    ("AffineTransform", "MatrixOffsetTransformBase"),
    "Translation",
    "Id",
)
COMPOSITE = "CompositeTransform"
PLANAR = {"AffineTransform": 6, "MatrixOffsetTransformBase": 6, "TranslationTransform": 2}  # parameters in 2D
GRID_NUMBERS = 18  # size, origin, spacing, direction
ROOT, TYPE, FIXED, VALUES = "TransformGroup", "TransformType", "TransformFixedParameters", "TransformParameters"
READ_ERRORS = (
    OSError, EOFError, ValueError, KeyError, IndexError, TypeError, NotImplementedError, RuntimeError, MemoryError,
    MatReadError, OverflowError, RecursionError,
)  # fmt: skip


class Part(NamedTuple):
    """One transform of a file.

    Attributes:
        kind: without type and dimension.
        fixed: the parameters that are not fitted.
        values: the other parameters.
    """

    kind: str
    fixed: np.ndarray
    values: np.ndarray


def read_parts(path: str | Path) -> list[Part]:
    """Read the transforms of a file one by one; a point goes through the last one first, as in ITK's composites.

    Raises:
        PairError: the file is damaged, or holds no transform, or one in 2D.
    """
    path = Path(path)
    name = path.name.lower()
    readers: list[tuple[tuple[str, ...], Callable[[Path], list[Part]]]] = [(HDF5, _hdf5), (MATLAB, _matlab)]
    reader = next((read for suffixes, read in readers if name.endswith(suffixes)), _text)
    try:
        parts = [part for part in reader(path) if part.kind != COMPOSITE]
    except READ_ERRORS as error:
        raise unreadable(path, error) from error
    if any(part.kind == FIELD and not _is_field(part) for part in parts):
        raise PairError(
            f"cannot read {path}: its field is in 2D, not finite, not complete or without axes; make or "
            "copy the file again"
        )
    if not parts:
        raise PairError(f"cannot read {path}: no transform of ITK in it; check the path, or make the file again")
    return parts


def _is_field(part: Part) -> bool:
    """Tell whether the numbers of a field are complete and finite, and its axes span space."""
    if len(part.fixed) != GRID_NUMBERS or len(part.values) != 3 * np.prod(part.fixed[:3]):
        return False
    axes = part.fixed[9:].reshape(3, 3) * part.fixed[6:9]
    finite = np.isfinite(part.fixed).all() and np.isfinite(part.values).all()
    return bool(finite and np.linalg.matrix_rank(axes) == 3)


def _hdf5(path: Path) -> list[Part]:
    with optional("h5py").File(path, "r") as file:
        groups = [file[ROOT][number] for number in sorted(file[ROOT], key=int)]
        return [_part(group[TYPE].asstr()[0], _numbers(group, FIXED), _numbers(group, VALUES)) for group in groups]


def _numbers(group: Any, name: str) -> Any:
    """Return the numbers of a data set by its name, or by ITK's spelling before 2018 (version 5.0); () if missing."""
    return next((group[spelt][()] for spelt in (name, name.replace("Transform", "Tranform")) if spelt in group), ())


def _text(path: Path) -> list[Part]:
    found: list[dict[str, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        key, colon, value = line.partition(":")
        if colon and key == "Transform":
            found.append({})
        if colon and found:
            found[-1][key] = value
    return [_part(p["Transform"], p.get("FixedParameters", "").split(), p.get("Parameters", "").split()) for p in found]


def _matlab(path: Path) -> list[Part]:
    content = {key: value for key, value in loadmat(path).items() if not key.startswith("__")}
    fixed = content.pop("fixed", np.zeros(0))
    return [_part(kind, fixed.ravel(), values.ravel()) for kind, values in content.items()]


def _part(kind: str, fixed: Any, values: Any) -> Part:
    kept = np.float32 if kind.strip().startswith(FIELD) else np.float64
    return Part(kind.strip().partition("_")[0], np.asarray(fixed, dtype=np.float64), np.asarray(values, dtype=kept))


def matrix_of(part: Part, path: str | Path) -> np.ndarray:
    """Return the map (4, 4), in LPS mm, of an affine transform.

    Args:
        part: the transform.
        path: of its file, for the message.

    Raises:
        PairError: it is no affine transform in 3D.
    """
    matrix = np.eye(4)
    if part.kind in MATRIX and len(part.values) == 12:
        if len(part.fixed) not in (0, 3):
            raise PairError(
                f"cannot read {path}: the centre of its {part.kind} has {len(part.fixed)} numbers, expected 3"
            )
        centre = part.fixed if len(part.fixed) else np.zeros(3)
        matrix[:3, :3] = part.values[:9].reshape(3, 3)
        matrix[:3, 3] = part.values[9:] + centre - matrix[:3, :3] @ centre
        return matrix
    if part.kind.startswith(SHIFT) and len(part.values) == 3:
        matrix[:3, 3] = part.values
        return matrix
    if part.kind.startswith(NOTHING):
        return matrix
    if len(part.values) == PLANAR.get(part.kind):
        raise PairError(f"{path}: its {part.kind} is in 2D; save one for three axes")
    return _affine_by_itk(part, path)


def _affine_by_itk(part: Part, path: str | Path) -> np.ndarray:
    """Return the same for a transform by angles or a versor: ITK moves the origin and three points with it."""
    itk = optional("itk")
    try:
        kinds = getattr(itk, part.kind)
        transform = kinds[next(key for key in kinds if key[0] is itk.D and key[1:] in ((), (3,)))].New()
        for numbers, take in ((part.fixed, transform.SetFixedParameters), (part.values, transform.SetParameters)):
            take(itk.OptimizerParameters[itk.D](numbers.tolist()))
    except (*READ_ERRORS, AttributeError, StopIteration) as error:
        raise PairError(f"{path}: a {part.kind} is not known here; save it as an AffineTransform") from error
    if not transform.IsLinear():
        raise PairError(f"{path}: a {part.kind} is no affine transform, nor a displacement field; sample it as a field")
    matrix = np.eye(4)
    matrix[:3, 3] = list(transform.TransformPoint([0.0, 0.0, 0.0]))
    for axis, corner in enumerate(np.eye(3).tolist()):
        matrix[:3, axis] = np.array(list(transform.TransformPoint(corner))) - matrix[:3, 3]
    return matrix


def affine_transform(matrix: np.ndarray) -> Part:
    """Return an affine map (4, 4), LPS mm, as a transform."""
    return Part(MATRIX[0], np.zeros(3), np.concatenate([matrix[:3, :3].ravel(), matrix[:3, 3]]).astype(np.float64))


def save_transforms(path: Path, parts: Sequence[Part]) -> None:
    """Write one transform, or several as a composite, .h5 or text.

    Equal numbers give the same bytes; ITK itself writes the time into .h5.

    Args:
        path: of the file.
        parts: in the order of the file; a point goes through the last one first. Those of a composite are float64.

    Raises:
        PairError: the file cannot be written.
    """
    if len(parts) > 1:
        parts = [Part(COMPOSITE, np.zeros(0), np.zeros(0)), *parts]
    content = _hdf5_bytes(parts) if path.name.lower().endswith(HDF5) else _text_of(parts).encode()
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def _name(part: Part) -> str:
    """Return what a file calls a transform, with its type and dimensions."""
    single = part.kind == FIELD and part.values.dtype == np.float32
    return f"{part.kind}_{'float' if single else 'double'}_3_3"


def _text_of(parts: Sequence[Part]) -> str:
    """Return the content of a text file."""
    lines = ["#Insight Transform File V1.0"]
    for number, part in enumerate(parts):
        values, fixed = (
            " ".join(map(str, n.tolist() if n.dtype == np.float64 else n)) for n in (part.values, part.fixed)
        )
        lines += [f"#Transform {number}", f"Transform: {_name(part)}"]
        lines += [] if part.kind == COMPOSITE else [f"Parameters: {values}", f"FixedParameters: {fixed}"]
    return "\n".join([*lines, ""])


def _hdf5_bytes(parts: Sequence[Part]) -> memoryview:
    """Return the content of the file: on a full disk the library behind h5py would end the process."""
    h5py, buffer = optional("h5py"), io.BytesIO()
    text = h5py.string_dtype("ascii")  # ITK cannot read UTF-8 strings
    with h5py.File(buffer, "w", track_order=False) as file:
        for name, value in (("ITKVersion", "5.4.0"), ("HDFVersion", h5py.version.hdf5_version), ("OSName", "")):
            file.create_dataset(name, data=[value], dtype=text, track_times=False)
        for number, part in enumerate(parts):
            group = file.require_group(ROOT).create_group(str(number))
            group.create_dataset(TYPE, data=[_name(part)], dtype=text, track_times=False)
            if part.kind != COMPOSITE:
                group.create_dataset(FIXED, data=part.fixed, track_times=False)
                packed = {"compression": "gzip", "compression_opts": 1} if part.kind == FIELD else {}
                group.create_dataset(VALUES, data=part.values, track_times=False, **packed)
    return buffer.getbuffer()
