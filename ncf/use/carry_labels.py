"""Label maps and contours carried by a saved map, with inner and outer ones where bounds of its error are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor

from ncf.core.files import write_together
from ncf.core.labels import Labels, Wanted
from ncf.core.names import IMAGE_SUFFIXES, image_stem
from ncf.evaluate.margins import Margin, label_maps, margin_of
from ncf.io.label_files import empty_scan, read_label, shown_labels, table_of
from ncf.io.label_names import save_names, table_beside
from ncf.io.named_files import save_volume
from ncf.pair.checks import check_finite
from ncf.space.geometry import spacing_mm
from ncf.space.grids import Grid
from ncf.space.resampling import warp
from ncf.use.carry import Applied, output_paths
from ncf.use.odd import note_what_is_elsewhere, note_what_is_odd
from ncf.use.trust import bounds_on

SIDES = ("inner", "outer")
HEADLINE = "with the 68 % bound of the error:"


def apply_to_labels(
    opened: Applied,
    files: Sequence[str | Path],
    output_dir: str | Path,
    *,
    mode: str,
    wanted: Sequence[Wanted] = (),
    named: Path | None = None,
) -> tuple[list[Path], list[str]]:
    """Carry label maps of the moving side onto the reference grid.

    Where bounds of the map's error are known, the inner and the outer structures lie beside each as <name>_inner and
    <name>_outer (`ncf.evaluate.margins`).

    Args:
        opened: the map.
        files: each on a grid of its own in the moving scan's space.
        output_dir: where the results go, as <name>.nii.gz; where labels have names, with a table of these.
        mode: see `ncf.space.resampling.Reader`, for labels.
        wanted: names or numbers of labels; by default all.
        named: the file of the result, in place of the folder, where one is carried (`ncf.io.named_files.WRITTEN`).

    Returns:
        The files that were written, without those of names, the carried ones first; and the volumes of inner, carried
        and outer structures in words.

    Raises:
        PairError: two files have one name, an output is an input, values are no labels, or a file cannot be read or
            written.
    """
    own = [f"{image_stem(str(file))}.nii.gz" for file in files] if named is None else [named.name]
    names = [*own, *(side for name in own for side in (margin_names(name) if opened.trust else ()))]
    targets = output_paths(names, output_dir if named is None else named.parent, read=[*files, *opened.read])
    lines: list[str] = []
    for number, file in enumerate(files):
        codes, table = carried(opened, file, mode=mode, wanted=wanted)
        note_what_is_odd(opened.inputs, file, None)
        shown = shown_labels(codes, table)
        _save(targets[number], shown, opened.reference, names=table.names)
        if opened.trust is not None:
            found = list(margins(opened, codes.numpy(), table))
            lines += told(found)
            place = len(files) + len(SIDES) * number
            for target, part in zip(targets[place : place + len(SIDES)], label_maps(shown, found), strict=True):
                _save(target, part, opened.reference, names=table.names)
    return targets, lines


def carried(
    opened: Applied, file: str | Path, *, mode: str = "nearest", wanted: Sequence[Wanted] = ()
) -> tuple[torch.Tensor, Labels]:
    """Carry a label map onto the reference grid; contours, which have no grid, come onto the moving grid first.

    Args:
        opened: the map.
        file: of the labels.
        mode: see `ncf.space.resampling.Reader`, for labels.
        wanted: names or numbers of labels; by default all.

    Returns:
        Codes (W, H, D), whole numbers, and what they stand for.

    Raises:
        PairError: the labels cannot be read.
    """
    scan = None if opened.moving is None else empty_scan(opened.moving, opened.moving_scan)
    image: MetaTensor = read_label("label", file, scan, wanted=wanted, own_grid=True)
    check_finite(str(file), image)
    volume, affine = image.as_tensor()[0], np.asarray(image.affine, dtype=np.float64)
    note_what_is_elsewhere(opened.map, opened.reference, file=file, own=Grid(tuple(volume.shape), affine))
    found = warp(opened.map, volume, moving=affine, reference=opened.reference, mode=mode)
    return found.round().int(), table_of(image)


def margins(opened: Applied, codes: np.ndarray, table: Labels) -> Iterator[Margin]:
    """Yield the inner and outer outlines of all carried labels; none where no bounds are known.

    Args:
        opened: the map.
        codes: (W, H, D), on the reference grid.
        table: what they stand for.

    Raises:
        PairError: the bounds cannot be read.
    """
    if opened.trust is None:
        return
    bounds, spacing = bounds_on(opened.trust, opened.reference), spacing_mm(opened.reference.affine)
    for number in sorted(table.of(np.unique(codes))):
        name = table.names.get(number) or f"label {number}"
        yield margin_of(table.mask(codes, number), bounds, spacing, number=number, name=name)


def told(found: Sequence[Margin]) -> list[str]:
    """Tell the volumes of structures, one a line below a headline; nothing of none."""
    return [HEADLINE, *(f"  {margin.told()}" for margin in found)] if found else []


def margin_names(name: str, suffix: str | None = None) -> list[str]:
    """Return the names of the files of inner and of outer structures.

    Args:
        name: of the file of the carried ones.
        suffix: how it ends; by default as image files do.
    """
    ending = suffix or next((ending for ending in IMAGE_SUFFIXES if name.endswith(ending)), "")
    return [f"{name.removesuffix(ending)}_{side}{ending}" for side in SIDES]


def _save(target: Path, labels: np.ndarray, grid: Grid, *, names: Mapping[int, str]) -> None:
    """Write a label map and the names of its labels, both or none; names of an earlier map of this name go."""

    def write(folder: Path) -> None:
        """Write both into a folder."""
        save_volume(folder / target.name, labels, grid.affine)
        save_names(folder / target.name, names)

    write_together(target.parent, write)
    if not names:
        table_beside(target).unlink(missing_ok=True)
