"""The first words with a user's files: does this pair exist, and can it be registered at all?

`CheckFilesd` looks at the paths before anything is read, `CheckPaird` at what `scripts.transforms.ReadPaird` read.
They refuse, in one line that says what to do, whatever would fail or mislead later, and repair nothing. This room must
not know networks, losses or configs.

MONAI's ``Compose`` wraps what a transform raises in RuntimeErrors; the `PairError` ends their chain of ``__cause__``.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform

from scripts.dicom import only_series
from scripts.errors import PairError
from scripts.geometry import spacing_mm, to_mm, to_vox
from scripts.landmarks import read_landmarks
from scripts.names import GRID_OF, IMAGES, PAIR_KEYS, POINTS, SUFFIXES, pair_name, safe_name

MOST_LABEL = 2**24 - 1
GRID_TOLERANCE_VOX = 1e-3  # headers written by different programs differ by float32 rounding, far below this
FLAT_VOLUME = 1e-6  # a cell with less than this share of its box's volume is flat: two axes coincide


class CheckFilesd(Transform):
    """The pair with its empty entries dropped and a ``name``, after a look at every path it names.

    Raises `PairError` when an image is not named, a path is missing, empty or unreadable, a file's format is unknown,
    or a folder does not hold exactly one DICOM series of evenly spaced slices. Unknown keys pass untouched.
    """

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A new dictionary; paths are strings with ``~`` expanded and kept in ``files``.

        ``name`` is `pair_name` where none was given.
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
        return pair

    def _checked(self, key: str, value: Any) -> str:
        """The path as a string, after it was opened."""
        if not isinstance(value, (str, os.PathLike)):
            raise PairError(f"{key}: expected a path, got {type(value).__name__} {value!r:.60}; name a file or folder")
        path = Path(value).expanduser()
        if path.is_dir() and key not in POINTS:
            only_series(path, key)
            return str(path)
        try:
            with path.open("rb") as file:
                empty = not file.read(1)
        except OSError as error:
            raise PairError(f"{key}: cannot open {path} ({error.strerror}); correct the path or permissions") from error
        if empty:
            raise PairError(f"{key}: {path} is empty (0 bytes); write or copy it again")
        if key not in POINTS and not path.name.lower().endswith(SUFFIXES):
            known = ", ".join(SUFFIXES)
            raise PairError(f"{key}: {path} is of no known format; give {known}, or a folder with one DICOM series")
        return str(path)


class CheckPaird(Transform):
    """The pair as `ReadPaird` gives it, found fit to register, with ``landmarks`` as numbers and with ``initial_mm``.

    Args:
        min_size: the least number of voxels along every axis of both images.
        align_centres: start with both grids' centres together. Affines are left alone; ``initial_mm`` says it.
    """

    def __init__(self, min_size: int = 8, align_centres: bool = False) -> None:
        self.min_size = min_size
        self.align_centres = align_centres

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A new dictionary with ``landmarks`` float64 (N, 6), fixed voxel then moving voxel, and ``initial_mm`` (3,).

        ``initial_mm`` is the RAS vector from the fixed to the moving centre with ``align_centres``, else zeros: a point
        x of the fixed image is first looked for at x + initial_mm. Raises `PairError` naming the file at fault.
        """
        pair = dict(data)
        for key in IMAGES:
            _check_image(key, pair[key], min_size=self.min_size)
        for key, owner in GRID_OF.items():
            if key in pair:
                _check_same_grid(key, pair[key], owner=owner, image=pair[owner])
                _check_values(key, pair[key])
        points = {key: pair[key] for key in POINTS if key in pair}
        if points:
            pair["landmarks"] = read_landmarks(points, {key: tuple(pair[key].shape[1:]) for key in IMAGES})
        pair["initial_mm"] = np.zeros(3)
        if self.align_centres:
            pair["initial_mm"] = _cells_mm(pair["moving"]).mean(axis=0) - _cells_mm(pair["fixed"]).mean(axis=0)
        else:
            _check_overlap(pair["fixed"], pair["moving"])
        return pair


def _called(key: str, image: MetaTensor) -> str:
    return f"{key} {image.meta['filename_or_obj']}"


def _affine(image: MetaTensor) -> np.ndarray:
    return image.affine.numpy().astype(np.float64)


