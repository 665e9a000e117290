"""The end of a fit: numbers are rounded as they are kept, and the field is that of the rounded ones."""

from __future__ import annotations

import torch
from torch import nn

from ncf.fit.field import FieldSpace, dense_field
from ncf.fit.fitted import Fit, LevelRecord
from ncf.fit.levels import Level
from ncf.fit.rounding import rounded

WEIGHT_BITS, OFFSET_BITS = 16, 7  # of the numbers that are kept: docs/decisions/0016-rounding.md


def finished(
    network: nn.Module,
    space: FieldSpace,
    last: Level,
    *,
    offsets: torch.Tensor | None,
    history: list[LevelRecord],
    attempt: int,
) -> Fit:
    """Round weights and offsets, and return the fit with the field of the rounded ones.

    Args:
        network: fitted; its weights become the rounded ones.
        space: where the field lives.
        last: the last level.
        offsets: (1, 3, w, h, d), added to the network's output, or None.
        history: of the levels.
        attempt: which one it was.
    """
    weights = {name: rounded(value, WEIGHT_BITS) for name, value in network.named_parameters()}
    network.load_state_dict({name: kept.values() for name, kept in weights.items()}, strict=False)  # buffers stay
    kept_offsets = None if offsets is None else rounded(offsets, OFFSET_BITS)
    control = space.control(last.control_points)
    return Fit(
        field_vox=dense_field(network, space, control, offsets=None if kept_offsets is None else kept_offsets.values()),
        weights=weights,
        offsets=kept_offsets,
        modules=[type(module).__name__ for module in network.modules()],
        space=space,
        control_points=last.control_points,
        history=history,
        attempt=attempt,
    )


def without_motion(network: nn.Module, space: FieldSpace, last: Level, *, history: list[LevelRecord]) -> Fit:
    """Return an initial transform as a fit: its network gives a zero field.

    Args:
        network: its weights become zero.
        space: where the field lives, with the initial transform.
        last: the last level.
        history: of what was tried.
    """
    with torch.no_grad():
        for weights in network.parameters():
            weights.zero_()
    return finished(network, space, last, offsets=None, history=history, attempt=1)
