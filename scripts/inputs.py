"""Where a pair comes from: the files a person names, or a phantom made on the spot when none are named."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.transforms import Transform

from scripts.exporters import claim_folder
from scripts.phantom import breathing_thorax, write

PAIR_KEYS = ("fixed", "moving", "fixed_label", "moving_label", "fixed_mask", "landmarks")
PHANTOM_NAME = "phantom"


class PairOrPhantom(Transform):
    """The pair as named, its clock started; without any image a breathing phantom, written beside its result.

    Args:
        output_dir: the phantom goes to ``<output_dir>/<name>/`` (name: ``phantom`` unless one is given).
        size: of the phantom's grid. seed: of its anatomy and noise.
    """

    def __init__(self, output_dir: str, *, size: Sequence[int] = (112, 96, 104), seed: int = 0) -> None:
        self.output_dir, self.size, self.seed = output_dir, tuple(size), seed

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A new dictionary with paths and ``begun_s`` (of `time.perf_counter`)."""
        pair: dict[str, Any] = {**data, "begun_s": time.perf_counter()}
        if not any(pair.get(key) for key in PAIR_KEYS):
            pair["name"] = str(pair.get("name") or PHANTOM_NAME)
            folder = claim_folder(Path(self.output_dir) / pair["name"])
            pair |= write(breathing_thorax(self.size, seed=self.seed), folder)
        return pair
