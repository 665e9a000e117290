"""What a map does to each structure: volume and uptake, distances of surfaces and centroids, the change of volume.

A structure is a label number of the fixed scan, of the moving scan, or of both. Each is measured within its own box.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from ncf.core.labels import Labels
from ncf.evaluate.surfaces import surface_distances
from ncf.space.geometry import field_to_mm, spacing_mm
from ncf.space.resampling import label_type

PERCENTILES = (5.0, 95.0)
PERCENTILE_VOXELS = 2**20
MM3_A_ML = 1000.0
MOST_DENSE = 100_000  # a larger label is no index of a list of all labels
BEFORE, AFTER = "before", "after"
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Scan:
    """A scan and its label map, on one grid.

    Attributes:
        image: intensities, (W, H, D).
        affine: (4, 4), voxel to RAS mm.
        label: (W, H, D), codes of labels; None where there is none.
        table: what the codes stand for; by default they are the labels.
    """

    image: torch.Tensor
    affine: np.ndarray
    label: torch.Tensor | None = None
    table: Labels = field(default_factory=Labels)

    @property
    def voxel_ml(self) -> float:
        """The volume of a voxel in ml."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / MM3_A_ML


@dataclass(frozen=True)
class Measurable:
    """What a finished registration is judged by.

    Attributes:
        fixed: the fixed scan.
        moving: the moving scan, on its own grid.
        det: Jacobian determinant of the map, (W, H, D), on the fixed grid.
        body: where the patient is in the fixed scan, (W, H, D), bool.
        carried: the moving labels on the fixed grid, ``before`` (by the headers) and ``after``; empty without any.
    """

    fixed: Scan
    moving: Scan
    det: torch.Tensor
    body: torch.Tensor
    carried: Mapping[str, torch.Tensor] = field(default_factory=dict)


