"""The planes of a grid in the words of DICOM: positions, directions and sizes in LPS mm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ncf.core.errors import PairError
from ncf.space.geometry import RAS_TO_LPS, spacing_mm
from ncf.space.grids import Grid

SQUARE = 1e-3  # how far axes may be from 90 degrees, as a cosine
LONGEST_DS = 16  # characters of a decimal string


@dataclass(frozen=True)
class Planes:
    """A grid as a stack of planes: array axis 0 runs along a row, axis 1 along a column, axis 2 from plane to plane.

    Attributes:
        shape: (W, H, D).
        origin: (3,), of the first voxel's centre, LPS mm.
        axes: (3, 3), unit vectors along array axes 0, 1 and 2 as rows, LPS; the third is the cross product.
        spacing: (3,), mm.
    """

    shape: tuple[int, ...]
    origin: np.ndarray
    axes: np.ndarray
    spacing: np.ndarray

    @property
    def orientation(self) -> list[str]:
        """The ImageOrientationPatient."""
        return [decimal(value) for value in self.axes[:2].ravel()]

    @property
    def pixel_spacing(self) -> list[str]:
        """The PixelSpacing: between rows, then between columns."""
        return [decimal(self.spacing[1]), decimal(self.spacing[0])]

    def position(self, plane: int) -> list[str]:
        """Return the ImagePositionPatient of a plane."""
        return [decimal(value) for value in self.origin + plane * self.spacing[2] * self.axes[2]]


def planes_of(grid: Grid, what: str) -> Planes:
    """Return a grid as planes.

    Args:
        grid: a right-handed one in LPS, as that of every DICOM series.
        what: the object, for the message.

    Raises:
        PairError: the axes are not at right angles, or mirrored.
    """
    lps = RAS_TO_LPS @ np.asarray(grid.affine, dtype=np.float64)[:3]
    spacing = spacing_mm(grid.affine)
    axes = (lps[:, :3] / spacing).T
    if np.abs(axes @ axes.T - np.eye(3)).max() > SQUARE or np.linalg.det(axes) < 0:
        raise PairError(
            f"{what} lies on planes at right angles, ordered along their normal, and this grid does not; name a DICOM "
            "series as the reference"
        )
    return Planes(tuple(grid.shape), lps[:, 3], axes, spacing)


def decimal(value: float) -> str:
    """Return a number as a decimal string of at most 16 characters, as exact as these allow."""
    for digits in range(17, 0, -1):
        text = f"{float(value) + 0.0:.{digits}g}"
        if len(text) <= LONGEST_DS:
            return text
    raise ValueError(f"{value} has no decimal string of {LONGEST_DS} characters")
