"""How a viewer shows intensities: windows by the kind of scan, of which one is chosen to begin with.

A CT is known by its values, since files seldom name it: air is far below zero, and bone far above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

CT, OTHER = "CT", "other"
AIR_BELOW_HU, BONE_ABOVE_HU = -500.0, 200.0  # a CT in Hounsfield units holds both; a z-score neither
# of aerated lung, against everything denser: 0.07 (deep breath) to 0.21 in chests, 0.06 at most around a limb
LUNG_HU, BODY_ABOVE_HU, LUNG_SHARE = (-850.0, -600.0), -300.0, 0.065
# width and level in HU, as radiology names them
CT_WINDOWS = {"lung": (1500.0, -600.0), "soft tissue": (400.0, 40.0), "bone": (1800.0, 400.0), "brain": (80.0, 40.0)}
PERCENTILES = {"1 to 99 %": (1.0, 99.0), "5 to 95 %": (5.0, 95.0)}
SAMPLED = 400_000  # voxels, for percentiles
WHOLE = "whole range"


@dataclass(frozen=True)
class Windows:
    """The windows of one scan.

    Attributes:
        kind: `CT` or `OTHER`.
        ranges: lowest and highest intensity, black and white, by name.
        start: the name of the window to begin with.
        unit: of the intensities, for a person.
    """

    kind: str
    ranges: dict[str, tuple[float, float]]
    start: str
    unit: str

    def plain(self) -> dict[str, Any]:
        """Return this for a script."""
        return {"kind": self.kind, "ranges": self.ranges, "start": self.start, "unit": self.unit}


def windows_of(*scans: np.ndarray) -> Windows:
    """Choose the windows of a scan by its values, or those that scans of one unit share.

    Args:
        scans: intensities, each of any shape. Where one of several shows a lung, all begin with its window.
    """
    lowest, highest = min(float(v.min()) for v in scans), max(float(v.max()) for v in scans)
    highest = highest if highest > lowest else lowest + 1.0
    some = [values.reshape(-1)[:: max(1, values.size // SAMPLED)] for values in scans]
    if lowest <= AIR_BELOW_HU and highest >= BONE_ABOVE_HU:
        ranges = {name: (level - width / 2, level + width / 2) for name, (width, level) in CT_WINDOWS.items()}
        start = "lung" if any(_shows_lung(values) for values in some) else "soft tissue"
        return Windows(CT, {**ranges, WHOLE: (lowest, highest)}, start, "HU")
    flat = np.concatenate(some)
    shown = flat[flat > lowest] if (flat > lowest).any() else flat  # without the background
    found = {}
    for name, shares in PERCENTILES.items():
        low, high = (float(v) for v in np.percentile(shown, shares))
        found[name] = (low, high) if high > low else (lowest, highest)
    return Windows(OTHER, {**found, WHOLE: (lowest, highest)}, next(iter(found)), "")


def windows_for(scans: Mapping[str, np.ndarray], *, shared: bool) -> dict[str, Windows]:
    """Choose the windows of each scan: the same for all where a value means the same in all.

    Args:
        scans: intensities by name.
        shared: whether the scans have one unit; CTs in Hounsfield units have it anyway.
    """
    own = {name: windows_of(values) for name, values in scans.items()}
    if not shared and any(windows.kind != CT for windows in own.values()):
        return own
    return dict.fromkeys(scans, windows_of(*scans.values()))


def _shows_lung(flat: np.ndarray) -> bool:
    """Tell whether a CT shows a lung, by a sample of its values."""
    aerated = ((flat > LUNG_HU[0]) & (flat < LUNG_HU[1])).sum()
    return bool(aerated >= LUNG_SHARE * (flat > BODY_ABOVE_HU).sum())
