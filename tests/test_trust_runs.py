"""Bounds of the error beside a result: what is refused before the fits, what is told, what Ctrl-C costs."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from ncf.api import trust as trusting
from ncf.commands.help import help_of
from ncf.commands.register import register
from ncf.commands.trust import trust as command
from ncf.core.console import Console
from ncf.core.errors import PairError
from ncf.core.files import save_json
from ncf.evaluate.trust import Trust, trust_in_words
from ncf.io.trust_file import save_trust
from ncf.result.folder import SavedResult
from tests.refusing import refused

Run = Callable[..., ConfigWorkflow]
NUMBERS = {"median_mm": 4.0, "p95_mm": 9.0, "large_share": 0.4}


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


@pytest.fixture(scope="module")
def done(run: Run, pair: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished registration without a report."""
    return Path(run(tmp_path_factory.mktemp("done"), pair, name="chest").evaluator.state.output["result_dir"])


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(done, tmp_path / "chest")


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("a fit was begun")


def pretended(folder: Path, **_: Any) -> Trust:
    """Bounds without fits."""
    grid = SavedResult(folder).grid("fixed")
    bounds = np.full((*grid.shape, 2), 12.0, np.float32)
    save_trust(folder / "trust.nii.gz", bounds, grid.affine)
    largest = {"bound_mm": 12.0, "at_mm": [1.0, 2.0, 3.0]}
    numbers = {"everywhere": NUMBERS, "body": NUMBERS, "structures": {}, "largest": largest}
    save_json(folder / "trust.json", numbers)
    return Trust(bounds, (), numbers)


# --- before the fits -------------------------------------------------------------------------------------------------


def test_other_scans_and_a_folder_without_leave_are_refused_before_the_fits(
    copy: Path, pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trusting, "Again", never)
    save_json(copy / "trust.json", {"good": True})
    exchanged = {"fixed": Path(pair["moving"]), "moving": Path(pair["fixed"])}
    telling = "moving.nii.gz is not the fixed scan that chest was made of .its SHA-256 is another.; name"
    refused(telling, lambda: trusting.trust(copy, inputs=exchanged))
    image = nib.load(pair["moving"])
    changed = nib.Nifti1Image(image.get_fdata() + 1, image.affine)  # type: ignore[attr-defined]
    nib.save(changed, tmp_path / "moving.nii.gz")  # on the same grid
    refused("is not the moving scan", lambda: trusting.trust(copy, inputs={"moving": tmp_path / "moving.nii.gz"}))
    shutil.copy(pair["moving"], tmp_path / "elsewhere.nii.gz")
    with pytest.raises(AssertionError, match="a fit was begun"):  # the same one elsewhere is taken
        trusting.trust(copy, inputs={"moving": tmp_path / "elsewhere.nii.gz"})

    def read_only(folder: Path) -> None:
        raise PairError(f"cannot write {folder}: Permission denied; choose an output folder that you may write to")

    monkeypatch.setattr(trusting, "claim_folder", read_only)
    refused("chest: Permission denied", lambda: trusting.trust(copy))
    assert json.loads((copy / "trust.json").read_text(encoding="utf-8")) == {"good": True}


def test_the_phantom_can_be_bounded_with_its_registration(capsys: pytest.CaptureFixture[str]) -> None:
    assert ("trust", True) in register(trust="true").overrides  # it was refused


def test_the_help_names_the_presets_the_levels_and_what_rigid_maps_are_judged_by() -> None:
    told = " ".join(help_of("trust", command).split())
    for words in ("Presets: ", "--progress", "68 %", "95 % of all points", "also where RESULT is rigid"):
        assert words in told, words


