"""Where a pair comes from and where it may go: the files a person names, or a phantom made on the spot when none are named.

What can be known about the output folder is found out here, before the fit; no images are read here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.transforms import Transform

from scripts.errors import PairError
from scripts.files import claim_folder, load_json
from scripts.names import IMAGES, METRICS_FILE, PAIR_KEYS, RUN_FILE, safe_name
from scripts.phantom import breathing_thorax, write
from scripts.results import forget_result

PHANTOM_NAME = "phantom"


class PairOrPhantom(Transform):
    """The pair as named, its clock started; without any image a breathing phantom, written beside its result.

    Args:
        output_dir: the phantom goes to ``<output_dir>/<name>/`` (name: ``phantom`` unless one is given).
        size: of the phantom's grid. seed: of its anatomy and noise.
    """

    def __init__(self, output_dir: str | Path, *, size: Sequence[int] = (112, 96, 104), seed: int = 0) -> None:
        self.output_dir, self.size, self.seed = output_dir, tuple(size), seed

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """A new dictionary with paths and ``begun_s`` (of `time.perf_counter`); raises PairError for a full disk."""
        pair: dict[str, Any] = {**data, "begun_s": time.perf_counter()}
        if not any(pair.get(key) for key in PAIR_KEYS):
            pair["name"] = safe_name(str(pair.get("name") or PHANTOM_NAME))
            phantom = breathing_thorax(self.size, seed=self.seed)
            folder = claim_folder(Path(self.output_dir) / pair["name"])
            forget_result(folder)  # it was made of files that change now
            try:
                pair |= write(phantom, folder)
            except OSError as error:
                raise PairError(f"cannot write the phantom to {folder}: {error.strerror}; free some space") from error
        return pair


class CheckOutput(Transform):
    """The pair unchanged, after a look whether its folder can be made and written, without making it.

    A fit takes minutes; that the disk is read-only should be said before it.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = output_dir

    def __call__(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The same dictionary; raises PairError where ``<output_dir>/<name>/`` cannot be written."""
        folder = (Path(self.output_dir) / data["name"]).absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            raise PairError(f"cannot write {folder}: {there} is a file, not a folder; choose another output_dir or name")
        claim_folder(there)
        self._check_owner(folder, data["files"])
        return data

    def _check_owner(self, folder: Path, files: Mapping[str, str]) -> None:
        """Raises PairError where the folder holds the result of two other scans, which would be lost."""
        if not (folder / METRICS_FILE).exists() or not (folder / RUN_FILE).exists():
            return
        inputs = load_json(folder / RUN_FILE).get("inputs", {})
        before = {key: Path(inputs[key]["path"]) for key in IMAGES if key in inputs}
        if any(before.get(key, Path(files[key])).absolute() != Path(files[key]).absolute() for key in IMAGES):
            what = f"{folder} holds the result of {before.get('fixed')} and {before.get('moving')}"
            raise PairError(f"{what}, other scans than these; choose another name or output_dir, or remove it")
