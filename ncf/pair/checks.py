"""Checks of a user's pair: do its files exist, and can it be registered at all?

`CheckFilesd` checks the paths before anything is read; `CheckPaird` checks what `ncf.pair.read.ReadPaird` has read.
They refuse, in one line that says what to do, whatever would fail or mislead later, and repair nothing. This module
must not know networks, losses or configs.

MONAI's ``Compose`` wraps what a transform raises in RuntimeErrors; the `PairError` is at the end of their chain of
``__cause__``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from monai.data import MetaTensor
from monai.transforms import Transform

from ncf.core.errors import PairError
from ncf.core.names import (
    GRID_OF,
    GUIDE_POINTS,
    IMAGE_SUFFIXES,
    IMAGES,
    LABEL_KEYS,
    PAIR_KEYS,
    POINTS,
    pair_name,
    safe_name,
)
from ncf.core.paths import expanded, shortened, there
from ncf.core.scan_paths import scan_path
from ncf.io.dicom.folder import is_dicom, is_list
from ncf.io.dicom.series import only_series
from ncf.io.label_files import is_label_object
from ncf.io.landmarks import read_landmarks
from ncf.pair.keys import Pair, PairFiles, affine_of
from ncf.space.geometry import is_solid, to_mm, to_vox

GRID_TOLERANCE_VOX = 1e-3  # headers written by different programs differ by float32 rounding, far below this
NO_IMAGES = (*POINTS, *GUIDE_POINTS)


class CheckFilesd(Transform):
    """Checks every path of a pair before anything is read."""

    def __call__(self, data: Mapping[str, Any]) -> PairFiles:
        """Check the files of a pair. Unknown keys are kept unchanged.

        Returns:
            A new dictionary without empty entries. Paths are strings with ``~`` expanded, and are also kept in
            ``files``. ``name`` is `pair_name` where none was given.

        Raises:
            PairError: an image is not named, a path is missing, empty or unreadable, a file's format is unknown, or a
                folder does not hold one DICOM volume, or the chosen one, of evenly spaced slices.
        """
        pair = {key: value for key, value in data.items() if value is not None and value != ""}
        for key in IMAGES:
            if key not in pair:
                raise PairError(f"{key}: a pair needs a fixed and a moving image, {key} is not named; add its path")
        for key in PAIR_KEYS:
            if key in pair:
                pair[key] = self._checked(key, pair[key])
        pair["files"] = {key: pair[key] for key in PAIR_KEYS if key in pair}
        if Path(pair["fixed"]).resolve() == Path(pair["moving"]).resolve():
            raise PairError(f"fixed and moving are one file, {pair['fixed']}; name two scans")
        name = pair.get("name")
        pair["name"] = pair_name(pair["fixed"], pair["moving"]) if name is None else safe_name(str(name))
        return cast(PairFiles, pair)

    def _checked(self, key: str, value: Any) -> str:
        """Return the path as a string, after opening it."""
        if not isinstance(value, (str, os.PathLike)):
            raise PairError(f"{key}: expected a path, got {type(value).__name__} {value!r:.60}; name a file or folder")
        path = there(expanded(value), key)
        if key in GRID_OF and is_label_object(path):
            return str(path)
        place = scan_path(path).path
        if key not in NO_IMAGES and (place.is_dir() or _is_dicom_file(key, place)):
            only_series(path, key)
            return str(path)
        try:
            with place.open("rb") as file:
                empty = not file.read(1)
        except OSError as error:
            what = f"cannot open {shortened(path)} ({error.strerror})"
            raise PairError(f"{key}: {what}; correct the path or permissions") from error
        if empty:
            raise PairError(f"{key}: {path} is empty (0 bytes); write or copy it again")
        if key not in NO_IMAGES and not place.name.lower().endswith(IMAGE_SUFFIXES):
            known = ", ".join(IMAGE_SUFFIXES)
            raise PairError(f"{key}: {path} is of no known format; give {known}, or DICOM")
        return str(path)


def _is_dicom_file(key: str, path: Path) -> bool:
    """Tell whether a file that is not named as another image is DICOM, or lists DICOM files."""
    if not path.is_file() or path.name.lower().endswith(IMAGE_SUFFIXES):
        return False
    try:
        return is_list(path) or is_dicom(path)
    except OSError as error:
        raise PairError(f"{key}: cannot open {path} ({error.strerror}); correct the path or permissions") from error


class CheckPaird(Transform):
    """Checks that a pair that was read can be registered; adds ``initial_mm``, and points as numbers.

    Args:
        min_size: the least number of voxels along every axis of both images.
        align_centres: begin with the centres of both grids together; the affines are not changed.
    """

    def __init__(self, min_size: int = 8, align_centres: bool = False) -> None:
        self.min_size = min_size
        self.align_centres = align_centres

    def __call__(self, data: Pair) -> Pair:
        """Check the volumes of a pair.

        Returns:
            A new dictionary with ``landmarks`` and ``guide_points``, float64 (N, 6), the fixed voxel and then the
            moving voxel, and ``initial_mm`` (3,). With ``align_centres``, ``initial_mm`` is the RAS vector in mm from
            the fixed to the moving centre, otherwise zeros. A point x of the fixed image is first looked for at
            x + initial_mm.

        Raises:
            PairError: the pair cannot be registered; the message names the file at fault.
        """
        pair: dict[str, Any] = dict(data)
        for key in IMAGES:
            _check_image(key, pair[key], min_size=self.min_size)
        for key, owner in GRID_OF.items():
            if key in pair:
                _check_same_grid(key, pair[key], owner=owner, image=pair[owner])
                _check_values(key, pair[key])
        shapes = {key: tuple(pair[key].shape[1:]) for key in IMAGES}
        affines = {key: affine_of(pair[key]) for key in IMAGES}
        for kind, keys in (("landmarks", POINTS), ("guide_points", GUIDE_POINTS)):
            points = {key: pair[key] for key in keys if key in pair}
            if points:
                pair[kind] = read_landmarks(points, shapes, affines, kind=kind)
        pair["initial_mm"] = np.zeros(3)
        if self.align_centres:
            pair["initial_mm"] = _cells_mm(pair["moving"]).mean(axis=0) - _cells_mm(pair["fixed"]).mean(axis=0)
        else:
            _check_overlap(pair["fixed"], pair["moving"])
        return cast(Pair, pair)


def _called(key: str, image: MetaTensor) -> str:
    return f"{key} {image.meta['filename_or_obj']}"


def _cells_vox(image: MetaTensor) -> np.ndarray:
    """Return the 8 corners of the box of voxel cells in voxels, (8, 3); their mean is the centre of the grid."""
    return np.array(list(itertools.product(*[(-0.5, n - 0.5) for n in image.shape[1:]])))


def _cells_mm(image: MetaTensor) -> np.ndarray:
    """Return the same 8 corners in RAS mm."""
    return to_mm(_cells_vox(image), affine_of(image))


def _check_image(key: str, image: MetaTensor, *, min_size: int) -> None:
    what, shape, affine = _called(key, image), tuple(image.shape[1:]), affine_of(image)
    if len(shape) != 3 or image.shape[0] != 1:
        raise PairError(f"{what}: expected one 3D volume (1, W, H, D), got shape {tuple(image.shape)}; extract one")
    if min(shape) < min_size:
        raise PairError(
            f"{what}: shape {shape} is too small, every axis needs {min_size} voxels; crop or resample less"
        )
    if not is_solid(affine):
        raise PairError(f"{what}: affine {affine[:3].tolist()} cannot be inverted; correct the header")
    check_finite(what, image)
    if image.min() == image.max():
        raise PairError(f"{what}: all voxels are {float(image.min()):g}, there is nothing to register; check the file")


def check_finite(what: str, image: MetaTensor) -> None:
    """Raise PairError where a voxel is not a finite number.

    Args:
        what: the volume, as the message calls it.
        image: the volume.
    """
    bad = int((~image.as_tensor().isfinite()).sum())
    if bad:
        raise PairError(f"{what}: {bad} of {image.numel()} voxels are NaN or infinite; replace them by a finite value")


def _check_same_grid(key: str, part: MetaTensor, *, owner: str, image: MetaTensor) -> None:
    what, whose = _called(key, part), _called(owner, image)
    advice = "resample it onto that grid (nearest neighbour)"
    if part.shape != image.shape:
        own, other = (tuple(i.shape[1:]) for i in (part, image))
        raise PairError(f"{what}: shape {own} is not that of {whose}, {other}; {advice}")
    off = np.abs(to_vox(_cells_mm(part), affine_of(image)) - _cells_vox(image)).max()
    if not off <= GRID_TOLERANCE_VOX:  # not ">", which a NaN would pass
        rows, others = (np.round(affine_of(i)[:3], 4).tolist() for i in (part, image))
        raise PairError(f"{what}: affine {rows} is not that of {whose}, {others}: up to {off:.3g} voxels off; {advice}")


def _check_values(key: str, part: MetaTensor) -> None:
    what, values = _called(key, part), part.as_tensor()
    check_finite(what, part)
    if key in LABEL_KEYS:
        return  # `ncf.io.label_files` has read whole numbers, or refused
    if values.min() < 0:
        raise PairError(f"{what}: weights must not be negative, the lowest is {values.min():g}; use 0 for outside")
    elif values.max() == 0:
        raise PairError(f"{what}: the mask is zero everywhere, nothing would be compared; leave it out or fill it")


def _check_overlap(fixed: MetaTensor, moving: MetaTensor) -> None:
    a, b = _cells_mm(fixed), _cells_mm(moving)
    gap = np.maximum(a.min(axis=0), b.min(axis=0)) - np.minimum(a.max(axis=0), b.max(axis=0))
    if gap.max() >= 0:
        raise PairError(
            f"{_called('fixed', fixed)} and {_called('moving', moving)} do not overlap in space, their boxes are "
            f"{np.linalg.norm(np.maximum(gap, 0)):.1f} mm apart; correct the header",
            hint="align_centres",
        )
