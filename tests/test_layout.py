"""The order of voxels in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ncf.io.layout import row_major


@pytest.mark.parametrize(
    "kind", [np.uint8, np.int16, np.uint16, np.float32, np.float64, np.dtype(">i2"), np.dtype(">f4")]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_values_stay_where_they_are(kind: np.dtype, order: str) -> None:
    values = np.asarray(np.random.default_rng(0).integers(0, 200, (5, 4, 3)), dtype=kind, order=order)
    values.flags.writeable = False  # as of a file that is mapped
    found = row_major(values)
    assert found.dtype == torch.float32 and found.is_contiguous()
    np.testing.assert_array_equal(found.numpy(), values.astype(np.float32))
    found += 1  # its memory is its own
    assert found.max() == values.max() + 1


def test_other_shapes_and_strides_are_taken_too() -> None:
    values = np.arange(120.0).reshape(2, 3, 4, 5)
    for some in (values, values[0, ::2], np.asfortranarray(values)[1, :, ::-1], values[:, 0, 0]):
        np.testing.assert_array_equal(row_major(some).numpy(), some)
