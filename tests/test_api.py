"""Registration in memory: the same bytes as the command writes, nothing written, every form of image; a DICOM case."""

from __future__ import annotations

import doctest
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged

from ncf import Registered, RegisterPaird, open_result, register
from ncf.commands.apply import apply
from ncf.commands.evaluate import evaluate
from ncf.commands.invert import invert
from ncf.commands.report import report
from ncf.core.errors import PairError
from ncf.core.presets import presets
from ncf.evaluate.label_overlap import dice_per_label
from ncf.io.nifti import save_image
from ncf.phantom.chest import PhantomPair
from ncf.space.geometry import to_mm
from ncf.use.export import export_fields
from tests.bundles import copy_configs
from tests.conftest import LEVELS, ROOT, Run
from tests.dicom_files import write_dicom
from tests.refusing import refused

FILES = ("displacement.nii.gz", "warped.nii.gz", "warped_label.nii.gz", "network.pt")
THERE_AND_BACK_MM = 2e-3  # the inverse is found to 1e-4 of a voxel
AGREE_HU = 0.51  # CT is saved as whole numbers
AGREE = 0.995  # of the voxels: at the border of two labels rounding decides which one is nearest


@pytest.fixture(scope="module", autouse=True)
def tiny(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A preset of that name, with a fit of a few iterations."""
    configs = copy_configs(tmp_path_factory.mktemp("bundle") / "configs", {"tiny": LEVELS})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ncf.core.presets.configs_folder", lambda: configs)
        yield


@pytest.fixture(scope="module")
def images(pair: Mapping[str, str]) -> dict[str, Any]:
    """The chest's files by nibabel, its landmarks by numpy."""
    images: dict[str, Any] = {key: nib.load(path) for key, path in pair.items() if key != "landmarks"}
    return {**images, "landmarks": np.loadtxt(pair["landmarks"], delimiter=",", skiprows=1)}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder to work in."""
    return tmp_path_factory.mktemp("here")


@pytest.fixture(scope="module")
def done(images: Mapping[str, Any], here: Path) -> Registered:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("TMPDIR", str(here))
        done = register(**images, preset="tiny", seed=5, device="cpu", progress=False)
    return done


def test_the_same_bytes_as_the_command_and_nothing_before_save(
    run: Run, done: Registered, here: Path, pair: Mapping[str, str], tmp_path: Path
) -> None:
    assert not list(here.iterdir())
    workflow = run(tmp_path, {**pair, "name": "command"}, seed=5)
    saved, command = done.save(tmp_path / "memory"), tmp_path / "command"
    assert saved == tmp_path / "memory"
    for name in FILES:
        assert (saved / name).read_bytes() == (command / name).read_bytes(), name
    field = workflow.evaluator.state.output["pred"].field_vox[0]
    assert done.field.as_tensor().numpy().tobytes() == field.numpy().tobytes()
    metrics, told = (json.loads((folder / "metrics.json").read_text()) for folder in (saved, command))
    assert {"similarity", "dice", "tre_mm"} < set(metrics) == set(told) and metrics["name"] == "memory"
    for key in set(metrics) - {"name", "seconds", "peak_memory_mib"}:
        assert metrics[key] == told[key], key
    runs = [json.loads((folder / "run.json").read_text()) for folder in (saved, command)]
    only_of_files = {"trust", "phantom_size", "phantom_seed", "report", "dicom", "anonymous"}
    assert runs[0]["config"] == {k: v for k, v in runs[1]["config"].items() if k not in only_of_files}
    assert runs[0]["losses"] == runs[1]["losses"] and not runs[0]["inputs"]
    done.save(saved)
    refused("command holds the result of .*, other scans than these", done.save, command)
    refused(
        "was saved from Python and knows no files",
        lambda: export_fields(saved, tmp_path / "out", kind="learn2reg"),
    )


def test_paths_give_the_same_and_are_told(done: Registered, pair: Mapping[str, str], tmp_path: Path) -> None:
    paths = {key: Path(path) for key, path in pair.items()}
    by_path = register(**paths, preset="tiny", seed=5, device="cpu", progress=False)
    assert torch.equal(by_path.field.as_tensor(), done.field.as_tensor())
    assert by_path.metrics["tre_mm"] == done.metrics["tre_mm"] and by_path.metrics["dice"] == done.metrics["dice"]
    saved = by_path.save(tmp_path / "by_path")
    told = json.loads((saved / "run.json").read_text(encoding="utf-8"))["inputs"]
    assert {key: entry["path"] for key, entry in told.items()} == dict(pair)
    apply(str(saved), to="image", warped=str(tmp_path / "w.nii.gz")).start()  # the moving scan is known
    mixed = register(pair["fixed"], nib.load(pair["moving"]), preset="tiny", seed=5, device="cpu", progress=False)
    assert not json.loads((mixed.save(tmp_path / "mixed") / "run.json").read_text(encoding="utf-8"))["inputs"]
    refused("fixed: cannot open .*gone.nii", lambda: register("gone.nii", pair["moving"], preset="tiny"))
    refused(
        "moving: expected an array .* got int; of files, ncf.register takes the paths",
        lambda: register(pair["fixed"], 3, preset="tiny"),
    )


def test_simpleitk_moves_the_scan_as_we_do(done: Registered, pair: Mapping[str, str], tmp_path: Path) -> None:
    fixed, moving = (sitk.ReadImage(pair[key], sitk.sitkFloat32) for key in ("fixed", "moving"))
    nothing = float(sitk.GetArrayViewFromImage(moving).min())
    theirs = sitk.Resample(moving, fixed, done.to_sitk_transform(), sitk.sitkLinear, nothing)
    ours = done.to_sitk()
    assert ours.GetSize() == theirs.GetSize() and ours.GetOrigin() == pytest.approx(theirs.GetOrigin(), abs=1e-3)
    apart = np.abs(sitk.GetArrayFromImage(ours) - sitk.GetArrayFromImage(theirs))
    assert np.median(apart) < 0.01 and np.mean(apart < 1) > 0.95  # else at the border of the moving scan
    point_mm = np.array([10.0, -5.0, 20.0])  # RAS; SimpleITK's points are LPS
    found = np.array(done.to_sitk_transform().TransformPoint((point_mm * [-1, -1, 1]).tolist())) * [-1, -1, 1]
    np.testing.assert_allclose(found, done.points_in_moving(point_mm[None])[0], atol=1e-2)
    opened = open_result(done.save(tmp_path / "saved"))
    np.testing.assert_allclose(
        opened.to_sitk_transform().TransformPoint((1.0, 2.0, 3.0)),
        done.to_sitk_transform().TransformPoint((1.0, 2.0, 3.0)),
        atol=1e-3,
    )


def test_a_result_tells_its_verdict_size_and_seconds(done: Registered, tmp_path: Path) -> None:
    told = r"(good|doubtful), 24 x 22 x 26 voxels, \d+\.\d s"
    assert re.fullmatch(rf"Registered\({told}\)", repr(done))
    folder = done.save(tmp_path / "saved")
    assert re.fullmatch(rf"OpenedResult\({told}, '{folder}'\)", repr(open_result(folder)))


def test_without_simpleitk_the_extra_is_named(done: Registered, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    for asked in (done.to_sitk, done.to_sitk_transform):
        refused("SimpleITK, which is not installed: run pip install SimpleITK", asked)


USER = """
from pathlib import Path

import ncf
from ncf import OpenedResult, PairError, Registered, open_result, register


def carried(fixed: Path, moving: Path) -> Registered:
    result: Registered = register(fixed, moving, preset="fast", device="cpu", progress=False)
    word: str = result.metrics["verdict"]["word"]
    print(word, result.warped.shape, result.points_in_moving([[0.0, 0.0, 0.0]]).shape, ncf.__version__)
    saved: Path = result.save(Path("out"))
    opened: OpenedResult = open_result(saved)
    return result if opened.warped_label is None else result


try:
    carried(Path("a"), Path("b"))
except PairError as error:
    print(error.hint)
"""


@pytest.mark.slow
def test_a_program_of_a_user_has_types(tmp_path: Path) -> None:
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        f"--cache-dir={tmp_path}",
        "user.py",
    ]
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_results_lie_on_the_fixed_grid(done: Registered, chest: PhantomPair) -> None:
    shape = chest.fixed.shape
    for image, channels in ((done.field, 3), (done.warped, 1), (done.warped_label, 1)):
        assert isinstance(image, MetaTensor) and image.shape == (channels, *shape) and image.device.type == "cpu"
        assert np.array_equal(image.affine, chest.affine)


def test_labels_and_points_are_carried_as_the_run_carried_its_own(done: Registered, images: Mapping[str, Any]) -> None:
    assert done.warped_label is not None
    assert torch.equal(done.carry_label(images["moving_label"]).as_tensor(), done.warped_label.as_tensor())
    landmarks = images["landmarks"]
    found = done.points_in_moving(to_mm(landmarks[:, :3], images["fixed"].affine))
    left_mm = np.linalg.norm(found - to_mm(landmarks[:, 3:], images["moving"].affine), axis=1)
    assert left_mm.mean() == pytest.approx(done.metrics["tre_mm"]["after"]["mean"], rel=1e-9)
    back = done.points_in_fixed(found)
    np.testing.assert_allclose(back, to_mm(landmarks[:, :3], images["fixed"].affine), atol=THERE_AND_BACK_MM)
    far = done.points_in_fixed([[9999.0, 0, 0], found[0]])
    assert np.isnan(far[0]).all() and np.isfinite(far[1]).all()  # nothing is invented
    wrong = (np.zeros((5, 6, 7)), np.eye(4))
    refused("moving_label .* shape", done.carry_label, wrong)
    refused(r"shape \(N, 3\)", done.points_in_moving, np.zeros(3))
    refused(r"shape \(N, 3\)", done.points_in_fixed, np.zeros((2, 2)))
    refused(r"the point \[9999.0, 0.0, 0.0\] mm lies off the fixed grid", done.points_in_moving, [[9999.0, 0, 0]])


@pytest.mark.filterwarnings("ignore:.*nvImageCodec")  # of LoadImaged, which tries all its readers
def test_a_transform_of_monai_gives_the_same(
    done: Registered, pair: Mapping[str, str], images: Mapping[str, Any]
) -> None:
    keys = ("today", "plan", "organs")
    load = LoadImaged(keys, image_only=True, ensure_channel_first=True)
    transform = Compose(
        [load, RegisterPaird(("today", "plan"), moving_label="organs", preset="tiny", seed=5, device="cpu")]
    )
    given = {"today": pair["fixed"], "plan": pair["moving"], "organs": pair["moving_label"], "note": 3}
    found = transform(dict(given))
    assert set(found) == {*given, "warped", "field", "metrics", "warped_label"} and found["note"] == 3
    assert torch.equal(found["field"].as_tensor(), done.field.as_tensor())
    assert torch.equal(found["warped_label"].as_tensor(), done.warped_label.as_tensor())  # type: ignore[union-attr]
    assert torch.equal(found["plan"].as_tensor()[0], torch.from_numpy(images["moving"].get_fdata(dtype=np.float32)))
    again = transform(dict(given))
    assert torch.equal(again["field"].as_tensor(), done.field.as_tensor())


@pytest.mark.parametrize(
    ("changes", "telling"),
    [
        ({"preset": "papr"}, f"no preset 'papr'; there are: {', '.join(presets())}, tiny"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ({"landmarks": np.zeros((2, 3))}, r"landmarks: expected finite numbers of shape \(N, 6\), got shape \(2, 3\)"),
        ({"landmarks": np.full((1, 6), 99.0)}, "landmarks: row 0 has the fixed point"),
        ({"fixed_label": (np.zeros((5, 6, 7)), np.eye(4))}, r"fixed_label \(in memory\): shape"),
        ({"moving": (np.zeros((20, 20, 20)), np.eye(4))}, "all voxels are 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_registered_is_one_line(
    images: Mapping[str, Any], changes: dict[str, Any], telling: str
) -> None:
    refused(telling, lambda: register(**{**images, "preset": "tiny", **changes}))


def test_what_was_saved_without_files_takes_scans_by_name(
    done: Registered, pair: Mapping[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = done.save(tmp_path / "memory")
    with pytest.raises(
        SystemExit, match=r"^error: memory was saved from Python and knows no fixed scan; name it with --fixed"
    ):
        report(str(folder)).start()
    report(str(folder), fixed=pair["fixed"], moving=pair["moving"]).start()
    assert (folder / "report.html").exists()
    with pytest.raises(SystemExit, match=r"^error: which moving scan\? the map was saved from Python"):
        apply(str(folder), to="image", output_dir=str(tmp_path / "carried")).start()
    apply(str(folder), pair["moving"], to="image", output_dir=str(tmp_path / "carried")).start()
    carried = nib.load(tmp_path / "carried" / "moving.nii.gz").get_fdata()
    np.testing.assert_allclose(carried, done.warped[0].numpy(), atol=AGREE_HU)
    invert(str(folder), output_dir=str(tmp_path / "inverse")).start()
    assert nib.load(tmp_path / "inverse" / "inverse.nii.gz").shape[:3] == nib.load(pair["moving"]).shape
    with pytest.raises(SystemExit, match="saved from Python and knows no files of scans; name a list"):
        evaluate(str(folder))
    capsys.readouterr()


def test_the_transform_says_what_is_missing() -> None:
    refused("keys are those of the fixed and of the moving image, got 'ab'", RegisterPaird, "ab")
    refused("the dictionary has no 'moving'", RegisterPaird(), {"fixed": (np.zeros((20, 20, 20)), np.eye(4))})
    with pytest.raises(RuntimeError) as caught:
        Compose([RegisterPaird()])({"moving": 1})
    assert isinstance(caught.value.__cause__, PairError)


@pytest.mark.filterwarnings("ignore:.*nvImageCodec")
def test_the_page_about_python_runs(pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.M | re.S
    )
    assert len(blocks) >= 4
    for path in pair.values():
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block.replace('"fast"', '"tiny"'), names)
    assert names["warped"].GetSize() == names["same"].shape and "warped_label" in names["case"]
    assert {path.name for path in tmp_path.iterdir()} == {*(Path(path).name for path in pair.values()), "output"}


def test_the_example_of_a_dicom_case(chest: PhantomPair, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = ROOT / "docs" / "examples" / "dicom_case.py"
    spec = importlib.util.spec_from_file_location("dicom_case", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    today = write_dicom(tmp_path / "today", np.rint(chest.fixed).astype(np.int16), chest.affine)
    planning = write_dicom(tmp_path / "planning", np.rint(chest.moving).astype(np.int16), chest.moving_affine)
    organs, output = tmp_path / "organs.nii.gz", tmp_path / "case"
    save_image(organs, chest.moving_label, chest.moving_affine)
    assert example.carry_over(today, planning, str(organs), str(output), preset="tiny") > AGREE
    said = capsys.readouterr().out
    assert "ml in the planning scan" in said and str(output) in said
    carried = torch.from_numpy(
        sitk.GetArrayFromImage(sitk.ReadImage(output / "warped_label.nii.gz")).T.astype(np.int64)
    )
    truth, before = (torch.from_numpy(label.astype(np.int64)) for label in (chest.fixed_label, chest.moving_label))
    after, unmoved = (np.mean(list(dice_per_label(truth, label).values())) for label in (carried, before))
    assert after > unmoved


@pytest.mark.slow
def test_the_examples_of_docstrings_run() -> None:
    from ncf.api import registration

    done = doctest.testmod(registration, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert done.attempted >= 5 and not done.failed
