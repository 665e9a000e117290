"""Which config files a registration is made of, and overlays of the user's own that are refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ncf.core.presets import BASE, config, config_files, moved, presets
from tests.refusing import refused


def written(path: Path, content: Any) -> str:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_a_preset_is_a_name_or_a_file_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config_files(None) == (config(BASE),)
    assert [Path(file).name for file in config_files("fast")] == ["inference.json", "fast.json"]
    path = written(tmp_path / "mine.json", {"seed": 3})
    monkeypatch.chdir(tmp_path)
    assert config_files(path) == config_files("mine.json") == (config(BASE), path)


@pytest.mark.parametrize(
    ("content", "telling"),
    [
        ("{", "cannot read the preset .*; give the name of a preset, or a JSON overlay"),
        ([1], r"holds \[1\], expected a JSON object of config entries"),
        (
            {"loss::terms::occupancy::loss": {"_target_": "scripts.losses.OccupancyLoss"}},
            r"older version: scripts\.losses\.OccupancyLoss is ncf\.fit\.losses\.occupancy\.OccupancyLoss now",
        ),
        ({"a": [{"b": {"_target_": "scripts.mine.Own"}}]}, r"scripts\.mine\.Own is no more, the library is called ncf"),
        ({"fit::levels": [{"voxels": 1}]}, "numbers the levels of the fit, which have names now"),
        ({"fit::levels::2::iterations": 5}, "numbers the levels of the fit, which have names now"),
        ({"fit#levels#0#iterations": 5}, "numbers the levels of the fit, which have names now"),
    ],
)
def test_what_is_no_overlay_of_this_version_is_one_line(tmp_path: Path, content: Any, telling: str) -> None:
    refused(telling, config_files, written(tmp_path / "mine.json", content))


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    refused("the preset: cannot open .*gone.json .No such file", config_files, str(tmp_path / "gone.json"))
    refused(f"no preset 'fats'; there are: {', '.join(presets())}, or give the path", config_files, "fats")


def test_an_old_name_is_told_its_new_one() -> None:
    assert moved("scripts.sampling.Warp") == "scripts.sampling.Warp is ncf.space.sampling.Warp now"
