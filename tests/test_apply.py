"""From a result folder to files: images and labels carried, points both ways, the inverse and its error."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from ncf.commands.main import main
from ncf.core.errors import PairError
from ncf.core.folders import ResultFolders
from ncf.io.nifti import load_itk_field, save_itk_field
from ncf.io.points.base import in_ras
from ncf.pair.source import HoldOutput
from ncf.result.folder import SavedResult, saved_map
from ncf.result.network_file import saved_network
from ncf.space.geometry import from_lps, to_mm, translation
from ncf.space.grids import Grid
from ncf.space.jacobian import jacobian_determinant
from ncf.space.mapping import SpatialMap
from ncf.space.preimages import CLOSE_VOX
from ncf.use.carry import apply_to_images, apply_to_points, open_map
from ncf.use.carry_labels import apply_to_labels
from ncf.use.invert import inverse_consistency_error
from ncf.use.odd import note_what_is_odd
from tests.conftest import Run
from tests.grids import same_but_for_ties
from tests.maps import itk_transform, through_itk
from tests.refusing import refused

NETWORK_MM = 1e-4  # the field again from network.pt
POINT_MM = 1e-3  # float32 displacements and text of six digits
SOLVED_MM = 2 * CLOSE_VOX * 14  # the solver's tolerance in this chest's largest voxel
NODE_MM = 0.05  # a field that was moved by a part of a voxel is read between its voxels twice
INVERSE_MM = 0.02  # the inverse of this field is read between voxels of 6 to 14 mm


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


@pytest.fixture(scope="module")
def result(run: Run, pair: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result folder of a short fit."""
    folder = tmp_path_factory.mktemp("results")
    return Path(run(folder, pair, name="chest").evaluator.state.output["result_dir"])


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """What the command prints."""
    monkeypatch.setattr(sys, "argv", ["ncf", *map(str, arguments)])
    main()
    return str(capsys.readouterr().out)


