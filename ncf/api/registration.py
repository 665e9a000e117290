"""Registration of images in memory, by the same config as the command line, so that equal images give equal bytes."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from os import PathLike
from typing import Any, cast

import numpy as np
import torch
from monai.transforms import Transform

from ncf.api.options import Options
from ncf.api.registered import Registered
from ncf.core.errors import PairError
from ncf.core.labels import sides_of
from ncf.core.names import GRID_OF, IMAGES, LABEL_KEYS
from ncf.core.paths import expanded, there
from ncf.core.refusals import explanation
from ncf.io.image_files import read_image
from ncf.io.image_objects import image_of, label_of, mask_of
from ncf.io.label_partners import matched
from ncf.pair.keys import Pair
from ncf.run.session import IN_MEMORY, Session

NAME = "in_memory"  # the name of a pair without files


def register(
    fixed: Any,
    moving: Any,
    *,
    fixed_label: Any = None,
    moving_label: Any = None,
    fixed_mask: Any = None,
    moving_mask: Any = None,
    landmarks: Any = None,
    guide_points: Any = None,
    preset: str | None = None,
    modality: str = "auto",
    transform: str = "deformable",
    guide_labels: bool = False,
    rigid_label: int | str | Sequence[int | str] | None = None,
    keep_volume_label: int | str | Sequence[int | str] | None = None,
    seed: int = 0,
    labels: str | Sequence[str | int] | None = None,
    device: str | torch.device | None = None,
    align_centres: bool = False,
    progress: bool = True,
) -> Registered:
    """Register one scan to another. Nothing is written, and no argument is changed.

    Args:
        fixed: a path, an array with its affine as (array, affine), a MetaTensor, or an image of nibabel or SimpleITK.
            A path is that of a file or DICOM folder as of ``ncf register``. Results lie on its grid.
        moving: the scan to bring onto it, in one of these forms.

    Keyword Args:
        fixed_label: a label map on the fixed grid, for Dice and for folds inside it; or the path of one, of an RTSTRUCT
            or of a DICOM SEG.
        moving_label: the same on the moving grid, carried over.
        fixed_mask: weights on the fixed grid; where it is 0 the images are not compared. Or the path of such an
            image, of an RTSTRUCT or of a DICOM SEG, ``"RS.dcm#Heart,Lung_L"`` for some of its structures.
        moving_mask: the same on the moving grid.
        landmarks: (N, 6), voxel indices of a point in fixed, then in moving; or the path of a CSV of them.
        guide_points: points that are known to belong together, in the same form; they guide the fit.
        preset: the name of one, such as ``fast``, or the path of a JSON overlay of your own.
        modality: ``same`` or ``different`` overrules ``auto``, which asks the scans whether they show one contrast or
            two, as CT and MR do.
        transform: ``rigid``, ``affine`` or ``deformable``: what the map may do.
        guide_labels: True lets labels with equal numbers guide the fit; both label maps are needed.
        rigid_label: a fixed label, or several, by number or name, in which the map stays rigid, each by itself.
        keep_volume_label: a fixed label, or several, whose volume is kept.
        seed: of the network's first weights.
        labels: names or numbers of the labels that count, such as ``["Heart", "Lung_L"]``; by default all.
        device: as torch names it; by default a CUDA device where there is one.
        align_centres: True starts with the centres of both grids together.
        progress: False hides the bar, which only a terminal or a notebook shows.

    Returns:
        The field, the warped image and the numbers.

    Raises:
        PairError: the pair cannot be registered; its text says why in one line.

    Example:
        >>> from ncf import register
        >>> from ncf.phantom.chest import breathing_thorax
        >>> chest = breathing_thorax((24, 24, 24), seed=0)
        >>> result = register((chest.fixed, chest.affine), (chest.moving, chest.moving_affine), preset="fast")
        >>> list(result.field.shape), list(result.warped.shape)
        ([3, 24, 24, 24], [1, 24, 24, 24])
        >>> result.metrics["similarity"]["after"]["ncc"] > result.metrics["similarity"]["before"]["ncc"]
        True
        >>> moving_mm = result.points_in_moving([[0.0, 0.0, 0.0]])  # RAS mm
    """
    options = Options(
        preset=preset,
        modality=modality,
        transform=transform,
        guide_labels=guide_labels,
        rigid_label=rigid_label,
        keep_volume_label=keep_volume_label,
        seed=seed,
        labels=labels,
        device=device,
        align_centres=align_centres,
        progress=progress,
    )
    given = {"fixed": fixed, "moving": moving, "fixed_label": fixed_label, "moving_label": moving_label}
    masks = {"fixed_mask": fixed_mask, "moving_mask": moving_mask}
    return registered({**given, **masks, "landmarks": landmarks, "guide_points": guide_points}, options)


def registered(given: Mapping[str, Any], options: Options) -> Registered:
    """Register what was given, by the options."""
    try:
        pair = _read(given, options)
        session = Session(options.config_files, {**options.overrides, **IN_MEMORY})
        return Registered(*session.register_images(cast(Pair, pair)))
    except Exception as error:
        told = explanation(error, face="python")
        if told is None:
            raise
        raise PairError(told) from error


def _read(given: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """Return a pair of what was given; paths are read as files, and told in run.json where all of a pair is files."""
    pair: dict[str, Any] = {"begun_s": time.perf_counter(), "name": NAME}
    if given.get("start") is not None:
        pair["start"] = given["start"]
    given = {key: value for key, value in given.items() if value is not None and key != "start"}
    paths = {key: str(expanded(value).absolute()) for key, value in given.items() if isinstance(value, (str, PathLike))}
    pair["files"] = paths if set(paths) == set(given) else {}
    for key in IMAGES:
        if key in given:
            pair[key] = read_image(key, str(there(paths[key], key))) if key in paths else image_of(key, given[key])
    for key in GRID_OF:
        if key in given and key not in LABEL_KEYS:
            pair[key] = mask_of(key, paths.get(key, given[key]), pair[GRID_OF[key]])
    sides = sides_of(options.labels)
    for side, key in enumerate(LABEL_KEYS):
        if key in given:
            wanted = [names[side] for names in sides]
            pair[key] = label_of(key, paths.get(key, given[key]), pair[GRID_OF[key]], wanted=wanted)
    for key in ("landmarks", "guide_points"):
        if key in given:
            pair[key] = paths[key] if key in paths else np.asarray(given[key], dtype=np.float64)
    return matched(pair, sides)


class RegisterPaird(Transform):
    """Brings the moving image of a dictionary onto the fixed one; for `monai.transforms.Compose`, without any file.

    Images are MetaTensors (1, W, H, D), as `LoadImaged` gives them with ``ensure_channel_first``, on any device. The
    fit runs on ``device``; results are on the CPU.

    Args:
        keys: of the fixed and of the moving image.

    Keyword Args:
        fixed_label: key of the fixed label map; used where the dictionary has it, like the next five.
        moving_label: key of the moving label map.
        fixed_mask: key of the fixed mask.
        moving_mask: key of the moving mask.
        landmarks: key of the landmarks.
        guide_points: key of the guide points.
        options: ``preset`` to ``progress``, as of `register`.

    Raises:
        PairError: the keys are not two, or an option is wrong.
        TypeError: there is no such option.
    """

    def __init__(
        self,
        keys: Sequence[Hashable] = ("fixed", "moving"),
        *,
        fixed_label: Hashable = "fixed_label",
        moving_label: Hashable = "moving_label",
        fixed_mask: Hashable = "fixed_mask",
        moving_mask: Hashable = "moving_mask",
        landmarks: Hashable = "landmarks",
        guide_points: Hashable = "guide_points",
        **options: Any,
    ) -> None:
        if isinstance(keys, str) or len(keys) != 2:
            raise PairError(f"keys are those of the fixed and of the moving image, got {keys!r}")
        self.keys = tuple(keys)
        self.others = {"fixed_label": fixed_label, "moving_label": moving_label, "landmarks": landmarks}
        self.others |= {"fixed_mask": fixed_mask, "moving_mask": moving_mask, "guide_points": guide_points}
        self.options = Options(**options)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Register the pair of a dictionary.

        Args:
            data: has the images, under the keys.

        Returns:
            A new dictionary with ``warped``, ``field`` and ``metrics`` as `Registered` has them, and ``warped_label``
            where there is a moving label.

        Raises:
            PairError: an image is missing, or the pair cannot be registered; Compose wraps it.
        """
        missing = [key for key in self.keys if key not in data]
        if missing:
            raise PairError(
                f"the dictionary has no {missing[0]!r}; keys are those of the fixed and of the moving image"
            )
        given = dict(zip(IMAGES, (data[key] for key in self.keys), strict=True))
        done = registered({**given, **{name: data.get(key) for name, key in self.others.items()}}, self.options)
        found = {**data, "warped": done.warped, "field": done.field, "metrics": done.metrics}
        return found if done.warped_label is None else {**found, "warped_label": done.warped_label}
