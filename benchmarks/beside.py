"""A pair beside two methods, as figure 4 of the paper: what each makes of the moving scan, and what stays different.

``python -m benchmarks.beside OUTPUT_DIR [--pair NAME] [--methods elastix,ours] [--out PNG]``

OUTPUT_DIR is of `benchmarks.bent` or `benchmarks.run` with ``--keep_fields=true``. On a sagittal and a coronal plane
the picture shows the moving scan by its header, the fixed scan, and the moving scan warped by each method; below, the
differences to the fixed scan, and a regular grid of the fixed scan as the last method's map carries it. Red frames
are where the last method is nearer to the fixed scan than the other, blue ones where it is less near. They are found
by the intensities, and not by a person. Where the moving scan ends, its least value is shown.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fire
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from nibabel.affines import apply_affine
from scipy.ndimage import map_coordinates, uniform_filter

from benchmarks.bent import pairs_in
from benchmarks.evaluate import read_field, read_labels
from benchmarks.options import chosen, words
from benchmarks.pairs import PAIRS, Pair

VIEWS = {"sagittal": 0, "coronal": 1}  # the axis of RAS mm that does not change
PIXEL_MM, AROUND_MM, MESH_MM = 1.0, 12.0, 12.0
FRAME_MM, FRAMES, LEAST_GAIN = 36.0, 3, 0.03  # size of a frame, how many at most, least gain as a share of the window
BETTER, WORSE = "#ff3b30", "#3b82f6"
TITLES = {"ours": "NCF", "elastix": "elastix", "syn": "SyN", "convexadam": "ConvexAdam", "greedy": "Greedy"}


@dataclass(frozen=True)
class Plane:
    """What is shown of a plane; images are (rows, columns), from below to above and from right or front to the other.

    Attributes:
        fixed: the fixed scan.
        before: the moving scan by its header.
        warped: the moving scan by each method.
        mesh: (rows, columns, 2): where the last method's map carries each pixel, in pixels to the right and up.
    """

    fixed: np.ndarray
    before: np.ndarray
    warped: dict[str, np.ndarray]
    mesh: np.ndarray


def main(
    output_dir: str,
    pair: str = "",
    methods: str = "elastix,ours",
    *,
    out: str = "",
    low: float = -250.0,
    high: float = 450.0,
) -> None:
    """Write the picture of a pair.

    Args:
        output_dir: of a benchmark that kept its fields.
        pair: its name; by default the first one that has the fields of both methods.
        methods: two names, of which the last is the one in question; the first seed is taken.
        out: path of the picture; by default beside.png in OUTPUT_DIR.
        low: intensity that is black.
        high: intensity that is white; differences run from -(high - low) to high - low.
    """
    folder, names = Path(output_dir), words(methods)
    if len(names) != 2:
        sys.exit(f"error: --methods are two names such as elastix,ours, got {methods!r}")
    offered = {p.name: p for p in [*pairs_in(folder / "pairs"), *PAIRS]}
    candidates = chosen(offered, words(pair) or list(offered), what="pair")
    found = ((p, fields(folder, p, names)) for p in candidates)
    shown = next(((p, f) for p, f in found if len(f) == len(names)), None)
    if shown is None:
        sys.exit(f"error: no fields of {' and '.join(names)} in {folder / 'runs'}; run with --keep_fields=true")
    planes = cut(*shown)
    place = Path(out or folder / "beside.png")
    draw(planes, window=(low, high), titles=[TITLES.get(name, name) for name in names], head=shown[0].name, place=place)
    print(place)


def fields(folder: Path, pair: Pair, methods: Sequence[str]) -> dict[str, Path]:
    """Return the saved field of each method that has one.

    Args:
        folder: of the benchmark.
        pair: that is looked for.
        methods: by name.
    """
    found: dict[str, Path] = {}
    for method in methods:
        runs = [
            folder / "runs" / f"{pair.name}_{method}",
            *sorted((folder / "runs").glob(f"{pair.name}_{method}_seed*")),
        ]
        files = [run / name for run in runs for name in ("displacement.nii.gz", "field.nii") if (run / name).exists()]
        if files:
            found[method] = files[0]
    return found


def cut(pair: Pair, saved: Mapping[str, Path]) -> dict[str, Plane]:
    """Return the two planes of a pair, through the middle of the fixed labels.

    Args:
        pair: has files.
        saved: the field of each method.
    """
    scans: dict[str, Any] = {key: nib.load(pair.files[key]) for key in ("fixed", "moving")}
    images = {key: (np.asarray(scan.dataobj, np.float32), scan.affine) for key, scan in scans.items()}
    fixed, affine = images["fixed"]
    places = {view: _pixels(axis, pair, images["fixed"]) for view, axis in VIEWS.items()}
    moved: dict[str, dict[str, np.ndarray]] = {view: {} for view in VIEWS}
    for method, path in saved.items():
        u = read_field(path, shape=fixed.shape, affine=affine)
        for view, points in places.items():
            parts = [_read((u[..., axis], affine), points) for axis in range(3)]
            moved[view][method] = points + np.stack(parts, axis=-1)
    planes = {}
    for view, points in places.items():
        warped = {method: _read(images["moving"], there) for method, there in moved[view].items()}
        across = 1 - VIEWS[view]
        away = (list(moved[view].values())[-1] - points)[..., [across, 2]] / (-PIXEL_MM, PIXEL_MM)
        planes[view] = Plane(_read(images["fixed"], points), _read(images["moving"], points), warped, away)
    return planes


def _pixels(axis: int, pair: Pair, fixed: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return the RAS mm (rows, columns, 3) of a plane's pixels: as far as the fixed scan shows a body there.

    Args:
        axis: of RAS mm, across the plane.
        pair: whose labels, where there are some, lie in the middle of the plane.
        fixed: image and affine.
    """
    image, affine = fixed
    low, high = np.percentile(image, (1, 99.5))
    body = apply_affine(affine, np.argwhere(image > low + 0.3 * (high - low)))
    middle = np.median(body, axis=0)
    if "fixed_label" in pair.files:
        middle = np.median(apply_affine(affine, np.argwhere(read_labels(pair.files["fixed_label"]) > 0)), axis=0)
    near = body[np.abs(body[:, axis] - middle[axis]) < 5]
    least, most = near.min(axis=0) - AROUND_MM, near.max(axis=0) + AROUND_MM
    ends = apply_affine(affine, np.array([[0, 0, 0], image.shape]) - 0.5)[:, 2]
    up = np.arange(max(least[2], ends.min()), min(most[2], ends.max()), PIXEL_MM)
    across = np.arange(most[1 - axis], least[1 - axis], -PIXEL_MM)  # from the right or the front
    points = np.empty((len(up), len(across), 3))
    points[..., axis], points[..., 1 - axis], points[..., 2] = middle[axis], across[None], up[:, None]
    return points


