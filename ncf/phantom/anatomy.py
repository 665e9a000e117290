"""The anatomy of the breathing phantom at exhale, as formulas of a point: nothing here has a grid.

This module knows where the parts of one chest are, and their HU, in the chest's own *body millimetres*: x to the
patient's right, y to the front, z to the head, origin in the middle of `FIELD_OF_VIEW_MM`. It must not know grids,
affines, files or motion, which are in `ncf.phantom.chest`. Points are arrays (3, N) float64 in body mm. Signed
distances (N,) are in mm, negative inside, accurate near the surface.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

FIELD_OF_VIEW_MM = (336.0, 264.0, 312.0)  # the box that holds the chest: an adult's thorax from neck to upper abdomen
LABELS = {"background": 0, "right_lung": 1, "left_lung": 2, "heart": 3, "liver": 4}
AIR_HU, FAT_HU, MUSCLE_HU, BLOOD_HU = -1000.0, -95.0, 42.0, 40.0
CAGE_MM = (128.0, 88.0)  # half width and half depth of the inside of the ribs
HEART_MM = ((-5.0, 16.0, -26.0), (-34.0, 34.0, -46.0), 42.0)  # a thick pipe: from, to, radius
RIB_PITCH_MM, RIB_SLOPE = 27.0, 0.45  # ribs come down by 0.45 mm for each mm to the front
VESSEL_PITCH_MM, TWIG_MM, TRUNK_MM = 14.0, 1.15, 7.0  # between branch points; the smallest and the largest radius
LANDMARK_DEPTH_MM = 3.0  # landmarks keep this far from the surface of the lungs
CELL_MM = 10.0  # size of a cell in the table that finds the vessels near a point; any value gives the same image
CELLS = tuple(int(np.ceil(extent / CELL_MM)) for extent in FIELD_OF_VIEW_MM)
# centre x y z and radii x y z in body mm, HU; all of these lie below the diaphragm, which cuts them
BELLY = (
    ((-96.0, -38.0, -112.0), (24.0, 40.0, 42.0), 54.0),  # spleen
    ((58.0, -50.0, -160.0), (26.0, 24.0, 42.0), 34.0),  # right kidney
    ((-60.0, -52.0, -152.0), (26.0, 24.0, 44.0), 34.0),  # left kidney
    ((-62.0, 22.0, -112.0), (42.0, 40.0, 36.0), 38.0),  # stomach: wall,
    ((-62.0, 22.0, -112.0), (38.0, 36.0, 32.0), 12.0),  # content
    ((-64.0, 40.0, -108.0), (27.0, 14.0, 22.0), -930.0),  # and its bubble of gas, at the front as in a lying patient
    ((-20.0, 42.0, -150.0), (30.0, 20.0, 14.0), 25.0),  # colon
    ((-24.0, 48.0, -150.0), (22.0, 11.0, 9.0), -850.0),
)
# from, to, radius in body mm, HU; painted in this order
PIPES = (
    ((-17.0, -38.0, -170.0), (-17.0, -38.0, 58.0), 11.0, 44.0),  # aorta: descending,
    ((-17.0, -38.0, 58.0), (10.0, 24.0, 66.0), 12.0, 44.0),  # arch,
    ((10.0, 24.0, 66.0), (2.0, 24.0, 5.0), 13.0, 44.0),  # ascending
    ((24.0, 10.0, 0.0), (25.0, 8.0, 105.0), 8.5, 42.0),  # vena cava
    ((25.0, -10.0, -170.0), (20.0, 6.0, -60.0), 10.0, 42.0),
    ((-10.0, 20.0, 30.0), (-38.0, -14.0, 22.0), 10.0, 43.0),  # pulmonary arteries
    ((-8.0, 10.0, 28.0), (36.0, -14.0, 14.0), 10.0, 43.0),
    ((20.0, 4.0, 80.0), (40.0, -2.0, 165.0), 5.0, 40.0),  # vessels of the neck
    ((-18.0, 0.0, 70.0), (-38.0, -4.0, 165.0), 5.0, 40.0),
    ((5.0, -36.0, -80.0), (2.0, -32.0, 165.0), 6.5, 30.0),  # gullet
    ((0.0, -6.0, 165.0), (0.0, -16.0, 45.0), 10.5, 35.0),  # windpipe and main bronchi: walls,
    ((0.0, -16.0, 45.0), (36.0, -22.0, 14.0), 8.5, 35.0),
    ((0.0, -16.0, 45.0), (-40.0, -22.0, 10.0), 8.0, 35.0),
    ((0.0, -6.0, 165.0), (0.0, -16.0, 45.0), 8.5, -980.0),  # then air
    ((0.0, -16.0, 45.0), (36.0, -22.0, 14.0), 6.5, -980.0),
    ((0.0, -16.0, 45.0), (-40.0, -22.0, 10.0), 6.0, -980.0),
)
HILA_MM = ((38.0, -18.0, 12.0), (-42.0, -18.0, 10.0))  # where the vessels enter the right and the left lung


class Shapes(NamedTuple):
    """Signed distances (N,) at some exhale points, in mm; ``over_dome`` is positive above the diaphragm."""

    body: np.ndarray
    cage: np.ndarray
    over_dome: np.ndarray
    heart: np.ndarray
    liver: np.ndarray
    lungs: np.ndarray


def shapes_at(points: np.ndarray) -> Shapes:
    """Return the signed distances to the large parts at exhale points (3, N) in body mm."""
    x, y, z = points
    body = _cylinder(x, y, (152.0, 110.0)) + 12 * _ramp((z - 90) / 90)
    rise = np.maximum(z + 60, 0)
    gauge = sum(t**2 * np.sqrt(t) for t in (np.abs(x) / CAGE_MM[0], np.abs(y) / CAGE_MM[1], rise / 186)) ** 0.4
    cage = _outside(gauge, np.sqrt(x**2 + y**2 + rise**2), CAGE_MM[1])
    over_dome = 0.8 * (z - _dome_mm(x, y))  # 0.8: the domes slope, so they are nearer than their distance along z
    heart = np.maximum(_pipe(points, *HEART_MM), 3 - over_dome)
    liver = _ellipsoid(points, (50.0, 6.0, -108.0), (104.0, 88.0, 66.0))
    # its lower face stays 30 mm above the end of the scan, so that the deepest breath does not move it out of the image
    lower_face = -0.97 * (z + 112) - 0.24 * (x - 50)
    liver = np.maximum.reduce([liver, over_dome + 4, cage + 4, -0.8 * (x + 38) - 0.35 * (z + 90), lower_face])
    middle = 12 + 24 * bell(y, -8, 28) + 26 * bell(y, -96, 20) + 20 * _ramp((z - 50) / 70)
    spine = _cylinder(x, y + 66, (25.0, 24.0))
    lungs = np.maximum.reduce([cage + 3, middle - np.abs(x), 1 - over_dome, 3 - heart, -spine])
    return Shapes(body, cage, over_dome, heart, liver, lungs)


class Anatomy:
    """One chest at exhale; ``rng`` draws vessels and texture, and every edge is ``edge_mm`` wide, about a voxel."""

    def __init__(self, rng: np.random.Generator, *, edge_mm: float) -> None:
        self.edge_mm = edge_mm
        self.waves = rng.uniform(-1, 1, (6, 3)) / 9.0  # 1/mm: wave vectors of the texture, 33 mm long or longer
        self.phases = rng.uniform(0, 2 * np.pi, 6)
        self.vessels = Vessels(rng, edge_mm=edge_mm)

    def evaluate(self, points: np.ndarray, volume_ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return HU (N,), float64, and labels (N,), uint8, at exhale points.

        Args:
            points: (3, N), body mm.
            volume_ratio: (N,), growth of the volume there; divides the HU of lung tissue above air, and nothing else.
        """
        hu, label = np.full(points.shape[1], AIR_HU), np.zeros(points.shape[1], np.uint8)
        body = np.flatnonzero((np.abs(points[0]) < 170) & (np.abs(points[1]) < 125))
        points, ratio = points[:, body], volume_ratio[body]
        shapes = shapes_at(points)
        texture = sum(np.sin(w @ points + p) for w, p in zip(self.waves, self.phases, strict=True)) / 6
        inner = self._soft_tissue(points, shapes, texture)
        tissue = 240 - 0.45 * points[1] + 40 * texture  # denser towards the back, as in a lying patient
        inner = self._lung(inner, points, shapes, tissue=tissue / ratio)
        hu[body] = self._bones(inner, points, shapes)
        side = np.where(points[0] > 0, LABELS["right_lung"], LABELS["left_lung"])
        parts = (shapes.lungs < 0, shapes.heart < 0, shapes.liver < 0)
        label[body] = np.select(parts, (side, LABELS["heart"], LABELS["liver"]), 0)
        return hu, label

    def _soft_tissue(self, points: np.ndarray, shapes: Shapes, texture: np.ndarray) -> np.ndarray:
        """Return HU (N,) of skin, fat, muscle, heart, belly and pipes."""
        hu = self._over(np.full_like(shapes.body, AIR_HU), FAT_HU + 15 * texture, shapes.body)
        hu = self._over(hu, MUSCLE_HU + 25 * texture, shapes.body + 9 + 4 * texture)
        hu = self._over(hu, FAT_HU + 20 * texture, shapes.cage + 2)
        hu = self._over(hu, MUSCLE_HU, np.maximum(np.abs(shapes.over_dome + 2) - 2, shapes.cage))
        for centre, radii, value in BELLY:
            near = _near(points, np.subtract(centre, radii), np.add(centre, radii), margin=self.edge_mm)
            inside = _ellipsoid(points[:, near], centre, radii)
            cut = np.maximum(shapes.over_dome[near] + 4, shapes.cage[near] + 4)
            hu[near] = self._over(hu[near], value, np.maximum(inside, cut))
        hu = self._over(hu, 58 + 25 * texture, shapes.liver)
        hu = self._over(hu, 50 + 15 * texture, shapes.heart)
        for start, end, radius, value in PIPES:
            near = _near(points, np.minimum(start, end), np.maximum(start, end), margin=radius + self.edge_mm)
            hu[near] = self._over(hu[near], value, _pipe(points[:, near], start, end, radius))
        return hu

    def _lung(self, hu: np.ndarray, points: np.ndarray, shapes: Shapes, *, tissue: np.ndarray) -> np.ndarray:
        """Paint the lungs over ``hu`` (N,): ``tissue`` (N,), in HU above air, and vessels."""
        near = np.flatnonzero(shapes.lungs < self.edge_mm)
        blood, lung = self.vessels.share(points[:, near]), AIR_HU + tissue[near]
        hu = hu.copy()
        hu[near] = self._over(hu[near], lung + blood * (BLOOD_HU - lung), shapes.lungs[near])
        return hu

    def _bones(self, hu: np.ndarray, points: np.ndarray, shapes: Shapes) -> np.ndarray:
        """Paint ribs, breastbone and spine over ``hu`` (N,), each a dense shell around marrow."""
        x, y, z = points
        height = z + RIB_SLOPE * y
        to_rib = 0.91 * (height - RIB_PITCH_MM * np.round(height / RIB_PITCH_MM))
        rib = np.hypot(1.3 * (shapes.cage - 9), to_rib) - 6
        cartilage = np.maximum.reduce([rib + 1, height - 128, -20 - z])
        hu = self._over(hu, 110.0, cartilage)
        rib = np.maximum.reduce([rib, height - 128, 0.6 * (y - 55 - 0.25 * z)])
        sternum = np.maximum(_cylinder(x, y - 93, (19.0, 6.5)), np.abs(z - 25) - 62)
        column = y + 64
        along = z - 25 * np.round(z / 25)  # 25 mm from one disc to the next
        vertebra = np.maximum(_cylinder(x, column, (19.0, 16.0)), np.abs(along) - 10)
        arch = np.maximum(_cylinder(x, column + 25, (24.0, 13.0)), np.abs(along) - 8)
        process = np.maximum.reduce([np.abs(x) - 3.5, np.abs(column + 36) - 9, np.abs(along + 3) - 7])
        hu = self._over(hu, 85.0, _cylinder(x, column, (18.0, 15.0)))
        for bone, marrow in ((rib, 280.0), (sternum, 190.0), (vertebra, 210.0), (arch, 380.0), (process, 400.0)):
            hu = self._over(self._over(hu, 640.0, bone), marrow, bone + 2.5)
        return self._over(hu, 25.0, _cylinder(x, column + 23, (9.0, 8.0)))

    def _over(self, hu: np.ndarray, value: np.ndarray | float, distance: np.ndarray) -> np.ndarray:
        """Paint ``value`` over ``hu`` (N,) where the signed distance is negative, blended over one edge width."""
        return hu + _cover(distance, self.edge_mm) * (value - hu)


