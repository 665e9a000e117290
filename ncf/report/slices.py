"""The slices of three views as grey values, and the nodes of the deformed grid: the data of the pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ncf.report.error_bounds import scale_of
from ncf.report.material import Material, windows
from ncf.report.paint import bound_grey, grey, volume_grey
from ncf.report.views import VIEWS, Cut, cut_of, pixel_mm, positions_mm

MESH_LINES = 24  # of the deformed grid along the longer side of a view
MOST_LABELS = 255  # one byte for a pixel


@dataclass(frozen=True)
class Slices:
    """One view, cut.

    Attributes:
        cut: which voxels are shown.
        sizes_mm: of a pixel across and down.
        positions_mm: of each slice, RAS mm along its own axis.
        stacks: uint8 (n, rows, columns) by name; ``nothing`` adds 1 where the moving scan has no data before
            registration, and 2 after; ``bounds`` where there are bounds of the error.
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
        if (scale := scale_of(material)) is not None:
            stacks["bounds"] = bound_grey(cut.take(material.bounds[-1]), scale.top_mm)
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
