"""Saved fields judged: numbers of the exact field of the phantom and of a field by formula, from every kind of file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.bundle import ConfigWorkflow
from scipy.ndimage import map_coordinates

from ncf.commands.evaluate import evaluate
from ncf.commands.export import export
from ncf.io.learn2reg import save_displacement, to_stored
from ncf.io.nifti import save_itk_field
from ncf.io.pair_lists import Pairs, read_pairs
from ncf.phantom.chest import PhantomPair
from ncf.report.page import label_rows
from ncf.result.folder import SavedResult, saved_pairs, saved_results
from ncf.space.geometry import spacing_mm
from ncf.use.export import export_fields
from tests.conftest import ROOT, Run
from tests.refusing import refused

DIGITS = 1e-6
STORED_MM = 1e-3  # float32 positions between two affines, and a spline of what a line reads exactly at voxels


@pytest.fixture(scope="module")
def listed(pair: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of the one tiny chest, its scans under names of Learn2Reg."""
    folder = tmp_path_factory.mktemp("list")
    row = dict(pair)
    for key, name in (("fixed", "LungCT_0001_0000.nii.gz"), ("moving", "LungCT_0001_0001.nii.gz")):
        row[key] = str(shutil.copy(pair[key], folder / name))
    (folder / "list.json").write_text(json.dumps({"pairs": [{**row, "name": "chest"}]}), encoding="utf-8")
    return folder / "list.json"


def evaluated(pairs: Pairs, fields: Path, output: Path) -> dict[str, Any]:
    """The one case of evaluation.json, by the config as it stands."""
    workflow = ConfigWorkflow(
        config_file=str(ROOT / "configs" / "evaluate.json"),
        workflow_type="inference",
        logging_file=False,
        **{"dataset_data": pairs, "fields": fields, "output_dir": output, "progress": False},
    )
    workflow.initialize()
    workflow.run()
    told = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
    assert len(told["cases"]) == 1 and told["failures"] == []
    return {**told["cases"][0], "tre30_mm": told["tre30_mm"]}


@pytest.fixture(scope="module")
def exact(chest: PhantomPair, listed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is said of the phantom's own field in an ITK file."""
    folder = tmp_path_factory.mktemp("exact")
    save_itk_field(folder / "chest.nii.gz", chest.field_vox, chest.affine)
    return evaluated(read_pairs(listed), folder, folder / "out")


def test_the_exact_field_leaves_no_error_but_that_of_reading_it(exact: dict[str, Any], chest: PhantomPair) -> None:
    before, after = exact["tre_mm"]["before"], exact["tre_mm"]["after"]
    assert before["mean"] > 5 and after["mean"] < 0.1 * before["mean"] and after["count"] == len(chest.landmarks)
    assert exact["tre30_mm"] == pytest.approx(exact["learn2reg"]["tre_mm"], abs=0.5)
    assert exact["dice"]["after"]["mean"] > exact["dice"]["before"]["mean"] > 0
    assert exact["hd95_mm"]["after"]["mean"] < exact["hd95_mm"]["before"]["mean"]
    assert exact["folding_fraction"]["all"] == 0 and exact["seconds"] is None


def test_the_documented_command_names_its_pairs(
    exact: dict[str, Any], chest: PhantomPair, listed: Path, tmp_path: Path
) -> None:
    save_itk_field(tmp_path / "chest.nii.gz", chest.field_vox, chest.affine)

    def run(**options: Any) -> None:
        config = str(ROOT / "configs" / "evaluate.json")
        options |= {"fields": str(tmp_path), "output_dir": str(tmp_path / "out"), "progress": False}
        workflow = ConfigWorkflow(config_file=config, workflow_type="inference", logging_file=False, **options)
        workflow.initialize()
        workflow.run()

    run(pairs=str(listed))
    told = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))["cases"][0]
    assert told["tre_mm"] == exact["tre_mm"]
    for pairs, telling in ((None, "no list of pairs is named"), (str(tmp_path / "no.csv"), "no data set .*no.csv")):
        with pytest.raises(SystemExit, match=f"^error: {telling}"):
            run(pairs=pairs)


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_the_commands_of_the_docs_give_options_that_their_config_has(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    for command in re.findall(r"^.*monai\.bundle run .*$", text, flags=re.MULTILINE):
        files = re.findall(r"configs/[\w/]+\.json", command)
        merged = {key for file in files for key in json.loads((ROOT / file).read_text(encoding="utf-8"))}
        assert set(re.findall(r"--(\w+)", command.partition("bundle run")[2])) - {"config_file"} <= merged, command


def test_snapped_errors_are_those_of_whole_moving_voxels(exact: dict[str, Any], chest: PhantomPair) -> None:
    points = chest.landmarks
    at = [map_coordinates(c, points[:, :3].T, order=1, mode="nearest") for c in chest.field_vox]
    apart = np.rint(points[:, :3] + np.stack(at, axis=1)) - points[:, 3:]  # the chest's two grids are one
    truth = np.linalg.norm(apart * spacing_mm(chest.affine), axis=1)
    assert exact["tre_mm"]["snapped"]["mean"] == pytest.approx(truth.mean(), abs=1e-4)


def test_labels_are_judged_as_numpy_counts_them(exact: dict[str, Any], chest: PhantomPair) -> None:
    places = np.indices(chest.fixed.shape) + chest.field_vox
    warped = map_coordinates(chest.moving_label, places, order=0, mode="constant")
    for label, score in exact["learn2reg"]["dice"]["labels"].items():
        a, b = chest.fixed_label == int(label), warped == int(label)
        assert score == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()), abs=DIGITS)
    assert exact["learn2reg"]["dice"]["mean"] == pytest.approx(
        np.mean(list(exact["learn2reg"]["dice"]["labels"].values()))
    )
    assert exact["learn2reg"]["log_jac_det_std"] > 0.005


