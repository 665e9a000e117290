"""Cohorts that register: the same bytes whatever ran before and however many workers; the command as a person calls it."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from scripts.cohort.plan import Plan
from scripts.cohort.run import run_cohort
from scripts.cohort.worker import Resources, register_pair, task_of
from scripts.datasets import read_pairs
from scripts.presets import presets
from scripts.verbs.cohort import cohort
from tests.conftest import LEVELS, ROOT

RESULTS = ("displacement.nii.gz", "warped.nii.gz", "network.pt")


@pytest.fixture(scope="module")
def listed(pair: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chest there, the chest back, and a scan that is none between them."""
    folder = tmp_path_factory.mktemp("list")
    (folder / "bad.nii.gz").write_text("no scan")
    rows = [
        {**pair, "name": "there"},
        {"name": "bad", "fixed": str(folder / "bad.nii.gz"), "moving": pair["moving"]},
        {"name": "back", "fixed": pair["moving"], "moving": pair["fixed"]},
    ]
    (folder / "list.json").write_text(json.dumps({"pairs": rows}), encoding="utf-8")
    (folder / "small.json").write_text(json.dumps({"fit::levels": LEVELS}), encoding="utf-8")
    return folder / "list.json"


def plan_of(listed: Path, output_dir: Path, *names: str) -> Plan:
    """The pairs of these names, in this order."""
    pairs = {pair["name"]: pair for pair in read_pairs(listed)}
    files = (str(ROOT / "configs" / "inference.json"), str(listed.parent / "small.json"))
    return Plan([pairs[name] for name in names], files, output_dir, {"seed": 3, "device": "cpu"})


def bytes_of(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in RESULTS]


def test_a_pair_gets_the_same_bytes_first_and_after_others_and_beside_others(listed: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert not run_cohort(plan_of(listed, one, "back", "bad", "there"), resources=Resources(1, 1), progress=False)
    assert not run_cohort(plan_of(listed, two, "there", "back", "bad"), resources=Resources(2, 1), progress=False)
    for name in ("there", "back"):
        assert bytes_of(one / name) == bytes_of(two / name)
    assert bytes_of(one / "there") != bytes_of(one / "back")
    failure = json.loads((one / "bad" / "failure.json").read_text(encoding="utf-8"))
    assert "cannot read" in failure["reason"] and failure["detail"] == ""
    assert (one / "there" / "warped_label.nii.gz").exists()


def test_a_process_keeps_nothing_of_a_pair(listed: Path, tmp_path: Path, pair: Mapping[str, str]) -> None:
    def held() -> int:
        return sum(t.numel() for t in gc.get_objects() if issubclass(type(t), torch.Tensor))

    before = held()
    plan = plan_of(listed, tmp_path, "there", "bad")
    for row in plan.pairs:
        outcome = register_pair(task_of(row, plan.config_files, plan.overrides, tmp_path))
        assert (outcome.reason is None) == (row["name"] == "there")
        assert held() - before < np.prod(nib.load(pair["fixed"]).shape) / 10


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torchrun", "dask"])
def test_every_engine_and_number_of_workers_gives_the_same_bytes(engine: str, listed: Path, tmp_path: Path) -> None:
    names = ("there", "back")
    assert run_cohort(plan_of(listed, tmp_path / "local", *names), resources=Resources(1, 1), progress=False)
    for workers in (1, 2):
        out = tmp_path / f"{engine}_{workers}"
        assert run_cohort(plan_of(listed, out, *names), engine=engine, resources=Resources(workers, 1), progress=False)
        for name in names:
            assert bytes_of(out / name) == bytes_of(tmp_path / "local" / name)


def test_the_command(
    listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = tmp_path / "configs"  # the small fit as a preset of that name
    configs.mkdir()
    for path in (ROOT / "configs").iterdir():
        (configs / path.name).write_bytes(path.read_bytes())
    (configs / "small.json").write_bytes((listed.parent / "small.json").read_bytes())
    monkeypatch.setattr("scripts.presets.CONFIGS", configs)
    job = cohort(str(listed), output_dir=str(tmp_path / "out"), preset="small", workers="1", progress="false")
    with pytest.raises(SystemExit) as stop:
        job.start()
    assert stop.value.code == 1
    out = capsys.readouterr().out
    assert "failed: bad: " in out and "2 of 3 pairs done" in out and "| there |" in out
    with pytest.raises(SystemExit, match=r"^error: .*begun with other settings: seed was 0, now 1"):
        cohort(str(listed), output_dir=str(tmp_path / "out"), preset="small", seed="1", workers="1").start()


def test_mistakes_at_the_command_are_one_line(listed: Path, tmp_path: Path) -> None:
    where = {"output_dir": str(tmp_path / "out")}
    calls = {
        "no data set": lambda: cohort(str(tmp_path / "gone.csv"), **where),
        "--engine is one of local, torchrun, dask, got 'slurm'": lambda: cohort(str(listed), engine="slurm", **where),
        "--scheduler is for --engine dask": lambda: cohort(str(listed), scheduler="tcp://x:1", **where),
        "--workers is at least 1": lambda: cohort(str(listed), workers="0", **where),
        "--workers must be a whole number": lambda: cohort(str(listed), workers="two", **where),
        "no preset 'quick'; there are: fast, paper": lambda: cohort(str(listed), preset="quick", **where),
    }
    for telling, call in calls.items():
        with pytest.raises(SystemExit, match=f"^error: .*{telling}"):
            call()
    assert not (tmp_path / "out").exists() and presets() == ["fast", "paper"]
