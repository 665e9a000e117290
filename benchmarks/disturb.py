"""Ways to make a pair harder: another place in space, a cut field of view, noise, streaks, blur, other intensities.

Each takes a pair in memory and gives another. What it does to the anatomy is known, so the landmarks stay the truth.
Nothing is run here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter, median_filter
from scipy.spatial.transform import Rotation

from benchmarks.evaluate import landmark_keys, read_labels, read_landmarks

CUT = 0.3  # share of the planes along the body
NOISE_FACTOR = 3.0
# number of rays; their height at the metal, as a share of the intensity range; the metal's radius
STREAKS, STREAK_HEIGHT, METAL_VOXELS = 24, 0.5, 3
BLUR_VOXELS = 1.0
FAR_MM = 5000.0  # longer than any scan
PERCENTILES = (0.5, 99.5)
# from CT to another contrast: fat bright, bone dark
CONTRAST = ([0, 0.05, 0.2, 0.4, 0.69, 0.76, 0.85, 1.0], [0, 0.02, 0.12, 0.6, 0.9, 0.42, 0.5, 0.12])


@dataclass(frozen=True)
class Scan:
    """One scan in memory.

    Attributes:
        image: intensities (W, H, D).
        label: whole numbers of the same shape, or None.
        affine: 4x4, voxel to RAS mm.
    """

    image: np.ndarray
    label: np.ndarray | None
    affine: np.ndarray


@dataclass(frozen=True)
class Scans:
    """A pair in memory.

    Attributes:
        fixed: the fixed scan.
        moving: the moving scan.
        landmarks: voxel indices (N, 6) of all sets, those of fixed, then those of moving; or None.
    """

    fixed: Scan
    moving: Scan
    landmarks: np.ndarray | None


@dataclass(frozen=True)
class Disturbance:
    """What is done to a pair.

    Attributes:
        change: makes the disturbed pair.
        size: of the moving scan relative to its true one; its millimetres are divided by it.
        align_centres: True where our method is called with this option.
    """

    change: Callable[[Scans], Scans]
    size: float = 1.0
    align_centres: bool = False


def read_scans(files: Mapping[str, Path]) -> Scans:
    """Read the files of a pair, see `benchmarks.pairs.Pair`."""

    def scan(key: str) -> Scan:
        """Read one scan and its label."""
        found: Any = nib.load(files[key])
        label = read_labels(files[f"{key}_label"]) if f"{key}_label" in files else None
        return Scan(np.asarray(found.dataobj, np.float32), label, np.asarray(found.affine, np.float64))

    sets = [read_landmarks(files[key]) for key in landmark_keys(files)]
    return Scans(scan("fixed"), scan("moving"), np.vstack(sets) if sets else None)


def write_scans(scans: Scans, folder: Path) -> dict[str, Path]:
    """Write the files of a pair to a folder.

    Args:
        scans: the pair.
        folder: is made.

    Returns:
        Paths by key.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[str, Path] = {}
    for key, scan in (("fixed", scans.fixed), ("moving", scans.moving)):
        volumes = {key: scan.image, f"{key}_label": scan.label}
        for name, volume in volumes.items():
            if volume is not None:
                paths[name] = folder / f"{name}.nii.gz"
                nib.save(nib.Nifti1Image(volume, scan.affine), paths[name])
    if scans.landmarks is not None:
        paths["landmarks"] = folder / "landmarks.csv"
        np.savetxt(paths["landmarks"], scans.landmarks, fmt="%.6f", delimiter=",")
    return paths


def placed(
    *,
    shift_mm: tuple[float, float, float] = (0, 0, 0),
    turn_deg: tuple[float, float, float] = (0, 0, 0),
    size: float = 1.0,
) -> Callable[[Scans], Scans]:
    """Return a change of the moving scan's header alone: turned about its centre, made larger, then shifted.

    Args:
        shift_mm: in RAS mm.
        turn_deg: rotation vector, in degrees.
        size: factor for all axes.
    """

    def change(scans: Scans) -> Scans:
        """Change the header of the moving scan."""
        moving = scans.moving
        centre = moving.affine @ [*(np.array(moving.image.shape) - 1) / 2, 1]
        move = np.eye(4)
        move[:3, :3] = size * Rotation.from_rotvec(turn_deg, degrees=True).as_matrix()
        move[:3, 3] = centre[:3] + shift_mm - move[:3, :3] @ centre[:3]
        return replace(scans, moving=replace(moving, affine=move @ moving.affine))

    return change


def cut(which: str, end: str) -> Callable[[Scans], Scans]:
    """Return a change that takes away 30 % of a scan's planes along the body, with the landmarks that lie there.

    Args:
        which: ``fixed`` or ``moving``.
        end: ``top`` or ``bottom``.
    """

    def change(scans: Scans) -> Scans:
        """Cut the planes of the scan."""
        scan: Scan = getattr(scans, which)
        axis = _along(scan)
        sign = nib.io_orientation(scan.affine)[axis, 1]  # 1: the index grows upwards
        planes, away = scan.image.shape[axis], round(CUT * scan.image.shape[axis])
        first = away if (end == "bottom") == (sign > 0) else 0
        stop = first + planes - away
        window = tuple(slice(first, stop) if a == axis else slice(None) for a in range(3))
        affine, landmarks = scan.affine.copy(), scans.landmarks
        affine[:3, 3] += first * affine[:3, axis]
        label = None if scan.label is None else scan.label[window]
        if landmarks is not None:
            column = axis + (3 if which == "moving" else 0)
            landmarks = landmarks[(landmarks[:, column] >= first) & (landmarks[:, column] <= stop - 1)]
            landmarks[:, column] -= first
        return replace(scans, landmarks=landmarks, **{which: Scan(scan.image[window], label, affine)})

    return change


