"""The two scans that an object is written about: of one patient, and on the fixed scan's own grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ncf.core.errors import PairError
from ncf.io.dicom.written.source import Scan, require_one_patient, scan_of
from ncf.space.grids import Grid

GRID_TOLERANCE_VOX = 0.01  # that a field's grid and the series' own may differ: NIfTI headers are float32


@dataclass(frozen=True)
class Between:
    """The two scans of a registration, and whether objects tell whose they are.

    Attributes:
        fixed: gives patient, study and frame of reference.
        moving: that was carried.
        anonymous: objects tell no patient.
    """

    fixed: Scan
    moving: Scan
    anonymous: bool = False

    def require_grid(self, grid: Grid) -> Grid:
        """Return the fixed scan's own grid, to all its digits.

        Args:
            grid: that a result lies on.

        Raises:
            PairError: it is another.
        """
        own = self.fixed.grid
        if tuple(grid.shape) != tuple(own.shape) or not grid.off_vox(own) <= GRID_TOLERANCE_VOX:
            raise PairError(
                f"the result does not lie on the grid of {self.fixed.path}; name the series that it lies on"
            )
        return own


def between(fixed: str | Path, moving: str | Path, *, anonymous: bool, what: str = "a DICOM object") -> Between:
    """Read the headers of both scans.

    Args:
        fixed: folder of the fixed series.
        moving: folder of the moving series.
        anonymous: see `Between`.
        what: the object, for messages.

    Raises:
        PairError: one is no DICOM series, or they are of two patients and the object is not anonymous.
    """
    scans = Between(scan_of(fixed, "fixed", what=what), scan_of(moving, "moving", what=what), anonymous)
    require_one_patient((scans.fixed, scans.moving), anonymous=anonymous)
    return scans
