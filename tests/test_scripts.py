"""What hosts start from scripts/: thin over the library; a config with old names is told the new ones."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest
from monai.bundle import ConfigParser

from ncf.core.renamed import RENAMED
from tests.bundles import ROOT

LINES = 20  # of a file there, at most: it hands over, and does nothing itself


def test_every_new_name_is_there() -> None:
    for new in RENAMED.values():
        module, _, name = new.rpartition(".")
        assert hasattr(importlib.import_module(module), name), new


@pytest.mark.parametrize(
    ("old", "telling"),
    [
        ("scripts.losses.OccupancyLoss", "scripts.losses.OccupancyLoss is ncf.fit.losses.occupancy.OccupancyLoss now"),
        ("scripts.losses.Mine", "scripts.losses.Mine is no more, the library is called ncf"),
    ],
)
def test_a_config_of_an_older_version_is_told_the_new_name(old: str, telling: str) -> None:
    parser = ConfigParser({"loss": {"_target_": old}})
    with pytest.raises(SystemExit, match=f"^error: the config is of an older version: {re.escape(telling)}; change it"):
        parser.get_parsed_content("loss")


@pytest.mark.parametrize("verb", ["learn2reg_evaluation", "paper_table"])
def test_the_scripts_are_the_commands(verb: str) -> None:
    shown = {
        name: subprocess.run(
            [sys.executable, "-m", *words, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
        )
        for name, words in {
            "script": [f"scripts.{verb}"],
            "command": ["ncf", {"learn2reg_evaluation": "evaluate"}.get(verb, verb)],
        }.items()
    }
    assert shown["script"].stdout == shown["command"].stdout and "usage: ncf" in shown["script"].stdout


def test_the_scripts_are_thin() -> None:
    for path in (ROOT / "scripts").rglob("*.py"):
        if path.name not in ("__init__.py", "make_zoo_folder.py"):
            assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES, path