def determinants(det: torch.Tensor, mask: torch.Tensor) -> dict[str, float | int | None]:
    """Return minimum, percentiles, maximum and the count of folds (0 or less) of determinants inside a mask.

    Args:
        det: (W, H, D).
        mask: (W, H, D), bool; None stands for what an empty one does not have. Of many voxels a sample, evenly spaced
            in their order, gives the percentiles; all other numbers are of all voxels.
    """
    values = det.cpu().numpy()[mask.cpu().numpy()]  # torch would make three indices of 8 bytes for every voxel
    some = values[:: max(1, len(values) // PERCENTILE_VOXELS)].astype(np.float64)
    found: dict[str, float | int | None] = {"voxels": len(values), "folded": int((~(values > 0)).sum())}
    names = ("min", *(f"p{p:.0f}" for p in PERCENTILES), "max")
    told = (values.min(), *np.percentile(some, PERCENTILES), values.max()) if len(values) else [None] * len(names)
    return found | {name: value if value is None else float(value) for name, value in zip(names, told, strict=True)}


def measured_structures(case: Measurable, *, distances_before: bool = True) -> dict[int, dict[str, Any]]:
    """Measure every structure.

    Args:
        case: the finished registration.
        distances_before: False leaves out the distances of surfaces before the registration.

    Returns:
        By label number: ``volume_ml``, ``mean`` (intensity, in the unit of the scan) and ``volume_times_mean``, each of
        ``moving`` (the moving label on its own scan), ``carried`` (the warped label on the fixed scan) and ``fixed``;
        where both maps hold the label ``mda_mm``, ``hd95_mm`` and ``centroid_shift_mm``, ``before`` and ``after``; and
        for labels of the fixed map ``jacobian`` (`determinants`). nan for what an empty label does not have.
    """
    maps = {"moving": case.moving.label, "fixed": case.fixed.label, **case.carried}
    tables = {"fixed": case.fixed.table}  # the others are the moving scan's
    boxes = {n: _boxes(m, tables.get(n, case.moving.table)) for n, m in maps.items() if m is not None}
    own = [boxes.get(name, {}) for name in ("fixed", "moving")]
    found = {}
    for number in sorted({*own[0], *own[1]}):
        entry = _burden(case, number, boxes)
        if number in own[0]:
            entry["jacobian"] = _inside(case, number, own[0][number])
        if number in own[0] and number in own[1] and case.carried:
            entry |= _distances(case, number, boxes, before=distances_before)
        found[number] = entry
    return found


def _boxes(codes: torch.Tensor, table: Labels) -> dict[int, Box]:
    """Return the box of every label."""
    own = _boxes_of_codes(codes)
    found: dict[int, Box] = {}
    for label in table.of(own):
        for code in {*table.codes(label)} & {*own}:
            found[label] = _around(own[code], found.get(label))
    return found


def _boxes_of_codes(label: torch.Tensor) -> dict[int, Box]:
    """Return the box of every number other than 0."""
    whole = label_type(label.cpu())
    if label.max() <= MOST_DENSE:
        return {n: box for n, box in enumerate(ndimage.find_objects(whole), start=1) if box is not None}
    numbers, ranks = np.unique(whole, return_inverse=True)  # takes seconds, for numbers like those of atlases
    boxes = ndimage.find_objects(ranks.reshape(label.shape) + int(numbers[0] != 0))
    return dict(zip(numbers[numbers != 0].tolist(), boxes, strict=True))


def _burden(case: Measurable, number: int, boxes: Mapping[str, Mapping[int, Box]]) -> dict[str, Any]:
    """Return volume, mean intensity and their product of a label where it lies and where it is carried."""
    places = {"moving": (case.moving, case.moving.label, "moving"), "fixed": (case.fixed, case.fixed.label, "fixed")}
    if number in boxes.get("moving", {}) and case.carried:
        places["carried"] = (case.fixed, case.carried[AFTER], AFTER)
    found: dict[str, Any] = {"volume_ml": {}, "mean": {}, "volume_times_mean": {}}
    for name in ("moving", "carried", "fixed"):
        scan, label, of = places.get(name, (case.fixed, None, ""))
        if label is None or (name != "carried" and number not in boxes[of]):
            continue
        box = boxes[of].get(number)
        table = case.fixed.table if name == "fixed" else case.moving.table
        values = (
            scan.image[box][table.mask(label[box], number)].double() if box is not None else torch.zeros(0).double()
        )
        volume, mean = len(values) * scan.voxel_ml, float(values.mean()) if len(values) else math.nan
        found["volume_ml"][name], found["mean"][name] = volume, mean
        if bool(scan.image.min() >= 0):  # an amount, as uptake is; a sum of Hounsfield units says nothing
            found["volume_times_mean"][name] = volume * mean
    return found


def _inside(case: Measurable, number: int, box: Box) -> dict[str, float | int | None]:
    assert case.fixed.label is not None
    return determinants(case.det[box], case.fixed.table.mask(case.fixed.label[box], number))


def _distances(
    case: Measurable, number: int, boxes: Mapping[str, Mapping[int, Box]], *, before: bool
) -> dict[str, dict[str, float]]:
    """Return the distances of a fixed label and the moving one on the fixed grid, before and after."""
    assert case.fixed.label is not None
    spacing = spacing_mm(case.fixed.affine).tolist()
    found: dict[str, dict[str, float]] = {"mda_mm": {}, "hd95_mm": {}, "centroid_shift_mm": {}}
    for when, label in case.carried.items():
        box = _around(boxes["fixed"][number], boxes[when].get(number))
        truth = case.fixed.table.mask(case.fixed.label[box], number)
        other = case.moving.table.mask(label[box], number)
        found["centroid_shift_mm"][when] = _apart(truth, other, case.fixed.affine)
        if before or when == AFTER:
            apart = surface_distances(truth, other, spacing)
            found["mda_mm"][when], found["hd95_mm"][when] = apart.mean, apart.p95
    return found


def _around(box: Box, other: Box | None) -> Box:
    """Return the box around two."""
    both = [box] if other is None else [box, other]
    low, high = (
        [of(getattr(b[a], end) for b in both) for a in range(3)] for of, end in ((min, "start"), (max, "stop"))
    )
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def _apart(truth: torch.Tensor, other: torch.Tensor, affine: np.ndarray) -> float:
    """Return the distance of the centroids of two masks in mm, nan where one is empty."""
    if not (truth.any() and other.any()):
        return math.nan
    shift = _centroid(other) - _centroid(truth)
    return float(field_to_mm(shift.view(3, 1, 1, 1), affine).norm())


def _centroid(mask: torch.Tensor) -> torch.Tensor:
    """Return the centroid of a mask that is not empty in voxels (3,), float64."""
    counts = [mask.sum(dim=[b for b in range(3) if b != a]).double() for a in range(3)]
    return torch.stack([(n * torch.arange(len(n)).double()).sum() / n.sum() for n in counts])
