"""Completion in a shell, and the notes of the help, come from the signatures of the commands."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from ncf.commands.choices import SHELLS, options_of
from ncf.commands.completion import script
from ncf.commands.help import help_of
from ncf.commands.main import VERBS, main
from ncf.core.presets import presets


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The script of each shell, in a file."""
    folder = tmp_path_factory.mktemp("scripts")
    found = {shell: folder / f"ncf.{shell}" for shell in SHELLS}
    for shell, path in found.items():
        path.write_text(script(shell, VERBS), encoding="utf-8")
    return found


def completed(path: Path, *words: str) -> list[str]:
    """What bash offers for the last of some words."""
    told = f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _ncf; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    line = f"source {shlex.quote(str(path))}; {told}"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["re"], ["register", "report"]),
        (["register", "--transf"], ["--transform="]),
        (["register", "--transform", "=", "r"], ["rigid"]),  # as bash itself splits --transform=r
        (["register", "--transform", "="], ["rigid", "affine", "deformable"]),
        (["register", "--transform=a"], ["--transform=affine"]),  # where "=" splits no words
        (["register", "--modality", ""], ["auto", "same", "different"]),
        (["register", "--preset", "=", ""], list(presets())),
        (["register", "--qui"], ["--quiet"]),
        (["register", "--quiet", ""], []),  # files, by bash's own completion
        (["register", "a.nii", "--fixed_label", "=", "l"], []),
        (["apply", "r", "--to", "=", "l"], ["label"]),
        (["export", "r", "--format", "=", "rt"], ["rtstruct"]),
        (["cohort", "--strict", "=", "t"], ["true"]),
        (["completion", "f"], ["fish"]),
        (["help", "app"], ["apply"]),
    ],
    ids=" ".join,
)
def test_bash_offers_what_fits(scripts: dict[str, Path], words: list[str], offered: list[str]) -> None:
    assert completed(scripts["bash"], "ncf", *words) == offered


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_reads_its_script_and_every_option_is_there(scripts: dict[str, Path], shell: str) -> None:
    text = scripts[shell].read_text(encoding="utf-8")
    for verb, call in VERBS.items():
        assert verb in text
        for option in options_of(call):
            assert option.free or f"-l {option.name} " in text or f"--{option.name}=" in text, (verb, option)
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    ended = subprocess.run([shell, "-n", str(scripts[shell])], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_fish_offers_what_fits(scripts: dict[str, Path]) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish on this machine")
    line = f"source {scripts['fish']}; complete -C 'ncf register --transform='; complete -C 'ncf completion '"
    ended = subprocess.run(["fish", "--no-config", "-c", line], capture_output=True, text=True, check=True)
    offered = [row.partition("\t")[0] for row in ended.stdout.splitlines()]
    assert sorted(offered) == sorted([*(f"--transform={t}" for t in ("rigid", "affine", "deformable")), *SHELLS])


def test_the_command_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    assert capsys.readouterr().out == script("bash", VERBS)
    with pytest.raises(SystemExit, match="SHELL is one of bash, zsh, fish, got 'tcsh'"):
        main(["completion", "tcsh"])


def test_help_tells_defaults_choices_and_what_is_required() -> None:
    text = " ".join(help_of("register", VERBS["register"]).split())
    assert "the map may do. [one of rigid, affine, deformable; default deformable]" in text
    assert "no pictures. [true or false; default true]" in text and "is made. [default output]" in text
    text = " ".join(help_of("apply", VERBS["apply"]).split())
    assert "usage: ncf apply RESULT [FILES ...] --to=..." in text and "[required; one of image, label" in text
    usage = {verb: help_of(verb, call).splitlines()[0] for verb, call in VERBS.items()}
    assert "trust RESULT " in usage["trust"] and "[FIXED MOVING]" in usage["register"]
    assert "series SCANS ... --output_dir" in usage["series"]
    for verb, call in VERBS.items():
        assert max(map(len, help_of(verb, call).partition("\n\nArgs:")[2].partition("\n\n")[0].splitlines())) <= 120
        assert all(option.sentence for option in options_of(call)), verb
