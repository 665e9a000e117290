"""Copies of the bundle with presets of a few iterations, for tests that run it from somewhere else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
Levels = Mapping[str, Mapping[str, Any]]


def copy_configs(target: Path, presets: Mapping[str, Levels]) -> Path:
    """The folder of configs, copied to ``target``, with presets more: the levels of a fit by their names."""
    shutil.copytree(ROOT / "configs", target)
    for name, levels in presets.items():
        overlay = {"_desc_": f"A test's own, {name}.", "fit::levels": levels, "inferer::search": None}
        (target / "presets" / f"{name}.json").write_text(json.dumps(overlay), encoding="utf-8")
    return target


def copy_bundle(root: Path, presets: Mapping[str, Levels]) -> Path:
    """The configs, the library and what hosts start, copied into the folder ``root``."""
    copy_configs(root / "configs", presets)
    for folder in ("ncf", "scripts"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return root
