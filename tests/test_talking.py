"""How much a command says, the log file, and files of a result under names of the user's."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from ncf.commands.main import main
from ncf.commands.talking import EVERYWHERE, named
from ncf.core.console import Console, Log, set_up, tell
from ncf.core.errors import PairError
from ncf.core.narrow import for_terminal
from tests.conftest import LEVELS, NO_SEARCH
from tests.grids import same_but_for_ties
from tests.refusing import refused

STAMPED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of a fit of a few iterations; the working folder is that of the test."""
    monkeypatch.chdir(tmp_path)
    overlay = tmp_path / "tiny.json"
    overlay.write_text(json.dumps({"_desc_": "A test's own.", "fit::levels": LEVELS, **NO_SEARCH}), encoding="utf-8")
    return ["--preset=tiny.json", "--device=cpu", "--report=false", "--name=r"]


def lines_of(path: Path) -> list[str]:
    """The lines of a log without their times, which all of them have."""
    found = path.read_text(encoding="utf-8").splitlines()
    assert all(STAMPED.match(line) for line in found)
    return [STAMPED.sub("", line, count=1) for line in found]


def test_a_quiet_run_says_one_line_and_the_log_all(
    tiny: list[str], pair: Mapping[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["register", pair["fixed"], pair["moving"], *tiny]
    main([*given, "--quiet", "--log", "run.log"])
    said = capsys.readouterr()
    assert said.err == "" and re.fullmatch(rf"Registered r in .* s, \w+.*: {tmp_path}/output/r\n", said.out)
    logged = lines_of(tmp_path / "run.log")
    assert logged[0].startswith("ncf ") and logged[0].endswith("--quiet --log run.log")
    assert f"reading {pair['fixed']} and {pair['moving']}" in logged
    for beginning in ("fixed: 24 x 22 x 26 voxels", "level 1 of 1", "  folds", "seconds: ", "losses of level only: "):
        assert [line for line in logged if line.startswith(beginning)], beginning
    main([*given, "--verbose", "--log=run.log"])
    said = capsys.readouterr()
    shown = [line for line in said.out.splitlines() if not line.startswith("the earlier result")]
    assert shown[0].startswith("reading ") and shown[-1].endswith("s in all")
    again = lines_of(tmp_path / "run.log")
    assert again[: len(logged)] == logged  # an earlier log is gone on with
    assert set(said.out.splitlines()) <= set(again[len(logged) :])
    main(given)
    usual = capsys.readouterr().out
    assert "level 1 of 1" in usual and "seconds: " not in usual and "losses of" not in usual


def test_an_error_is_in_the_log_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # set back after the test, like the next
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with pytest.raises(SystemExit) as stop:
        main(["register", "gone.nii.gz", "gone.nii.gz", "--log=run.log"])
    print(stop.value.code, file=sys.stderr)  # as the interpreter does at its end
    assert lines_of(tmp_path / "run.log")[-1].startswith("error: fixed: cannot open")


@pytest.mark.parametrize(
    ("arguments", "telling"),
    [
        (["--log=gone/run.log"], "cannot write .*gone/run.log: No such file or directory"),
        (["--log=folder"], "cannot write .*folder: Is a directory"),
        (["--log=scan.nii.gz"], "scan.nii.gz is there and is no log of ncf"),
        (["--log=pipe"], "pipe is a pipe; choose a file for --log"),
        (["--log"], "--log needs a value"),
        (["--log="], "--log must not be empty"),
        (["--quiet=perhaps"], "--quiet is true or false"),
        (["--quiet", "--verbose"], "--quiet and --verbose say two things"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_said_is_refused(
    arguments: list[str], telling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "scan.nii.gz").write_bytes(b"\x1f\x8b scan")
    with pytest.raises(SystemExit, match=f"^error: .*{telling}"):
        main(["register", "a", "b", *arguments])
    assert (tmp_path / "scan.nii.gz").read_bytes() == b"\x1f\x8b scan" and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["register", "a", "b", "--name", "r", "--seed=3"], "a and b"),
        (["register", "--fixed", "a", "--moving=b"], "a and b"),
        (["cohort", "--pairs=l.csv", "--output_dir", "o"], "l.csv"),
        (["register", "--phantom_seed=1"], ""),
        (["fetch", "lungct", "--dir=d"], ""),
    ],
)
def test_what_is_read_is_named(arguments: list[str], told: str) -> None:
    assert named(arguments) == told


def test_the_options_may_stand_before_the_command_but_not_alone() -> None:
    with pytest.raises(SystemExit, match=r"^error: no command 'registr'"):
        main(["--quiet", "registr"])
    with pytest.raises(SystemExit, match=r"^error: --quiet is for a command; see: ncf --help"):
        main(["--quiet"])


def test_a_disk_that_is_full_ends_the_log_and_not_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    full = Log(Path("/dev/full"))
    full.line("one")
    full.line("two")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "No space left" in said and "the run goes on" in said


def test_a_bar_reaches_the_log_as_it_is_in_the_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(sys.stdout, Log(tmp_path / "a.log"))
    for text in ("\r 10 %", "\r 90 %", "\r100 %", "\n", "\n", "one\ntw", "o\r\n"):
        assert console.write(text) == len(text)
    assert lines_of(tmp_path / "a.log") == ["100 %", "one", "two"]
    assert capsys.readouterr().out.endswith("one\ntwo\r\n") and not console.isatty()


def test_what_lies_beside_a_result_is_a_print_in_other_programs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell("all of it", brief="in brief")
    assert capsys.readouterr().out == "all of it\n"
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    set_up(quiet=True)
    tell("all of it", brief="in brief")
    print("a result")
    assert capsys.readouterr().out == "in brief\na result\n"


def test_help_has_the_options_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("register", "files", "view"):
        main([verb, "--help"])
        said = capsys.readouterr().out
        assert all(f"--{option}" in said for option in EVERYWHERE)


# --- files under names of the user's ---------------------------------------------------------------------------------


def same_place(one: SimpleITK.Image, other: SimpleITK.Image) -> None:
    """Holds that two images lie on one grid, as ITK reads their files."""
    assert one.GetSize() == other.GetSize()
    for own in ("GetOrigin", "GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(one, own)(), getattr(other, own)(), atol=1e-5)


def sitk_field(path: Path) -> SimpleITK.Transform:
    """A field's file as a transform of SimpleITK."""
    return SimpleITK.DisplacementFieldTransform(SimpleITK.ReadImage(str(path), SimpleITK.sitkVectorFloat64))


def test_warped_scan_and_field_have_the_names_that_were_asked_for(
    tiny: list[str], pair: Mapping[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["register", pair["fixed"], pair["moving"], *tiny, "--warped=w.mha", "--field=f.nrrd"])
    folder = tmp_path / "output" / "r"
    for name, own in (("w.mha", "warped.nii.gz"), ("f.nrrd", "displacement.nii.gz")):
        made, usual = SimpleITK.ReadImage(str(tmp_path / name)), SimpleITK.ReadImage(str(folder / own))
        same_place(made, usual)
        assert made.GetPixelID() == usual.GetPixelID()
        np.testing.assert_allclose(*map(SimpleITK.GetArrayFromImage, (made, usual)), atol=1e-5)
    assert {"warped", "field"}.isdisjoint(json.loads((folder / "run.json").read_text(encoding="utf-8"))["config"])
    capsys.readouterr()
    main(["apply", str(folder), pair["moving"], "--to=image", "--warped=again.nii", "--field=again.h5"])
    assert capsys.readouterr().out == f"{tmp_path / 'again.nii'}\n{tmp_path / 'again.h5'}\n"
    usual = sitk_field(folder / "displacement.nii.gz")
    for point in ((0.0, 0.0, 0.0), (20.0, -30.0, 10.0)):
        carried = SimpleITK.ReadTransform(str(tmp_path / "again.h5")).TransformPoint(point)
        np.testing.assert_allclose(carried, usual.TransformPoint(point), atol=1e-3)
    again, usual = (SimpleITK.ReadImage(str(path)) for path in (tmp_path / "again.nii", folder / "warped.nii.gz"))
    same_place(again, usual)
    same_but_for_ties(*map(SimpleITK.GetArrayFromImage, (again, usual)))


@pytest.mark.parametrize(
    ("given", "telling"),
    [
        (["--warped=gone/w.nii.gz"], "warped: cannot write .*: there is no folder .*gone"),
        (["--warped=w.png"], "warped: w.png must end in .nii.gz, .nii, .mha, .nrrd"),
        (["--field=.nii"], "field: .nii must end in"),
        (["--field=f.dcm"], "field: f.dcm must end in .*, .h5, .tfm"),
        (["--field=folder.nii"], "it is a folder; name a file in it"),
        (["--warped=a.nii", "--field=a.nii"], "warped and field would both become"),
        (["--warped=fixed.nii.gz"], "it is to be read and would be overwritten"),
    ],
)
def test_a_name_that_cannot_be_is_refused_before_the_fit(
    given: list[str], telling: str, pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ncf.commands.common.run_config", lambda *_: pytest.fail("begun"))
    (tmp_path / "folder.nii").mkdir()
    (tmp_path / "fixed.nii.gz").symlink_to(pair["fixed"])
    with pytest.raises(SystemExit, match=f"^error: .*{telling}"):
        main(["register", "fixed.nii.gz", pair["moving"], *given])
    assert len(list(tmp_path.iterdir())) == 2


def test_an_earlier_file_stays_where_the_new_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ncf.io.named_files import save_volume

    path = tmp_path / "w.mha"
    path.write_text("earlier", encoding="utf-8")
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    refused("not at right angles", save_volume, path, np.zeros((3, 4, 5), np.int16), sheared)
    with pytest.raises(PairError, match="must end in"):
        save_volume(tmp_path / "w.jpg", np.zeros((3, 4, 5), np.int16), np.eye(4))
    assert path.read_text(encoding="utf-8") == "earlier" and [p.name for p in tmp_path.iterdir()] == ["w.mha"]


@pytest.mark.parametrize(
    ("given", "telling"),
    [
        (["--to=image"], "apply needs --output_dir, or --warped"),
        (["--to=image", "--warped=a.nii", "--output_dir=o"], "not both"),
        (["a", "b", "--to=label", "--warped=a.nii"], "--warped is for a single file, and 2 are named"),
        (["a", "--to=points", "--from=fixed", "--warped=a.csv"], "--warped is for --to=image and --to=label"),
        (["--to=image", "--warped=a.nii", "--dicom=true"], "--warped is no DICOM series"),
        (["--to=image", "--warped=a.nii", "--field=a.nii"], "--warped and --field name one file"),
        (["--to=image", "--output_dir=o", "--field=gone/a.nii"], "field: cannot write .*: there is no folder"),
    ],
)
def test_apply_goes_to_one_place(given: list[str], telling: str) -> None:
    with pytest.raises(SystemExit, match=f"^error: .*{telling}"):
        main(["apply", "result", *given])


def test_a_table_that_is_wider_than_the_terminal_is_told_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["| test | measured | limit |", "|---|---|---|", "| Dice | 0.5 and much more | |", "| TRE | 1 mm | 2 mm |"]
    text = "\n".join(["# a title", "", *rows, ""])
    monkeypatch.setenv("COLUMNS", "26")
    assert for_terminal(text) == text  # what is read by a program is whole
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    assert for_terminal(text) == text
    monkeypatch.setenv("COLUMNS", "26")
    told = "# a title\n\nDice\n    measured: 0.5 and much\n    more\nTRE\n    measured: 1 mm; limit:\n    2 mm\n"
    assert for_terminal(text) == told
