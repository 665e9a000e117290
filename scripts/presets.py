"""Which config files there are, and which of them make up a registration: the base, and a preset over it."""

from __future__ import annotations

from pathlib import Path

from scripts.errors import PairError

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
BASE = "inference"
MOST_SEED = 2**63 - 1
NO_PRESETS = (BASE, "metadata", "evaluate", "import", "multi_gpu")


def config(name: str) -> str:
    """The path of one config file, by its name without suffix."""
    return str(CONFIGS / f"{name}.json")


def presets() -> list[str]:
    """The overlays that change how a pair is registered."""
    return sorted(path.stem for path in CONFIGS.glob("*.json") if path.stem not in NO_PRESETS)


def config_files(preset: str | None) -> tuple[str, ...]:
    """The config files of a registration, base first; None is the default. Raises PairError for an unknown preset."""
    if preset is not None and preset not in presets():
        raise PairError(f"no preset {preset!r}; there are: {', '.join(presets())}")
    return tuple(config(name) for name in (BASE, preset) if name is not None)
