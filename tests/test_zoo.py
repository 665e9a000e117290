"""The folder for MONAI's model zoo, judged by the zoo's own checks as far as they need no network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out

from scripts.make_zoo_folder import NAME, make
from tests.bundles import ROOT
from tests.test_bundle import SCHEMA

LARGEST_FILE = 25 * 2**20  # of the zoo
LONGEST_LINE = 120  # of its flake8
PARTS = {"net_id": "network_def"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("zoo"))


def test_the_files_that_the_zoo_asks_for_are_there(bundle: Path) -> None:
    assert bundle.name == NAME
    for name in ("configs/metadata.json", "LICENSE", "models/model.pt", "configs/inference.json", "docs/README.md"):
        assert (bundle / name).is_file(), name
    assert "holds no data" in (bundle / "docs" / "data_license.txt").read_text(encoding="utf-8")
    for path in bundle.rglob("*"):
        assert not path.is_symlink() and (path.is_dir() or path.stat().st_size < LARGEST_FILE), path
    with pytest.raises(FileExistsError):
        make(bundle.parent)


def test_lines_are_no_longer_than_the_zoo_allows(bundle: Path) -> None:
    for path in bundle.rglob("*.py"):
        long = [
            n for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if len(line) > LONGEST_LINE
        ]
        assert not long, f"{path}: lines {long}"


@pytest.mark.filterwarnings("ignore:No hash value")
def test_the_metadata_passes(bundle: Path, tmp_path: Path) -> None:
    told = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert told["version"] in told["changelog"] and told["name"] and told["eval_metrics"] and "supported_apps" in told
    required, optional = told["required_packages_version"], told["optional_packages"]
    assert required and optional and not set(required) & set(optional)
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA), encoding="utf-8")  # found there, so nothing is downloaded
    verify_metadata(meta_file=str(bundle / "configs" / "metadata.json"), filepath=str(tmp_path / "schema.json"))


def test_the_network_and_the_properties_pass(bundle: Path) -> None:
    files = {"config_file": str(bundle / "configs/inference.json"), "meta_file": str(bundle / "configs/metadata.json")}
    verify_net_in_out(**PARTS, **files, bundle_root=str(bundle), device="cpu")
    workflow = ConfigWorkflow(**files, workflow_type="inference", logging_file=False, bundle_root=str(bundle))
    workflow.initialize()
    assert workflow.check_properties() == []


def test_the_sentence_about_torchscript_is_true(bundle: Path, tmp_path: Path) -> None:
    assert "`network_def` cannot be exported as TorchScript" in (bundle / "docs" / "README.md").read_text(
        encoding="utf-8"
    )
    files = {"config_file": str(bundle / "configs/inference.json"), "meta_file": str(bundle / "configs/metadata.json")}
    with pytest.raises((RuntimeError, torch.jit.frontend.UnsupportedNodeError)):
        ckpt_export(**PARTS, **files, filepath=str(tmp_path / "x.ts"), ckpt_file=str(bundle / "models" / "model.pt"))


def test_the_readme_stands_alone(bundle: Path) -> None:
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("http") or ((bundle / "docs" / link).resolve().exists() and ".." not in link), link
    commands = re.findall(r"--config_file \"?\[?'?([\w./]+\.json)", text)
    assert commands
    for name in re.findall(r"configs/[\w/]+\.json", text):
        assert (bundle / name).is_file(), name
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    assert set(re.findall(r"--(fixed|moving)\b", text)) <= set(parser.config)


def test_a_typo_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.make_zoo_folder"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stderr.startswith("usage: ")