def refusal(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """The one line that the command ends with."""
    monkeypatch.setattr(sys, "argv", ["ncf", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert isinstance(stop.value.code, str) and "\n" not in stop.value.code and stop.value.code.startswith("error: ")
    return stop.value.code


def test_what_was_registered_comes_out_the_same(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    result: Path,
    pair: Mapping[str, str],
    tmp_path: Path,
) -> None:
    out = said(monkeypatch, capsys, "apply", result, "--to=image", f"--output_dir={tmp_path}")
    assert out.split() == [str(tmp_path / "moving.nii.gz")]
    again, usual = (nib.load(path) for path in (tmp_path / "moving.nii.gz", result / "warped.nii.gz"))
    same_but_for_ties(np.asarray(again.dataobj), np.asarray(usual.dataobj))
    assert again.header == usual.header
    said(monkeypatch, capsys, "apply", result, pair["moving_label"], "--to=label", f"--output_dir={tmp_path}")
    assert (tmp_path / "moving_label.nii.gz").read_bytes() == (result / "warped_label.nii.gz").read_bytes()


def test_several_files_go_onto_a_grid_that_is_named(result: Path, pair: Mapping[str, str], tmp_path: Path) -> None:
    opened = open_map(result, reference=pair["moving"])
    shutil.copyfile(pair["moving"], tmp_path / "other.nii.gz")
    for kind, modes in (("image", ("bilinear", "spline")), ("label", ("nearest", "soft"))):
        files = (
            [opened.registered("moving"), tmp_path / "other.nii.gz"]
            if kind == "image"
            else [opened.registered("moving_label")]
        )
        found = {}
        for mode in modes:
            if kind == "image":
                found[mode] = apply_to_images(opened, files, tmp_path / mode, mode=mode)
            else:
                found[mode], lines = apply_to_labels(opened, files, tmp_path / mode, mode=mode)
                assert lines == []  # no bounds, no inner and outer structures
        assert [len(paths) for paths in found.values()] == [len(files)] * 2
        arrays = []
        for paths in found.values():
            images = [nib.load(path) for path in paths]
            assert {image.shape for image in images} == {opened.reference.shape}
            np.testing.assert_allclose(images[0].affine, opened.reference.affine, atol=1e-4)
            arrays.append(np.asarray(images[0].dataobj))
        assert 0 < (arrays[0] != arrays[1]).mean() < (0.2 if kind == "label" else 1)
        assert set(np.unique(arrays[1])) <= set(np.unique(nib.load(files[0]).get_fdata())) or kind == "image"


@pytest.mark.parametrize("space", ["lps", "ras", "voxel"])
def test_fixed_points_go_along_and_moving_ones_come_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, result: Path, tmp_path: Path, space: str
) -> None:
    opened = open_map(result)
    assert opened.moving is not None
    voxels = np.random.default_rng(0).uniform(4, np.array(opened.reference.shape) - 5, size=(6, 3))
    world = to_mm(voxels, opened.reference.affine)
    truth = through_itk(itk_transform(result / "displacement.nii.gz"), world)
    given = voxels if space == "voxel" else in_ras(world, space)
    far = given[:1] + 1e4
    np.savetxt(tmp_path / "p.csv", np.vstack([given, far]), delimiter=",", header="x,y,z", comments="")
    words = ("apply", result, tmp_path / "p.csv", "--to=points", f"--space={space}")
    out = said(monkeypatch, capsys, *words, "--from=fixed", f"--output_dir={tmp_path / 'there'}")
    assert "1 point lies outside" in out
    there = tmp_path / "there" / "p.csv"
    found = np.genfromtxt(there, delimiter=",", skip_header=1)
    assert found[:, 3].tolist() == [1] * 6 + [0] and np.isnan(found[6, :3]).all()
    moved = to_mm(found[:6, :3], opened.moving.affine) if space == "voxel" else in_ras(found[:6, :3], space)
    np.testing.assert_allclose(moved, truth, atol=POINT_MM)
    there.write_text(
        "\n".join(line.rpartition(",")[0] for line in there.read_text().splitlines()[:7]), encoding="utf-8"
    )
    back = ("apply", result, there, "--to", "points", "--from", "moving", f"--space={space}")
    assert "all points are known" in said(monkeypatch, capsys, *back, f"--output_dir={tmp_path / 'back'}")
    home = np.genfromtxt(tmp_path / "back" / "p.csv", delimiter=",", skip_header=1)
    np.testing.assert_allclose(home[:, :3], given, atol=SOLVED_MM)


@pytest.mark.parametrize("header", ["", "fixed_i,fixed_j,fixed_k,moving_i,moving_j,moving_k\n"])
def test_landmark_pairs_hold_the_points_of_either_side(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, result: Path, tmp_path: Path, header: str
) -> None:
    opened = open_map(result)
    assert opened.moving is not None
    fixed, moving = np.random.default_rng(0).uniform(5, 9, size=(2, 4, 3))
    np.savetxt(tmp_path / "p.csv", np.hstack([fixed, moving]), delimiter=",", header=header.strip(), comments="")
    for side, here, there in (
        ("fixed", opened.reference, opened.moving),
        ("moving", opened.moving, opened.reference),
    ):
        words = ("apply", result, tmp_path / "p.csv", "--to=points", f"--from={side}", "--space=voxel")
        said(monkeypatch, capsys, *words, f"--output_dir={tmp_path / side}")
        own, first = ((fixed, 0), (moving, 3))[side == "moving"]
        world = to_mm(own, here.affine)
        truth = opened.map.to_moving(world)[0] if side == "fixed" else opened.map.to_reference(world)[0]
        found = np.genfromtxt(tmp_path / side / "p.csv", delimiter=",", skip_header=int(bool(header)))
        np.testing.assert_allclose(to_mm(found[:, first : first + 3], there.affine), truth, atol=POINT_MM)
        kept = [c for c in range(6) if not first <= c < first + 3]
        np.testing.assert_allclose(found[:, kept], np.hstack([fixed, moving])[:, kept], atol=1e-5)


def test_what_an_inverse_does_not_know_stays_unknown(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    result: Path,
    pair: Mapping[str, str],
    tmp_path: Path,
) -> None:
    said(monkeypatch, capsys, "invert", result, f"--output_dir={tmp_path}")
    valid = np.asarray(nib.load(tmp_path / "inverse_valid.nii.gz").dataobj) > 0
    inverse, grid = saved_map(tmp_path / "inverse.nii.gz"), SavedResult(result).grid("moving")
    points = to_mm(np.indices(grid.shape).reshape(3, -1).T, grid.affine)
    np.testing.assert_array_equal(inverse.to_moving(points)[1], valid.ravel())
    moved, _ = inverse.to_moving(points)
    assert not inverse.to_reference(moved)[1][~valid.ravel()].any()
    (carried,) = apply_to_images(
        open_map(tmp_path / "inverse.nii.gz"), [pair["fixed"]], tmp_path / "out", mode="bilinear"
    )
    fixed, found = (np.asarray(nib.load(path).dataobj) for path in (pair["fixed"], carried))
    assert 0 < (~valid).mean() < 0.5 and (found[~valid] == fixed.min()).all()
    told = said(
        monkeypatch, capsys, "export", tmp_path / "inverse.nii.gz", "--format=h5", f"--output_dir={tmp_path / 'h5'}"
    )
    assert told.startswith("inverse.h5: ") and "of its voxels lie outside the range of the map" in told
    (tmp_path / "inverse_valid.nii.gz").write_bytes(b"nothing")
    refused("cannot read .*inverse_valid", saved_map, tmp_path / "inverse.nii.gz")


def test_nothing_that_is_read_is_written_over(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    result: Path,
    pair: Mapping[str, str],
    tmp_path: Path,
) -> None:
    for day in ("day1", "day2"):
        (tmp_path / day).mkdir()
        shutil.copyfile(pair["moving"], tmp_path / day / "ct.nii.gz")
    said(monkeypatch, capsys, "invert", result, f"--output_dir={tmp_path / 'back'}")
    shutil.copyfile(pair["moving"], tmp_path / "warped.nii.gz")
    before = {path: path.read_bytes() for path in [*tmp_path.rglob("*.gz"), *result.iterdir()] if path.is_file()}
    reference = f"--reference={tmp_path / 'day1' / 'ct.nii.gz'}"
    for words in (
        (
            "apply",
            result,
            tmp_path / "day2" / "ct.nii.gz",
            "--to=image",
            reference,
            f"--output_dir={tmp_path / 'day1'}",
        ),
        ("apply", result, tmp_path / "warped.nii.gz", "--to=image", f"--output_dir={result}"),
        (
            "invert",
            tmp_path / "back" / "inverse.nii.gz",
            f"--moving={pair['fixed']}",
            f"--output_dir={tmp_path / 'back'}",
        ),
        ("export", tmp_path / "back" / "inverse.nii.gz", "--format=nii.gz", f"--output_dir={tmp_path / 'back'}"),
    ):
        assert "is to be read and would be overwritten" in refusal(monkeypatch, *words)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("value", "kind", "telling"),
    [
        (np.nan, "image", "1 of .* voxels are NaN or infinite"),
        (np.nan, "label", "1 of .* voxels are NaN or infinite"),
        (2.0**32, "label", "labels go up to 4294967295, the largest here is 4294967296"),
    ],
)
def test_values_that_cannot_be_carried_are_refused(
    result: Path, tmp_path: Path, value: float, kind: str, telling: str
) -> None:
    values = np.zeros((9, 8, 7), np.float32)
    values[3, 4, 5] = value
    nib.save(nib.Nifti1Image(values, np.diag([20.0, 20, 20, 1])), tmp_path / "odd.nii")
    carry, mode = (apply_to_images, "spline") if kind == "image" else (apply_to_labels, "nearest")
    refused(telling, lambda: carry(open_map(result), [tmp_path / "odd.nii"], tmp_path / "out", mode=mode))


def test_a_file_that_is_no_scan_is_told_as_in_a_registration(result: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    call = {"mode": "bilinear"}
    refused(
        "notes.txt is of no known format; give .nii.gz, .nii, .mha, .mhd, .nrrd, or DICOM",
        lambda: apply_to_images(open_map(result), [tmp_path / "notes.txt"], tmp_path / "out", **call),
    )


def test_the_inverse_is_measured_where_the_field_lies(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    result: Path,
    pair: Mapping[str, str],
    tmp_path: Path,
) -> None:
    np.savetxt(tmp_path / "far.txt", translation([1000.0, 0, 0]))
    out = [tmp_path / name for name in ("near", "far")]
    said(monkeypatch, capsys, "invert", result, f"--output_dir={out[0]}")
    said(monkeypatch, capsys, "invert", result, f"--pre_transform={tmp_path}/far.txt", f"--output_dir={out[1]}")
    near, far = (json.loads((folder / "inverse.json").read_text()) for folder in out)
    for key, value in near["known_share"].items():
        assert far["known_share"][key] == pytest.approx(value, abs=0.002), key
    for region, errors in near["inverse_consistency_error_mm"].items():
        assert far["inverse_consistency_error_mm"][region]["mean"] == pytest.approx(errors["mean"], rel=0.05), region
    label = nib.load(pair["fixed_label"])
    nib.save(
        nib.Nifti1Image(np.asarray(label.dataobj), translation([500.0, 0, 0]) @ label.affine), tmp_path / "off.nii"
    )
    words = ("invert", result, f"--label={tmp_path}/off.nii", f"--output_dir={tmp_path / 'out'}")
    assert "off.nii does not lie on the grid of the field" in refusal(monkeypatch, *words)


def test_the_network_alone_is_the_same_map(result: Path, tmp_path: Path) -> None:
    network, saved = saved_network(result / "network.pt"), saved_map(result)
    shape = np.array(network.grid.shape)
    at = np.random.default_rng(1).uniform(-2, shape + 1, size=(200, 3))
    points = to_mm(np.vstack([at, np.indices(shape).reshape(3, -1).T[::97]]), network.grid.affine)
    truth, known = saved.to_moving(points)
    maps = (network, network.map(), saved_map(result / "network.pt"))
    for found, sure in (m.to_moving(points) for m in maps):
        assert sure.tolist() == known.tolist() and 0.5 < known.mean() < 1
        np.testing.assert_allclose(found[known], truth[known], atol=NETWORK_MM)


def test_the_inverse_says_how_exact_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, result: Path, tmp_path: Path
) -> None:
    out = said(monkeypatch, capsys, "invert", result, f"--output_dir={tmp_path}")
    errors = json.loads((tmp_path / "inverse.json").read_text())
    assert set(errors["inverse_consistency_error_mm"]) == {"all", "in_label", "outside_label"} and "of label" in out
    assert 0.5 < errors["known_share"]["of_fixed_grid"] < 1 and errors["known_share"]["of_moving_grid"] < 1
    forward = itk_transform(result / "displacement.nii.gz")
    back = itk_transform(tmp_path / "inverse.nii.gz")
    valid = np.asarray(nib.load(tmp_path / "inverse_valid.nii.gz").dataobj)
    moving = SavedResult(result).grid("moving")
    assert valid.shape == moving.shape and set(np.unique(valid)) == {0, 1}
    world = to_mm(np.argwhere(valid)[::50], moving.affine)
    np.testing.assert_allclose(through_itk(forward, through_itk(back, world)), world, atol=SOLVED_MM)
    told = errors["inverse_consistency_error_mm"]["in_label"]
    assert 0 < told["mean"] <= told["p95"] <= told["max"] and told["mean"] < INVERSE_MM
    field, _ = load_itk_field(tmp_path / "inverse.nii.gz")
    opened = open_map(result)
    inverse = SpatialMap(torch.from_numpy(field), moving)
    off, sure = inverse_consistency_error(opened.map, inverse, torch.from_numpy(valid > 0))
    some = np.argwhere(sure.numpy())[::97]
    points = to_mm(some, opened.reference.affine)
    referee = np.linalg.norm(through_itk(back, through_itk(forward, points)) - points, axis=1)
    np.testing.assert_allclose(off[tuple(some.T)], referee, atol=POINT_MM)


def test_outside_of_the_fixed_grid_nothing_is_known(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    save_itk_field(tmp_path / "field.nii.gz", np.full((3, 9, 8, 7), 1.0, np.float32), affine)
    nib.save(nib.Nifti1Image(np.zeros((12, 8, 7), np.float32), affine), tmp_path / "moving.nii")
    opened = open_map(tmp_path / "field.nii.gz", moving=tmp_path / "moving.nii")
    from ncf.use.invert import invert_map

    written, _ = invert_map(opened, tmp_path / "out", label=None)
    valid = np.asarray(nib.load(written[1]).dataobj)
    truth = np.zeros((12, 8, 7), bool)
    truth[1:10, 1:8, 1:7] = True  # moving voxel y comes from y - 1, which must be a voxel of the fixed grid
    np.testing.assert_array_equal(valid, truth)
    field, _ = load_itk_field(written[0])
    np.testing.assert_allclose(field[:, truth], -1.0, atol=2 * CLOSE_VOX)


@pytest.mark.slow
def test_other_programs_files_are_results_too(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    result: Path,
    pair: Mapping[str, str],
    tmp_path: Path,
) -> None:
    for name in ("mha", "h5"):
        path = said(monkeypatch, capsys, "export", result, f"--format={name}", f"--output_dir={tmp_path}").split()[-1]
        assert path == str(tmp_path / f"chest.{name}")
        said(monkeypatch, capsys, "apply", path, pair["moving"], "--to=image", f"--output_dir={tmp_path / name}")
        ours, saved = (
            np.asarray(nib.load(p).dataobj, float)
            for p in (tmp_path / name / "moving.nii.gz", result / "warped.nii.gz")
        )
        assert np.median(np.abs(ours - saved)) <= 0.5 and (np.abs(ours - saved) <= 1).mean() > 0.99
    jacobian = said(monkeypatch, capsys, "export", result, "--format=jacobian", f"--output_dir={tmp_path}").split()[-1]
    field, _ = SavedResult(result).field()
    np.testing.assert_allclose(nib.load(jacobian).get_fdata(), jacobian_determinant(field).numpy(), atol=1e-6)
    itks = sitk.DisplacementFieldJacobianDeterminant(
        sitk.ReadImage(str(result / "displacement.nii.gz"), sitk.sitkVectorFloat64)
    )
    inner = (slice(2, -2),) * 3
    np.testing.assert_allclose(nib.load(jacobian).get_fdata()[inner], sitk.GetArrayFromImage(itks).T[inner], atol=1e-3)


def test_a_transform_before_and_one_after(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, result: Path, tmp_path: Path
) -> None:
    before, after = np.eye(4), np.eye(4)
    before[:3, 3], after[:3, 3] = [4, -3, 2], [-10, 5, 1]
    np.savetxt(tmp_path / "before.txt", before)
    np.savetxt(tmp_path / "after.csv", after, delimiter=",")
    grid = SavedResult(result).grid("fixed")
    world = to_mm((np.array(grid.shape)[None] - 1) / 2, grid.affine)
    np.savetxt(tmp_path / "p.csv", world, delimiter=",")
    given = (
        "--to=points",
        "--from=fixed",
        "--space=ras",
        f"--pre_transform={tmp_path}/before.txt",
        f"--post_transform={tmp_path}/after.csv",
    )
    said(monkeypatch, capsys, "apply", result, tmp_path / "p.csv", *given, f"--output_dir={tmp_path / 'out'}")
    found = np.genfromtxt(tmp_path / "out" / "p.csv", delimiter=",")[:3]
    truth = through_itk(itk_transform(result / "displacement.nii.gz"), world + before[:3, 3])[0] + [-10, 5, 1]
    np.testing.assert_allclose(found, truth, atol=POINT_MM)
    for source in (result, result / "network.pt", result / "displacement.nii.gz"):
        out = (f"--output_dir={tmp_path / 'one'}", *given[3:])
        told = said(monkeypatch, capsys, "export", source, "--format=h5", *out).splitlines()
        assert told == [str(tmp_path / "one" / "chest.h5")]  # a file of a result is called as its folder
        np.testing.assert_allclose(through_itk(itk_transform(Path(told[0])), world)[0], truth, atol=NODE_MM)
    said(monkeypatch, capsys, "invert", result, *given[3:], f"--output_dir={tmp_path / 'back'}")
    back = through_itk(itk_transform(tmp_path / "back" / "inverse.nii.gz"), truth[None])
    np.testing.assert_allclose(back, world, atol=INVERSE_MM)


def test_what_an_exported_field_does_not_know_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, result: Path, tmp_path: Path
) -> None:
    grid = SavedResult(result).grid("fixed")
    wider = Grid(
        (grid.shape[0] + 2, *grid.shape[1:]), grid.affine
    )  # half a voxel is known, so one layer and a half is not
    nib.save(nib.Nifti1Image(np.zeros(wider.shape, np.float32), wider.affine), tmp_path / "wider.nii")
    out = (f"--reference={tmp_path}/wider.nii", f"--output_dir={tmp_path / 'out'}")
    told = said(monkeypatch, capsys, "export", result, "--format=mha", *out).splitlines()
    share = 100 * 2 / wider.shape[0]
    assert told[0].startswith(f"chest.mha: {share:.2g} % of its voxels lie outside the range of the map")
    field = np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(told[1]))).T
    assert field.shape == (3, *wider.shape)
    np.testing.assert_allclose(field[:, -2:], np.repeat(field[:, -3:-2], 2, axis=1), atol=POINT_MM)


