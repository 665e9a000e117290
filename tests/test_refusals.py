"""A pair that cannot be registered, a folder that cannot be written, a full disk: one line, and no metrics.json."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow

from ncf.core.errors import PairError
from ncf.core.folders import ResultFolders
from ncf.pair import source as inputs
from ncf.phantom.chest import PhantomPair
from ncf.run.guard import GuardedRun

AWAY_MM = 2000.0
WHOLE = {
    "displacement.nii.gz",
    "affine.tfm",
    "warped.nii.gz",
    "warped_label.nii.gz",
    "network.pt",
    "run.json",
}  # before metrics.json

Run = Callable[..., ConfigWorkflow]
Pair = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


def message(run: Run, output_dir: Path, pair: Mapping[str, Any], **overrides: Any) -> str:
    """The one line that a run ends with."""
    with pytest.raises(SystemExit) as stop:
        run(output_dir, pair, **overrides)
    assert isinstance(stop.value.code, str) and "\n" not in stop.value.code and stop.value.code.startswith("error: ")
    return stop.value.code


def saved(folder: Path, array: np.ndarray, affine: np.ndarray | None = None) -> str:
    """The path of a NIfTI file in ``folder``."""
    path = folder / "bad.nii.gz"
    nib.save(nib.Nifti1Image(array.astype(np.float32), np.eye(4) if affine is None else affine), path)
    return str(path)


def spoilt(chest: PhantomPair, value: float) -> np.ndarray:
    image = chest.moving.copy()
    image[3, 4, 5] = value
    return image


def written(folder: Path, content: bytes, name: str) -> str:
    (folder / name).write_bytes(content)
    return str(folder / name)


BAD: dict[str, tuple[str, Callable[[Path, Pair, PhantomPair], Pair]]] = {
    "missing": ("cannot open", lambda d, p, c: {**p, "moving": str(d / "missing.nii.gz")}),
    "damaged": ("cannot read", lambda d, p, c: {**p, "moving": written(d, os.urandom(999), "bad.nii.gz")}),
    "truncated": (
        "cannot read",
        lambda d, p, c: {**p, "moving": written(d, Path(p["moving"]).read_bytes()[:999], "b.nii.gz")},
    ),
    "format": ("no known format", lambda d, p, c: {**p, "moving": written(d, b"GIF89a", "bad.gif")}),
    "2d": ("expected one 3D volume", lambda d, p, c: {**p, "moving": saved(d, chest_slice(c))}),
    "4d": ("expected one 3D volume", lambda d, p, c: {**p, "moving": saved(d, np.stack([c.moving] * 2, axis=-1))}),
    "small": ("every axis needs 12", lambda d, p, c: {**p, "moving": saved(d, c.moving[:5], c.moving_affine)}),
    "nan": (
        "1 of 13728 voxels are NaN or infinite",
        lambda d, p, c: {**p, "moving": saved(d, spoilt(c, np.nan), c.affine)},
    ),
    "infinite": ("NaN or infinite", lambda d, p, c: {**p, "moving": saved(d, spoilt(c, np.inf), c.affine)}),
    "constant": ("all voxels are 0", lambda d, p, c: {**p, "moving": saved(d, np.zeros_like(c.moving), c.affine)}),
    "label grid": (
        "shape (23, 22, 26) is not that",
        lambda d, p, c: {**p, "fixed_label": saved(d, c.fixed_label[1:], c.affine)},
    ),
    "label affine": (
        "up to 5 voxels off",
        lambda d, p, c: {**p, "fixed_label": saved(d, c.fixed_label, shifted(c, 0, 5))},
    ),
    "landmarks outside": (
        "outside the fixed image",
        lambda d, p, c: {**p, "landmarks": written(d, b"1,2,99,1,2,3", "p.csv")},
    ),
    "landmarks width": (
        "expected 6 comma-separated",
        lambda d, p, c: {**p, "landmarks": written(d, b"1,2,3", "p.csv")},
    ),
    "landmarks text": ("6 finite numbers", lambda d, p, c: {**p, "landmarks": written(d, b"1,2,3,4,5,x", "p.csv")}),
    "mask": ("zero everywhere", lambda d, p, c: {**p, "fixed_mask": saved(d, np.zeros_like(c.fixed), c.affine)}),
    "only fixed": ("moving is not named", lambda d, p, c: {"fixed": p["fixed"]}),
    "only moving": ("fixed is not named", lambda d, p, c: {"moving": p["moving"]}),
    "only labels": ("fixed is not named", lambda d, p, c: {"moving_label": p["moving_label"]}),
}


def chest_slice(chest: PhantomPair) -> np.ndarray:
    return chest.moving[..., 0]


def shifted(chest: PhantomPair, axis: int, voxels: float) -> np.ndarray:
    affine = chest.affine.copy()
    affine[:3, 3] += voxels * affine[:3, axis]
    return affine


@pytest.mark.parametrize("name", BAD)
def test_a_bad_pair_is_one_line_and_no_files(
    run: Run, pair: Mapping[str, str], chest: PhantomPair, tmp_path: Path, name: str
) -> None:
    telling, spoil = BAD[name]
    bad = spoil(tmp_path, dict(pair), chest)
    before = sorted(tmp_path.iterdir())
    assert telling in message(run, tmp_path / "output", bad)
    assert sorted(tmp_path.iterdir()) == before


def test_headers_that_do_not_overlap(run: Run, pair: Mapping[str, str], chest: PhantomPair, tmp_path: Path) -> None:
    affine = chest.moving_affine.copy()
    affine[0, 3] += AWAY_MM
    moving, label = tmp_path / "moving.nii.gz", tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(chest.moving, affine), moving)
    nib.save(nib.Nifti1Image(chest.moving_label, affine), label)
    far = {**pair, "moving": str(moving), "moving_label": str(label)}
    gap = AWAY_MM - chest.fixed.shape[0] * abs(chest.affine[0, 0])
    said = message(run, tmp_path / "output", far)
    assert f"{gap:.1f} mm apart" in said and "--align_centres true" in said and not (tmp_path / "output").exists()
    folder = Path(run(tmp_path / "output", far, align_centres=True).evaluator.state.output["result_dir"])
    told, metrics = (json.loads((folder / name).read_text()) for name in ("run.json", "metrics.json"))
    assert np.array(told["initial_transform"])[:3, 3] == pytest.approx([AWAY_MM, 0, 0])
    assert metrics["tre_mm"]["before"]["mean"] > AWAY_MM - 50 and metrics["tre_mm"]["after"]["mean"] < 12
    assert metrics["dice"]["before"]["mean"] == 0 and metrics["dice"]["after"]["mean"] > 0.7
    assert metrics["similarity"]["before"] == {"mse": None, "ncc": None, "nmi": None}


def test_a_phantom_that_cannot_be_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "at least 16" in message(run, tmp_path / "output", {}, phantom_size=[8, 8, 8])
    assert not list(tmp_path.iterdir())

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(inputs, "write", full)
    assert "No space left on device; free some space" in message(
        run, tmp_path / "output", {}, phantom_size=[16, 16, 16]
    )


@pytest.mark.parametrize("below", ["file", "file/deeper"])
def test_an_output_folder_that_cannot_be_is_known_before_the_fit(
    run: Run, pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    monkeypatch.setattr("ncf.fit.optimizer.PairOptimizer.__call__", lambda *_: pytest.fail("the fit was begun"))
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert f"{tmp_path / 'file'} is a file, not a folder" in message(run, tmp_path / below, pair)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_phantom_overwrites_no_scans(run: Run, pair: Mapping[str, str], tmp_path: Path) -> None:
    mine = tmp_path / "output" / "case1"
    mine.mkdir(parents=True)
    for key in ("fixed", "moving"):
        (mine / f"{key}.nii.gz").write_bytes(Path(pair[key]).read_bytes())
    scans = {key: str(mine / f"{key}.nii.gz") for key in ("fixed", "moving")}
    run(tmp_path / "output", scans, name="case1")
    before = {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    told = message(run, tmp_path / "output", {}, name="case1", phantom_size=[16, 16, 16])
    assert f"the phantom would overwrite {mine / 'fixed.nii.gz'}" in told
    assert {path: path.read_bytes() for path in before} == before


def test_a_scan_in_the_place_of_a_result_is_not_overwritten(run: Run, pair: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "case1").mkdir()
    moving = tmp_path / "case1" / "warped.nii.gz"
    moving.write_bytes(Path(pair["moving"]).read_bytes())
    told = message(run, tmp_path, {"fixed": pair["fixed"], "moving": str(moving)}, name="case1")
    assert f"{moving} is to be read, and the result would overwrite it" in told
    assert moving.read_bytes() == Path(pair["moving"]).read_bytes() and len(list((tmp_path / "case1").iterdir())) == 1


def test_a_name_that_no_disk_takes_is_known_before_the_fit(run: Run, pair: Mapping[str, str], tmp_path: Path) -> None:
    for given in (pair, {}):
        assert "has more than 255 bytes; choose a shorter name" in message(run, tmp_path, given, name="x" * 256)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_refuses_is_known_before_the_fit(
    run: Run, pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, _: bytes) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("ncf.fit.optimizer.PairOptimizer.__call__", lambda *_: pytest.fail("the fit was begun"))
    monkeypatch.setattr(Path, "write_bytes", refused)  # the tests may run as root, whom no folder refuses
    assert "Permission denied; choose an output folder that you may write to" in message(run, tmp_path / "output", pair)
    assert not list(tmp_path.iterdir())


def disk_full(source: str, target: str | Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_at(name: str) -> Callable[[str, str | Path], None]:
    replace = os.replace

    def guarded(source: str, target: str | Path) -> None:
        (disk_full if Path(target).name == name else replace)(source, target)

    return guarded


@pytest.mark.parametrize("name", ["displacement.nii.gz", "network.pt", "metrics.json"])
def test_a_full_disk_is_one_line_and_no_metrics(
    run: Run, pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(os, "replace", full_at(name))
    with pytest.raises(
        SystemExit, match=rf"^error: cannot write .*{name}: No space left on device; free some space[^\n]*$"
    ):
        run(tmp_path / "deep" / "output", pair)
    whole = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert whole <= WHOLE and (name != "displacement.nii.gz" or not (tmp_path / "deep").exists())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_earlier_result_stays_until_the_new_one_is_whole(
    run: Run,
    pair: Mapping[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(tmp_path, pair, name="pair")
    assert "earlier result" not in capsys.readouterr().out
    (tmp_path / "pair" / "pictures").mkdir(exist_ok=True)
    (tmp_path / "pair" / "pictures" / "views.png").write_bytes(b"of the old one")
    before = contents(tmp_path / "pair")
    monkeypatch.setattr(os, "replace", full_at("warped.nii.gz"))
    with pytest.raises(SystemExit, match=rf"cannot write {tmp_path}/pair/warped.nii.gz: No space left"):
        run(tmp_path, pair, name="pair", seed=2)
    told = "stays until the new one is complete and replaces it; another name keeps both"
    assert f"the earlier result of these scans in {tmp_path / 'pair'} {told}" in capsys.readouterr().out
    assert contents(tmp_path / "pair") == before
    monkeypatch.undo()
    run(tmp_path, pair, name="pair", seed=2)
    after = contents(tmp_path / "pair")
    assert set(after) == set(before) - {"pictures/views.png"} and after["metrics.json"] != before["metrics.json"]


def test_ctrl_c_while_writing_leaves_no_metrics(
    run: Run, pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(SystemExit, match=r"^130$"):
        run(tmp_path / "output", pair)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["cuda:77", "gpu", "meta", "hpu", "privateuseone"])
def test_a_device_that_is_not_there(run: Run, pair: Mapping[str, str], tmp_path: Path, device: str) -> None:
    said = message(run, tmp_path / "output", pair, device=device)
    assert (
        f"device '{device}' cannot be used" in said
        and "name another, such as cpu" in said
        and len(said) < 330
        and not list(tmp_path.iterdir())
    )


class Failing:
    """As much of an evaluator as the guard needs."""

    def __init__(self, error: BaseException, cause: BaseException | None = None) -> None:
        self.error, self.cause = error, cause

    def run(self) -> None:
        raise self.error from self.cause


def guarded(error: BaseException, cause: BaseException | None = None) -> None:
    evaluator: Any = Failing(error, cause)
    GuardedRun(evaluator, folders=ResultFolders("output"), face="command").run()


def test_only_what_a_person_can_change_is_explained() -> None:
    wrapped = RuntimeError("applying transform")
    for error, cause, telling in (
        (PairError("do this"), None, "error: do this"),
        (wrapped, PairError("do that"), "error: do that"),
        (KeyboardInterrupt(), None, "130"),
        (
            MemoryError("Unable to allocate 9 TiB"),
            None,
            r"error: out of memory \(Unable to allocate 9 TiB\); use --preset=fast",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nmore"),
            None,
            r"error: out of memory \(CUDA out of memory.\); use --preset",
        ),
    ):
        with pytest.raises(SystemExit, match=f"^{telling}[^\n]*$"):
            guarded(error, cause)
    with pytest.raises(ZeroDivisionError):
        guarded(ZeroDivisionError())
    fault = KeyError("x")
    fault.__context__ = PairError("an earlier one, which was dealt with")
    with pytest.raises(KeyError):
        guarded(fault)


def test_torchs_own_lack_of_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    with pytest.raises(SystemExit, match=r"^error: out of memory"):
        guarded(caught.value)
