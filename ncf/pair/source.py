"""Where a pair comes from and where it may go: the files that a user names, or a phantom made when no files are named.

The output folder is checked here as far as possible, before the fit. No images are read here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from monai.transforms import Transform

from ncf.core.console import tell
from ncf.core.errors import PairError
from ncf.core.files import load_json, save_json
from ncf.core.folders import ResultFolders
from ncf.core.names import IMAGES, LONGEST_NAME, METRICS_FILE, PAIR_KEYS, RESULT_FILES, RUN_FILE, safe_name
from ncf.core.paths import missing
from ncf.io.named_files import NamedFiles
from ncf.pair.keys import PairFiles
from ncf.phantom.chest import breathing_thorax, write

PHANTOM_NAME, PHANTOM_FILE = "phantom", "phantom.json"
PHANTOM_FILES = {
    **{key: f"{key}.nii.gz" for key in ("fixed", "moving", "fixed_label", "moving_label")},
    "landmarks": "landmarks.csv",
}


class PairOrPhantom(Transform):
    """Takes the pair as named and starts its clock; without any image it makes a breathing phantom beside its result.

    Args:
        folders: of the results; the phantom goes where its result goes (name: ``phantom`` unless one is given).
        size: of the phantom's grid, in voxels.
        seed: of its anatomy and noise.
    """

    def __init__(self, folders: ResultFolders, *, size: Sequence[int] = (112, 96, 104), seed: int = 0) -> None:
        self.folders, self.size, self.seed = folders, tuple(size), seed

    def __call__(self, data: Mapping[str, Any]) -> PairFiles:
        """Return the pair with paths and ``begun_s`` (of `time.perf_counter`).

        Raises:
            PairError: the phantom would overwrite other files, or cannot be written.
        """
        pair: dict[str, Any] = {**data, "begun_s": time.perf_counter()}
        if not any(pair.get(key) for key in PAIR_KEYS):
            pair["name"] = safe_name(str(pair.get("name") or PHANTOM_NAME))
            folder = self.folders.path(pair["name"])
            _check_name(folder)
            told = {"size": list(self.size), "seed": self.seed}
            if _is_made(folder, told):
                return cast(PairFiles, pair | {key: str(folder / file) for key, file in PHANTOM_FILES.items()})
            phantom = breathing_thorax(self.size, seed=self.seed)
            with self.folders.hold(pair["name"]).stage() as stage:
                made = write(phantom, stage)
                save_json(folder / PHANTOM_FILE, told)  # before the files, so that they are recognised as a phantom's
                for key, file in made.items():
                    pair[key] = str(folder / Path(file).name)
                    os.replace(file, pair[key])
        return cast(PairFiles, pair)


class HoldOutput(Transform):
    """Checks that a pair's folder is fit for a result, and holds the folder for this run.

    A fit takes minutes. That the disk is read-only, or that another run is at work there, should be said before it.

    Args:
        folders: of the results.
        named_files: what is to be written beside it; checked too.
    """

    def __init__(self, folders: ResultFolders, named_files: NamedFiles | None = None) -> None:
        self.folders, self.named_files = folders, named_files or NamedFiles()

    def __call__(self, data: PairFiles) -> PairFiles:
        """Check and hold the folder of a pair.

        Returns:
            The same dictionary.

        Raises:
            PairError: ``<output_dir>/<name>/`` cannot be written, is in use, or holds the result of other scans.
        """
        folder = self.folders.path(data["name"])
        _check_name(folder)
        self.named_files.check(data["files"].values())
        nearest = next(path for path in (folder, *folder.parents) if not missing(path))
        if not nearest.is_dir():
            raise PairError(
                f"cannot write {folder}: {nearest} is a file, not a folder; choose another output_dir or name"
            )
        self.folders.hold(data["name"])
        check_owner(folder, data["files"])
        written = {(folder / name).resolve() for name in RESULT_FILES}
        lost = next((path for path in data["files"].values() if Path(path).resolve() in written), None)
        if lost is not None:
            raise PairError(
                f"{lost} is to be read, and the result would overwrite it; choose another name or output_dir"
            )
        if (folder / METRICS_FILE).exists():
            told = f"the earlier result of these scans in {folder} stays until the new one is complete and replaces it"
            tell(f"{told}; another name keeps both")
        return data


def check_owner(folder: Path, files: Mapping[str, str]) -> None:
    """Raise PairError where the folder holds the result of two other scans, which would be lost.

    Args:
        folder: of a result.
        files: the scans by key, as run.json names them; empty for scans that were registered in memory.
    """
    if not (folder / METRICS_FILE).exists() or not (folder / RUN_FILE).exists():
        return
    inputs = load_json(folder / RUN_FILE).get("inputs") or {}
    before = {key: Path(inputs[key]["path"]).absolute() for key in IMAGES if key in inputs}
    if any(key not in files or Path(files[key]).absolute() != path for key, path in before.items()):
        what = f"{folder} holds the result of {before.get('fixed')} and {before.get('moving')}"
        raise PairError(f"{what}, other scans than these; choose another name or output_dir, or remove it")


def _check_name(folder: Path) -> None:
    """Raise PairError for a name that no file system accepts."""
    if len(os.fsencode(folder.name)) > LONGEST_NAME:
        raise PairError(
            f"the folder's name {folder.name[:40]}... has more than {LONGEST_NAME} bytes; choose a shorter name"
        )


def _is_made(folder: Path, told: Mapping[str, Any]) -> bool:
    """Tell whether the phantom is in the folder; raise PairError where its files would overwrite other files."""
    found = next((name for name in (*PHANTOM_FILES.values(), *RESULT_FILES) if (folder / name).exists()), None)
    made = load_json(folder / PHANTOM_FILE) if (folder / PHANTOM_FILE).exists() else None
    if found is not None and made is None:
        what = f"no scans are named, and the phantom would overwrite {folder / found}, which was made of something else"
        raise PairError(f"{what}; name the scans, or choose another name or output_dir")
    if made == told:
        return all((folder / file).exists() for file in PHANTOM_FILES.values())
    if made is not None and (folder / METRICS_FILE).exists():
        what = f"{folder} holds the result of another phantom, of size {made.get('size')} and seed {made.get('seed')}"
        raise PairError(f"{what}; choose another name or output_dir, or remove it")
    return False
