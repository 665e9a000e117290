"""How a cohort or a series was made, in words: its preset, its options, the version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ncf.core.presets import presets

WORDS = {
    "bundle_version": "version",
    "labels": "labels that count",
    "guide_labels": "labels guide the fit",
    "rigid_label": "labels that stay rigid",
    "keep_volume_label": "labels that keep their volume",
}
DEFAULT = "default"


def made_rows(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the settings of a plan as pairs of words.

    Args:
        settings: as `ncf.cohort.plan.Plan.settings` gives them, and as cohort.json and series.json keep them.

    Returns:
        Key and value, the preset first; an option as its name, truth as yes or no.
    """
    files = [Path(name).stem if Path(name).stem in presets() else name for name in settings.get("config_files", {})]
    rows = [("preset", ", ".join(files[1:]) or DEFAULT)]  # the first file is the base
    return rows + [(_key(key), _value(value)) for key, value in settings.items() if key != "config_files"]


def _key(key: str) -> str:
    return WORDS.get(key, key.replace("_", " ").replace("::", ", "))


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_value, value))
    return str(value)