def _along(scan: Scan) -> int:
    """Return the axis of the array that lies along the body."""
    return int(nib.io_orientation(scan.affine)[:, 0].tolist().index(2))


def noisy(scans: Scans) -> Scans:
    """Add white noise to both scans, three times as strong as their own."""
    random = np.random.default_rng(0)

    def with_noise(scan: Scan) -> Scan:
        """Add noise to one scan."""
        sigma = NOISE_FACTOR * own_noise(scan.image)
        return replace(scan, image=scan.image + random.normal(0, sigma, scan.image.shape).astype(np.float32))

    return replace(scans, fixed=with_noise(scans.fixed), moving=with_noise(scans.moving))


def own_noise(image: np.ndarray) -> float:
    """Return the standard deviation of a scan's noise.

    It is estimated, by the median absolute value, from what a median filter of 3x3x3 voxels takes away. Voxels where
    that is exactly zero do not count (padding has no noise).
    """
    rest = np.abs(image - median_filter(image, size=3))
    rest = rest[rest > 0]
    return float(np.median(rest) / 0.6745) if rest.size else 0.0


def streaked(scans: Scans) -> Scans:
    """Put metal in the middle of the moving scan, with bright and dark rays that fade, in a tenth of its planes."""
    moving = scans.moving
    low, high = np.percentile(moving.image, PERCENTILES)
    axis = _along(moving)
    image = np.moveaxis(moving.image.copy(), axis, 2)  # a view; the last axis lies along the body
    middle = image.shape[2] // 2
    x, y = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in image.shape[:2]), indexing="ij")
    distance, angle = np.hypot(x, y), np.arctan2(y, x)
    fading = 1 / (1 + distance / (10 * METAL_VOXELS))
    rays = STREAK_HEIGHT * (high - low) * fading * np.sin(STREAKS / 2 * angle) ** 3
    half = max(1, image.shape[2] // 20)
    image[:, :, middle - half : middle + half] += rays[:, :, None].astype(np.float32)
    image[distance <= METAL_VOXELS, middle - half : middle + half] = high + (high - low)
    return replace(scans, moving=replace(moving, image=np.ascontiguousarray(np.moveaxis(image, 2, axis))))


def blurred(scans: Scans) -> Scans:
    """Blur the moving scan, as a smooth reconstruction kernel does."""
    return replace(scans, moving=replace(scans.moving, image=gaussian_filter(scans.moving.image, BLUR_VOXELS)))


def rescaled(scans: Scans) -> Scans:
    """Multiply the moving intensities by 1.2 and add a tenth of their range."""
    low, high = np.percentile(scans.moving.image, PERCENTILES)
    image = (1.2 * scans.moving.image + 0.1 * (high - low)).astype(np.float32)
    return replace(scans, moving=replace(scans.moving, image=image))


def recoloured(scans: Scans) -> Scans:
    """Map the moving intensities by a curve that rises and falls, as in another modality; the darkest stay dark."""
    low, high = np.percentile(scans.moving.image, PERCENTILES)
    image = np.interp((scans.moving.image - low) / (high - low), *CONTRAST).astype(np.float32)
    return replace(scans, moving=replace(scans.moving, image=(1000 * image).round()))


DISTURBANCES = {
    "undisturbed": Disturbance(lambda scans: scans),
    "shift_80_side": Disturbance(placed(shift_mm=(80, 0, 0))),
    "shift_80_along": Disturbance(placed(shift_mm=(0, 0, 80))),
    "turn_25_axial": Disturbance(placed(turn_deg=(0, 0, 25))),
    "turn_25_sagittal": Disturbance(placed(turn_deg=(25, 0, 0))),
    "size_0.8": Disturbance(placed(size=0.8), size=0.8),
    "size_1.25": Disturbance(placed(size=1.25), size=1.25),
    "shift_turn_size": Disturbance(placed(shift_mm=(40, -30, 50), turn_deg=(10, -8, 12), size=1.1), size=1.1),
    "no_overlap": Disturbance(placed(shift_mm=(FAR_MM, 0, 0)), align_centres=True),
    "fixed_no_top": Disturbance(cut("fixed", "top")),
    "fixed_no_bottom": Disturbance(cut("fixed", "bottom")),
    "moving_no_top": Disturbance(cut("moving", "top")),
    "moving_no_bottom": Disturbance(cut("moving", "bottom")),
    "noise_x3": Disturbance(noisy),
    "streaks": Disturbance(streaked),
    "blur": Disturbance(blurred),
    "intensity": Disturbance(rescaled),
    "contrast": Disturbance(recoloured),
}
