"""ConvexAdam (Siebert et al.) with MIND features and the defaults of its package.

It takes arrays on one grid only, so the moving scan is first resampled (linearly) onto the fixed grid by the headers.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.peers.common import Stages, need, save_field

LPS = np.diag([-1.0, -1.0, 1.0])


def register(fixed: Path, moving: Path, field: Path, *, threads: int, preset: str) -> dict[str, Any]:
    """Register by ConvexAdam, on a CUDA device where torch has one.

    Args:
        fixed: the fixed scan.
        moving: the moving scan.
        field: path of the field that is written.
        threads: that torch may use.
        preset: default.

    Returns:
        Version, device and seconds by stage.

    Raises:
        ValueError: there is no such preset.
    """
    if preset != "default":
        raise ValueError(f"ConvexAdam has the preset default, not {preset!r}")
    stage = Stages()
    method, torch = need("convexAdam.convex_adam_MIND", "convexadam"), need("torch", "torch")
    torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with stage("reading"):
        sitk = need("SimpleITK", "SimpleITK")
        target, source = (sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (fixed, moving))
        nothing = float(sitk.GetArrayViewFromImage(source).min())
        source = sitk.Resample(source, target, sitk.Transform(), sitk.sitkLinear, nothing)
        arrays = [np.ascontiguousarray(sitk.GetArrayViewFromImage(image).T) for image in (target, source)]
    with stage("fitting"):
        voxels = method.convex_adam_pt(*arrays, device=device)  # (W, H, D, 3): component c moves array axis c
    with stage("writing"):
        grid: Any = nib.load(fixed)
        to_lps_mm = LPS @ grid.affine[:3, :3]
        save_field(field, voxels @ to_lps_mm.T, fixed=fixed)
    return {"version": version("convexadam"), "device": device.type, "seconds": dict(stage)}