def _cells_vox(image: MetaTensor) -> np.ndarray:
    """The 8 corners of the box of voxel cells in voxels, (8, 3); their mean is the grid's centre."""
    return np.array(list(itertools.product(*[(-0.5, n - 0.5) for n in image.shape[1:]])))


def _cells_mm(image: MetaTensor) -> np.ndarray:
    """The same 8 corners in RAS mm."""
    return to_mm(_cells_vox(image), _affine(image))


def _check_image(key: str, image: MetaTensor, *, min_size: int) -> None:
    what, shape, affine = _called(key, image), tuple(image.shape[1:]), _affine(image)
    if len(shape) != 3 or image.shape[0] != 1:
        raise PairError(f"{what}: expected one 3D volume (1, W, H, D), got shape {tuple(image.shape)}; extract one")
    if min(shape) < min_size:
        raise PairError(f"{what}: shape {shape} is too small, every axis needs {min_size} voxels; crop or resample less")
    flat = FLAT_VOLUME * np.prod(spacing_mm(affine))
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) <= flat:
        raise PairError(f"{what}: affine {affine[:3].tolist()} cannot be inverted; correct the header")
    check_finite(what, image)
    if image.min() == image.max():
        raise PairError(f"{what}: all voxels are {float(image.min()):g}, there is nothing to register; check the file")


def check_finite(what: str, image: MetaTensor) -> None:
    """Nothing; PairError where a voxel is no finite number."""
    bad = int((~image.as_tensor().isfinite()).sum())
    if bad:
        raise PairError(f"{what}: {bad} of {image.numel()} voxels are NaN or infinite; replace them by a finite value")


def check_largest_label(what: str, values: torch.Tensor) -> None:
    """Nothing; PairError for labels that float32, in which volumes are held, cannot tell from their neighbours."""
    if values.max() > MOST_LABEL:
        raise PairError(f"{what}: labels go up to {MOST_LABEL}, the largest here is {values.max():.0f}; number them anew")


def _check_same_grid(key: str, part: MetaTensor, *, owner: str, image: MetaTensor) -> None:
    what, whose = _called(key, part), _called(owner, image)
    advice = "resample it onto that grid (nearest neighbour)"
    if part.shape != image.shape:
        own, other = (tuple(i.shape[1:]) for i in (part, image))
        raise PairError(f"{what}: shape {own} is not that of {whose}, {other}; {advice}")
    off = np.abs(to_vox(_cells_mm(part), _affine(image)) - _cells_vox(image)).max()
    if not off <= GRID_TOLERANCE_VOX:  # not ">", which a NaN would pass
        rows, others = (np.round(_affine(i)[:3], 4).tolist() for i in (part, image))
        raise PairError(f"{what}: affine {rows} is not that of {whose}, {others}: up to {off:.3g} voxels off; {advice}")


def _check_values(key: str, part: MetaTensor) -> None:
    what, values = _called(key, part), part.as_tensor()
    check_finite(what, part)
    if key.endswith("_label"):
        odd = values[values != values.round()]
        if len(odd):
            raise PairError(f"{what}: labels must be whole numbers, {len(odd)} are not ({odd[0]:g}); save as integers")
        if values.min() < 0:
            raise PairError(f"{what}: labels are 0 and more, the lowest here is {values.min():g}; is this a scan?")
        check_largest_label(what, values)
    elif values.min() < 0:
        raise PairError(f"{what}: weights must not be negative, the lowest is {values.min():g}; use 0 for outside")
    elif values.max() == 0:
        raise PairError(f"{what}: the mask is zero everywhere, nothing would be compared; leave it out or fill it")


def _check_overlap(fixed: MetaTensor, moving: MetaTensor) -> None:
    a, b = _cells_mm(fixed), _cells_mm(moving)
    gap = np.maximum(a.min(axis=0), b.min(axis=0)) - np.minimum(a.max(axis=0), b.max(axis=0))
    if gap.max() >= 0:
        raise PairError(
            f"{_called('fixed', fixed)} and {_called('moving', moving)} do not overlap in space, their boxes are "
            f"{np.linalg.norm(np.maximum(gap, 0)):.1f} mm apart; correct the header, or pass --align_centres true to "
            "start with both centres together"
        )
