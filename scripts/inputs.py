"""Where a pair comes from and where it may go: the files a person names, or a phantom made on the spot when none are named.

What can be known about the output folder is found out here, before the fit; no images are read here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.transforms import Transform

from scripts.errors import PairError
from scripts.files import claim_folder, load_json, save_json
from scripts.names import IMAGES, LONGEST_NAME, METRICS_FILE, PAIR_KEYS, RESULT_FILES, RUN_FILE, safe_name
from scripts.phantom import breathing_thorax, write
from scripts.results import forget_result

PHANTOM_NAME, PHANTOM_FILE = "phantom", "phantom.json"


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
            folder = Path(self.output_dir) / pair["name"]
            _check_name(folder)
            _check_phantom(folder)
            phantom = breathing_thorax(self.size, seed=self.seed)
            claim_folder(folder)
            forget_result(folder)  # it was made of files that change now
            save_json(folder / PHANTOM_FILE, {"size": self.size, "seed": self.seed})
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
        _check_name(folder)
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir():
            raise PairError(f"cannot write {folder}: {there} is a file, not a folder; choose another output_dir or name")
        claim_folder(there)
        check_owner(folder, data["files"])
        written = {(folder / name).resolve() for name in RESULT_FILES}
        lost = next((path for path in data["files"].values() if Path(path).resolve() in written), None)
        if lost is not None:
            raise PairError(f"{lost} is to be read, and the result would overwrite it; choose another name or output_dir")
        if (folder / METRICS_FILE).exists():
            print(f"the earlier result of these scans in {folder} will be replaced", flush=True)
        return data


def check_owner(folder: Path, files: Mapping[str, str]) -> None:
    """Raises PairError where the folder holds the result of two other scans, which would be lost.

    files: the scans by key, as run.json names them; none for what was registered in memory.
    """
    if not (folder / METRICS_FILE).exists() or not (folder / RUN_FILE).exists():
        return
    inputs = load_json(folder / RUN_FILE).get("inputs") or {}
    before = {key: Path(inputs[key]["path"]).absolute() for key in IMAGES if key in inputs}
    if any(key not in files or Path(files[key]).absolute() != path for key, path in before.items()):
        what = f"{folder} holds the result of {before.get('fixed')} and {before.get('moving')}"
        raise PairError(f"{what}, other scans than these; choose another name or output_dir, or remove it")


def _check_name(folder: Path) -> None:
    """Raises PairError for a name that no file system takes."""
    if len(os.fsencode(folder.name)) > LONGEST_NAME:
        raise PairError(f"the folder's name {folder.name[:40]}... has more than {LONGEST_NAME} bytes; choose a shorter name")


def _check_phantom(folder: Path) -> None:
    """Raises PairError where the folder holds files that a phantom would write over, and no phantom made them."""
    images = [f"{key}.nii.gz" for key in (*IMAGES, "fixed_label", "moving_label")]
    found = next((name for name in (*images, "landmarks.csv", *RESULT_FILES) if (folder / name).exists()), None)
    if found is not None and not (folder / PHANTOM_FILE).exists():
        what = f"no scans are named, and the phantom would overwrite {folder / found}, which was made of something else"
        raise PairError(f"{what}; name the scans, or choose another name or output_dir")
