"""What a run was: the settings of its config as they were used, for run.json, and what builds its network again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ncf.core.names import PAIR_KEYS
from ncf.core.presets import version

SEPARATOR = "::"  # between the parts of a config id
# run.json tells the inputs itself; the other entries say where things lie, not how a pair was registered
NOT_SETTINGS = frozenset(
    {
        *PAIR_KEYS,
        "name",
        "output_dir",
        "bundle_root",
        "dataset_dir",
        "dataset_data",
        "pairs",
        "fields",
        "warped",
        "field",
        "face",
        "strict",
        "handlers",
    }
)
VERSION = "bundle_version"


class RunRecord:
    """The settings of a config and its parts in words.

    MONAI keeps what its config has resolved in one dictionary by id, which the config hands over as ``$__local_refs``.
    Every plain value that a run has used is there by the time its result is saved, so no list of settings is kept by
    hand.

    Args:
        resolved: values by config id, such as ``fit::interpolation``; it may still grow.
        network: options of `ncf.fit.network.NCF`.
        parts: what else run.json tells, by name, in words (``str``).
    """

    def __init__(self, resolved: Mapping[str, Any], *, network: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
        self._resolved, self._parts = resolved, dict(parts)
        self.network = {key: value for key, value in network.items() if not key.startswith("_")}

    def settings(self) -> dict[str, Any]:
        """Return all plain values that the config has resolved, nested as they are in it, by name."""
        found: dict[str, Any] = {VERSION: version()}
        for name in sorted(self._resolved):
            path = name.split(SEPARATOR)
            value = self._resolved[name]
            if path[0] in NOT_SETTINGS or any(not part or part.startswith("_") for part in path) or not is_plain(value):
                continue
            inner = found
            for part in path[:-1]:
                inner = inner.setdefault(part, {})
                if not isinstance(inner, dict):
                    break
            else:
                inner[path[-1]] = without_notes(value)
        return {**found, **{name: str(part) for name, part in self._parts.items()}}


def is_plain(value: Any) -> bool:
    """Tell whether JSON has a word for a value, however deep."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items()) and "_target_" not in value
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))


def without_notes(value: Any) -> Any:
    """Return a plain value without the entries that describe it (``_desc_``)."""
    if isinstance(value, Mapping):
        return {key: without_notes(item) for key, item in value.items() if not key.startswith("_")}
    return [without_notes(item) for item in value] if isinstance(value, (list, tuple)) else value
