"""Cohorts: plan and resume, failures that stay with their pair, tables; workers run a stand-in."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ncf.cohort.collect import collect, outliers
from ncf.cohort.lock import COHORT_LOCK_FILE, only_run
from ncf.cohort.plan import (
    DONE,
    FAILED,
    OPEN,
    Plan,
    differences,
    open_pairs,
    prepared,
    without_bounds,
    without_report,
)
from ncf.cohort.run import default_resources, run_cohort
from ncf.cohort.worker import BOUNDED_BY, REPORTED_BY, Outcome, Resources, Task, task_of
from ncf.core.files import save_json
from ncf.io.pair_lists import checked
from ncf.result.folder import saved_results
from tests import stand_ins
from tests.conftest import ROOT
from tests.refusing import refused

NAMES = ("a", "bb", "bad", "dddd", "eeeee")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Five pairs of text files."""
    rows = []
    for name in NAMES:
        row = {"name": name, **{key: str(tmp_path / f"{key}_{name}.nii.gz") for key in ("fixed", "moving")}}
        for key in ("fixed", "moving"):
            Path(row[key]).write_text(f"{key} {name}")
        rows.append(row)
    config = tmp_path / "inference.json"
    config.write_text("{}")
    return Plan(checked(rows, where="list"), (str(config),), tmp_path / "out", {"seed": 0})


def started(plan: Plan, call: Callable[[Task], Outcome] = stand_ins.finish, **options: object) -> bool:
    resources = Resources(2, 1)
    return run_cohort(plan, **{"resources": resources, "progress": False, "call": call, **options})  # type: ignore[arg-type]


def table(plan: Plan) -> str:
    """The table of a cohort as CSV."""
    return (plan.output_dir / "cohort_table.csv").read_text(encoding="utf-8")


def listed_failures(plan: Plan) -> list[tuple[str, str]]:
    with (plan.output_dir / "failures.csv").open(newline="", encoding="utf-8") as file:
        return [(row["name"], row["reason"]) for row in csv.DictReader(file)]


