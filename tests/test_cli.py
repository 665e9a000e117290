"""From outside: two commands, one result; Ctrl-C and mistakes are one line and status 1; a name is never evaluated."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigWorkflow

from ncf.__main__ import main as of_everything
from ncf.commands.main import VERBS, main, register
from tests.bundles import copy_bundle

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
PATIENCE_S = 240  # a process imports for 4 to 8 s on a quiet machine
LEVEL = {"voxels": 3000, "control_points": 300, "iterations": 12, "learning_rate": 1e-3}
OVERLAYS = {"tiny": {"only": LEVEL}, "endless": {"first": LEVEL, "last": {**LEVEL, "iterations": 10**7}}}
ODD_NAMES = ("$(touch evil) @seed#1 %x::y.nii.gz", "$__import__('os').mkdir('evil').nii.gz")

Run = Callable[..., ConfigWorkflow]


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the bundle with two presets more, somewhere else."""
    return copy_bundle(tmp_path_factory.mktemp("elsewhere") / "bundle", OVERLAYS)


def start(bundle: Path, here: Path, *arguments: str) -> subprocess.Popen[str]:
    """A Python process in the folder ``here``, which is made."""
    here.mkdir(exist_ok=True)
    settings = {**os.environ, "PYTHONPATH": str(bundle), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command, pipe = [sys.executable, "-m", *arguments], subprocess.PIPE
    return subprocess.Popen(
        command, cwd=here, env=settings, text=True, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )


def configs(bundle: Path, overlay: str) -> list[str]:
    files = [str(bundle / "configs" / f"{name}.json") for name in ("inference", f"presets/{overlay}")]
    return ["monai.bundle", "run", "--config_file", str(files), "--device", "cpu"]


@pytest.mark.slow
def test_both_commands_give_the_same_bytes(bundle: Path, pair: Mapping[str, str], tmp_path: Path) -> None:
    copies = [tmp_path / name for name in ODD_NAMES]
    for copy, key in zip(copies, ("fixed", "moving"), strict=True):
        shutil.copyfile(pair[key], copy)
    both = ["--fixed", pair["fixed"], "--moving", pair["moving"]]
    ours = ["ncf", "register", *[f"../{name}" for name in ODD_NAMES], "--preset=tiny", "--device=cpu", "--name=out"]
    processes = {
        "monai": start(bundle, tmp_path / "monai", *configs(bundle, "tiny"), *both, "--name", "out"),
        "ours": start(bundle, tmp_path / "ours", *ours),
    }
    said = {name: process.communicate(timeout=PATIENCE_S) for name, process in processes.items()}
    for name, process in processes.items():
        assert process.returncode == 0, said[name]
        assert "Registered out in" in said[name][0] and "Traceback" not in said[name][1]
        assert {p.relative_to(tmp_path / name).as_posix() for p in (tmp_path / name).glob("*")} == {"output"}
    first, second = (tmp_path / name / "output" / "out" for name in processes)
    for name in ("displacement.nii.gz", "warped.nii.gz", "network.pt"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    told = [json.loads((folder / "run.json").read_text()) for folder in (first, second)]
    assert told[0]["losses"] == told[1]["losses"] and told[0]["config"] == told[1]["config"]
    assert told[1]["inputs"]["fixed"]["path"].endswith(ODD_NAMES[0])
    assert told[0]["inputs"]["fixed"]["sha256"] == told[1]["inputs"]["fixed"]["sha256"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", ["| head -c 1 | cat > /dev/null", *(pytest.param(h, marks=pytest.mark.slow) for h in (">&- 2>&-", ">&-"))]
)
def test_output_that_nobody_reads_costs_no_result(
    bundle: Path, pair: Mapping[str, str], tmp_path: Path, how: str
) -> None:
    command = [sys.executable, "-m", "ncf", "register", pair["fixed"], pair["moving"], "--preset=tiny", "--device=cpu"]
    line = f"{shlex.join([*command, '--name=r'])} {how}"
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(bundle)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 0 and "Error" not in ended.stderr, ended.stderr
    assert (tmp_path / "output" / "r" / "report.html").is_file()


@pytest.mark.slow
def test_two_runs_of_one_name_do_not_write_over_each_other(
    bundle: Path, pair: Mapping[str, str], tmp_path: Path
) -> None:
    command = ["ncf", "register", pair["fixed"], pair["moving"], "--device=cpu", "--report=false", "--name=r"]
    first = start(bundle, tmp_path, *command, "--preset=endless")
    try:
        wait_until(lambda: (tmp_path / "output" / "r" / ".lock").exists())
        second = start(bundle, tmp_path, *command, "--preset=tiny")
        said = second.communicate(timeout=PATIENCE_S)
        assert second.returncode == 1 and "another run is at work in" in said[1], said
        assert said[1].count("\n") == 1
    finally:
        first.kill()
        first.communicate()
    again = start(bundle, tmp_path, *command, "--preset=tiny")  # a killed run holds nothing
    said = again.communicate(timeout=PATIENCE_S)
    assert again.returncode == 0, said
    assert not list((tmp_path / "output" / "r").glob(".*"))


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE_S / 0.1)):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_no_files(bundle: Path, pair: Mapping[str, str], tmp_path: Path) -> None:
    both = ["--fixed", pair["fixed"], "--moving", pair["moving"], "--progress", "False"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of nohup inherits that it is ignored
    process = start(bundle, tmp_path / "here", *configs(bundle, "endless"), *both)
    signal.signal(signal.SIGINT, before)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("level 1 of 2"):
                break
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 130
    assert said.splitlines() == ["error: interrupted; the result is not complete, nothing of it was written"]
    assert not list((tmp_path / "here").iterdir())


def test_a_mistake_is_one_line_and_status_1(bundle: Path, pair: Mapping[str, str], tmp_path: Path) -> None:
    missing = ["--fixed", pair["fixed"], "--moving", "missing.nii.gz"]
    processes = {
        "cannot open missing.nii.gz": start(bundle, tmp_path / "a", *configs(bundle, "tiny"), *missing),
        "unknown option --fixd (did you mean --fixed?)": start(bundle, tmp_path / "b", "ncf", "register", "--fixd=x"),
    }
    for telling, process in processes.items():
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1
        assert len(said.splitlines()) == 1 and said.startswith("error: ") and telling in said
    assert not list((tmp_path / "a").iterdir()) + list((tmp_path / "b").iterdir())


# --- the command line, in this process -------------------------------------------------------------------------------


def refusal(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """The one line that the command line ends with; nothing was started."""
    monkeypatch.setattr(sys, "argv", ["ncf", *arguments])
    monkeypatch.setattr("ncf.commands.common.ConfigJob.start", lambda job: pytest.fail(f"started {job}"))
    with pytest.raises(SystemExit) as stop:
        main()
    assert isinstance(stop.value.code, str) and "\n" not in stop.value.code and stop.value.code.startswith("error: ")
    return stop.value.code


@pytest.mark.parametrize(
    ("arguments", "telling"),
    [
        (["registr", "a", "b"], "no command 'registr' (did you mean register?)"),
        (["--fixed", "a"], "no command '--fixed'"),
        (["register", "a", "b", "--movinglabel=c"], "unknown option --movinglabel (did you mean --moving_label?)"),
        (["register", "a", "b", "-s", "3"], "unknown option -s"),
        (["register", "a", "b", "c"], "'c' is one too many"),
        (["register", "a", "b", "start"], "'start' is one too many"),
        (["register", "a", "b", "--name"], "--name needs a value"),
        (["register", "--fixed", "--moving", "b"], "--fixed needs a value"),
        (["register", "a", "b", "--trust"], "--trust needs a value, such as --trust=true"),
        (["register", "--fixed="], "--fixed must not be empty"),
        (["register", "a", "b", "--name=$x"], "--name must not be empty or hold $, @, % or #"),
        (["register", "a", "b", "--device=@x"], "--device must not"),
        (["register", "a", "b", "--seed=-1"], "--seed must be a whole number"),
        (["register", "a", "b", "--seed", "1.5"], "--seed must be a whole number"),
        (["register", "a", "b", "--progress=no"], "--progress is true or false"),
        (["register", "a", "b", f"--seed={2**63}"], "--seed must be a whole number from zero to 9223372036854775807"),
        (["register", "--phantom_size=20,x,20"], "--phantom_size must be a whole number"),
        (["register", "a", "b", "--preset=papr"], "no preset 'papr'; there are: "),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_understood_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], telling: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert telling in refusal(monkeypatch, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["register", "--help"]], ids=["nothing", "all", "verb"])
def test_help_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: list[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["ncf", *arguments])
    main()
    said = capsys.readouterr().out
    assert said.startswith("usage: ncf ") and "Register MOVING to FIXED" in said
    assert ("--fixed_label: label map on the fixed grid" in said) == ("register" in arguments)


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_help_fits_into_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for verb in VERBS:
        of_everything([verb, "--help"])
        lines = capsys.readouterr().out.split("\n\n", 1)[1].splitlines()  # without the usage, which is one line
        lines = [line for line in lines if len(line.split()) > 2 and "ncf " not in line]  # no command can be broken
        assert max(map(len, lines)) <= min(columns, 120), verb


@pytest.mark.parametrize("option", ["--version", "-V", "version"])
def test_the_version_is_that_of_the_bundle(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["ncf", option])
    of_everything()
    assert capsys.readouterr().out.strip() == json.loads((CONFIGS / "metadata.json").read_text())["version"]


def test_help_is_a_word_too(capsys: pytest.CaptureFixture) -> None:
    pages = []
    for arguments in (["help", "apply"], ["apply", "--help"], ["help"], []):
        of_everything(arguments)
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1] != pages[2] == pages[3] and pages[0].startswith("usage: ncf apply")


def interrupted(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def broken(*_: Any, **__: Any) -> None:
    """As libraries end that are stopped while they load."""
    try:
        interrupted()
    except KeyboardInterrupt as error:
        raise ImportError("cannot load the rest") from error


@pytest.mark.parametrize("where", ["ncf.commands.common.ConfigJob.start", "ncf.commands.main.taken"])
@pytest.mark.parametrize("how", [interrupted, broken])
def test_an_interruption_before_the_fit_is_one_line(
    where: str, how: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(where, how)
    with pytest.raises(SystemExit) as stop:
        of_everything(["register"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == "error: interrupted; what was not complete was not written\n"


def test_an_interruption_of_the_report_leaves_the_result(
    run: Run, pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("ncf.report.after._report", interrupted)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "output", pair, report=True, name="r")
    assert stop.value.code == 130 and (tmp_path / "output" / "r" / "metrics.json").is_file()
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.rstrip().endswith(f"made again by ncf report {tmp_path / 'output' / 'r'}")


def test_a_working_folder_that_is_gone_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for arguments in (["register", "a", "b"], ["register", "--log=x.log"], ["files", "."]):
        with pytest.raises(SystemExit, match=r"^error: the working folder is no longer there"):
            main(arguments)


@pytest.mark.parametrize("seed", ["9" * 5000, "1e400", "inf", "0x10"])
def test_a_seed_is_a_whole_number_of_some_length(monkeypatch: pytest.MonkeyPatch, seed: str) -> None:
    assert len(refusal(monkeypatch, "register", "a", "b", f"--seed={seed}")) < 200


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", "<&-", "2>&- <&- >&-"])
def test_a_closed_stream_costs_no_refusal(tmp_path: Path, closed: str) -> None:
    command = shlex.join([sys.executable, "-m", "ncf", "register", "gone.nii", "gone.nii"])
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        ["bash", "-c", f"{command} {closed}"], cwd=tmp_path, env=settings, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1 and "Traceback" not in ended.stderr and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.2, 1.0, 3.0, 9.0])
def test_ctrl_c_after_any_time_is_one_line_and_leaves_nothing(
    bundle: Path, pair: Mapping[str, str], tmp_path: Path, after_s: float
) -> None:
    here = tmp_path / "here"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(bundle, here, "ncf", "register", pair["fixed"], pair["moving"], "--preset=endless")
    signal.signal(signal.SIGINT, before)
    time.sleep(after_s)  # while libraries load, or in the fit: that depends on the machine
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode in (130, -signal.SIGINT)  # shells call both 130
    assert said.count("\n") == 1 and said.startswith("error: interrupted") and not list(here.iterdir())


def test_every_option_is_a_knob_and_paths_are_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    knobs = json.loads((CONFIGS / "inference.json").read_text(encoding="utf-8"))
    assert set(inspect.signature(VERBS["register"]).parameters) - {"preset", "fixed_series", "moving_series"} <= set(
        knobs
    )
    job = register("a b.nii", "~/$m.nii", landmarks="p.csv", seed="7", align_centres="True")
    given = dict(job.overrides)
    assert set(given) <= set(knobs) and [Path(name).name for name in job.config_files] == ["inference.json"]
    assert given["fixed"] == tmp_path / "a b.nii" and given["output_dir"] == tmp_path / "output"
    assert given["moving"] == Path.home() / "$m.nii"
    assert (given["seed"], given["align_centres"], given["progress"]) == (7, True, True)
    assert dict(register(phantom_size="(16, 17,18)").overrides)["phantom_size"] == [16, 17, 18]
    with pytest.raises(SystemExit, match="for the phantom that is made when no scans are named"):
        register("a.nii", "b.nii", phantom_size="16,17,18")
    assert [Path(name).name for name in register(preset="paper").config_files] == ["inference.json", "paper.json"]


def test_two_presets_of_one_pair_are_two_results(tmp_path: Path) -> None:
    own = tmp_path / "my own.json"
    own.write_text("{}", encoding="utf-8")
    for preset, name in (("fast", "a__b__fast"), (str(own), "a__b__my_own"), (None, None)):
        assert dict(register("x/a.nii.gz", "$y/b.mha", preset=preset).overrides).get("name") == name
    assert dict(register("a.nii", "b.nii", preset="fast", name="r").overrides)["name"] == "r"
    assert "name" not in dict(register(preset="fast").overrides)  # the phantom


def test_what_is_missing_is_said_before_anything_is_loaded(
    pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for room in ("ncf.commands.common", "ncf.run.config"):
        monkeypatch.setattr(f"{room}.load_libraries", lambda: pytest.fail("loaded"))
    gone = str(tmp_path / "gone.nii.gz")
    for job, telling in (
        (register(pair["fixed"]), "moving is not named"),
        (register(moving_label=pair["moving_label"]), "fixed is not named"),
        (register(pair["fixed"], gone), "moving: cannot open .*gone"),
        (register(pair["fixed"], pair["moving"], landmarks=gone), "landmarks: cannot open .*gone"),
    ):
        with pytest.raises(SystemExit, match=f"^error: {telling}"):
            job.start()
    for arguments, telling in (
        (["apply", "x"], "apply needs --to; see: ncf apply --help"),
        (["invert"], "RESULT and --output_dir"),
    ):
        assert telling in refusal(monkeypatch, *arguments)


def test_a_cohort_without_the_labels_that_it_needs_is_refused_at_once(
    pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [["name", "fixed", "moving", "fixed_label", "moving_label"]]
    (tmp_path / "scans").mkdir()
    for n in range(5):
        (tmp_path / "scans" / f"{n}.nii.gz").symlink_to(pair["moving"])
    rows += [[f"bare{n}", pair["fixed"], f"scans/{n}.nii.gz", "", ""] for n in range(5)]
    rows += [["full", *(pair[key] for key in rows[0][1:])]]
    (tmp_path / "list.csv").write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    command = ["cohort", str(tmp_path / "list.csv"), f"--output_dir={tmp_path / 'out'}"]
    for option, needed in (("--guide_labels=true", "fixed_label and moving_label"), ("--rigid_label=1", "fixed_label")):
        said = refusal(monkeypatch, *command, option)
        assert f" needs {needed}, which the list does not name for bare0, bare1, bare2 and 2 more; add them" in said
    assert {path.name for path in tmp_path.iterdir()} == {"list.csv", "scans"}


@pytest.mark.parametrize("name", [*ODD_NAMES, "@fixed", "%seed", "$1 + 1"])
def test_a_name_is_never_evaluated(
    run: Run, pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = tmp_path / f"{name.removesuffix('.nii.gz')}.nii.gz"
    shutil.copyfile(pair["fixed"], file)
    monkeypatch.chdir(tmp_path)
    given = dict(register(file.name, pair["moving"], output_dir=f"{name} out", progress="false").overrides)
    state = run(given.pop("output_dir"), given).evaluator.state
    told = json.loads((Path(state.output["result_dir"]) / "run.json").read_text())
    assert told["inputs"]["fixed"]["path"] == str(file)
    assert {p.name for p in tmp_path.iterdir()} == {file.name, f"{name} out"}
    assert Path(state.output["result_dir"]).parent == tmp_path / f"{name} out"


# --- a phantom where nothing is named --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "folder"), [(None, "phantom"), ("../a b", "_a_b")])
def test_without_files_a_phantom_is_registered(run: Run, tmp_path: Path, name: str | None, folder: str) -> None:
    state = run(tmp_path / "output", {}, phantom_size=[16, 17, 18], name=name).evaluator.state
    assert [p.name for p in tmp_path.iterdir()] == ["output"] and state.output["result_dir"] == str(
        tmp_path / "output" / folder
    )
    assert {"tre_mm", "dice"} <= set(json.loads((tmp_path / "output" / folder / "metrics.json").read_text()))
    assert json.loads((tmp_path / "output" / folder / "phantom.json").read_text()) == {"size": [16, 17, 18], "seed": 0}
    made = (tmp_path / "output" / folder / "fixed.nii.gz").stat().st_mtime_ns
    run(tmp_path / "output", {}, phantom_size=[16, 17, 18], name=name)  # the same one is there already
    assert (tmp_path / "output" / folder / "fixed.nii.gz").stat().st_mtime_ns == made
    with pytest.raises(SystemExit, match=r"the result of another phantom, of size \[16, 17, 18\] and seed 0; choose"):
        run(tmp_path / "output", {}, phantom_size=[16, 16, 16], name=name)