@pytest.mark.parametrize("kind", ["ours", "learn2reg", "npz"])
def test_every_kind_of_file_gets_the_same_numbers(
    kind: str, exact: dict[str, Any], chest: PhantomPair, listed: Path, tmp_path: Path
) -> None:
    stored = to_stored(torch.from_numpy(chest.field_vox), fixed_affine=chest.affine, moving_affine=chest.moving_affine)
    fields = tmp_path / "fields"
    fields.mkdir()
    if kind == "ours":
        (fields / "chest").mkdir()
        save_itk_field(fields / "chest" / "displacement.nii.gz", chest.field_vox, chest.affine)
        (fields / "chest" / "metrics.json").write_text('{"seconds": {"total": 12.5}}')
    elif kind == "learn2reg":
        save_displacement(fields / "disp_0001_0001.nii.gz", stored)
    else:
        np.savez(fields / "disp_0001_0000_0001_0001.npz", np.moveaxis(stored.numpy(), 0, -1))
    found = evaluated(read_pairs(listed), fields, tmp_path / "out")
    assert found["seconds"] == (12.5 if kind == "ours" else None)
    assert found["tre_mm"]["after"] == pytest.approx(exact["tre_mm"]["after"], abs=STORED_MM)
    for path in (
        ("dice", "after", "mean"),
        ("learn2reg", "dice", "mean"),
        ("learn2reg", "log_jac_det_std"),
        ("learn2reg", "tre_mm"),
    ):
        mine, theirs = found, exact
        for key in path:
            mine, theirs = mine[key], theirs[key]
        assert mine == pytest.approx(theirs, abs=STORED_MM), path


