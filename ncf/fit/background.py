"""A pair without what lies around the patient in the fixed scan: air, blankets, a table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt

from ncf.fit.pyramid import PairImages
from ncf.space.body import body_mask
from ncf.space.geometry import spacing_mm

MARGIN_MM = 10.0  # around the body, so that the skin is an edge
LEAST_LEFT_OUT = 0.02  # of the fixed data: where there is less background, it cannot have led astray
LEAST_BODY = 0.02  # of the fixed data: a body that is smaller was not found


def without_background(pair: PairImages) -> PairImages | None:
    """Return a pair whose fixed data are the body and a margin around it.

    What one scan shows around the patient the other may show otherwise, as constant air beside noisy air. To minimise
    that difference a fit can lead the air out of the moving image.

    Args:
        pair: with the weights of its data.

    Returns:
        The pair with smaller weights; None where there is no background, or no body in front of it.
    """
    data = pair.fixed_weight[0, 0] > 0
    body = body_mask(pair.fixed[0, 0], data)
    share = float(body.sum()) / max(int(data.sum()), 1)
    if share < LEAST_BODY:
        return None
    apart = distance_transform_edt(~body.numpy(), sampling=spacing_mm(pair.fixed_affine).tolist())
    near = torch.from_numpy(np.asarray(apart) <= MARGIN_MM).to(pair.fixed_weight)
    left_out = 1 - float((near * data).sum()) / float(data.sum())
    return replace(pair, fixed_weight=pair.fixed_weight * near) if left_out >= LEAST_LEFT_OUT else None
