"""ANTs warps with our files as we do: `python -m pytest -m peers`, with antspyx in NCF_PEERS_PYTHON."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ncf.io.nifti import save_image
from ncf.space.resampling import warp
from tests.maps import DIRECTIONS, MOVING, SHAPE, moving_image, points_in, save_map, smooth_map

PYTHON = os.environ.get("NCF_PEERS_PYTHON", sys.executable)
IMAGE_HU = 0.5  # median difference of two programs in float32
POINT_MM = 1e-3
BORDER_VOX = 2  # programs differ in what they read at a scan's edge
# ANTs moves points the way images are read: from the fixed to the moving scan, in LPS
CODE = """
import sys, ants, numpy, pandas
fixed, moving, field, image, points = sys.argv[1:]
numpy.save(image, ants.apply_transforms(ants.image_read(fixed), ants.image_read(moving), [field]).numpy())
table = pandas.DataFrame(numpy.load(points), columns=["x", "y", "z"])
numpy.save(points, ants.apply_transforms_to_points(3, table, [field])[["x", "y", "z"]].to_numpy())
"""


@pytest.mark.peers
@pytest.mark.parametrize("suffix", [".nii.gz", ".h5"])
@pytest.mark.parametrize("name", DIRECTIONS)
def test_ants_takes_the_field_as_we_do(tmp_path: Path, name: str, suffix: str) -> None:
    if subprocess.run([PYTHON, "-c", "import ants"], capture_output=True, check=False).returncode:
        pytest.skip(f"antspyx is not installed in {PYTHON}")
    mapping = smooth_map(name)
    paths = [tmp_path / file for file in ("fixed.nii", "moving.nii", f"field{suffix}", "image.npy", "points.npy")]
    save_image(paths[0], np.zeros(SHAPE, np.float32), mapping.grid.affine)
    save_image(paths[1], moving_image(), MOVING.affine)
    save_map(paths[2], mapping)
    points = points_in(SHAPE, mapping.grid.affine)
    np.save(paths[4], points * [-1, -1, 1])
    subprocess.run([PYTHON, "-c", CODE, *map(str, paths)], check=True, capture_output=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(paths[4]) * [-1, -1, 1], mapping.to_moving(points)[0], atol=POINT_MM)
    ours = warp(
        mapping, torch.from_numpy(moving_image()), moving=MOVING.affine, reference=mapping.grid, mode="bilinear"
    )
    inner = (slice(BORDER_VOX, -BORDER_VOX),) * 3
    apart = np.abs(np.load(paths[3]) - ours.numpy())[inner]
    assert np.median(apart) <= IMAGE_HU and ours.numpy().std() > 100 * IMAGE_HU
