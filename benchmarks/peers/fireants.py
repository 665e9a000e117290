"""FireANTs (Jena et al.) on a GPU: affine, then greedy diffeomorphic, local cross-correlation.

It was written against version 1.5.0 and is not measured yet: no number of this project comes from a run of it.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.common import LeftOutError, Stages, need, read_vectors, save_field

SCALES = [4, 2, 1]
AFFINE_ITERATIONS, ITERATIONS = [200, 100, 50], [200, 100, 50]  # as its tutorials have them


def register(fixed: Path, moving: Path, field: Path, *, threads: int, preset: str) -> dict[str, Any]:
    """Register by FireANTs.

    Args:
        fixed: the fixed scan.
        moving: the moving scan.
        field: path of the field that is written.
        threads: that torch may use.
        preset: default.

    Returns:
        Version, device and seconds by stage.

    Raises:
        LeftOutError: there is no CUDA device.
    """
    if preset != "default":
        raise ValueError(f"FireANTs has the preset default, not {preset!r}")
    torch = need("torch", "torch")
    if not torch.cuda.is_available():
        raise LeftOutError("FireANTs needs a CUDA device")
    io, stage = need("fireants.io", "fireants"), Stages()
    linear, deformable = (need(f"fireants.registration.{name}", "fireants") for name in ("affine", "greedy"))
    torch.set_num_threads(threads)
    with stage("reading"):
        images = [io.BatchedImages(io.Image.load_file(str(path), device="cuda")) for path in (fixed, moving)]
    with stage("fitting"):
        affine = linear.AffineRegistration(SCALES, AFFINE_ITERATIONS, *images, init_rigid="cof")
        affine.optimize()
        start = affine.get_affine_matrix().detach()
        greedy = deformable.GreedyRegistration(SCALES, ITERATIONS, *images, init_affine=start)
        greedy.optimize()
        torch.cuda.synchronize()
    with stage("writing"), tempfile.TemporaryDirectory() as folder:
        whole = f"{folder}/whole.nii.gz"
        greedy.save_as_ants_transforms(whole)  # affine and warp as one field in LPS mm
        save_field(field, read_vectors(whole), fixed=fixed)
    return {"version": version("fireants"), "device": "cuda", "seconds": dict(stage)}
