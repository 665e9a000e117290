"""The phantom in the layout of Zenodo's record 3835682: one patient for each seed, exhale fixed, inhale moving."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ncf.phantom.chest import breathing_thorax, write

FOLDERS = {"": "scans", "_label": "lungMasks"}


def phantom_archive(folder: Path, cases: int, size: Sequence[int]) -> Path:
    """The folder that holds ``training/``; also ``python -m tests.archive FOLDER CASES SIZE,SIZE,SIZE``."""
    for case in range(1, cases + 1):
        files = write(breathing_thorax(tuple(size), seed=case), folder / "made")
        for suffix, kind in FOLDERS.items():
            (folder / "training" / kind).mkdir(parents=True, exist_ok=True)
            for key, breath in (("fixed", "exp"), ("moving", "insp")):
                shutil.copy(files[f"{key}{suffix}"], folder / "training" / kind / f"case_{case:03}_{breath}.nii.gz")
        (folder / "training" / "keypoints").mkdir(exist_ok=True)
        shutil.copy(files["landmarks"], folder / "training" / "keypoints" / f"case_{case:03}.csv")
    shutil.rmtree(folder / "made")
    return folder


if __name__ == "__main__":
    import sys

    print(phantom_archive(Path(sys.argv[1]), int(sys.argv[2]), [int(n) for n in sys.argv[3].split(",")]))
