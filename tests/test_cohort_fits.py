"""Cohorts that register: the same bytes whatever ran before, however many workers; the command from outside."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from ncf.cohort.plan import Plan, without_bounds
from ncf.cohort.run import run_cohort
from ncf.cohort.worker import Outcome, Resources, bound_pair, register_pair, report_pair, task_of
from ncf.commands.cohort import cohort
from ncf.core.notes import collected, note
from ncf.core.presets import presets
from ncf.io.pair_lists import read_pairs
from tests.conftest import LEVELS, NO_SEARCH, ROOT

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
    (folder / "small.json").write_text(json.dumps({"fit::levels": LEVELS, **NO_SEARCH}), encoding="utf-8")
    return folder / "list.json"


def plan_of(listed: Path, output_dir: Path, *names: str) -> Plan:
    """The pairs of these names, in this order."""
    pairs = {pair["name"]: pair for pair in read_pairs(listed)}
    files = (str(ROOT / "configs" / "inference.json"), str(listed.parent / "small.json"))
    return Plan([pairs[name] for name in names], files, output_dir, {"seed": 3, "device": "cpu"})


def bytes_of(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in RESULTS]


@pytest.mark.slow
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

    first = plan_of(listed, tmp_path / "first", "there")
    register_pair(task_of(first.pairs[0], first.config_files, first.overrides, tmp_path / "first"))
    before = held()  # with the network of the worker's config, which it keeps
    plan = plan_of(listed, tmp_path, "there", "bad")
    for row in plan.pairs:
        outcome = register_pair(task_of(row, plan.config_files, plan.overrides, tmp_path))
        assert (outcome.reason is None) == (row["name"] == "there")
        assert held() - before < np.prod(nib.load(pair["fixed"]).shape) / 10


@pytest.mark.slow
def test_missing_reports_are_made_up_for_and_nothing_is_registered_again(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = plan_of(listed, tmp_path / "out", "there", "back")
    quiet = replace(loud, overrides={**loud.overrides, "report": False})
    resources = Resources(2, 1)
    assert run_cohort(quiet, resources=resources, progress=False)
    assert not any(loud.output_dir.glob("*/report.html"))
    results = {path: path.stat().st_mtime_ns for name in RESULTS for path in loud.output_dir.glob(f"*/{name}")}
    assert run_cohort(loud, resources=resources, progress=False)
    pages = [loud.output_dir / name / "report.html" for name in ("there", "back")]
    assert all(page.exists() for page in pages) and "(no report)" not in (loud.output_dir / "index.html").read_text()
    first = pages[1].read_bytes()
    for page in pages:  # as if it had been killed between metrics.json and the report
        page.unlink()
    shutil.copyfile(
        loud.output_dir / "there" / "run.json", loud.output_dir / "there" / "displacement.nii.gz"
    )  # damaged
    capsys.readouterr()
    assert not run_cohort(loud, resources=resources, progress=False)
    out = capsys.readouterr().out
    assert (
        "no report: " in out
        and f"(by hand: ncf report {loud.output_dir / 'there'})" in out
        and "2 of 2 pairs done" in out
    )
    assert pages[1].read_bytes() == first and not pages[0].exists()
    left = {path: told for path, told in results.items() if path.parent.name == "back" or path.name != RESULTS[0]}
    assert left == {path: path.stat().st_mtime_ns for path in left}


def test_a_result_whose_scans_have_moved_has_no_report_and_says_so(
    listed: Path, tmp_path: Path, pair: Mapping[str, str]
) -> None:
    moved = tmp_path / "moving.nii.gz"
    shutil.copyfile(pair["moving"], moved)
    plan = plan_of(listed, tmp_path / "out", "there")
    plan = replace(plan, pairs=[{**plan.pairs[0], "moving": str(moved)}])
    plan = replace(plan, overrides={**plan.overrides, "report": False})
    task = task_of(plan.pairs[0], plan.config_files, plan.overrides, plan.output_dir)
    assert register_pair(task).reason is None
    moved.unlink()
    told = report_pair(task)
    assert told.reason is None and told.no_report is not None
    assert told.no_report.startswith(
        f"there: the moving scan {moved} is not there any more; name it with --moving=PATH"
    )
    assert "\n" not in told.no_report
    with pytest.raises(ValueError, match=r"^cannot read .*moving\.nii\.gz: .*; check the path"):
        run_cohort(
            replace(plan, overrides={**plan.overrides, "report": True}), resources=Resources(1, 1), progress=False
        )


@pytest.mark.slow
def test_a_note_is_in_the_log_of_the_cohort_with_the_name_of_its_pair(
    pair: Mapping[str, str], listed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [{**pair, "name": "named"}]
    for key in ("fixed_label", "moving_label"):
        rows[0][key] = str(shutil.copyfile(pair[key], tmp_path / f"{key}.nii.gz"))
    (tmp_path / "fixed_label.tsv").write_text("index\tname\n1\tHeart\n", encoding="utf-8")
    (tmp_path / "list.json").write_text(json.dumps({"pairs": rows}), encoding="utf-8")
    given = [str(tmp_path / "list.json"), "--output_dir=out", f"--preset={listed.parent / 'small.json'}"]
    command = [sys.executable, "-m", "ncf", "cohort", *given, "--workers=1", "--report=false", "--log=run.log"]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    noted = "note: named: labels: only the fixed ones have names; equal numbers are partners"
    assert [line[20:] for line in (tmp_path / "run.log").read_text().splitlines() if "note: " in line] == [noted]
    assert [line for line in capfd.readouterr().err.splitlines() if "note: " in line] == [noted]


def test_notes_and_warnings_are_kept_and_shown_to_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with collected() as said:
        note("its origin is odd", "fixed")
        logging.getLogger("ncf.fit.optimizer").warning("attempt %d of %d", 1, 3)
        logging.getLogger("ncf.fit.optimizer").info("level 1")
    assert said == ["note: fixed: its origin is odd", "attempt 1 of 3"]
    caplog.clear()
    note("shown again")
    assert caplog.messages == ["note: shown again"] and len(said) == 2


def test_a_pair_whose_bounds_fail_stays_a_complete_result(
    listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path, *, progress: bool) -> None:
        assert not progress and (folder / "metrics.json").exists()
        raise RuntimeError("no fits\nand a second line")

    monkeypatch.setattr("ncf.api.trust.trust", fail)
    plan = plan_of(listed, tmp_path / "out", "there")
    plan = replace(plan, overrides={**plan.overrides, "report": False, "trust": True})
    folder = plan.folder(plan.pairs[0])
    task = task_of(plan.pairs[0], plan.config_files, plan.overrides, plan.output_dir)
    why = f"the result in {folder} is complete, but its error could not be bounded: RuntimeError: no fits"
    assert register_pair(task) == Outcome("there", no_bounds=why)
    assert (folder / "findings.json").exists() and [p["name"] for p in without_bounds(plan)] == ["there"]
    assert bound_pair(task) == Outcome("there", no_bounds=why)


@pytest.mark.slow
def test_bounds_come_with_the_results_or_later_and_the_report_shows_them(
    listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later, resources = plan_of(listed, tmp_path / "out", "there"), Resources(1, 1)
    assert run_cohort(later, resources=resources, progress=False)
    asked = replace(later, overrides={**later.overrides, "trust": True})
    page, network = (later.output_dir / "there" / name for name in ("report.html", "network.pt"))
    before, stamp = page.read_bytes(), network.stat().st_mtime_ns
    assert run_cohort(asked, resources=resources, progress=False)
    assert network.stat().st_mtime_ns == stamp and page.read_bytes() != before and b'id="doubt"' in page.read_bytes()
    assert "bound mm" in capsys.readouterr().out and "bound mm" in (later.output_dir / "index.html").read_text()
    at_once = replace(asked, output_dir=tmp_path / "at_once")
    assert run_cohort(at_once, resources=resources, progress=False)
    bounds = [plan.folder(plan.pairs[0]) / "trust.nii.gz" for plan in (asked, at_once)]
    assert bounds[0].read_bytes() == bounds[1].read_bytes()
    assert b'id="doubt"' in (at_once.output_dir / "there" / "report.html").read_bytes()


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
    page = out / "there" / "report.html"
    told = page.read_bytes()
    page.unlink()
    assert run_cohort(plan_of(listed, out, *names), engine=engine, resources=Resources(2, 1), progress=False)
    assert page.read_bytes() == told


def test_the_command(listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = str(listed.parent / "small.json")
    job = cohort(str(listed), output_dir=str(tmp_path / "out"), preset=small, workers="1", progress="false")
    with pytest.raises(SystemExit) as stop:
        job.start()
    assert stop.value.code == 1
    out = capsys.readouterr().out
    assert "failed: bad: " in out and "2 of 3 pairs done" in out and "| there |" in out
    with pytest.raises(SystemExit, match=r"^error: .*begun with other settings: seed was 0, now 1"):
        cohort(str(listed), output_dir=str(tmp_path / "out"), preset=small, seed="1", workers="1").start()


def test_mistakes_at_the_command_are_one_line(listed: Path, tmp_path: Path) -> None:
    where = {"output_dir": str(tmp_path / "out")}
    calls = {
        "no data set": lambda: cohort(str(tmp_path / "gone.csv"), **where),
        "--engine is one of local, torchrun, dask, got 'slurm'": lambda: cohort(str(listed), engine="slurm", **where),
        "--scheduler is for --engine dask": lambda: cohort(str(listed), scheduler="tcp://x:1", **where),
        "--workers is at least 1": lambda: cohort(str(listed), workers="0", **where),
        "--workers must be a whole number": lambda: cohort(str(listed), workers="two", **where),
        f"no preset 'quick'; there are: {', '.join(presets())}, or give the path of a JSON overlay$": lambda: cohort(
            str(listed), preset="quick", **where
        ),
    }
    for telling, call in calls.items():
        with pytest.raises(SystemExit, match=f"^error: .*{telling}"):
            call()
    assert not (tmp_path / "out").exists() and {"fast", "paper"} <= set(presets())
