"""What the tests of the fit share: the chest as a fit takes it, and an optimiser with the default terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ncf.fit.fitted import Fit
from ncf.fit.losses.occupancy import OccupancyLoss
from ncf.fit.losses.ssim import SSIMLoss
from ncf.fit.optimizer import PairOptimizer
from ncf.fit.pyramid import PairImages
from ncf.fit.terms import ImageTerm, OccupancyTerm, WeightedSum
from ncf.phantom.chest import PhantomPair
from ncf.space.geometry import spacing_mm
from ncf.space.sampling import Warp

AIR_HU, RANGE_HU = -1045.0, 1470.0  # of the chest: what becomes 0, and how much becomes 1


def images_of(chest: PhantomPair, **changes: Any) -> PairImages:
    """The chest as a fit takes it."""
    volumes: dict[str, torch.Tensor] = {}
    for name in ("fixed", "moving"):
        scaled = torch.from_numpy((getattr(chest, name) - AIR_HU) / RANGE_HU).clamp(0, 1)[None, None]
        volumes |= {name: scaled, f"{name}_weight": torch.ones_like(scaled)}
    affines = {"fixed_affine": chest.affine, "moving_affine": chest.moving_affine, "initial": np.eye(4)}
    return PairImages(**{**volumes, **affines, **changes})


def terms() -> WeightedSum:
    own = {"photometric": ImageTerm(nn.MSELoss()), "ssim": ImageTerm(SSIMLoss(win_size=7, kernel_sigma=1.0))}
    return WeightedSum({**own, "occupancy": OccupancyTerm(OccupancyLoss(), 0.1)})


def level(iterations: int, *, voxels: int = 4000, learning_rate: float = 1e-3, **more: float) -> dict[str, Any]:
    return {"voxels": voxels, "control_points": 300, "iterations": iterations, "learning_rate": learning_rate, **more}


GENTLE = level(3, learning_rate=2e-4)  # three steps of 1e-3 end above where they began, and would be tried again


def optimizer(*levels: dict[str, Any], **options: Any) -> PairOptimizer:
    named = {f"level_{number}": entries for number, entries in enumerate(levels, start=1)}
    return PairOptimizer(**{"loss": terms(), "warp": Warp(), "levels": named, "progress": False, **options})


def bytes_of(fit: Fit) -> bytes:
    """The field and all weights, in their steps."""
    return b"".join(
        tensor.numpy().tobytes() for tensor in (fit.field_vox, *(kept.codes for kept in fit.weights.values()))
    )


def left_mm(fit: Fit, chest: PhantomPair, where: np.ndarray) -> tuple[float, float]:
    """Mean length in mm of what the field misses, and of the motion itself, where the mask says."""
    to_mm = spacing_mm(chest.affine)[:, None, None, None]
    lengths = (
        np.linalg.norm(u * to_mm, axis=0)[where] for u in (fit.field_vox[0].numpy() - chest.field_vox, chest.field_vox)
    )
    missed, motion = (float(length.mean()) for length in lengths)
    return missed, motion