class Vessels:
    """The blood vessels of both lungs at exhale: a tree of straight pieces from each hilum to evenly spaced points.

    Pieces go from ``start`` to ``end``, (3, S), with ``radius`` (S,), in body mm. A table finds those near a point.
    """

    def __init__(self, rng: np.random.Generator, *, edge_mm: float) -> None:
        trees = [_grow(_branch_points(rng, side=side), hilum) for side, hilum in zip((1, -1), HILA_MM, strict=True)]
        self.edge_mm = edge_mm
        self.start, self.end, self.radius = (np.concatenate(parts, axis=-1) for parts in zip(*trees, strict=True))
        self.shown = np.minimum(1.0, (2 * self.radius / edge_mm) ** 2)  # a thin vessel cannot fill a voxel
        self._counts, self._pieces = self._table()

    def share(self, points: np.ndarray) -> np.ndarray:
        """Return the fraction of blood (N,), 0 to 1, at exhale points (3, N) in body mm."""
        cell = self._cell(points)
        counts = self._counts[cell]
        point = np.repeat(np.arange(points.shape[1]), counts)
        first = np.cumsum(counts) - counts
        offset = np.cumsum(self._counts)[cell] - counts - first
        piece = self._pieces[np.arange(len(point)) + offset[point]]
        distance = _pipe(points[:, point], self.start[:, piece], self.end[:, piece], self.radius[piece])
        share, found = np.zeros(points.shape[1]), counts > 0
        share[found] = np.maximum.reduceat(_cover(distance, self.edge_mm) * self.shown[piece], first[found])
        return share

    def spots(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return points (3, count) on axes of vessels in the lungs; all pieces are used before one is used again."""
        piece = np.resize(rng.permutation(len(self.radius)), 2 * count + len(self.radius))
        points = self.start[:, piece] + rng.uniform(size=len(piece)) * (self.end - self.start)[:, piece]
        return points[:, shapes_at(points).lungs < -LANDMARK_DEPTH_MM][:, :count]

    def _cell(self, points: np.ndarray) -> np.ndarray:
        """Return the numbers (N,) of the cells of points (3, N); points outside the field of view go to the border."""
        half = np.reshape(FIELD_OF_VIEW_MM, (3, 1)) / 2
        index = np.floor((points + half) / CELL_MM).astype(np.int64)
        return np.ravel_multi_index(tuple(index), CELLS, mode="clip")

    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Return how many pieces reach each cell (C,), and their numbers, cell after cell."""
        reach = self.radius + self.edge_mm / 2
        low, high = np.minimum(self.start, self.end) - reach, np.maximum(self.start, self.end) + reach
        found = []
        for a, b in zip(low.T, high.T, strict=True):
            axes = [np.append(np.arange(*ends, CELL_MM), ends[1]) for ends in zip(a, b, strict=True)]
            found.append(np.unique(self._cell(np.stack(np.meshgrid(*axes)).reshape(3, -1))))
        cells, pieces = np.concatenate(found), np.repeat(np.arange(len(found)), [len(c) for c in found])
        return np.bincount(cells, minlength=int(np.prod(CELLS))), pieces[np.argsort(cells, kind="stable")]


def _branch_points(rng: np.random.Generator, *, side: int) -> np.ndarray:
    """Return points (3, M) all over the right (``side`` 1) or left (-1) lung: a lattice with randomly moved nodes."""
    axes = [np.arange(-extent / 2, extent / 2, VESSEL_PITCH_MM) for extent in FIELD_OF_VIEW_MM]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    nodes = nodes + VESSEL_PITCH_MM * rng.uniform(-0.45, 0.45, nodes.shape)
    return nodes[:, (shapes_at(nodes).lungs < -2.5) & (nodes[0] * side > 0)]


def _grow(points: np.ndarray, hilum: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pieces of a tree from ``hilum`` through ``points`` (3, M): start (3, M), end (3, M) and radius (M,).

    Each point joins the node that gives a short branch and a short way to the hilum; cubed radii add up (Murray's law).
    """
    root = np.reshape(hilum, (3, 1))
    points = points[:, np.argsort(np.linalg.norm(points - root, axis=0))]
    nodes = np.concatenate([root, points], axis=1)
    parent, home = np.zeros(nodes.shape[1], np.int64), np.zeros(nodes.shape[1])
    for n in range(1, nodes.shape[1]):
        branch = np.linalg.norm(nodes[:, :n] - nodes[:, n : n + 1], axis=0)
        parent[n] = np.argmin(branch + 0.3 * home[:n])
        home[n] = home[parent[n]] + branch[parent[n]]
    cubes = np.full(nodes.shape[1], TWIG_MM**3)
    for n in range(nodes.shape[1] - 1, 0, -1):
        cubes[parent[n]] += cubes[n]
    return nodes[:, parent[1:]], points, np.minimum(np.cbrt(cubes[1:]), TRUNK_MM)


def bell(t: np.ndarray, centre: float, width: float) -> np.ndarray:
    """Return a Gaussian at ``t``, of height 1 and standard deviation ``width`` about ``centre``."""
    return np.exp(-0.5 * ((t - centre) / width) ** 2)


def _ramp(t: np.ndarray) -> np.ndarray:
    """Return a smooth step from 0 at t = 0 to 1 at t = 1."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _cover(distance: np.ndarray, edge_mm: float) -> np.ndarray:
    """Return how much of a voxel, 0 to 1, lies inside a surface at this signed distance."""
    return _ramp(0.5 - distance / edge_mm)


def _near(points: np.ndarray, low: np.ndarray, high: np.ndarray, *, margin: float) -> np.ndarray:
    """Return the numbers of the points (3, N) within ``margin`` of a box."""
    box = zip(points, low - margin, high + margin, strict=True)
    return np.flatnonzero(np.logical_and.reduce([(p > a) & (p < b) for p, a, b in box]))


def _pipe(points: np.ndarray, start: ArrayLike, end: ArrayLike, radius: ArrayLike) -> np.ndarray:
    """Return the signed distance (N,) of points (3, N) to a pipe with round ends, or of each to a pipe of its own."""
    first = np.reshape(start, (3, -1))
    offset, along = points - first, np.reshape(end, (3, -1)) - first
    share = (offset * along).sum(axis=0) / np.maximum((along**2).sum(axis=0), 1e-12)
    return np.sqrt(((offset - np.clip(share, 0, 1) * along) ** 2).sum(axis=0)) - radius


def _outside(gauge: np.ndarray, size: np.ndarray, least: float) -> np.ndarray:
    """Turn a gauge (1 on the surface; grows as ``size`` / radius) into a signed distance, ``-least`` in the middle."""
    tiny = 1e-6  # avoids 0 / 0 in the middle
    return (gauge - 1) * (size + tiny) / (gauge + tiny / least)


def _cylinder(x: np.ndarray, y: np.ndarray, radii: tuple[float, float]) -> np.ndarray:
    """Return the signed distance, along the ray to the axis, to an upright elliptic cylinder about x = y = 0."""
    return _outside(np.sqrt((x / radii[0]) ** 2 + (y / radii[1]) ** 2), np.sqrt(x**2 + y**2), min(radii))


def _ellipsoid(points: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """Return the signed distance, along the ray to the centre, to an ellipsoid with axes x, y, z."""
    offset = points - np.reshape(centre, (3, 1))
    gauge = np.sqrt(((offset / np.reshape(radii, (3, 1))) ** 2).sum(axis=0))
    return _outside(gauge, np.sqrt((offset**2).sum(axis=0)), min(radii))


def _dome_mm(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the height z (N,) of the diaphragm at exhale: two domes, the right one higher, lower towards the back."""
    right = -38 - 78 * (((x - 62) / 75) ** 2 + ((y + 8) / 95) ** 2) + 0.2 * y
    left = -50 - 78 * (((x + 64) / 75) ** 2 + ((y + 8) / 95) ** 2) + 0.2 * y
    return 0.5 * (right + left + np.sqrt((right - left) ** 2 + 12**2))  # a soft maximum