def test_what_cannot_be_is_one_line(
    monkeypatch: pytest.MonkeyPatch, result: Path, pair: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text("1,2,3\n", encoding="utf-8")
    out = f"--output_dir={tmp_path / 'out'}"
    points = ("apply", result, tmp_path / "p.csv", "--to=points", out)
    for telling, words in {
        "--to is one of image, label, dose, points": ("apply", result, "--to=mesh", out),
        "points need files, and --from": points,
        "--from is one of fixed, moving": (*points, "--from=both"),
        "unknown option --from_": (*points, "--from_=fixed"),
        "--from needs a value": (*points, "--from"),
        "give the space: lps": (*points, "--from=fixed"),
        "--space is one of": (*points, "--from=fixed", "--space=mm"),
        "--reference is for --to=image": (*points, "--from=fixed", "--reference=x"),
        "--from is for --to=points": ("apply", result, "--to=image", "--from=fixed", out),
        "--interpolation is one of nearest, soft": ("apply", result, "--to=label", "--interpolation=cubic", out),
        "is this a scan?": ("apply", result, pair["moving"], "--to=label", out),
        "would be overwritten": (
            "apply",
            result,
            pair["moving"],
            "--to=image",
            f"--output_dir={Path(pair['moving']).parent}",
        ),
        "two files would become": ("apply", result, pair["moving"], pair["moving"], "--to=image", out),
        "which moving scan?": ("apply", result / "displacement.nii.gz", "--to=image", out),
        "is no result folder": ("apply", tmp_path, "--to=image", out),
        "name a scan on it as the moving one": ("invert", result / "network.pt", out),
        "voxel indices need the grid": ("apply", result / "network.pt", *points[2:], "--from=fixed", "--space=voxel"),
        "--format is one of": ("export", result, "--format=xyz", out),
        "--names is not for the format h5": ("export", result, "--format=h5", "--names=short", out),
        "give a result folder": ("export", tmp_path / "nothing", "--format=mha", out),
        "a field's file ends in": ("export", result / "metrics.json", "--format=mha", out),
        "holds no results of ours": ("export", tmp_path, "--format=mha", out),
        "--pre_transform is not for the format learn2reg": ("export", result, f"--pre_transform={tmp_path}/p.csv", out),
        "the affine post_transform must be 4x4": (
            "export",
            result,
            "--format=h5",
            f"--post_transform={tmp_path}/p.csv",
            out,
        ),
    }.items():
        assert telling in refusal(monkeypatch, *words), words
    assert {p.name for p in tmp_path.iterdir()} == {"p.csv"}  # nor an empty folder


def test_the_help_names_options_as_they_are_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    text = said(monkeypatch, capsys, "apply", "--help")
    assert text.startswith("usage: ncf apply RESULT [FILES ...]")
    assert "--from: where the points are" in text and "from_" not in text
    assert "; see: ncf apply --help" in refusal(monkeypatch, "apply", "x", "--to=image")  # no --output_dir


def test_the_worked_numbers_of_the_documentation() -> None:
    field = torch.tensor([1.0, 0, 2]).view(3, 1, 1, 1).repeat(1, 30, 30, 20)
    mapping = SpatialMap(field, Grid((30, 30, 20), np.diag([-2.0, -2, 3, 1])))
    here = to_mm(np.array([[10.0, 10, 5]]), mapping.grid.affine)
    there, known = mapping.to_moving(here)
    assert here.tolist() == [[-20, -20, 15]] and there.tolist() == [[-22, -20, 21]] and known.all()
    assert in_ras(there, "lps").tolist() == [[22, 20, 21]]
    np.testing.assert_allclose(mapping.to_reference(there)[0], here, atol=SOLVED_MM)
    shifted = mapping.composed(post_transform=translation([1.0, 0, 0])).to_moving(here)[0]
    assert shifted.tolist() == [[-21, -20, 21]]
    assert from_lps(translation([-1.0, 0, 0])).tolist() == translation([1.0, 0, 0]).tolist()


def test_points_of_the_python_api_are_counted(result: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("0,0,1e5\n", encoding="utf-8")
    call = {"side": "moving", "space": "lps"}
    written, outside = apply_to_points(open_map(result), [tmp_path / "p.csv"], tmp_path / "out", **call)
    assert outside == 1 and written[0].read_text().strip() == ",,,0"
    (tmp_path / "q.csv").write_text("0,0,0\n", encoding="utf-8")
    there, _ = apply_to_points(open_map(result), [tmp_path / "q.csv"], tmp_path / "there", side="fixed", space="lps")
    back, _ = apply_to_points(open_map(result), there, tmp_path / "back", side="moving", space="lps")  # its own output
    *place, first, second = map(float, back[0].read_text().strip().split(","))
    np.testing.assert_allclose(place, 0, atol=0.01)
    assert first == second == 1
    refused("missing.csv", lambda: apply_to_points(open_map(result), ["missing.csv"], tmp_path / "out", **call))


def test_a_file_that_was_hardly_meant_is_noted(
    result: Path, pair: Mapping[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "mask.nii.gz"
    shutil.copyfile(pair["moving_label"], other)
    opened = open_map(result)
    for file, mode, telling in (
        (pair["fixed"], "bilinear", "is the fixed scan that was registered, which lies on the fixed grid already"),
        (pair["fixed"], "nearest", "is the fixed"),
        (other, "bilinear", "looks like a label map, and is interpolated as an image; --to=label"),
        (other, "nearest", ""),
        (pair["moving"], "bilinear", ""),
    ):
        caplog.clear()
        if Path(file) == Path(pair["fixed"]) and mode == "nearest":
            note_what_is_odd(opened.inputs, file, None)
        else:
            carry = apply_to_images if mode == "bilinear" else apply_to_labels
            carry(opened, [file], tmp_path / mode, mode=mode)
        told = [record.getMessage() for record in caplog.records if record.name == "ncf.notes"]
        assert len(told) == bool(telling) and all(telling in line and str(file) in line for line in told)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_a_scan_of_another_place_is_noted(
    result: Path, pair: Mapping[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    opened, scan = open_map(result), nib.load(pair["moving" if mode == "bilinear" else "moving_label"])
    away = scan.affine.copy()
    away[:3, 3] += 0.9 * scan.affine[:3, :3] @ np.array(scan.shape)  # a tenth of each axis is left
    nib.save(nib.Nifti1Image(scan.dataobj, away), tmp_path / "away.nii.gz")
    carry = apply_to_images if mode == "bilinear" else apply_to_labels
    carry(opened, [tmp_path / "away.nii.gz"], tmp_path / "out", mode=mode)
    (told,) = (record.getMessage() for record in caplog.records if record.name == "ncf.notes")
    assert "% of the grid of the result lie within it; is it a scan in the space of the moving scan?" in told
    assert float(told.split("only ")[1].split(" %")[0]) < 3


def test_a_scan_that_has_moved_is_told_with_what_to_do(result: Path, pair: Mapping[str, str], tmp_path: Path) -> None:
    opened = replace(open_map(result), inputs={"moving": tmp_path / "gone.nii.gz"})
    for key, what in (
        ("moving", "the moving scan .*gone.nii.gz is not there any more; name the file after RESULT"),
        ("moving_label", "which moving label map\\? no moving label map was registered; name the file after RESULT"),
        ("fixed", "which fixed scan\\? .*; name it with --reference=PATH"),
    ):
        with pytest.raises(PairError, match=what):
            opened.registered(key)


def test_a_lack_of_memory_has_advice_that_the_command_knows(monkeypatch: pytest.MonkeyPatch, result: Path) -> None:
    def lacking(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr("ncf.use.carry.open_map", lacking)
    line = refusal(monkeypatch, "apply", result, "--to=image", "--output_dir=o")
    assert line.startswith("error: out of memory (Unable to allocate 9 TiB); end other programs")
    assert "--preset" not in line
    monkeypatch.setattr("ncf.commands.common.run_config", lacking)
    assert refusal(monkeypatch, "register").endswith("; use --preset=fast, or another --device")


def test_a_result_that_was_interrupted_or_whose_scan_changed_is_not_used(
    run: Run, pair: Mapping[str, str], tmp_path: Path
) -> None:
    moving = str(shutil.copy(pair["moving"], tmp_path / "moving.nii.gz"))
    run(tmp_path, {**pair, "moving": moving, "name": "chest"})
    folder = tmp_path / "chest"
    assert open_map(folder).registered("moving") == Path(moving)
    shutil.copy(pair["fixed"], moving)
    refused(r"moving\.nii\.gz has changed since it was registered", lambda: open_map(folder).registered("moving"))
    with pytest.raises(ValueError, match=r"holds the result of .* other scans than these"):
        HoldOutput(ResultFolders(tmp_path))({"name": "chest", "files": {**pair}})
    (folder / "metrics.json").unlink()
    refused("holds no complete result", open_map, folder)
    refused("there is no .*gone", open_map, tmp_path / "gone")
