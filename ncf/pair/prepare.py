"""The prepared pair in the form that the fit takes, for MONAI's evaluator."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ncf.core.names import MODALITY
from ncf.fit.label_guidance import LabelWishes
from ncf.fit.pyramid import PairImages
from ncf.pair.keys import Pair, affine_of
from ncf.space.geometry import to_mm, translation


def prepare_batch(
    batch: Pair, device: torch.device | str | None = None, non_blocking: bool = False, **kwargs: Any
) -> tuple[PairImages, None]:
    """Move the scaled images and weights to the device.

    Args:
        batch: a prepared pair; its entry ``seconds`` is begun here.
        device: of the evaluator.
        non_blocking: of the evaluator.
        kwargs: part of MONAI's interface, not used.

    Returns:
        The inputs of the fit, and no target.
    """
    batch["seconds"] = {"reading": time.perf_counter() - batch["begun_s"]}
    return pair_images(batch, device, non_blocking=non_blocking), None


def pair_images(pair: Pair, device: torch.device | str | None, *, non_blocking: bool = False) -> PairImages:
    """Return a prepared pair as the fit takes it.

    Args:
        pair: prepared.
        device: where the images are needed.
        non_blocking: as torch has it.
    """

    def volume(image: MetaTensor) -> torch.Tensor:
        """Return a volume (1, 1, W, H, D), float32, on the device."""
        return image.as_tensor()[None].to(device, torch.float32, non_blocking=non_blocking)

    return PairImages(
        fixed=volume(pair["fixed_scaled"]),
        moving=volume(pair["moving_scaled"]),
        fixed_weight=volume(pair["fixed_weight"]),
        moving_weight=volume(pair["moving_weight"]),
        fixed_affine=affine_of(pair["fixed"]),
        moving_affine=affine_of(pair["moving"]),
        initial=translation(pair["initial_mm"]),
        guide_points_mm=_guide_points_mm(pair),
        labels=_on_device(pair.get("wishes"), device),
        start=pair.get("start"),
        modalities=(str(pair["fixed"].meta.get(MODALITY, "")), str(pair["moving"].meta.get(MODALITY, ""))),
    )


def _on_device(wishes: LabelWishes | None, device: torch.device | str | None) -> LabelWishes | None:
    """Return what is wanted of labels with its maps on the device."""
    if wishes is None:
        return None
    moving = None if wishes.moving is None else wishes.moving.to(device)
    return replace(wishes, fixed=wishes.fixed.to(device), moving=moving)


def _guide_points_mm(pair: Pair) -> np.ndarray | None:
    """Return the guide points (N, 6) in RAS mm, None where there are none."""
    if "guide_points" not in pair:
        return None
    fixed, moving = np.hsplit(pair["guide_points"], 2)
    return np.hstack([to_mm(fixed, affine_of(pair["fixed"])), to_mm(moving, affine_of(pair["moving"]))])
