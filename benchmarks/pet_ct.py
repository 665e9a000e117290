"""The CT of a PET/CT, as it would show a scanned head and neck in another posture.

The grid is a usual one of such scans: 512 x 512 pixels on 500 mm, so 0.98 mm, and slices of 3.27 mm (as in most of the
Head-Neck-PET-CT collection, Vallieres et al. 2017, doi:10.1038/s41598-017-10371-5). The scan shows a circle of 500 mm,
beyond which shoulders are cut, and ends below the lowest body voxel that would come from above the source.

Noise is that of a low dose: 30 HU, our choice, the double of what `planning` gives the planning CT. Within a slice its
spectrum is a ramp with a smooth end, as filtered back-projection leaves it (Riederer et al. 1978,
doi:10.1088/0031-9155/23/3/008), with its peak at 2.5 line pairs per cm; slices are independent. The noise that the
source already has is bent with it.

The data set stores one value wherever the patient is not. Scanners show air there, with noise; `planning` puts it back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from nibabel.affines import apply_affine
from scipy.ndimage import binary_dilation, map_coordinates, spline_filter

from benchmarks.disturb import Scan
from benchmarks.posture import Posture

PIXELS, FIELD_MM, SLICE_MM = 512, 500.0, 3.27
NOISE_HU, PEAK_PER_MM = 30.0, 0.25
PLANNING_HU = 15.0  # noise of the planning CT, white, because its voxels are wider than the grain
AIR_HU, LEAST_HU, MOST_HU = -1000, -1024, 3071
BODY_HU = -500  # above it, a voxel belongs to the body (lungs count where body is around them)
EDGE_VOXELS = 2  # around the body, that are read too
COARSE = np.array([8, 8, 2])  # pixels and slices between the points at which the inverse map is found from afar


@dataclass(frozen=True)
class Scanner:
    """A scanner's grid and noise.

    Attributes:
        pixels: of a slice, along both axes.
        field_mm: width of the field of view, of which the scan shows a circle.
        slice_mm: distance of slices.
        noise_hu: standard deviation of the noise.
        shift_mm: RAS mm by which the patient lies elsewhere than in the source.
    """

    pixels: int = PIXELS
    field_mm: float = FIELD_MM
    slice_mm: float = SLICE_MM
    noise_hu: float = NOISE_HU
    shift_mm: tuple[float, float, float] = (8.0, -15.0, 20.0)

    def scanned(self, source: Scan, posture: Posture, *, seed: int) -> Scan:
        """Return a scan of the source's patient in another posture.

        Args:
            source: HU, and labels.
            posture: of the patient.
            seed: of the noise.

        Raises:
            ValueError: the map back could not be found for a place that may lie in the body.
        """
        shape, affine = self.grid(source, posture)
        image, label = np.full(shape, LEAST_HU, np.int16), np.zeros(shape, np.uint8)
        starts = self._starts(posture, shape, affine)
        near = binary_dilation(source.image > BODY_HU, iterations=EDGE_VOXELS)
        spline = spline_filter(source.image, order=3, mode="nearest")
        random = np.random.default_rng(seed)
        shown = _circle(self.pixels)
        for plane in range(shape[2]):
            hu, own = np.full(shape[:2], AIR_HU, float), np.zeros(shape[:2], np.uint8)
            pixels, places = self._origins(plane, posture, near=near, starts=starts, affines=(source.affine, affine))
            hu[pixels] = map_coordinates(spline, places.T, order=3, mode="nearest", prefilter=False)
            if source.label is not None:
                own[pixels] = map_coordinates(source.label, places.T, order=0, mode="nearest")
            hu = np.clip(np.rint(hu + self._noise(random)), LEAST_HU, MOST_HU)
            image[:, :, plane], label[:, :, plane] = np.where(shown, hu, LEAST_HU), np.where(shown, own, 0)
        return Scan(image, label, affine)

    def grid(self, source: Scan, posture: Posture) -> tuple[tuple[int, int, int], np.ndarray]:
        """Return shape and affine of the scan: axes to left, back and head, centred on the body in its posture."""
        body = np.argwhere(source.image > BODY_HU)
        places = posture.there(apply_affine(source.affine, body)) + self.shift_mm
        along = apply_affine(source.affine, body)[:, 2]
        bottom, top = along.min(), places[along >= along.max() - 1e-3, 2].min()
        slices = int((top - bottom - self.shift_mm[2]) // self.slice_mm)
        size = self.field_mm / self.pixels
        middle = (places[:, :2].min(axis=0) + places[:, :2].max(axis=0)) / 2
        affine = np.diag([-size, -size, self.slice_mm, 1])
        affine[:3, 3] = [*(middle + size * (self.pixels - 1) / 2), bottom + self.shift_mm[2] + self.slice_mm / 2]
        return (self.pixels, self.pixels, slices), affine

    def _starts(self, posture: Posture, shape: tuple[int, int, int], affine: np.ndarray) -> np.ndarray:
        """Return, at coarse points of the grid, how far from them their origins lie: (3, W, H, D), RAS mm."""
        counts = [-(-(n - 1) // step) + 1 for n, step in zip(shape, COARSE, strict=True)]
        nodes = np.stack(np.meshgrid(*(np.arange(n) for n in counts), indexing="ij"), axis=-1).reshape(-1, 3)
        points = apply_affine(affine, nodes * COARSE) - self.shift_mm
        found, known = posture.back(points)
        found[~known] = points[~known]  # far from the body, where the map may fold
        return np.moveaxis((found - points).reshape(*counts, 3), -1, 0)

    def _origins(
        self,
        plane: int,
        posture: Posture,
        *,
        near: np.ndarray,
        starts: np.ndarray,
        affines: tuple[np.ndarray, np.ndarray],
    ) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Find where the pixels of a plane come from; those that come from far outside the body are left out.

        Args:
            plane: its number.
            posture: of the patient.
            near: the source's body and a little around it, bool.
            starts: of `_starts`.
            affines: of the source and of the grid.

        Returns:
            The pixels' indices, and their origins (N, 3) in voxels of the source.
        """
        pixels = np.argwhere(_circle(self.pixels))
        nodes = np.column_stack([pixels, np.full(len(pixels), plane)])
        to_source = np.linalg.inv(affines[0])
        points = nodes * np.diag(affines[1])[:3] + (affines[1][:3, 3] - self.shift_mm)
        start = points.copy()
        for axis in (1, 2):  # the map does not change x
            start[:, axis] += map_coordinates(starts[axis], (nodes / COARSE).T, order=1, mode="nearest")
        kept = _read(near, apply_affine(to_source, start))
        found, known = posture.back(points[kept], start[kept])
        if not known.all():
            raise ValueError(f"slice {plane}: {int((~known).sum())} places of the body have no origin; bend it less")
        places = apply_affine(to_source, found)
        inside = _read(near, places)
        return (pixels[kept][inside, 0], pixels[kept][inside, 1]), places[inside]

    def _noise(self, random: np.random.Generator) -> np.ndarray:
        """Return the noise (W, H) of one slice, in HU."""
        cycles = np.fft.fftfreq(self.pixels, self.field_mm / self.pixels)
        frequency = np.hypot(cycles[:, None], cycles[None])
        power = frequency * np.exp(-0.5 * (frequency / PEAK_PER_MM) ** 2)
        white = np.fft.fft2(random.standard_normal((self.pixels, self.pixels)))
        return np.asarray(self.noise_hu * np.fft.ifft2(white * np.sqrt(power / power.mean())).real)


def planning(source: Scan) -> Scan:
    """Return the source as its own scanner showed it: air where the data set stores nothing, and noise everywhere.

    Args:
        source: HU.
    """
    image = np.where(source.image <= LEAST_HU, AIR_HU, source.image)
    image = image + PLANNING_HU * np.random.default_rng(0).standard_normal(image.shape)
    return replace(source, image=np.clip(np.rint(image), LEAST_HU, MOST_HU).astype(np.int16))


def _read(mask: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return a mask (W, H, D) at the voxels nearest to places (N, 3); False off its grid."""
    nearest = np.rint(places).astype(np.int64)
    inside = ((nearest >= 0) & (nearest < mask.shape)).all(axis=1)
    found = np.zeros(len(places), bool)
    found[inside] = mask[tuple(nearest[inside].T)]
    return found


def _circle(pixels: int) -> np.ndarray:
    """Return the pixels (W, H) in the circle that the scanner shows."""
    from_middle = np.arange(pixels) - (pixels - 1) / 2
    return np.hypot(from_middle[:, None], from_middle[None]) <= pixels / 2
