"""Real values as the 16-bit numbers of DICOM, with slope and intercept: never more than half a step away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ncf.io.dicom.written.modalities import Modality
from ncf.io.dicom.written.planes import decimal
from ncf.io.dicom.written.source import Scan

INT16, UINT16 = np.iinfo(np.int16), np.iinfo(np.uint16)
NO_SCALE = (1.0, 0.0)
SLACK = 1e-9  # a slope is this much larger, so that its rounding leaves the largest value within range
WINDOW_PERCENTILES, WINDOW_STRIDE = (1.0, 99.0), 4  # of every fourth voxel along each axis


@dataclass(frozen=True)
class Stored:
    """Numbers as they are stored.

    Attributes:
        numbers: (W, H, D), int16 or uint16.
        slopes: decimal strings, by plane.
        intercept: a decimal string.
        window: centre and width, of values.
    """

    numbers: np.ndarray
    slopes: list[str]
    intercept: str
    window: tuple[float, float]

    @property
    def scaled(self) -> bool:
        """Whether a number is anything but the value itself."""
        return any((float(slope), float(self.intercept)) != NO_SCALE for slope in self.slopes)


def as_stored(values: np.ndarray, moving: Scan, modality: Modality) -> Stored:
    """Return values as numbers: by the moving scan's own scale where they fit, else by one that uses all 16 bits.

    Args:
        values: (W, H, D), real values.
        moving: whose scale is tried first.
        modality: that says how scales are.
    """
    depth, low, high = values.shape[2], float(values.min()), float(values.max())
    if modality.scale_by_plane:  # such numbers have no intercept, and each plane uses its own range
        most = [float(np.abs(values[:, :, plane]).max()) for plane in range(depth)]
        slopes, intercept, kind = [_step(one, INT16.max) for one in most], "0", np.dtype(np.int16)
    else:
        slope, intercept, kind = _scale(low, high, moving)
        slopes = [slope] * depth
    numbers = np.empty(values.shape, dtype=kind)
    for plane, slope in enumerate(slopes):
        exact = (values[:, :, plane].astype(np.float64) - float(intercept)) / float(slope)
        numbers[:, :, plane] = np.rint(exact)
    return Stored(numbers, slopes, intercept, _window(values, moving))


def _scale(low: float, high: float, moving: Scan) -> tuple[str, str, np.dtype]:
    """Return slope, intercept and type of numbers for values from low to high."""
    if len(set(moving.scales)) == 1:
        slope, intercept = moving.scales[0]
        ends = sorted(round((value - intercept) / slope) for value in (low, high))
        for info in (INT16, UINT16):
            if info.min <= ends[0] and ends[1] <= info.max:
                return decimal(slope), decimal(intercept), info.dtype
    start = decimal(low)
    return _step(high - float(start), UINT16.max), start, UINT16.dtype


def _step(extent: float, largest: int) -> str:
    """Return the slope by which an extent becomes the largest number."""
    return decimal(extent / largest * (1 + SLACK)) if extent > 0 else "1"


def _window(values: np.ndarray, moving: Scan) -> tuple[float, float]:
    """Return the moving scan's first window, or one over the values."""
    told = [moving.header.get(word) for word in ("WindowCenter", "WindowWidth")]
    if not moving.in_suv and all(one not in (None, "") for one in told):
        centre, width = (float(np.atleast_1d(one)[0]) for one in told)
        if width >= 1:
            return centre, width
    every = slice(None, None, WINDOW_STRIDE)
    low, high = np.percentile(values[every, every, every], WINDOW_PERCENTILES)
    return float((low + high) / 2), max(float(high - low), 1.0)
