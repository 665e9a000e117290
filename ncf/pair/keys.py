"""The pair: one dictionary, from what a user named to the saved result, and the type of every key in it.

A pair is a dictionary because MONAI's transforms pass dictionaries on. These types say what is under each key;
docs/conventions.md has them as a table. A key exists from the stage on under which it is listed.
"""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
import torch
from monai.data import MetaTensor

from ncf.fit.fitted import Fit
from ncf.fit.label_guidance import LabelWishes
from ncf.fit.warm_start import WarmStart


class PairFiles(TypedDict, total=False):
    """A pair as the user named it: every path is a string; files that are not named are missing."""

    fixed: str
    moving: str
    fixed_label: str
    moving_label: str
    fixed_mask: str
    moving_mask: str
    landmarks: str
    fixed_landmarks: str
    moving_landmarks: str
    guide_points: str
    fixed_guide_points: str
    moving_guide_points: str
    start: str
    name: str
    begun_s: float
    files: dict[str, str]


class Pair(TypedDict, total=False):
    """A pair once it is read; volumes are (1, W, H, D) on their own grids, or (W, H, D) on the fixed grid."""

    # named
    name: str
    begun_s: float
    files: dict[str, str]
    # read
    fixed: MetaTensor
    moving: MetaTensor
    fixed_label: MetaTensor
    moving_label: MetaTensor
    fixed_mask: MetaTensor
    moving_mask: MetaTensor
    start: WarmStart
    # checked
    landmarks: np.ndarray
    guide_points: np.ndarray
    initial_mm: np.ndarray
    wishes: LabelWishes
    # prepared
    fixed_valid: torch.Tensor
    moving_valid: torch.Tensor
    fixed_weight: MetaTensor
    moving_weight: MetaTensor
    fixed_scaled: MetaTensor
    moving_scaled: MetaTensor
    intensity: dict[str, Any]
    # fitted
    seconds: dict[str, float]
    pred: Fit
    # measured
    before: torch.Tensor
    warped: torch.Tensor
    before_label: torch.Tensor
    warped_label: torch.Tensor
    before_valid: torch.Tensor
    warped_valid: torch.Tensor
    metrics: dict[str, Any]
    # saved
    result_dir: str
    # evaluated, instead of fitted, measured and saved: a field that some program wrote
    field_vox: torch.Tensor
    stored_vox: torch.Tensor
    field_file: str


def affine_of(image: MetaTensor) -> np.ndarray:
    """Return the affine (4, 4), float64, voxel -> RAS mm, of a volume of a pair."""
    return np.asarray(image.affine, dtype=np.float64)
