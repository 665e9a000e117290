"""The config files: where they lie, which of them make up a registration, and the presets, one file each.

A preset is a JSON overlay over configs/inference.json that lies in configs/presets; its ``_desc_`` is the sentence that
commands, docs and the label server show. A file of the user's own can stand in for it. Nothing here runs a config.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ncf.core.errors import PairError
from ncf.core.paths import expanded, file_there
from ncf.core.renamed import RENAMED

BASE = "inference"
MOST_SEED = 2**63 - 1
OVERLAY_SUFFIX = ".json"
LEVEL_NUMBER = re.compile(r"fit(::|#)levels(::|#)\d+")


@lru_cache(maxsize=1)
def bundle_folder() -> Path:
    """Return the folder that holds configs/ and scripts/: inside an installed library, otherwise beside it."""
    library = Path(__file__).resolve().parents[1]
    packed = library / "bundle"
    return packed if packed.is_dir() else library.parent


def configs_folder() -> Path:
    """Return the folder of config files."""
    return bundle_folder() / "configs"


def config(name: str) -> str:
    """Return the path of one config file, by its name without suffix."""
    return str(configs_folder() / f"{name}.json")


def version() -> str:
    """Return the bundle's version."""
    metadata = json.loads(Path(config("metadata")).read_text(encoding="utf-8"))
    return str(metadata["version"])


@dataclass(frozen=True)
class Preset:
    """One way to register: a name, what it is for in a sentence, and the overlay's file."""

    name: str
    sentence: str
    path: Path


def presets() -> dict[str, Preset]:
    """Return all presets by name, in the order of their names."""
    found = {}
    for path in sorted((configs_folder() / "presets").glob(f"*{OVERLAY_SUFFIX}")):
        described = json.loads(path.read_text(encoding="utf-8")).get("_desc_", "")
        found[path.stem] = Preset(path.stem, described, path)
    return found


def config_files(preset: str | None) -> tuple[str, ...]:
    """Return the config files of a registration, base first.

    Args:
        preset: the name of a preset, the path of the user's own overlay (it ends in .json), or None for the default.

    Raises:
        PairError: there is no such preset or file, or the file is no overlay for this version.
    """
    if preset is None:
        return (config(BASE),)
    if preset.endswith(OVERLAY_SUFFIX):
        path = file_there(expanded(preset).absolute(), "the preset")
        check_overlay(path)
        return (config(BASE), str(path))
    known = presets()
    if preset not in known:
        raise PairError(f"no preset {preset!r}; there are: {', '.join(known)}, or give the path of a JSON overlay")
    return (config(BASE), str(known[preset].path))


def check_overlay(path: Path) -> None:
    """Raise PairError unless a file is a JSON overlay whose names are those of this version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PairError(
            f"cannot read the preset {path}: {reason}; give the name of a preset, or a JSON overlay"
        ) from error
    if not isinstance(content, dict):
        raise PairError(f"the preset {path} holds {content!r:.40}, expected a JSON object of config entries")
    for old in sorted(set(_targets(content))):
        raise PairError(f"the preset {path} is of an older version: {moved(old)}; change it there")
    levels = content.get("fit::levels", content.get("fit#levels"))
    if isinstance(levels, list) or any(LEVEL_NUMBER.match(key) for key in content):
        what = "numbers the levels of the fit, which have names now (coarse, middle, fine in configs/inference.json)"
        raise PairError(f'the preset {path} is of an older version: it {what}; write {{"coarse": {{...}}, ...}}')


def moved(old: str) -> str:
    """Say what a class or function of ``scripts``, as the library was called until version 0.5, is called now."""
    new = RENAMED.get(old)
    return f"{old} is {new} now" if new else f"{old} is no more, the library is called ncf"


def _targets(content: Any) -> Iterator[str]:
    """Yield all ``_target_`` entries of the old library, however deep."""
    if isinstance(content, Mapping):
        target = content.get("_target_")
        if isinstance(target, str) and target.startswith("scripts."):
            yield target
    inner = content.values() if isinstance(content, Mapping) else content if isinstance(content, list) else ()
    for value in inner:
        yield from _targets(value)
