"""ANTsPy: affine and SyN with the defaults of `ants.registration`."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.common import Stages, need, read_vectors, save_field


def register(fixed: Path, moving: Path, field: Path, *, threads: int, preset: str) -> dict[str, Any]:
    """Register by SyN.

    ANTs takes the number of threads from ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS, which the program that starts this
    process sets.

    Args:
        fixed: the fixed scan.
        moving: the moving scan.
        field: path of the field that is written.
        threads: not used.
        preset: default.

    Returns:
        Version, device and seconds by stage.

    Raises:
        ValueError: there is no such preset.
    """
    if preset != "default":
        raise ValueError(f"SyN has the preset default, not {preset!r}")
    ants, stage = need("ants", "antspyx"), Stages()
    with tempfile.TemporaryDirectory() as folder:
        with stage("reading"):
            target, source = ants.image_read(str(fixed)), ants.image_read(str(moving))
        with stage("fitting"):
            found = ants.registration(target, source, type_of_transform="SyN", outprefix=f"{folder}/fit_")
        with stage("writing"):
            one = {"transformlist": found["fwdtransforms"], "compose": f"{folder}/whole_"}
            whole = ants.apply_transforms(target, source, **one)  # affine and warp as one field on the fixed grid
            save_field(field, read_vectors(whole), fixed=fixed)
    return {"version": version("antspyx"), "device": "cpu", "seconds": dict(stage)}
