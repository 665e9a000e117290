"""The slices of three views as few small image files, and the nodes of the deformed grid: the data of the page.

Each sprite holds all slices of a view, row by row, in cells of whole JPEG blocks, so that no slice blurs into its
neighbour. Scans and volume change are JPEG, as fine as the budget allows. Labels and folds are PNG, exact.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ncf.report.material import Material, pixel_mm, windows
from ncf.report.paint import grey, volume_grey
from ncf.report.views import VIEWS, Cut, cut_of, positions_mm

BUDGET_BYTES = 3_000_000  # of all JPEG sprites; the page is a third larger (base64), labels and plots come on top
QUALITIES = (85, 75, 65, 55, 45, 35, 25, 15)  # of JPEG; the first that fits the budget is taken
BLOCK = 8  # pixels of a JPEG block along a side
MESH_LINES = 24  # of the deformed grid along the longer side of a view
MOST_LABELS = 255  # one byte for a pixel
SCANS = ("fixed", "before", "after", "volume")


@dataclass(frozen=True)
class Slices:
    """One view, cut.

    Attributes:
        cut: which voxels are shown.
        sizes_mm: of a pixel across and down.
        positions_mm: of each slice, RAS mm along its own axis.
        stacks: uint8 (n, rows, columns) by name; ``nothing`` adds 1 where the moving scan has no data before
            registration, and 2 after.
        mesh: (n, 2, lines, lines), how far the nodes are carried, in pixels across and down.
        mesh_steps: pixels between two nodes, across and down.
        start: number of the slice that is shown first.
        worst: number of the slice with most folds, None where nothing folds.
    """

    cut: Cut
    sizes_mm: tuple[float, float]
    positions_mm: list[float]
    stacks: Mapping[str, np.ndarray]
    mesh: np.ndarray
    mesh_steps: tuple[int, int]
    start: int
    worst: int | None

    def only(self, name: str, number: int) -> np.ndarray:
        """Return one slice (rows, columns) of a stack.

        Args:
            name: of the stack.
            number: of the slice.
        """
        return self.stacks[name][number]

    def nothing(self, when: str, number: int) -> np.ndarray:
        """Return where a slice shows no data of the moving scan, bool (rows, columns).

        Args:
            when: ``before`` or ``after``.
            number: of the slice.
        """
        if "nothing" not in self.stacks:
            return np.zeros(self.cut.shape[1:], dtype=bool)
        return (self.only("nothing", number) & (1 if when == "before" else 2)) > 0


def sliced(material: Material) -> list[Slices]:
    """Cut the material into the three views."""
    window = windows(material.result)["moving"]
    ranks = _ranks(material)
    folded = np.argwhere(~(material.det > 0))
    centre = _centre(material.fixed)
    found = []
    for view in VIEWS:
        cut = cut_of(view, material.space.shape)
        before = material.before(cut)
        stacks = {
            "fixed": cut.take(material.fixed),
            "before": grey(before["before"], window),
            "after": cut.take(material.warped),
            "volume": volume_grey(cut.take(material.det)),
        }
        nothing = before["nothing"].astype(np.uint8) + 2 * material.nothing_after(cut).astype(np.uint8)
        stacks |= {"nothing": nothing} if nothing.any() else {}
        stacks |= _label_stacks(material, cut, before=before, ranks=ranks)
        folds = _fold_stack(folded, cut)
        stacks |= {"folds": folds} if folds.any() else {}
        mesh, steps = _mesh(material, cut)
        per_slice = folds.sum(axis=(1, 2), dtype=np.int64)
        found.append(
            Slices(
                cut=cut,
                sizes_mm=pixel_mm(cut, material.space),
                positions_mm=positions_mm(cut, material.space, centre),
                stacks=stacks,
                mesh=mesh,
                mesh_steps=steps,
                start=cut.nearest(centre[view.stacked]),
                worst=int(per_slice.argmax()) if per_slice.any() else None,
            )
        )
    return found


def _centre(fixed: np.ndarray) -> np.ndarray:
    """Return the centre of mass (3,) of the fixed scan, an index in display space: where the page opens."""
    mass = fixed[::4, ::4, ::4].astype(np.float64)
    if not mass.any():
        return (np.array(fixed.shape) - 1) / 2
    sums = [mass.sum(axis=tuple(a for a in range(3) if a != axis)) for axis in range(3)]
    return np.array([4 * (np.arange(len(s)) @ s) / s.sum() for s in sums])


def _ranks(material: Material) -> np.ndarray | None:
    """Return all labels, ascending, where some are too large for a byte; else None."""
    volumes = [np.asarray(volume) for volume in material.labels.values()]
    if max((volume.max() for volume in volumes), default=0) <= MOST_LABELS:
        return None
    return np.unique(np.concatenate([np.unique(volume) for volume in volumes]))


def _label_stacks(
    material: Material, cut: Cut, *, before: Mapping[str, np.ndarray], ranks: np.ndarray | None
) -> dict[str, np.ndarray]:
    """Return slices of labels, one byte for a pixel: the label, or its rank; those beyond `MOST_LABELS` look alike."""
    found = {}
    if "fixed" in material.labels:
        found["label_fixed"] = cut.take(np.asarray(material.labels["fixed"]))
    if "label_before" in before:
        found["label_before"] = before["label_before"]
        found["label_after"] = cut.take(np.asarray(material.labels["warped"]))
    if ranks is not None:
        found = {name: np.searchsorted(ranks, stack).clip(max=MOST_LABELS) for name, stack in found.items()}
    return {name: stack.astype(np.uint8) for name, stack in found.items()}


def _fold_stack(folded: np.ndarray, cut: Cut) -> np.ndarray:
    """Return where voxels fold, each on the nearest slice and pixel, so that none is lost between two slices."""
    found = np.zeros(cut.shape, dtype=np.uint8)
    axes = ((cut.slices, cut.view.stacked), (cut.down, cut.view.down), (cut.across, cut.view.across))
    at = tuple(np.searchsorted((axis[1:] + axis[:-1]) / 2, folded[:, a]) for axis, a in axes)
    found[at] = 255
    return found


def _mesh(material: Material, cut: Cut) -> tuple[np.ndarray, tuple[int, int]]:
    """Return how far grid nodes are carried within each slice, in pixels (n, 2, lines, lines), and the nodes' steps."""
    sizes = pixel_mm(cut, material.space)
    pitch_mm = max(cut.shape[2] * sizes[0], cut.shape[1] * sizes[1]) / MESH_LINES
    across, down = (max(1, round(pitch_mm / size)) for size in sizes)
    coarse = Cut(cut.view, cut.slices, cut.across[::across], cut.down[::down])
    moved = coarse.points() + material.displacement(coarse)
    if material.by_initial_transform:
        back = np.linalg.inv(material.placed) @ material.space.affine
        moved = np.einsum("ij,j...->i...", back[:3, :3], moved) + back[:3, 3].reshape(3, 1, 1, 1)
    away = (moved - coarse.points())[[cut.view.across, cut.view.down]]
    pitch = [np.diff(axis[:2]).item() if len(axis) > 1 else 1 for axis in (cut.across, cut.down)]
    return np.moveaxis(away / np.reshape(pitch, (2, 1, 1, 1)), 0, 1).astype(np.float32), (across, down)


