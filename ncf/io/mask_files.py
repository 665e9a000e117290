"""Masks of every format, on the grid of their scan: images of weights, and structures chosen by name.

RS.dcm#Heart,Lung_L is the union of two structures of an RTSTRUCT or SEG, and RS.dcm that of all. The same is
understood of a label map in an image file, brain.nii.gz#3,5; without a choice, such a file holds weights.
"""

from __future__ import annotations

from monai.data import MetaTensor

from ncf.core.errors import PairError
from ncf.core.labels import listed, number_of
from ncf.core.notes import note
from ncf.core.scan_paths import MARK
from ncf.core.words import percent
from ncf.io.image_files import read_image
from ncf.io.label_files import chosen_labels, is_label_object, read_label, table_of
from ncf.io.masks import OVERLAP


def read_mask(key: str, path: str, image: MetaTensor) -> MetaTensor:
    """Read one mask.

    Args:
        key: what messages call it.
        path: of an image of weights; or of an RTSTRUCT, a SEG or a label map, with # and names or numbers behind it.
        image: the scan on whose grid structures are wanted. An image of weights has a grid of its own.

    Returns:
        MetaTensor float32 (1, W, H, D) with its affine, voxel -> RAS mm; 1 within structures, 0 outside.

    Raises:
        PairError: the file cannot be read, lies in another frame of reference, or lacks a structure that is named.
    """
    place, wanted = chosen_labels(path)
    if not wanted and not is_label_object(place):
        return read_image(key, path)

    def told(words: str) -> None:
        """Tell what a user must know; that structures overlap does not matter here."""
        if not words.startswith(OVERLAP):
            note(words, key)

    label = read_label(key, place, image, wanted=wanted, note=told)
    table = table_of(label)
    codes = label.as_tensor()
    there = set(table.names) | table.of(codes.unique().tolist())
    missing = [name for name in wanted if number_of(name, there, table.names) is None]
    if missing:
        has = listed(map(table.called, sorted(there)))
        raise PairError(f"{key}: {place} has no structure {listed(missing)}, of the others it has {has}; correct names")
    mask = codes > 0
    names = listed(map(table.called, sorted(there)))
    how = "" if wanted else f"; {place.name}{MARK}NAME,NAME chooses some"
    note(f"{place.name}: the mask is {names}, {percent(float(mask.float().mean()))} of the scan{how}", key)
    return MetaTensor(mask.float(), meta={**label.meta, "filename_or_obj": path})
