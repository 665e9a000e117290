"""The labels of a result for a viewer: maps of small codes, and a row for each label."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ncf.core.words import structure_words
from ncf.io.label_files import MOST_CODE
from ncf.report.material import Material
from ncf.report.volumes import Factors, Volume, reduced
from ncf.space.geometry import to_mm

GOLDEN = 0.618034  # of the circle between the colours of one label and the next
SAMPLED = 2e6  # voxels among which a label's middle is searched


def label_numbers(material: Material) -> np.ndarray:
    """Return the numbers of all labels on the fixed grid, ascending, 0 first; a code is a place in this list.

    Args:
        material: of the result.
    """
    maps = [np.unique(np.asarray(material.labels[key])) for key in ("fixed", "warped") if key in material.labels]
    return np.unique(np.concatenate([np.zeros(1, dtype=np.int64), *maps]))


def label_maps(
    material: Material, numbers: np.ndarray, *, factors: Factors, moving_factors: Factors
) -> dict[str, Volume]:
    """Return the label maps as codes; a label that is on the moving scan alone has the code 0.

    Args:
        material: of the result.
        numbers: of `label_numbers`.
        factors: blocks of the fixed grid.
        moving_factors: blocks of the moving scan.
    """
    found = {}
    for key in ("fixed", "warped"):
        if key in material.labels:
            whole = Volume(np.asarray(material.labels[key]), material.space.affine)
            found[f"{key}_label"] = _as_codes(reduced(whole, factors, how="middle"), numbers)
    moving = material.labels.get("moving")
    if isinstance(moving, torch.Tensor) and numbers.max() <= MOST_CODE:  # beyond, it holds ranks of its own
        whole = Volume(moving[0, 0].numpy().astype(np.int64), material.moving_affine)
        found["moving_label"] = _as_codes(reduced(whole, moving_factors, how="middle"), numbers)
    return found


def _as_codes(labels: Volume, numbers: np.ndarray) -> Volume:
    at = np.searchsorted(numbers, labels.values).clip(max=len(numbers) - 1)
    codes = np.where(numbers[at] == labels.values, at, 0)
    return Volume(codes.astype(np.uint8 if len(numbers) <= 256 else np.uint16), labels.affine)


def label_rows(material: Material, numbers: np.ndarray) -> list[dict[str, Any]]:
    """Return code, name, colour, Dice and a place within for each label.

    Args:
        material: of the result.
        numbers: of `label_numbers`.
    """
    metrics = material.result.metrics
    dice = metrics.get("dice", {}).get("after", {}).get("labels", {})
    maps = [np.asarray(material.labels[key]) for key in ("fixed", "warped") if key in material.labels]
    found = []
    for code, number in enumerate(numbers.tolist()):
        if number == 0:
            continue
        inner = next(place for labels in maps if (place := _inner(labels, number)) is not None)
        found.append(
            {
                "value": code,
                "name": structure_words(metrics, number),
                "hue": round((code * GOLDEN) % 1, 4),
                "dice": dice.get(str(number)),
                "at_mm": to_mm(inner[None], material.space.affine)[0].round(3).tolist(),
            }
        )
    return found


def _inner(labels: np.ndarray, number: int) -> np.ndarray | None:
    """Return the voxel (3,) of a label that lies next to its middle; None where the map does not hold it."""
    step = max(1, round((labels.size / SAMPLED) ** (1 / 3)))
    places = np.argwhere(labels[::step, ::step, ::step] == number) * step
    places = places if len(places) else np.argwhere(labels == number)
    return places[np.abs(places - places.mean(axis=0)).sum(axis=1).argmin()] if len(places) else None
