"""The benchmark's runs: which are planned, what becomes of a method that is missing or crashes, and a second start."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from benchmarks import cohorts, growth
from benchmarks.methods import Settings, by_default, known, run_one
from benchmarks.pairs import Pair, read_dataset, with_phantom
from benchmarks.peers.common import LeftOutError, need
from benchmarks.processes import measured
from benchmarks.results import read_lines
from benchmarks.run import main
from ncf.io.nifti import save_itk_field

BALLAST_MIB = 300


@pytest.fixture(scope="session")
def dataset(pair: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JSON file with the tiny chest as its one pair."""
    path = tmp_path_factory.mktemp("dataset") / "set.json"
    path.write_text(json.dumps({"name": "set", "pairs": [{**pair, "name": "chest"}]}))
    return path


def fake_peer(path: Path, script: str) -> str:
    """A program that is called as the Python of the peers would be: its words are -m benchmarks.peers NAME FIXED ..."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_by_default_everything_but_hours_of_work() -> None:
    assert by_default()[0] == "ours"
    assert set(by_default()) >= {"none", "elastix", "elastix-lung", "syn", "convexadam", "fireants"}
    assert "ours-paper" in known()
    assert "ours-paper" not in by_default()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": "nothing"}, "error: no pair nothing; there are: phantom"),
        ({"methods": "ours,best"}, "error: no method best; there are: ours"),
        ({"device": "tpu"}, "error: --device is auto or cpu, got 'tpu'"),
        ({"keep_fields": "maybe"}, "error: --keep_fields is true or false, got 'maybe'"),
        ({"dataset": "nowhere.json"}, "error: no data set .*nowhere.json"),
        ({"peers_python": "no/such/python"}, "error: --peers_python no/such/python is no program"),
    ],
)
def test_a_mistake_is_one_line(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=message):
        main(output_dir=str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


def test_a_dataset_that_is_not_understood_is_refused_in_one_line(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "set.json").write_text('{"pairs": []}')
    row = json.loads(dataset.read_text())["pairs"][0]
    for rows, message in (
        ([], "the list is empty"),
        ([{**row, "fixed_mask": row["fixed"]}], "chest has fixed_mask; a bench"),
    ):
        (tmp_path / "set.json").write_text(json.dumps({"pairs": rows}))
        with pytest.raises(ValueError, match=message) as error:
            read_dataset(tmp_path / "set.json")
        assert "\n" not in str(error.value)


def test_the_pairs_of_a_dataset_are_one_group(dataset: Path, pair: dict[str, str]) -> None:
    (one,) = read_dataset(dataset)
    assert (one.name, one.group) == ("chest", "set") and {key: str(path) for key, path in one.files.items()} == dict(
        pair
    )


def test_a_pair_without_its_files_says_so() -> None:
    assert Pair("p", {"fixed": Path("nowhere.nii.gz")}).missing == [Path("nowhere.nii.gz")]


def test_a_peer_that_is_not_installed_says_what_to_do() -> None:
    with pytest.raises(LeftOutError, match=r"no-such-package is not installed \(no_such_module is missing\): install"):
        need("no_such_module", "no-such-package")


def test_a_missing_and_a_crashing_peer_do_not_end_the_run(dataset: Path, tmp_path: Path) -> None:
    script = 'case "$3" in elastix) echo "no elastix here" >&2; exit 3;; *) echo "it broke"; exit 7;; esac'
    python = fake_peer(tmp_path / "python", script)
    options = {"dataset": str(dataset), "methods": "elastix,elastix-lung,syn,none", "output_dir": str(tmp_path / "out")}
    main(peers_python=python, **options)  # type: ignore[arg-type]
    lines = {line["method"]: line for line in read_lines(tmp_path / "out" / "runs.jsonl")}
    assert lines["elastix"]["status"] == lines["elastix-lung"]["status"] == "left out"
    assert lines["elastix-lung"]["reason"] == "no elastix here"
    assert (lines["syn"]["status"], lines["syn"]["reason"]) == ("failed", "exit status 7: it broke")
    assert lines["none"]["status"] == "done"
    assert not (tmp_path / "out" / "logs" / "chest_elastix-lung.txt").exists()  # asked once, not for every preset
    table = (tmp_path / "out" / "table.md").read_text()
    assert "- syn, failed: exit status 7: it broke (chest)" in table

    with pytest.raises(SystemExit, match=r"error: .*runs.jsonl is there already; add to it with --resume=true"):
        main(peers_python=python, **options)  # type: ignore[arg-type]
    before = (tmp_path / "out" / "runs.jsonl").read_text().splitlines()
    main(peers_python=python, resume="true", **options)  # type: ignore[arg-type]
    added = (tmp_path / "out" / "runs.jsonl").read_text().splitlines()[len(before) :]
    assert [json.loads(text)["method"] for text in added] == ["elastix", "elastix-lung", "syn"]  # none was done


def test_a_peer_is_judged_by_its_field(dataset: Path, chest: Any, tmp_path: Path) -> None:
    save_itk_field(tmp_path / "exact.nii", chest.field_vox, chest.affine)
    report = '{"version": "9", "device": "cpu", "seconds": {"fitting": 1}}'
    python = fake_peer(tmp_path / "python", f'cp {tmp_path}/exact.nii "$6"; echo \'{report}\' > "$7"')
    settings = Settings(tmp_path, peers_python=python)
    line = run_one(known()["syn"], read_dataset(dataset)[0], seed=None, settings=settings)
    assert (line["status"], line["version"], line["threads"]) == ("done", "9", 2)
    assert line["tre_voxel"] < 0.1
    assert line["seconds"]["whole"] > 0
    assert not list((tmp_path / "runs").iterdir())  # fields are large; kept only when asked for
    broken = fake_peer(tmp_path / "python", f'cp {dataset} "$6"; echo \'{report}\' > "$7"')
    line = run_one(
        known()["syn"], read_dataset(dataset)[0], seed=None, settings=Settings(tmp_path, peers_python=broken)
    )
    assert line["status"] == "failed"
    assert line["reason"].startswith("the field cannot be judged: ")


def test_memory_is_that_of_the_command_not_of_who_started_it(tmp_path: Path) -> None:
    ballast = np.ones(BALLAST_MIB * 2**17)
    small = measured(["/bin/sh", "-c", "echo $OMP_NUM_THREADS; exit 5"], log=tmp_path / "log.txt", threads=3)
    assert ballast.nbytes == BALLAST_MIB * 2**20
    assert (small.status, small.last_line) == (5, "3")
    assert small.peak_mib < 50
    take = f"import time; block = bytearray({BALLAST_MIB} * 2**20); time.sleep(0.05)"
    large = measured([sys.executable, "-c", take], log=tmp_path / "log.txt", threads=1)
    assert BALLAST_MIB < large.peak_mib < BALLAST_MIB + 50
    assert large.seconds > 0.05


def test_growth_is_told_per_voxel() -> None:
    line = {"pair": "100x100x100", "status": "done", "seconds": {"whole": 30.0, "reading": 2.0}, "peak_mib": 900.0}
    table = growth.growth_table([({**line, "above_mib": 400.0}, 2.0)])
    head, _, row = [text.split(" | ") for text in table.splitlines()]
    assert dict(zip(head, row, strict=True))["s / Mvoxel"] == "15"
    assert dict(zip(head, row, strict=True))["MiB above / Mvoxel"] == "200"
    with pytest.raises(SystemExit, match="error: a size is three whole numbers such as 96x96x104, got '9x9'"):
        growth.main(sizes="9x9")


def test_the_phantom_is_written_once(tmp_path: Path) -> None:
    pair = with_phantom(Pair("phantom"), tmp_path / "phantom", size=(20, 18, 22))
    assert not pair.missing
    written = pair.files["fixed"].stat().st_mtime_ns
    assert with_phantom(Pair("phantom"), tmp_path / "phantom", size=(20, 18, 22)).files == pair.files
    assert pair.files["fixed"].stat().st_mtime_ns == written
    assert nib.load(pair.files["fixed"]).shape == (20, 18, 22)  # type: ignore[attr-defined]


def test_what_a_cohort_costs_is_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cohorts.main(parts="engine", many=7, output_dir=str(tmp_path))
    text = (tmp_path / "table.md").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith("| 7 | 2 |"))
    first, each, again = (float(number) for number in line.strip("| ").split(" | ")[2:])
    assert each == pytest.approx(1000 * first / 7, rel=0.01) and 0 < again < first
    assert len(list((tmp_path / "engine" / "out").glob("*/metrics.json"))) == 7
    assert text.strip() in capsys.readouterr().out