def test_every_pair_is_done_once(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    assert [plan.state(pair) for pair in plan.pairs] == [OPEN] * 5
    assert started(plan)
    assert [plan.state(pair) for pair in plan.pairs] == [DONE] * 5
    out = capsys.readouterr().out
    assert (
        "| dddd | 8.00 | 4.000 | 0.5000 |" in out
        and "| **mean** | 6.00 | 3.000 | 0.5000 |" in out
        and "5 of 5 pairs done" in out
    )
    times = {name: (plan.output_dir / name / "metrics.json").stat().st_mtime_ns for name in NAMES}
    told = {"findings": [{"level": "warning", "text": "The map folds."}]}
    (plan.output_dir / "bb" / "findings.json").write_text(json.dumps(told), encoding="utf-8")
    assert started(plan, stand_ins.die_some)  # nothing is left to do
    assert "with warnings in their reports: bb\n" in capsys.readouterr().out
    assert times == {name: (plan.output_dir / name / "metrics.json").stat().st_mtime_ns for name in NAMES}
    assert (plan.output_dir / "cohort_table.png").stat().st_size > 5000 and not listed_failures(plan)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (stand_ins.refuse_some, "bad: no good"),
        (stand_ins.die_some, "the worker process ended with signal 9; .*fewer workers"),
    ],
)
def test_a_pair_that_fails_is_recorded_and_the_rest_goes_on(
    plan: Plan, call: Callable[[Task], Outcome], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not started(plan, call)
    assert [plan.state(pair) for pair in plan.pairs] == [DONE, DONE, FAILED, DONE, DONE]
    ((name, told),) = listed_failures(plan)
    assert name == "bad" and re.fullmatch(reason, told)
    assert "failed: bad: " in (out := capsys.readouterr().out) and "4 of 5 pairs done" in out
    assert not started(plan)  # a failure is not tried again by itself
    assert plan.state(plan.pairs[2]) == FAILED
    assert started(plan, retry_failed=True)
    assert [plan.state(pair) for pair in plan.pairs] == [DONE] * 5 and not listed_failures(plan)


def draw_some(task: Task) -> Outcome:
    """A report that tells its process; a pair called bad has none, and that of dddd ends the process."""
    time.sleep(0.2)
    if task.name == "dddd":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.name == "bad":
        return Outcome(task.name, no_report="bad: no ink")
    (Path(task.output_dir) / task.name / "report.html").write_text(str(os.getpid()))
    return Outcome(task.name)


def finish_undrawn(task: Task) -> Outcome:
    """A result, but the process is killed before its report is made."""
    stand_ins.finish(task)
    os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(task.name)


@pytest.mark.slow
def test_missing_reports_are_made_by_the_workers_and_one_that_fails_stops_no_other(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(replace(plan, overrides={"seed": 0, "report": False}))
    monkeypatch.setitem(REPORTED_BY, stand_ins.finish, draw_some)
    results = {path: path.stat().st_mtime_ns for path in plan.output_dir.glob("*/metrics.json")}
    half = [plan.output_dir / "a" / name for name in (".0123456789ab.html", "pictures/.0123456789ab.png")]
    half[1].parent.mkdir()
    for path in half:
        path.write_text("half")
    assert started(replace(plan, overrides={"seed": 0, "report": False}))
    assert not any(plan.output_dir.glob("*/report.html"))  # none is wanted
    assert not started(plan)
    pages = {path.parent.name: int(path.read_text()) for path in plan.output_dir.glob("*/report.html")}
    assert set(pages) == {"a", "bb", "eeeee"} and os.getpid() not in pages.values()
    assert {path: path.stat().st_mtime_ns for path in plan.output_dir.glob("*/metrics.json")} == results
    assert not any(path.exists() for path in half)
    out = capsys.readouterr().out
    assert "no report: bad: no ink\n" in out and "no report: dddd: the worker process ended with signal 9" in out
    assert [plan.state(pair) for pair in plan.pairs] == [DONE] * 5 and not listed_failures(plan)
    assert [pair["name"] for pair in without_report(plan)] == ["bad", "dddd"]
    grown = replace(plan, pairs=[*plan.pairs[:2], *plan.pairs[4:]])
    assert started(grown, stand_ins.die_some)  # nothing is left to do


def bound_some(task: Task) -> Outcome:
    """Bounds of a half of the name's length; a pair called bad has none, and those of dddd end the process."""
    if task.name == "dddd":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.name == "bad":
        return Outcome(task.name, no_bounds="bad: no fits")
    folder, half = Path(task.output_dir) / task.name, len(task.name) / 2
    numbers = {"median_mm": half, "p95_mm": 3 * half, "large_share": 0.0}
    save_json(folder / "trust.json", {"everywhere": {**numbers, "median_mm": 99.0}, "body": numbers, "structures": {}})
    (folder / "trust.nii.gz").write_bytes(b"bounds")
    return Outcome(task.name)


@pytest.mark.slow
def test_missing_bounds_are_made_when_they_are_asked_for_and_stand_in_the_table(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = replace(plan, overrides={"seed": 0, "report": False})
    assert started(plan)
    assert "bound mm" not in capsys.readouterr().out
    monkeypatch.setitem(BOUNDED_BY, stand_ins.finish, bound_some)
    results = {path: path.stat().st_mtime_ns for path in plan.output_dir.glob("*/metrics.json")}
    asked = replace(plan, overrides={**plan.overrides, "trust": True})  # no other setting of the results
    assert [pair["name"] for pair in without_bounds(asked)] == list(NAMES) and not without_bounds(plan)
    assert not started(asked)
    out = capsys.readouterr().out
    assert "no bounds: bad: no fits\n" in out and "no bounds: dddd: the worker process ended with signal 9" in out
    assert "5 of 5 pairs done" in out and "no report" not in out
    assert "| pair | TRE before mm | TRE mm | bound mm | bound p95 mm | s |" in out
    assert "| eeeee | 10.00 | 5.000 | 2.500 | 7.500 | 0.5000 |" in out and "| bad | 6.00 | 3.000 | - | - |" in out
    assert "trust.median_mm" in table(plan).splitlines()[0]
    assert {path: path.stat().st_mtime_ns for path in plan.output_dir.glob("*/metrics.json")} == results
    assert [pair["name"] for pair in without_bounds(asked)] == ["bad", "dddd"]
    assert started(replace(asked, pairs=[*plan.pairs[:2], plan.pairs[4]]), stand_ins.die_some)  # nothing is left to do
    assert started(plan)  # not asked for, not missed


@pytest.mark.slow
def test_a_process_that_ends_after_the_result_costs_the_report_alone(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not started(replace(plan, pairs=plan.pairs[:1]), finish_undrawn)
    assert "no report: a: the worker process ended with signal 9" in (out := capsys.readouterr().out)
    assert "1 of 1 pairs done" in out and not (plan.output_dir / "a" / "failure.json").exists()


@pytest.mark.parametrize("engine", ["local", "torchrun", pytest.param("dask", marks=pytest.mark.slow)])
def test_every_engine_gives_the_same_table(engine: str, plan: Plan, tmp_path: Path) -> None:
    assert started(plan)
    other = replace(plan, output_dir=tmp_path / engine)
    assert not started(other, stand_ins.refuse_some, engine=engine)
    assert listed_failures(other) == [("bad", "bad: no good")]
    assert started(other, engine=engine, retry_failed=True)
    assert table(other) == table(plan)


@pytest.mark.parametrize("engine", ["local", pytest.param("torchrun", marks=pytest.mark.slow)])
def test_notes_of_workers_come_with_the_name_of_their_pair(
    engine: str, plan: Plan, caplog: pytest.LogCaptureFixture
) -> None:
    told = {"findings": [{"level": "warning", "text": "The map folds."}, {"level": "note", "text": "Nothing."}]}
    (plan.output_dir / "bb").mkdir(parents=True)
    (plan.output_dir / "bb" / "findings.json").write_text(json.dumps(told), encoding="utf-8")
    with caplog.at_level(logging.DEBUG, "ncf"):
        assert started(plan, stand_ins.speak, engine=engine)
    lines = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert ("ncf.notes", "WARNING", "note: bad: fixed: its origin is odd") in lines
    assert ("ncf.cohort.run", "DEBUG", "bad: attempt 1 of 3: the loss rose") in lines
    assert ("ncf.cohort.run", "DEBUG", "bb: warning: The map folds.") in lines
    assert sum("odd" in text or "rose" in text or "folds" in text for _, _, text in lines) == 3


@pytest.mark.slow
def test_dask_gives_the_pair_of_a_lost_worker_to_another(plan: Plan, tmp_path: Path) -> None:
    other = replace(plan, output_dir=tmp_path / "other")
    assert started(other)
    assert started(plan, stand_ins.die_once, engine="dask")
    assert (plan.output_dir / "died").exists() and table(plan) == table(other)


@pytest.mark.slow
def test_dask_workers_elsewhere(plan: Plan) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1") as cluster:
        resources = Resources(1, 1, scheduler=cluster.scheduler_address)
        assert started(plan, engine="dask", resources=resources)
        address = cluster.scheduler_address
    refused(
        "no Dask scheduler answers at tcp://", run_dask_at, replace(plan, output_dir=plan.output_dir / "x"), address
    )


def run_dask_at(plan: Plan, address: str) -> None:
    import dask

    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        started(plan, engine="dask", resources=Resources(1, 1, scheduler=address))


def test_workers_are_processes_with_threads_and_devices_of_their_own(plan: Plan) -> None:
    assert started(plan, stand_ins.process_number, resources=Resources(2, 3, ("4", "7")))
    told = [json.loads((plan.output_dir / name / "process.json").read_text(encoding="utf-8")) for name in NAMES]
    assert len({process["pid"] for process in told} - {os.getpid()}) == 2
    assert {process["OMP_NUM_THREADS"] for process in told} == {"3"}
    assert {process["CUDA_VISIBLE_DEVICES"] for process in told} == {"4", "7"}


KILLED = """
import json
import sys
from pathlib import Path
from ncf.cohort.plan import Plan
from ncf.cohort.run import run_cohort
from ncf.cohort.worker import Resources
from tests import stand_ins
if __name__ == "__main__":
    told = json.loads(Path(sys.argv[1]).read_text())
    plan = Plan(told["pairs"], tuple(told["files"]), Path(told["out"]), {"seed": 0})
    run_cohort(plan, resources=Resources(2, 1), progress=False, call=getattr(stand_ins, sys.argv[2]))
"""


def begun(plan: Plan, folder: Path, call: str) -> subprocess.Popen[bytes]:
    """The cohort in a process of its own."""
    (folder / "killed.py").write_text(KILLED)
    told = {"pairs": plan.pairs, "files": plan.config_files, "out": str(plan.output_dir)}
    (folder / "told.json").write_text(json.dumps(told))
    command = [sys.executable, str(folder / "killed.py"), str(folder / "told.json"), call]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True)


@pytest.mark.slow
def test_workers_end_with_the_process_that_started_them(plan: Plan, tmp_path: Path) -> None:
    process = begun(plan, tmp_path, "finish_late")
    while not any(plan.output_dir.glob("*/begun")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()  # itself alone, not its workers
    process.wait()
    time.sleep(2 * stand_ins.LATE_S)
    assert not any(plan.output_dir.glob("*/metrics.json"))


def test_killed_at_any_moment_it_goes_on_to_the_same_table(plan: Plan, tmp_path: Path) -> None:
    other = replace(plan, output_dir=tmp_path / "other")
    assert started(other)
    process = begun(plan, tmp_path, "finish_slowly")
    while sum((plan.output_dir / name / "metrics.json").exists() for name in NAMES) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    half = [path for path in plan.output_dir.rglob(".*") if path.name.endswith(".nii.gz")]
    assert started(plan)
    assert table(plan) == table(other) and not any(path.exists() for path in half)


@pytest.mark.slow
def test_a_second_run_is_refused_and_harms_nothing(plan: Plan, tmp_path: Path) -> None:
    process = begun(plan, tmp_path, "finish_slowly")
    while not any(plan.output_dir.rglob(".*.nii.gz")):
        assert process.poll() is None
        time.sleep(0.02)
    refused("another run is at work in .*out; wait until it has ended, or give another output_dir", started, plan)
    assert started(replace(plan, output_dir=tmp_path / "other"))  # another folder
    assert process.wait() == 0  # none of its files was taken away
    assert started(plan) and [plan.state(pair) for pair in plan.pairs] == [DONE] * 5


def test_the_lock_is_no_result_and_needs_no_clearing(plan: Plan) -> None:
    with only_run(plan.output_dir):
        refused("another run is at work", started, plan)
        assert not (plan.output_dir / "cohort.json").exists()
    assert started(plan)
    assert [path.name for path in plan.output_dir.glob(".*")] == [COHORT_LOCK_FILE]
    assert [result.name for result in saved_results(plan.output_dir)] == sorted(NAMES)


@pytest.mark.parametrize(("number", "goes_on"), [(errno.ENOSYS, True), (errno.ENOLCK, True), (errno.EIO, False)])
def test_a_file_system_without_locks_is_told(
    number: int, goes_on: bool, plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    if goes_on:
        assert started(plan) and "knows no locks: start no second run there" in capsys.readouterr().out
    else:
        refused(r"cannot lock .*\.cohort\.lock: .*; choose", started, plan)


def prepared_by_one(plan: Plan) -> None:
    prepared(plan, threads=1)


def test_what_changed_since_is_said(plan: Plan, tmp_path: Path) -> None:
    assert started(plan)
    prepared(plan, threads=1)
    refused(
        "begun with other settings: seed was 0, now 1; give the same options",
        prepared_by_one,
        replace(plan, overrides={"seed": 1}),
    )
    with pytest.raises(ValueError, match="threads was 1, now 2"):
        prepared(plan, threads=2)
    (tmp_path / "fast.json").write_text("{}")
    more = replace(plan, config_files=(*plan.config_files, str(tmp_path / "fast.json")))
    refused(r"--preset=fast is given now, not then", prepared_by_one, more)
    Path(plan.config_files[0]).write_text('{"x": 1}')
    refused(r"configs/inference\.json changed", prepared_by_one, plan)
    Path(plan.config_files[0]).write_text("{}")
    rows = [{**plan.pairs[0], "fixed": plan.pairs[1]["fixed"]}, *plan.pairs[1:]]
    refused(
        r"a was made with fixed .*fixed_a\.nii\.gz, the list now has .*fixed_bb",
        prepared_by_one,
        replace(plan, pairs=rows),
    )
    rows = [{**plan.pairs[0], "moving_label": plan.pairs[1]["fixed"]}, *plan.pairs[1:]]
    refused("a was made with moving_label None, the list now has", prepared_by_one, replace(plan, pairs=rows))
    Path(plan.pairs[3]["moving"]).write_text("another scan")
    refused(r"dddd: moving .*moving_dddd\.nii\.gz has changed since .*remove .*out/dddd", prepared_by_one, plan)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"bundle_version": "0.0.1", "seed": 0},
            r"bundle_version was 0\.0\.1, now [\d.]+; give the same options to that",
        ),
        (
            {"bundle_version": "0.0.1", "seed": 1},
            r"bundle_version was 0\.0\.1, now [\d.]+, seed was 1, now 0; give the same",
        ),
        ({"seed": 0}, r"bundle_version was not noted \(run\.json of a pair has it\), now [\d.]+; give the same"),
        (None, r"bundle_version was not noted .*config"),
    ],
)
def test_another_version_is_other_settings(settings: dict | None, told: str, plan: Plan) -> None:
    assert started(plan)
    path = plan.output_dir / "cohort.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: before["settings"][key] for key in ("config_files", "threads")}
    path.write_text(
        json.dumps({"pairs": before["pairs"]} | ({} if settings is None else {"settings": settings | kept}))
    )
    written = path.read_bytes()
    refused(f"begun with other settings: {told}.* or another output_dir", prepared_by_one, plan)
    assert path.read_bytes() == written
    path.write_text(json.dumps(before))
    prepared_by_one(plan)


def test_a_list_may_grow(plan: Plan) -> None:
    assert started(replace(plan, pairs=plan.pairs[:2]))
    assert [pair["name"] for pair in open_pairs(plan, retry_failed=False)] == ["bad", "dddd", "eeeee"]
    assert started(plan) and table(plan).count("\n") == 6


def test_differences_name_a_few() -> None:
    before, now = {"a": 1, "b": [1, 2], "c": None, "d": "x"}, {"a": 2, "b": (1, 2), "e": 5, "d": "y", "f": 1}
    assert differences(before, now) == "a was 1, now 2, d was x, now y, e was None, now 5 and 1 more"
    assert differences(before, before) == ""


def test_nothing_to_show_is_no_table(plan: Plan) -> None:
    prepared(plan, threads=1)
    assert collect(plan) == "" and not (plan.output_dir / "cohort_table.md").exists()


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 2, 3, 4, 5], []), ([1, 2, 3, 4, 50], ["4"]), ([-90, 2, 3, 4, 5, 50], ["0", "5"]), ([1], [])],
)
def test_outliers_lie_beyond_the_whiskers(values: Sequence[float], expected: list[str]) -> None:
    assert outliers({str(i): v for i, v in enumerate(values)}) == expected


def test_a_worker_for_every_core_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ncf.cohort.run.os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("ncf.cohort.run.memory_mib", lambda: 64000)
    assert default_resources() == Resources(8, 1)
    assert default_resources(workers=3) == Resources(3, 1)
    assert default_resources(threads=4) == Resources(2, 4)
    assert default_resources(devices=["0", "1"]) == Resources(2, 1, ("0", "1"))
    monkeypatch.setattr("ncf.cohort.run.memory_mib", lambda: 6000)
    assert default_resources() == Resources(2, 1) and default_resources(bounds=True) == Resources(1, 1)


def test_only_paths_and_settings_go_to_a_worker(plan: Plan) -> None:
    task = task_of(plan.pairs[0], plan.config_files, plan.overrides, plan.output_dir)
    assert len(pickle.dumps(task)) < 2000 and task.name == "a"