def _read(scan: tuple[np.ndarray, np.ndarray], points: np.ndarray) -> np.ndarray:
    """Read an image linearly at RAS mm (..., 3); beyond its edge, its least value."""
    image, affine = scan
    voxels = np.moveaxis(apply_affine(np.linalg.inv(affine), points), -1, 0)
    return np.asarray(map_coordinates(image, voxels, order=1, mode="constant", cval=float(image.min())), np.float32)


def frames(plane: Plane, *, window: tuple[float, float]) -> list[tuple[int, int, str]]:
    """Find where the last method's image is nearer to the fixed scan than the first's, and where it is less near.

    Args:
        plane: with two methods.
        window: intensities that are black and white; beyond them nothing counts.

    Returns:
        Row and column of the lower left corner of each frame, and its colour.
    """
    first, last = (np.abs(np.clip(w, *window) - np.clip(plane.fixed, *window)) for w in plane.warped.values())
    size = min(round(FRAME_MM / PIXEL_MM), *first.shape)
    gain = uniform_filter((first - last) / (window[1] - window[0]), size, mode="constant")
    # by the lower left corner of a frame that lies whole in the picture
    gain = gain[size // 2 : gain.shape[0] - size + size // 2 + 1, size // 2 : gain.shape[1] - size + size // 2 + 1]
    found = []
    for _ in range(FRAMES):
        row, column = map(int, np.unravel_index(np.abs(gain).argmax(), gain.shape))
        if abs(gain[row, column]) < LEAST_GAIN:
            break
        found.append((row, column, BETTER if gain[row, column] > 0 else WORSE))
        gain[max(row - size, 0) : row + size + 1, max(column - size, 0) : column + size + 1] = 0  # no frame on another
    return found


def draw(
    planes: Mapping[str, Plane], *, window: tuple[float, float], titles: Sequence[str], head: str, place: Path
) -> None:
    """Write the picture.

    Args:
        planes: by view.
        window: intensities that are black and white.
        titles: of the two methods.
        head: name of the pair.
        place: path of the picture.
    """
    heights = [plane.fixed.shape[0] / plane.fixed.shape[1] for plane in planes.values() for _ in range(2)]
    figure, axes = plt.subplots(
        4, 4, figsize=(14, 3.45 * sum(heights) + 0.9), facecolor="black", gridspec_kw={"height_ratios": heights}
    )
    for number, (view, plane) in enumerate(planes.items()):
        images = {"moving, by its header": plane.before, "fixed": plane.fixed}
        images |= dict(zip((f"warped by {title}" for title in titles), plane.warped.values(), strict=True))
        boxes = frames(plane, window=window)
        for column, (title, image) in enumerate(images.items()):
            upper, lower = axes[2 * number, column], axes[2 * number + 1, column]
            _show(upper, image, f"{title}, {view}", cmap="gray", vmin=window[0], vmax=window[1])
            if column == 1:
                _mesh(lower, plane, f"moving, with the fixed grid as {titles[-1]} carries it", window=window)
                continue
            reach = window[1] - window[0]
            apart = np.clip(image, *window) - np.clip(plane.fixed, *window)
            _show(lower, apart, f"{title.split(',')[0]}, less fixed", cmap="RdBu_r", vmin=-reach, vmax=reach)
            for cell in (upper, lower) if column > 1 else ():
                for row, left, colour in boxes:
                    size = FRAME_MM / PIXEL_MM
                    cell.add_patch(Rectangle((left, row), size, size, fill=False, edgecolor=colour, linewidth=1.5))
    words_ = f"{head}. Frames: where {titles[1]} is nearer to the fixed scan than {titles[0]} (red) or less near (blue)"
    figure.text(0.5, 0.004, words_, ha="center", va="bottom", fontsize=11, color="white")
    figure.subplots_adjust(left=0.005, right=0.995, top=0.97, bottom=0.03, wspace=0.02, hspace=0.12)
    figure.savefig(place, dpi=90, facecolor="black")
    plt.close(figure)


def _show(cell: Axes, image: np.ndarray, title: str, **look: Any) -> None:
    """Draw an image with its title."""
    cell.imshow(image, origin="lower", interpolation="bilinear", **look)
    cell.set_axis_off()
    cell.set_title(title, fontsize=10, color="white", pad=3)


def _mesh(cell: Axes, plane: Plane, title: str, *, window: tuple[float, float]) -> None:
    """Draw the moving scan by its header, and on it where the map carries a regular grid of the fixed scan."""
    _show(cell, plane.before, title, cmap="gray", vmin=window[0], vmax=window[1])
    rows, columns = (np.arange(n) for n in plane.fixed.shape)
    at = np.stack(np.meshgrid(columns, rows), axis=-1) + plane.mesh
    step = round(MESH_MM / PIXEL_MM)
    for line in [*at[::step], *at[:, ::step].swapaxes(0, 1)]:
        cell.plot(*line.T, color="#ffb000", linewidth=0.6)
    cell.set(xlim=(-0.5, columns[-1] + 0.5), ylim=(-0.5, rows[-1] + 0.5))


if __name__ == "__main__":
    fire.Fire(main)
