"""A series of phases: which begins with which, what the start is worth, and what is told of the whole."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from ncf import register_series
from ncf.cohort.plan import Plan
from ncf.cohort.worker import Outcome
from ncf.commands.main import main
from ncf.core.errors import PairError
from ncf.core.files import load_json, save_json
from ncf.core.process import command_line
from ncf.evaluate.trust import Trust
from ncf.fit.contrast import ByContrast
from ncf.fit.fitted import Fit
from ncf.fit.network import NCF
from ncf.fit.warm_start import FromNeighbour, WarmStart
from ncf.io.image_files import read_image
from ncf.pair.neighbours import Neighbours
from ncf.phantom.chest import PhantomPair, write
from ncf.phantom.series import amplitudes, breathing_series
from ncf.report.views import DisplaySpace
from ncf.result.folder import saved_map
from ncf.series import run as running
from ncf.series.film import GAP, cuts_of, slices_of
from ncf.series.labels import label_on_phase, volumes_ml
from ncf.series.paths import fixed_points
from ncf.series.run import is_series, plan_of, run_series, saved_plan
from ncf.series.scans import SeriesScans, series_scans
from ncf.series.told import tell_series
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap
from ncf.space.sampling import through
from tests.conftest import LEVELS, NO_SEARCH, ROOT
from tests.dicom_files import write_dicom
from tests.fits import bytes_of, images_of, level, optimizer

PHASES = 4
RESULTS = ("displacement.nii.gz", "warped.nii.gz", "network.pt")


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


@pytest.fixture(scope="module")
def breath() -> list[PhantomPair]:
    """Three phases after exhale."""
    return list(breathing_series((24, 22, 26), phases=PHASES, seed=1, landmarks=30))


@pytest.fixture(scope="module")
def files(breath: Sequence[PhantomPair], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The paths of each phase."""
    folder = tmp_path_factory.mktemp("breath")
    paths = [write(pair, folder / f"t{number}") for number, pair in enumerate(breath, start=1)]
    fixed = {"fixed": paths[0]["fixed"], "fixed_label": paths[0]["fixed_label"]}
    named = ("moving", "moving_label", "landmarks")
    return [{"name": f"t{n}", **fixed, **{k: own[k] for k in named}} for n, own in enumerate(paths, start=1)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset of a few steps."""
    path = tmp_path_factory.mktemp("preset") / "small.json"
    path.write_text(json.dumps({"fit::levels": LEVELS, **NO_SEARCH}), encoding="utf-8")
    return path


Planned = Callable[..., Plan]


@pytest.fixture(scope="module")
def planned(small: Path) -> Planned:
    """``planned(pairs, output_dir, ...)``: a series without reports."""

    def plan(pairs: Sequence[Mapping[str, str]], output_dir: Path, **more: Any) -> Plan:
        rows = [dict(pair) for pair in pairs]
        scans = SeriesScans(rows, {row["name"]: None for row in rows}, {})
        configs = (str(ROOT / "configs" / "inference.json"), str(small))
        return plan_of(scans, configs, output_dir, overrides={"seed": 3, "device": "cpu", "report": False}, **more)

    return plan


@pytest.fixture(scope="module")
def done(files: list[dict[str, str]], planned: Planned, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A series that went well, with points."""
    folder = tmp_path_factory.mktemp("done")
    (folder / "points.csv").write_text("x,y,z\n0,20,10\n-40,0,0\n", encoding="utf-8")
    plan = planned(files, folder / "out", points=folder / "points.csv", space="ras")
    assert run_series(plan, progress=False)
    return plan


def results_of(plan: Plan, name: str) -> list[bytes]:
    return [(plan.output_dir / name / file).read_bytes() for file in RESULTS]


def test_a_breath_is_exact_goes_in_and_out_and_not_by_one_way(breath: Sequence[PhantomPair]) -> None:
    length = [float(np.linalg.norm(pair.field_vox, axis=0).mean()) for pair in breath]
    assert length[1] > 1.5 * length[0] and length[1] > 1.5 * length[2]
    assert abs(amplitudes(10)[2][0] - amplitudes(10)[6][0]) < 1e-9 and amplitudes(10)[2][1] < amplitudes(10)[6][1]
    for pair in breath:
        fixed, moving = np.hsplit(pair.landmarks, 2)
        at = torch.from_numpy(np.ascontiguousarray(fixed.T)).view(1, 3, -1, 1, 1)
        found, _ = through(torch.from_numpy(pair.field_vox)[None], at)
        assert np.abs(found.reshape(3, -1).T.numpy() - moving).max() < 0.2  # linear between voxels
        assert np.array_equal(pair.fixed, breath[0].fixed)
    noise = [pair.moving - pair.fixed for pair in breath]
    assert abs(np.corrcoef(noise[0][:3].ravel(), noise[2][:3].ravel())[0, 1]) < 0.9


def chain(share: float = 1.0, iterations: int = 8) -> FromNeighbour:
    fits = optimizer(level(iterations), seed=1)
    return FromNeighbour(ByContrast(fits, fits, modality="same"), share=share)


@pytest.fixture(scope="module")
def first(breath: Sequence[PhantomPair]) -> Fit:
    return chain(iterations=20)(images_of(breath[0]), NCF())


def test_a_fit_goes_on_where_its_neighbour_ended_with_fewer_steps(breath: Sequence[PhantomPair], first: Fit) -> None:
    images = images_of(breath[1])
    fresh = chain()(images, NCF())
    begun = chain(0.5)(replace(images, start=WarmStart.of(first, "t1")), NCF())
    assert fresh.start is None and begun.start is not None and begun.start.taken
    assert begun.start.neighbour == "t1" and begun.start.found < begun.start.nothing
    steps = [len(next(iter(fit.history[0].losses.values()))) for fit in (fresh, begun)]
    assert steps == [8, 4]
    losses = [sum(values[0] for values in fit.history[0].losses.values()) for fit in (fresh, begun)]
    assert losses[1] < losses[0]
    again = chain(0.5)(replace(images, start=WarmStart.of(first, "t1")), NCF())
    assert bytes_of(again) == bytes_of(begun)


def test_a_start_that_is_no_better_than_none_changes_nothing(breath: Sequence[PhantomPair], first: Fit) -> None:
    images = images_of(breath[1])
    fresh = chain()(images, NCF())
    start = WarmStart.of(first, "t1")
    assert start is not None
    far = np.eye(4)
    far[2, 3] = 120.0
    still = {name: kept._replace(step=0.0) for name, kept in start.weights.items()}
    for wrong in (replace(start, initial=far), replace(start, weights=still)):  # far off; and no motion at all
        found = chain()(replace(images, start=wrong), NCF())
        assert bytes_of(found) == bytes_of(fresh)
        assert found.start is not None and not found.start.taken and "left alone" in found.start.why
    assert WarmStart.of(replace(first, transform="rigid"), "t1") is None
    with pytest.raises(ValueError, match="share"):
        chain(0.0)


def test_the_order_follows_the_images_and_no_list(breath: Sequence[PhantomPair]) -> None:
    def order(numbers: Sequence[int]) -> list[str]:
        found = Neighbours(
            MetaTensor(torch.from_numpy(breath[0].fixed)[None], affine=torch.from_numpy(breath[0].affine))
        )
        for n in numbers:
            moving = torch.from_numpy(breath[n].moving)[None]
            found.add(f"t{n + 1}", MetaTensor(moving, affine=torch.from_numpy(breath[n].moving_affine)))
        assert found.ranked("t2", ["t1", "t3"])[0] == order_of_rest(found)
        return found.order()

    def order_of_rest(found: Neighbours) -> str:
        return max(("t1", "t3"), key=lambda other: found.alike("t2", other))

    assert order([0, 1, 2]) == order([2, 0, 1]) == order([1, 2, 0])
    assert order([0, 1, 2])[-1] == "t2"  # inhale, which is least like exhale


def test_a_series_tells_every_phase(done: Plan) -> None:
    with (done.output_dir / "series.tsv").open(encoding="utf-8") as file:
        rows = {row["phase"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert list(rows) == ["fixed", "t1", "t2", "t3"]
    begun = {name: row["begun_from"] for name, row in rows.items()}
    assert sum(not start for name, start in begun.items() if name != "fixed") == 1
    for name in ("t1", "t2", "t3"):
        metrics = load_json(done.output_dir / name / "metrics.json")
        assert float(rows[name]["tre_mm"]) == pytest.approx(metrics["tre_mm"]["after"]["mean"], rel=1e-4)
        assert float(rows[name]["dice"]) == pytest.approx(metrics["dice"]["after"]["mean"], rel=1e-4)
        start = load_json(done.output_dir / name / "run.json")["start_evidence"]
        assert (start or {}).get("neighbour", "") == begun[name]
        label = nib.load(done.output_dir / "labels" / f"{name}.nii.gz")
        told = volumes_ml(np.asarray(label.dataobj), label.affine, {})
        assert {n: float(rows[name][f"volume_ml:{n}"]) for n in told} == pytest.approx(told, rel=1e-4)


def test_points_are_followed_through_all_phases(done: Plan) -> None:
    with (done.output_dir / "paths.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["phase"] for row in rows] == [name for name in ("fixed", "t1", "t2", "t3") for _ in range(2)]
    start = np.array([[0.0, 20, 10], [-40, 0, 0]])
    for name in ("t1", "t2", "t3"):
        own = [row for row in rows if row["phase"] == name]
        at = np.array([[float(row[f"{axis}_ras_mm"]) for axis in "xyz"] for row in own])
        expected, known = saved_map(done.output_dir / name).to_moving(start)
        assert known.all() and all(row["known"] == "yes" for row in own)
        assert np.abs(at - expected).max() < 1e-3
        assert [float(row["moved_mm"]) for row in own] == pytest.approx(
            np.linalg.norm(expected - start, axis=1), abs=2e-3
        )


def test_points_are_taken_in_the_space_that_is_named(files: list[dict[str, str]], tmp_path: Path) -> None:
    fixed = files[0]["fixed"]
    affine = np.asarray(nib.load(fixed).affine)
    at = np.array([[3.0, 4.0, 5.5]])
    expected = at @ affine[:3, :3].T + affine[:3, 3]
    for space, values in (("voxel", at), ("ras", expected), ("lps", expected * (-1, -1, 1))):
        path = tmp_path / f"{space}.csv"
        path.write_text("x,y,z\n" + ",".join(f"{v:.6f}" for v in values[0]) + "\n", encoding="utf-8")
        found = fixed_points({"points": str(path), "space": space}, fixed)
        assert found is not None and np.abs(found - expected).max() < 1e-4, space
    assert fixed_points({"points": None, "space": None}, fixed) is None


def test_labels_of_the_fixed_scan_lie_right_on_a_phase(breath: Sequence[PhantomPair]) -> None:
    pair = breath[1]  # by the exact field; what is compared with comes by formula from the inverse motion
    mapping = SpatialMap(torch.from_numpy(pair.field_vox), Grid(pair.fixed.shape, pair.affine))
    label = MetaTensor(torch.from_numpy(pair.fixed_label)[None].float(), affine=torch.from_numpy(pair.affine))
    found = label_on_phase(mapping, label, Grid(pair.moving.shape, pair.moving_affine)).numpy()
    for number in np.unique(pair.fixed_label)[1:]:
        own, true = found == number, pair.moving_label == number
        assert 2 * (own & true).sum() / (own.sum() + true.sum()) > 0.85, number
        before = pair.fixed_label == number
        assert (own & true).sum() > (before & true).sum()
    nothing = MetaTensor(torch.zeros(1, *pair.fixed.shape), affine=torch.from_numpy(pair.affine))
    assert not label_on_phase(mapping, nothing, Grid(pair.moving.shape, pair.moving_affine)).any()


def test_no_result_depends_on_the_order_or_on_an_interruption(
    files: list[dict[str, str]], done: Plan, planned: Planned, tmp_path: Path
) -> None:
    plan = planned(files[::-1], tmp_path)
    shutil.copytree(done.output_dir / "t1", tmp_path / "t1")  # as if the run had ended after one
    assert run_series(plan, progress=False)
    for name in ("t1", "t2", "t3"):
        assert results_of(plan, name) == results_of(done, name)
    stamps = [(tmp_path / name / "metrics.json").stat().st_mtime_ns for name in ("t1", "t2", "t3")]
    assert run_series(plan, progress=False)
    assert stamps == [(tmp_path / name / "metrics.json").stat().st_mtime_ns for name in ("t1", "t2", "t3")]


def test_a_series_that_is_done_gets_bounds_when_they_are_asked_for(
    done: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bound(folder: Path, *, progress: bool) -> Trust:
        if folder.name == "t2":
            raise PairError("t2: no fits")
        numbers = {"median_mm": 2.5, "p95_mm": 4.0, "large_share": 0.0}
        told = {"everywhere": numbers, "structures": {}}
        save_json(folder / "trust.json", told)
        (folder / "trust.nii.gz").write_bytes(b"bounds")
        return Trust(np.ones((2, 2, 2, 2), np.float32), (), told)

    monkeypatch.setattr("ncf.api.trust.trust", bound)
    shutil.copytree(done.output_dir, tmp_path / "out")
    plan = replace(done, output_dir=tmp_path / "out", overrides={**done.overrides, "trust": True})
    assert not run_series(plan, progress=False)
    out = capsys.readouterr().out
    assert out.count("no bounds: ") == 1 and "t2 is complete, but its error could not be bounded: t2: no fits" in out
    assert out.count("error bound 2.5 mm (95 %, in half of the body)") == 2 and "3 of 3 phases done" in out
    with (plan.output_dir / "series.tsv").open(encoding="utf-8") as file:
        rows = {row["phase"]: (row["bound_mm"], row["bound_p95_mm"]) for row in csv.DictReader(file, delimiter="\t")}
    assert rows == {"fixed": ("", ""), "t1": ("2.5", "4"), "t2": ("", ""), "t3": ("2.5", "4")}
    for name in ("t1", "t2", "t3"):
        assert results_of(plan, name) == results_of(done, name)


def test_a_doubtful_phase_lends_its_network_to_none(
    files: list[dict[str, str]], planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, str | None] = {}

    def pretended(plan: Plan, pair: Mapping[str, str], neighbour: str | None) -> Outcome:
        asked[pair["name"]] = neighbour
        folder = plan.output_dir / pair["name"]
        folder.mkdir(parents=True)
        word = "doubtful" if len(asked) == 1 else "good"
        verdict = {"verdict": {"word": word, "reasons": ["x"]}}
        (folder / "metrics.json").write_text(json.dumps(verdict), encoding="utf-8")
        return Outcome(pair["name"])

    monkeypatch.setattr(running, "_register", pretended)
    plan = planned(files, tmp_path)
    running._registered(plan, plan.pairs, progress=False)
    first, second, third = asked
    assert (asked[first], asked[second], asked[third]) == (None, None, second)


def test_a_phase_that_cannot_be_read_stops_no_other(
    files: list[dict[str, str]], planned: Planned, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.nii.gz").write_text("no scan", encoding="utf-8")
    fixed = files[0]["fixed"]
    rows = [{**files[0]}, {"name": "bad", "fixed": fixed, "moving": str(tmp_path / "bad.nii.gz")}]
    assert not run_series(planned(rows, tmp_path / "out"), progress=False)
    said = capsys.readouterr().out
    assert "failed: bad: phase: cannot read" in said and "1 of 2 phases done" in said
    assert "it is no NIfTI file, although its name says so" in said
    assert "\nbad\t\t\t\tfailed\t" in (tmp_path / "out" / "series.tsv").read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "out" / "t1")  # as if the run had ended before it
    assert not run_series(planned(rows, tmp_path / "out"), progress=False)
    assert "1 of 2 phases done" in capsys.readouterr().out
    named = series_scans([Path(fixed), Path(files[1]["moving"]), tmp_path / "bad.nii.gz"])  # on the command line
    assert [pair["moving"] for pair in named.pairs] == [files[1]["moving"], str(tmp_path / "bad.nii.gz")]
    lost = [{**files[0], "moving": str(tmp_path / "lost.nii.gz")}]
    with pytest.raises(PairError, match=r"lost\.nii\.gz"):
        run_series(planned(lost, tmp_path / "never"), progress=False)
    assert not (tmp_path / "never").exists()


def test_the_report_shows_a_film_and_curves_and_is_made_from_the_folder(done: Plan) -> None:
    assert is_series(done.output_dir) and not is_series(done.output_dir / "t1")
    table = (done.output_dir / "series.tsv").read_bytes()
    assert len(tell_series(saved_plan(done.output_dir))) == 3
    assert (done.output_dir / "series.tsv").read_bytes() == table
    page = (done.output_dir / "report.html").read_text(encoding="utf-8")
    assert page.count("<figure>") == 4 and "http" not in page.replace("http-equiv", "")
    made = page[page.index("How it was made") :]
    paths = {pair[key] for pair in done.pairs for key in ("fixed", "moving", "fixed_label")}
    assert all(f"<code>{path}</code>" in made for path in paths)
    assert command_line() in re.sub("<.*?>", "", html.unescape(made)) and "<code>small.json</code>" in made
    assert "&#34;" not in made and "bundle_version" not in made
    assert ">label 1</th>" in page and "mean displacement mm" in page
    assert all(f"<td>{word}</td>" in page for word in ("afresh", "good", "t1"))
    with Image.open(done.output_dir / "film.gif") as film:
        assert film.n_frames == 4
    with Image.open(done.output_dir / "curves.png") as drawn:
        assert drawn.size == (1050, 620)  # four panels: motion, points, landmarks, volumes


def test_both_slices_of_the_film_have_one_scale_and_their_letters() -> None:
    """A shining slab lies at the same height in both, though one is three times as wide as it is high."""
    image = torch.zeros(1, 60, 40, 20)
    image[..., 12:14] = 1.0
    grid = Grid((60, 40, 20), np.eye(4))
    space = DisplaySpace(grid)
    cuts = cuts_of(space, np.ones(grid.shape))
    row = slices_of(cuts, space, image, np.eye(4), window=(0.0, 1.0), label=None)
    assert row.shape == (87, 260 + GAP + 173, 3)  # 260 pixels for 60 mm
    left, right = (np.flatnonzero(row[:, at, 0] > 127) for at in (60, 300))
    assert left.tolist() == right.tolist() and 8 <= len(left) <= 10
    assert all(row[43 - 6 : 43 + 6, at].max() > 150 for at in (slice(2, 11), slice(249, 258)))  # R and L


def test_the_same_from_python(done: Plan, files: list[dict[str, str]], small: Path) -> None:
    images = [nib.load(pair["moving"]) for pair in files]
    phases = {pair["name"]: image for pair, image in zip(files[::-1], images[::-1], strict=True)}
    given = {"preset": str(small), "seed": 3, "device": "cpu"}
    found = dict(register_series(nib.load(files[0]["fixed"]), phases, **given))
    for name, result in found.items():
        expected = saved_map(done.output_dir / name)
        assert torch.allclose(result.field.as_tensor(), expected.field, atol=1e-5), name
    for wrong, why in (({}, "needs phases"), ({"landmarks": {"t9": np.zeros((1, 6))}}, "no phase 't9'")):
        with pytest.raises(PairError, match=why):
            register_series(images[0], phases if wrong else {}, **wrong)
    with pytest.raises(TypeError):
        register_series(images[0], phases, steps=3)


@pytest.fixture(scope="module")
def movie(breath: Sequence[PhantomPair], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exhale and three phases in one file, 0.5 s apart."""
    frames = np.stack([np.rint(breath[0].fixed), *(np.rint(pair.moving) for pair in breath)], axis=-1)
    image = nib.Nifti1Image(frames.astype(np.int16), breath[0].affine)
    image.header.set_xyzt_units("mm", "msec")
    image.header["pixdim"][4] = 500.0
    path = tmp_path_factory.mktemp("movie") / "breath.nii.gz"
    nib.save(image, path)
    return path


def test_a_4d_file_is_a_series(movie: Path, breath: Sequence[PhantomPair], files: list[dict[str, str]]) -> None:
    found = series_scans([movie])
    assert [pair["name"] for pair in found.pairs] == ["breath_2", "breath_3", "breath_4"]
    assert list(found.times_s.values()) == [0.5, 1.0, 1.5]
    assert found.pairs[0]["fixed"] == f"{movie}#1"
    for number, pair in enumerate(found.pairs):
        one = read_image("moving", pair["moving"])
        assert np.array_equal(one.numpy()[0], np.rint(breath[number].moving)), number
        assert np.allclose(one.affine, read_image("moving", files[number]["moving"]).affine)
    other = series_scans([movie], reference=3)
    assert other.pairs[0]["fixed"] == f"{movie}#3" and len(other.pairs) == 3
    beside = series_scans([Path(files[0]["fixed"]), movie])
    assert [pair["name"] for pair in beside.pairs] == ["breath_1", "breath_2", "breath_3", "breath_4"]
    for path, why in (
        (f"{movie}#5", "has no volume 5; it holds 4"),
        (str(movie), "expected one 3D volume; choose one, such as"),
    ):
        with pytest.raises(PairError, match=why):
            read_image("moving", path)
    with pytest.raises(PairError, match="chooses none"):
        read_image("moving", f"{_as_nrrd(movie)}#1")


def _as_nrrd(movie: Path) -> Path:
    path = movie.parent / "one.nrrd"
    path.write_text("NRRD0004\n", encoding="utf-8")
    return path


def test_a_dicom_folder_is_a_series(breath: Sequence[PhantomPair], tmp_path: Path) -> None:
    for number, pair in enumerate(breath, start=1):

        def phase(data: Any, k: int, number: int = number) -> None:
            data.SeriesNumber, data.SeriesDescription = number, f"Gated {number}0%"

        (tmp_path / "scan").mkdir(exist_ok=True)
        write_dicom(tmp_path / "scan" / f"{number}", np.rint(pair.moving).astype(np.int16), pair.affine, changed=phase)
    write_dicom(tmp_path / "scan" / "scout", np.zeros((9, 8, 3), np.int16), breath[0].affine)
    found = series_scans([tmp_path / "scan"], reference=_number_of(tmp_path / "scan", "Gated 20%"))
    assert sorted(found.told.values()) == ["Gated 10%", "Gated 30%"]
    assert all(time is None for time in found.times_s.values())  # a gated CT is sorted by phase, not by the clock
    assert all(pair["fixed"].startswith(str(tmp_path / "scan#")) for pair in found.pairs)


def _number_of(folder: Path, description: str) -> int:
    from ncf.io.dicom.listing import listing

    return next(v["number"] for v in listing(folder)["volumes"] if v["description"] == description)


def test_scans_of_one_name_are_told_apart_by_their_folders(files: list[dict[str, str]]) -> None:
    found = series_scans([Path(files[0]["fixed"]), *(Path(pair["moving"]) for pair in files)])
    assert [pair["name"] for pair in found.pairs] == ["t1_moving", "t2_moving", "t3_moving"]


def refused(*arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["series", *arguments])
    return str(stop.value)


def test_what_is_no_series_is_refused(files: list[dict[str, str]], movie: Path, tmp_path: Path) -> None:
    fixed, out = files[0]["fixed"], f"--output_dir={tmp_path / 'out'}"
    listed = tmp_path / "list.json"
    rows = [dict(files[0]), {**files[1], "fixed": files[2]["moving"]}]
    listed.write_text(json.dumps({"pairs": rows}), encoding="utf-8")
    (tmp_path / "points.csv").write_text("x,y,z\n", encoding="utf-8")
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(Path(fixed).read_bytes()[:-2000])
    points = (f"--points={tmp_path / 'points.csv'}", "--space=ras")
    for arguments, why in (
        ((out,), "series needs FIXED and PHASE"),
        ((fixed, out), "is one volume; a series needs phases"),
        ((fixed, str(tmp_path / "no.nii.gz"), out), "phase: cannot open"),
        ((str(damaged), fixed, out), "fixed: cannot read"),
        ((fixed, fixed, out), "is one volume; a series needs phases"),
        ((fixed, files[1]["moving"], "--reference=2", out), "--reference chooses among several volumes"),
        ((str(movie), "--reference=7", out), "has no volume 7 that can be read; there are 1, 2, 3, 4"),
        ((str(listed), out), "a series has one fixed scan"),
        ((str(listed), "--reference=1", out), "is a list and names the fixed scan"),
        ((str(movie), out, points[0]), "does not say what its numbers mean"),
        ((str(movie), out, *points), "points"),
    ):
        assert why in refused(*arguments), arguments
        assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_phases_that_begin_with_a_neighbour_are_as_good_and_take_less(tmp_path: Path) -> None:
    """Six phases by formula, each alone and as a series; docs/decisions/0028-series.md has ten."""
    from time import process_time

    from ncf.core.presets import config_files
    from ncf.run.session import Session

    rows = []
    for number, pair in enumerate(breathing_series((72, 62, 66), phases=6, landmarks=100), start=1):
        own = write(pair, tmp_path / "scans" / f"t{number}")
        fixed = str(tmp_path / "scans" / "t1" / "fixed.nii.gz")
        rows.append({"name": f"t{number}", "fixed": fixed, "moving": own["moving"], "landmarks": own["landmarks"]})
    settings = {"seed": 0, "device": "cpu", "report": False}
    scans = SeriesScans(rows, {row["name"]: None for row in rows}, {})
    plan = plan_of(scans, config_files("fast"), tmp_path / "series", overrides=settings)
    seconds: dict[str, list[float]] = {row["name"]: [] for row in rows}
    alone = Session(config_files("fast"), {**settings, "output_dir": tmp_path / "alone", "progress": False})
    original = running._register

    def timed(plan: Plan, pair: Mapping[str, str], neighbour: str | None) -> Any:
        at = process_time()
        outcome = original(plan, pair, neighbour)
        between = process_time()
        alone.register_files(dict(pair))  # type: ignore[arg-type]
        seconds[pair["name"]] += [between - at, process_time() - between]
        return outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_register", timed)
        assert run_series(plan, progress=False)
    begun = [row["name"] for row in rows if load_json(plan.output_dir / row["name"] / "run.json")["start_evidence"]]
    assert begun == [row["name"] for row in rows[1:]]  # all but the fixed scan's own neighbour, which is first
    errors = np.array(
        [
            [load_json(folder / name / "metrics.json")["tre_mm"]["after"]["mean"] for name in begun]
            for folder in (plan.output_dir, tmp_path / "alone")
        ]
    ).mean(axis=1)
    assert errors[0] <= 1.1 * errors[1], errors
    took = np.array([seconds[name] for name in begun]).sum(axis=0)
    assert took[0] <= 0.6 * took[1], took