def sheet_columns(count: int) -> int:
    """Return the number of cells in a row of a sheet of ``count`` slices: about square, within what browsers draw."""
    return int(np.ceil(np.sqrt(count)))


def sheet(stack: np.ndarray) -> np.ndarray:
    """Put all slices of a stack side by side, each in a cell of whole blocks whose border repeats the slice's edge."""
    count, rows, columns = stack.shape
    across = sheet_columns(count)
    padded = np.pad(stack, ((0, 0), (0, -rows % BLOCK), (0, -columns % BLOCK)), mode="edge")
    cells = np.zeros((-(-count // across) * across, *padded.shape[1:]), dtype=np.uint8)
    cells[:count] = padded
    grid = cells.reshape(-1, across, *padded.shape[1:]).swapaxes(1, 2)
    return grid.reshape(grid.shape[0] * grid.shape[1], -1)


def as_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """Encode grey pixels as JPEG.

    Args:
        pixels: uint8 (rows, columns).
        quality: of the JPEG.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def as_png(pixels: np.ndarray) -> bytes:
    """Encode pixels, grey or RGB, as PNG, exactly."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=6)
    return file.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Return a link that holds bytes.

    Args:
        content: the bytes.
        kind: their type, such as image/png.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def sprites(views: list[Slices], *, budget: int = BUDGET_BYTES) -> list[dict[str, str]]:
    """Encode the stacks of each view as data URIs, the JPEG ones as fine as the budget allows.

    Args:
        views: the three views.
        budget: bytes of all JPEG sprites together.

    Returns:
        For each view, a URI by the name of the stack.
    """
    sheets = [{name: sheet(stack) for name, stack in view.stacks.items()} for view in views]
    jpegs: list[dict[str, bytes]] = []
    for quality in QUALITIES:
        jpegs = [{name: as_jpeg(of[name], quality) for name in SCANS} for of in sheets]
        if sum(len(content) for of in jpegs for content in of.values()) <= budget:
            break
    return [
        {
            **{name: data_uri(content, "image/jpeg") for name, content in coded.items()},
            **{name: data_uri(as_png(pixels), "image/png") for name, pixels in of.items() if name not in SCANS},
        }
        for coded, of in zip(jpegs, sheets, strict=True)
    ]


def mesh_of(view: Slices) -> dict[str, Any]:
    """Return the deformed grid of a view for the page: bytes -127 to 127 times a scale, in pixels."""
    scale = float(np.abs(view.mesh).max()) / 127 or 1.0
    steps = np.rint(view.mesh / scale).astype(np.int8)
    return {
        "steps": view.mesh_steps,
        "rows": view.mesh.shape[2],
        "columns": view.mesh.shape[3],
        "scale": scale,
        "bytes": base64.b64encode(steps.tobytes()).decode(),
    }
