"""Greedy (Yushkevich et al.): affine, then deformable, with the settings of its documentation's example.

Greedy reads the files itself, takes its headers for the start of the affine stage, and writes ITK displacement fields.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Stages, need, read_vectors, save_field

ITERATIONS, METRIC = "100x50x10", "NCC 2x2x2"


def register(fixed: Path, moving: Path, field: Path, *, threads: int, preset: str) -> dict[str, Any]:
    """Register by Greedy.

    Args:
        fixed: the fixed scan.
        moving: the moving scan.
        field: path of the field that is written.
        threads: that it may use.
        preset: default.

    Returns:
        Version, device and seconds by stage.

    Raises:
        ValueError: there is no such preset.
    """
    if preset != "default":
        raise ValueError(f"Greedy has the preset default, not {preset!r}")
    greedy, stage = need("picsl_greedy", "picsl-greedy").Greedy3D(), Stages()
    both = f"-threads {threads} -i {fixed} {moving} -m {METRIC} -n {ITERATIONS}"
    with tempfile.TemporaryDirectory() as folder:
        with stage("fitting"):
            greedy.execute(f"{both} -a -ia-identity -o {folder}/affine.mat")
            greedy.execute(f"{both} -it {folder}/affine.mat -o {folder}/warp.nii.gz")
        with stage("writing"):
            whole = f"{folder}/whole.nii.gz"  # affine and warp as one field on the fixed grid
            greedy.execute(f"-rf {fixed} -r {folder}/warp.nii.gz {folder}/affine.mat -rc {whole}")
            save_field(field, read_vectors(whole), fixed=fixed)
    return {"version": version("picsl-greedy"), "device": "cpu", "seconds": dict(stage)}