def test_an_organ_that_one_map_lacks_is_told_the_same_way_everywhere(
    run: Run, listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = read_pairs(listed)
    image: Any = nib.load(row["moving_label"])
    label = np.asarray(image.dataobj).copy()
    lost, kept = sorted(set(np.unique(label).tolist()) - {0})[:2]
    label[label == lost] = 99
    nib.save(nib.Nifti1Image(label, image.affine), tmp_path / "moving_label.nii.gz")
    row = {**row, "moving_label": str(tmp_path / "moving_label.nii.gz")}
    run(tmp_path / "out", row)
    told = json.loads((tmp_path / "out" / "chest" / "metrics.json").read_text(encoding="utf-8"))["dice"]
    assert told["absent"] == {"not_in_moving": [lost], "not_in_fixed": [99]}
    assert set(told["after"]["labels"]) & {str(lost), "99"} == set() and str(kept) in told["after"]["labels"]
    assert told["after"]["mean"] == pytest.approx(np.mean(list(told["after"]["labels"].values())))
    assert f"absent: {lost} not in moving; 99 not in fixed" in capsys.readouterr().out
    judged = evaluated([row], tmp_path / "out", tmp_path / "judged")["dice"]
    assert judged["absent"] == told["absent"]
    assert judged["after"]["labels"] == pytest.approx(told["after"]["labels"], abs=DIGITS)
    assert judged["after"]["mean"] == pytest.approx(told["after"]["mean"], abs=DIGITS)
    rows = label_rows({"dice": told})
    assert rows[-2:] == [(f"{lost}, not in moving", "absent", "absent"), ("99, not in fixed", "absent", "absent")]


def test_a_registration_of_ours_is_exported_and_judged_from_its_folder_alone(
    run: Run, listed: Path, tmp_path: Path
) -> None:
    (row,) = read_pairs(listed)
    run(tmp_path, row)
    metrics = json.loads((tmp_path / "chest" / "metrics.json").read_text(encoding="utf-8"))
    assert saved_results(tmp_path) == saved_results(tmp_path / "chest") == [SavedResult(tmp_path / "chest")]
    exported = export_fields(tmp_path, tmp_path / "export", kind="learn2reg")
    assert [path.name for path in exported.files] == ["disp_0001_0001.nii.gz"] and exported.collected is not None
    assert exported.collected.name == "submission.zip"
    for fields in (tmp_path, tmp_path / "export"):
        found = evaluated(saved_pairs(tmp_path), fields, tmp_path / "out")
        assert found["tre_mm"]["after"]["mean"] == pytest.approx(metrics["tre_mm"]["after"]["mean"], abs=STORED_MM)
        assert found["dice"]["after"]["labels"] == pytest.approx(metrics["dice"]["after"]["labels"], abs=DIGITS)
        assert found["learn2reg"]["tre_mm"] == pytest.approx(metrics["tre_mm"]["after"]["mean"], rel=0.05)
    told = json.loads((tmp_path / "chest" / "run.json").read_text(encoding="utf-8"))
    assert told["grids"]["moving"]["affine"] == nib.load(row["moving"]).affine.tolist()
    twin = shutil.copytree(tmp_path / "chest", tmp_path / "chest_again")
    with pytest.raises(ValueError, match=r"chest and .*chest_again both give disp_0001_0001\.nii\.gz"):
        export_fields(tmp_path, tmp_path / "export", kind="learn2reg")
    del told["grids"]
    (twin / "run.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="written by an older version, without the scans' grids"):
        export_fields(twin, tmp_path / "export", kind="learn2reg2021")


def test_results_that_are_not_there(tmp_path: Path) -> None:
    refused("holds no results of ours", saved_results, tmp_path)
    refused("holds no results of ours", saved_pairs, tmp_path)
    (tmp_path / "run.json").write_text("{}")
    refused("does not say which scans", saved_pairs, tmp_path)


def test_fields_that_do_not_fit_are_said_and_the_rest_goes_on(
    chest: PhantomPair, listed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = read_pairs(listed)
    names = ("good", "absent", "shifted", "small", "twice", "text")
    rows = [{**row, "name": name} for name in names]
    for row in rows[1:]:  # scans without names of Learn2Reg, which all pairs here would share
        row |= {key: str(shutil.copy(row[key], tmp_path / f"{key}.nii.gz")) for key in ("fixed", "moving")}
    moved = chest.affine.copy()
    moved[0, 3] += 1.0
    save_itk_field(tmp_path / "good.nii.gz", chest.field_vox, chest.affine)
    save_itk_field(tmp_path / "shifted.nii.gz", chest.field_vox, moved)
    save_itk_field(tmp_path / "small.nii.gz", chest.field_vox[:, 1:], chest.affine)
    save_itk_field(tmp_path / "twice.nii.gz", chest.field_vox, chest.affine)
    (tmp_path / "twice").mkdir()
    save_itk_field(tmp_path / "twice" / "displacement.nii.gz", chest.field_vox, chest.affine)
    (tmp_path / "text.nii.gz").write_text("no")
    with pytest.raises(SystemExit) as stop:
        evaluated(rows, tmp_path, tmp_path / "out")
    lines = str(stop.value).splitlines()
    told = (
        "absent: no field in .*",
        "voxels off the fixed image",
        "has the grid",
        "twice: more than one field",
        "cannot read",
    )
    assert len(lines) == len(told) and all(line.startswith("error: ") for line in lines)
    assert all(re.search(telling, line) for telling, line in zip(told, lines, strict=True)), lines
    assert "| good |" in capsys.readouterr().out
    saved = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert [case["name"] for case in saved["cases"]] == ["good"] and len(saved["failures"]) == 5


def test_a_field_that_itk_wrote_is_read(
    chest: PhantomPair, listed: Path, exact: dict[str, Any], tmp_path: Path
) -> None:
    save_itk_field(tmp_path / "ours.nii.gz", chest.field_vox, chest.affine)
    field = sitk.ReadImage(str(tmp_path / "ours.nii.gz"), sitk.sitkVectorFloat64)
    (tmp_path / "fields").mkdir()
    sitk.WriteImage(field, str(tmp_path / "fields" / "chest.nii.gz"))
    found = evaluated(read_pairs(listed), tmp_path / "fields", tmp_path / "out")
    assert found["tre_mm"]["after"] == pytest.approx(exact["tre_mm"]["after"], abs=STORED_MM)


@pytest.mark.slow
def test_the_commands_judge_and_export(
    run: Run, listed: Path, chest: PhantomPair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_itk_field(tmp_path / "chest.nii.gz", chest.field_vox, chest.affine)
    evaluate(str(tmp_path), pairs=str(listed), output_dir=str(tmp_path / "out"), progress="false").start()
    assert "| chest |" in (out := capsys.readouterr().out) and "evaluation.json, .csv and .md" in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"evaluation.{x}" for x in ("csv", "json", "md")
    ]
    (row,) = read_pairs(listed)
    run(tmp_path / "ours", row)
    evaluate(str(tmp_path / "ours" / "chest"), progress="false").start()
    assert (tmp_path / "ours" / "chest" / "evaluation.md").exists()
    export(str(tmp_path / "ours"), output_dir=str(tmp_path / "l2r"), format="learn2reg2021").start()
    assert "disp_0001_0001.npz" in capsys.readouterr().out and (tmp_path / "l2r" / "submission.zip").exists()


def test_mistakes_at_the_commands_are_one_line(listed: Path, tmp_path: Path) -> None:
    calls = {
        "cannot read .*gone: No such file": lambda: evaluate(str(tmp_path / "gone")),
        "no data set": lambda: evaluate(str(tmp_path), pairs=str(tmp_path / "gone.json")),
        "has no lists to choose from": lambda: evaluate(str(tmp_path), pairs=str(listed), which="all_pairs"),
        "--format is one of .*learn2reg, learn2reg2021, .*, got 'itk'": lambda: export(
            ".", output_dir="x", format="itk"
        ),
        "--names is one of auto, short, long, got 'brief'": lambda: export(".", output_dir="x", names="brief"),
        "holds no results of ours": lambda: export(str(tmp_path), output_dir=str(tmp_path / "x")).start(),
    }
    for telling, call in calls.items():
        with pytest.raises(SystemExit, match=f"^error: .*{telling}"):
            call()
    assert not (tmp_path / "x").exists()