# --- the fits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [True, False])
def test_half_of_the_fits_begin_without_the_search_where_that_leads_anywhere(
    reach: bool, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[bool] = []

    class Pretending:
        seed = 5

        def __init__(self, *_: Any, search: bool, **__: Any) -> None:
            self.search = search

        def __call__(self, given: Mapping[str, Any], what: str, *, seed: int) -> tuple[Any, None]:
            begun.append(self.search)
            if not self.search and not reach:
                raise PairError(f"{what} failed")
            return SimpleNamespace(field_vox=torch.zeros(1, 3, *given["fixed"].shape[1:])), None

    monkeypatch.setattr(trusting, "Again", Pretending)
    found = trusting.trust(copy, progress=False)
    told = json.loads((copy / "trust.json").read_text(encoding="utf-8"))["members"]
    assert list(found.members) == told and len(told) == 4
    if reach:
        assert begun == [True, True, False, False]
        assert told[2:] == [
            "as it was, disturbed, without the search, seed 8",
            "exchanged, disturbed, without the search, seed 9",
        ]
    else:
        assert begun == [True, True, False, True, False, True]
        assert all("with the search, because without it none was found" in line for line in told[2:])


def test_ctrl_c_in_a_fit_without_the_search_ends_all(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped:
        seed = 0

        def __init__(self, *_: Any, search: bool, **__: Any) -> None:
            self.search = search

        def __call__(self, given: Mapping[str, Any], what: str, *, seed: int) -> tuple[Any, None]:
            if not self.search:
                raise PairError(f"{what} failed: interrupted") from KeyboardInterrupt()
            return SimpleNamespace(field_vox=torch.zeros(1, 3, *given["fixed"].shape[1:])), None

    monkeypatch.setattr(trusting, "Again", Stopped)
    with pytest.raises(KeyboardInterrupt):
        trusting.bounded_or_reason(copy, progress=False)
    assert not (copy / "trust.json").exists()


# --- what is told ----------------------------------------------------------------------------------------------------


def test_the_line_is_about_tissue_where_it_can_be() -> None:
    labels, body, everywhere = (dict(NUMBERS, median_mm=mm) for mm in (2.9, 5.4, 5.9))
    said = trust_in_words({"everywhere": everywhere, "body": body, "labels": labels})
    assert said.startswith("95 % bound of the error inside the fixed labels: 2.9 mm in half of the voxels")
    nowhere = dict.fromkeys(NUMBERS)
    for no_labels in ({}, {"labels": nowhere}):
        assert "error in the body: 5.4 mm" in trust_in_words({"everywhere": everywhere, "body": body, **no_labels})
    assert "error in the whole scan: 5.9 mm" in trust_in_words({"everywhere": everywhere})
    assert "nothing is known" in trust_in_words({"everywhere": nowhere, "body": nowhere})


def test_a_quiet_command_says_one_line(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusting, "trust", pretended)

    def said(call: Callable[[], object], *, quiet: bool) -> list[str]:
        screen = io.StringIO()
        console = Console(screen, None)
        console.beside, console.quiet = Console(None if quiet else screen, None), quiet
        monkeypatch.setattr(sys, "stdout", console)
        call()
        return screen.getvalue().splitlines()

    assert said(lambda: trusting.bounded_or_reason(copy), quiet=True) == []  # register has said its line
    assert len(said(lambda: trusting.bounded_or_reason(copy), quiet=False)) == 1
    (line,) = said(command(str(copy)).call, quiet=True)  # type: ignore[union-attr]
    assert line == f"Bounded chest, {trust_in_words(pretended(copy).numbers)}: {copy}"
    lines = said(command(str(copy)).call, quiet=False)  # type: ignore[union-attr]
    assert [line.split()[0] for line in lines if not line.startswith("  warning")] == ["error", "files", "files"]


def test_the_command_hides_its_bars(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(trusting, "trust", lambda *a, progress, **k: asked.append(progress) or pretended(*a))
    for words in ({}, {"progress": "false"}):
        command(str(copy), **words).call()  # type: ignore[union-attr]
    assert asked == [True, False]


# --- beside a registration -------------------------------------------------------------------------------------------


def test_the_report_comes_before_the_bounds_and_again_with_them(
    run: Run,
    pair: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(folder: Path, **_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trusting, "trust", interrupted)
    page = tmp_path / "chest" / "report.html"
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, pair, name="chest", report=True, trust=True)
    assert stop.value.code == 130 and page.exists()
    assert f"error is not bounded; bound it by ncf trust {tmp_path / 'chest'}" in capsys.readouterr().err
    monkeypatch.setattr(trusting, "trust", pretended)
    run(tmp_path, pair, name="chest", report=True, trust=True)
    assert 'id="doubt"' in page.read_text(encoding="utf-8")
    out = capsys.readouterr().out
    assert out.count("  report      ") == 1 and out.index("  report  ") < out.index("  error  ")
    assert out.count("The error of the map may be large") == 1
    warnings = [line for line in out.splitlines() if line.startswith("  warning")]
    assert len(warnings) == len({*warnings})  # what was told is not told again


def test_bounds_that_ctrl_c_ended_by_another_error_are_interrupted(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(folder: Path, **_: Any) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise RuntimeError("stopped") from error

    monkeypatch.setattr(trusting, "trust", stopped)
    with pytest.raises(KeyboardInterrupt):
        trusting.bounded_or_reason(copy)
