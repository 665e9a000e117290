"""The paper's experiment: its pairs, and its table from a small archive of phantoms."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ncf.commands.paper_table import paper_table
from ncf.core.presets import presets
from ncf.paper.experiment import PUBLISHED, experiment
from tests.archive import phantom_archive
from tests.conftest import LEVELS, ROOT
from tests.refusing import refused

CASES = 2


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_archive(tmp_path_factory.mktemp("archive"), CASES, (24, 22, 26))


@pytest.fixture
def empty_archive(tmp_path: Path) -> Path:
    """Ten cases of empty files."""
    for case in range(1, 11):
        for kind in ("scans", "lungMasks"):
            for breath in ("exp", "insp"):
                path = tmp_path / "training" / kind / f"case_{case:03}_{breath}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        (tmp_path / "training" / "keypoints").mkdir(exist_ok=True)
        (tmp_path / "training" / "keypoints" / f"case_{case:03}.csv").touch()
    return tmp_path


def test_the_pairs_of_the_paper(empty_archive: Path) -> None:
    asked = experiment(empty_archive)
    rows = {row["name"]: row for row in asked.pairs}
    assert len(asked.both) == len(set(asked.both)) == 56 and len(asked.intra) == len(set(asked.intra)) == 8
    assert len(rows) == 60 and set(rows) == {*asked.both, *asked.intra}  # 4 pairs are in both columns, and run once
    assert len(set(asked.both) & set(asked.intra)) == 4
    scans = {rows[name][key] for name in asked.both for key in ("fixed", "moving")}
    assert len(scans) == 8 and len({(rows[name]["fixed"], rows[name]["moving"]) for name in asked.both}) == 56
    for number, name in enumerate(asked.intra, start=1):
        row = rows[name]
        assert [Path(row[key]).name for key in ("fixed", "moving")] == [
            f"case_{number:03}_{breath}.nii.gz" for breath in ("exp", "insp")
        ]
        assert Path(row["landmarks"]).name == f"case_{number:03}.csv"
    for row in rows.values():
        for key in ("fixed", "moving"):
            assert Path(row[f"{key}_label"]).name == Path(row[key]).name
    assert "first 8 cases" in asked.note() and "all 56 ordered pairs of the 8 scans" in asked.note().replace("\n", " ")


def test_an_archive_that_does_not_do(empty_archive: Path) -> None:
    refused("holds 10 cases, the experiment wants 11", wanting, empty_archive, 11)
    refused("the experiment wants 1 ", wanting, empty_archive, 1)
    (empty_archive / "training" / "lungMasks" / "case_002_insp.nii.gz").unlink()
    refused("case_002 has no lung masks", wanting, empty_archive, 8)


def wanting(folder: Path, cases: int) -> None:
    experiment(folder, cases=cases)


@pytest.mark.slow
def test_the_table(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = tmp_path / "configs"  # small fits in place of the default's
    shutil.copytree(ROOT / "configs", configs)
    base = json.loads((configs / "inference.json").read_text(encoding="utf-8"))
    base["fit"]["levels"], base["inferer"]["search"] = LEVELS, None
    (configs / "inference.json").write_text(json.dumps(base), encoding="utf-8")
    monkeypatch.setattr("ncf.core.presets.configs_folder", lambda: configs)
    options = {"data_dir": str(archive), "output_dir": str(tmp_path / "out"), "cases": str(CASES), "workers": "2"}
    job = paper_table(**options, methods="default,elastix", peers_python="/bin/false", progress="false")
    with pytest.raises(SystemExit) as stop:
        job.start()
    assert stop.value.code == 1  # there is no elastix in /bin/false
    text = (tmp_path / "out" / "paper_table.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out
    for name, row in PUBLISHED.items():
        assert f"| {name}, as published | {row.both:.3f} | {row.intra:.3f} |" in text
    found = json.loads((tmp_path / "out" / "paper_table.json").read_text(encoding="utf-8"))["measured"]
    assert (
        found["default"]["done"] == found["default"]["pairs"] == 3
    )  # two within a patient, one of them also turned round
    assert found["default"]["parameters"] == {"network": 60870, "offsets": 0}
    cases = json.loads((tmp_path / "out" / "default" / "evaluation.json").read_text(encoding="utf-8"))["cases"]
    dice = {case["name"]: case["dice"]["after"]["mean"] for case in cases}
    assert found["default"]["both_dsc"] == pytest.approx((dice["case_001_exp__case_001_insp"] + dice[turned(dice)]) / 2)
    assert found["default"]["intra_dsc"] == pytest.approx((dice["case_001_exp__case_001_insp"] + dice["case_002"]) / 2)
    assert found["default"]["intra_tre_mm"] > 0 and found["default"]["seconds"] > 0
    assert (
        f"| ours, default | {found['default']['both_dsc']:.3f} | {found['default']['intra_dsc']:.3f} | 0.06 |" in text
    )
    assert found["elastix"]["done"] == 0 and found["elastix"]["both_dsc"] is None
    assert "| elastix, measured | - | - | - | - | - | - | 0 of 3; " in text and "ended with status 1 |" in text


def turned(dice: dict[str, float]) -> str:
    (name,) = (name for name in dice if name.startswith("case_001_insp"))
    return name


def test_mistakes_at_the_command_are_one_line(archive: Path, tmp_path: Path) -> None:
    calls = {
        f"--methods are some of default, {', '.join(presets())}, elastix, got syn": {"methods": "default,syn"},
        "got none": {"methods": ","},
        "--threads is at least 1": {"threads": "0"},
        "--workers is at least 1": {"workers": "0"},
        "the experiment wants 8": {"cases": "8"},
        "--cases must be a whole number": {"cases": "two"},
    }
    for telling, options in calls.items():
        given = {"data_dir": str(archive), "cases": str(CASES), "output_dir": str(tmp_path / "out"), **options}
        with pytest.raises(SystemExit, match=f"^error: .*{telling}"):
            paper_table(**given)
    assert not (tmp_path / "out").exists()
