"""Pixels: intensities to grey, and the pictures that combine two scans. Arrays in, arrays out.

The viewer of the page (templates/viewer) is handed the colours that stand here.
"""

from __future__ import annotations

import numpy as np

CHECKS = 8  # squares of a checkerboard along the longer side
LOG2_RANGE = 1.0  # the colours run over determinants from 1/2 to 2
DIFFERENCE_RANGE = 0.5  # of the window, in both directions
GREY_MAX = 255
FOLD = (255, 214, 0)  # yellow is in neither scale
NO_DATA = (74, 84, 110)  # slate blue: neither air nor tissue is blue
# blue and orange that colour-blind people can tell apart (Okabe, Ito)
FIXED_LINE, MOVING_LINE = (86, 180, 233), (230, 159, 0)
DIFFERENCE_SCALE = ((33, 102, 172), (247, 247, 247), (178, 24, 43))  # darker than fixed, equal, brighter
VOLUME_SCALE = ((118, 42, 131), (247, 247, 247), (27, 120, 55))  # smaller, equal, larger in the moving scan
TRUST_SCALE = ((68, 1, 84), (33, 145, 140), (253, 231, 37))  # bounds of the error: small, middling, large
SHINES_THROUGH = 0.25  # share of the fixed scan in a picture of colours


def grey(values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Return intensities as 0 to 255 (uint8).

    Args:
        values: of any shape.
        window: the intensities that become black and white.
    """
    low, high = window
    scaled = values.astype(np.float32, copy=False) - np.float32(low)
    scaled *= np.float32(GREY_MAX / (high - low))
    return np.rint(np.clip(scaled, 0, GREY_MAX, out=scaled), out=scaled).astype(np.uint8)


def volume_grey(det: np.ndarray) -> np.ndarray:
    """Return determinants as 0 to 255 on a logarithmic scale, 1 in the middle; folds have no logarithm and become 0."""
    known = np.maximum(np.nan_to_num(det, nan=0.0), 2**-LOG2_RANGE)
    return grey(np.log2(known), (-LOG2_RANGE, LOG2_RANGE))


def coloured(share: np.ndarray, scale: tuple[tuple[int, int, int], ...]) -> np.ndarray:
    """Return RGB values (..., 3), uint8.

    Args:
        share: 0 to 1, where along the scale.
        scale: three colours.
    """
    nodes = np.linspace(0, 1, len(scale))
    channels = [np.interp(share, nodes, [colour[c] for colour in scale]) for c in range(3)]
    return np.rint(np.stack(channels, axis=-1)).astype(np.uint8)


def difference(fixed: np.ndarray, moving: np.ndarray, nothing: np.ndarray) -> np.ndarray:
    """Return RGB of what the moving scan has more (red) or less (blue) than the fixed one.

    Args:
        fixed: as of `grey`.
        moving: as of `grey`.
        nothing: True where the moving scan has no data; slate blue in the picture.
    """
    step = (moving.astype(np.float32) - fixed) / GREY_MAX / DIFFERENCE_RANGE
    colours = coloured(np.clip(0.5 + step / 2, 0, 1), DIFFERENCE_SCALE)
    colours[nothing] = NO_DATA
    return colours


def without_data(pixels: np.ndarray, nothing: np.ndarray) -> np.ndarray:
    """Return grey pixels as RGB in which the places without data are not taken for air.

    Args:
        pixels: as of `grey`.
        nothing: True where there is no data.
    """
    colours = np.repeat(pixels[..., None], 3, axis=-1)
    colours[nothing] = NO_DATA
    return colours


def checkerboard(fixed: np.ndarray, moving: np.ndarray, sizes_mm: tuple[float, float]) -> np.ndarray:
    """Return grey values (rows, columns), fixed and moving in turn, in squares.

    Args:
        fixed: as of `grey`.
        moving: as of `grey`.
        sizes_mm: of a pixel across and down.
    """
    rows, columns = fixed.shape
    side = max(rows * sizes_mm[1], columns * sizes_mm[0]) / CHECKS
    down = (np.arange(rows) * sizes_mm[1] / side).astype(int)
    across = (np.arange(columns) * sizes_mm[0] / side).astype(int)
    return np.where((down[:, None] + across[None, :]) % 2, moving, fixed)


def volume_map(det: np.ndarray, folds: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Return RGB of how volumes change, with the fixed scan shining through and folds marked.

    Args:
        det: as of `volume_grey`.
        folds: above 0 where a voxel folds.
        fixed: as of `grey`.
    """
    colours = coloured(det / GREY_MAX, VOLUME_SCALE).astype(np.float32)
    mixed = colours * (1 - SHINES_THROUGH) + fixed[..., None] * np.float32(SHINES_THROUGH)
    mixed[folds > 0] = FOLD
    return np.rint(mixed).astype(np.uint8)


def bound_grey(bounds_mm: np.ndarray, top_mm: float) -> np.ndarray:
    """Return bounds of the error as 1 to 255 (uint8) from 0 to the top of the colour bar; 0 where none is known."""
    found = 1 + (GREY_MAX - 1) * np.clip(np.nan_to_num(bounds_mm, nan=0.0) / top_mm, 0, 1)
    return np.where(np.isnan(bounds_mm), 0, np.rint(found)).astype(np.uint8)


def trust_map(bounds: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Return RGB of the bounds of the error over the fixed scan, which stands alone where no bound is known.

    Args:
        bounds: as of `bound_grey`.
        fixed: as of `grey`.
    """
    grey_fixed = fixed[..., None].astype(np.float32)
    colours = coloured((bounds.astype(np.float32) - 1) / (GREY_MAX - 1), TRUST_SCALE)
    mixed = colours * (1 - SHINES_THROUGH) + grey_fixed * np.float32(SHINES_THROUGH)
    return np.rint(np.where(bounds[..., None] > 0, mixed, grey_fixed)).astype(np.uint8)


def outlines(labels: np.ndarray) -> np.ndarray:
    """Return the borders between pixels of different labels as segments; pixel i covers [i, i + 1].

    Args:
        labels: (rows, columns).

    Returns:
        (N, 2, 2), float32: N segments of two points, each as (x, y) in pixels.
    """
    rows, columns = np.nonzero(labels[:, 1:] != labels[:, :-1])
    upright = np.stack([np.stack([columns + 1, rows], 1), np.stack([columns + 1, rows + 1], 1)], 1)
    rows, columns = np.nonzero(labels[1:] != labels[:-1])
    level = np.stack([np.stack([columns, rows + 1], 1), np.stack([columns + 1, rows + 1], 1)], 1)
    return np.concatenate([upright, level]).astype(np.float32)
