"""Reports from saved files: true to orientation and place, the same bytes, plain words for warnings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from nibabel.affines import apply_affine

from ncf.commands.report import report
from ncf.core.files import save_json
from ncf.io.nifti import load_itk_field, save_itk_field
from ncf.report import paint
from ncf.report.findings import findings_of
from ncf.report.make import make_report
from ncf.report.material import Material, gathered
from ncf.report.saved_findings import saved_warnings
from ncf.report.slices import sliced
from ncf.report.views import VIEWS, DisplaySpace, cut_of
from ncf.result.folder import SavedResult
from ncf.space.grids import Grid
from tests.grids import SHAPE, each_affine
from tests.refusing import refused

Run = Callable[..., ConfigWorkflow]
MM = 1e-3  # float32 positions of some hundred mm
PICTURES = {"views", "difference", "checkerboard", "grid", "jacobian", "contours", "landmarks", "losses"}


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


@pytest.fixture(scope="module")
def done(run: Run, pair: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished registration of the chest without a report."""
    state = run(tmp_path_factory.mktemp("done"), pair, name="chest").evaluator.state
    return Path(state.output["result_dir"])


@pytest.fixture(scope="module")
def material(done: Path) -> Material:
    return gathered(SavedResult(done))


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return shutil.copytree(done, tmp_path / "chest")


def change(path: Path, **entries: Any) -> None:
    """Entries of a JSON file, named by their path with double underscores, get other values."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for name, value in entries.items():
        *parents, last = name.split("__")
        inner = content
        for key in parents:
            inner = inner[key]
        inner[last] = value
    save_json(path, content)


# --- space -----------------------------------------------------------------------------------------------------------


@each_affine
def test_a_view_is_seen_as_a_radiologist_expects(affine: np.ndarray) -> None:
    space = DisplaySpace(Grid(SHAPE, affine))
    places = np.moveaxis(apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1)), -1, 0)  # RAS mm of each voxel
    right, front, up = (space.turned(volume) for volume in places)
    assert nib.aff2axcodes(space.affine) == ("L", "P", "I") and right.shape == space.shape
    # rows run down, columns to the right of the screen: which world coordinate falls along each
    falls = {"axial": (front, right), "coronal": (up, right), "sagittal": (up, front)}
    for view in VIEWS:
        cut = cut_of(view, space.shape)
        down, across = (cut.take(volume) for volume in falls[view.name])
        assert (np.diff(down.mean(axis=(0, 2))) < 0).all() and (np.diff(across.mean(axis=(0, 1))) < 0).all()
        assert cut.shape == down.shape


@each_affine
def test_every_pixel_is_where_it_says(affine: np.ndarray) -> None:
    space = DisplaySpace(Grid(SHAPE, affine))
    places = np.moveaxis(apply_affine(affine, np.moveaxis(np.indices(SHAPE), 0, -1)), -1, 0)
    for view in VIEWS:
        cut = cut_of(view, space.shape, slices=4, side=4)
        shown = np.stack([cut.take(space.turned(volume)) for volume in places])
        assert max(cut.shape) <= 4
        np.testing.assert_allclose(cut.positions(space.affine)[0].numpy(), shown, atol=MM)
        np.testing.assert_allclose(
            apply_affine(space.affine, np.moveaxis(cut.points(), 0, -1)), np.moveaxis(shown, 0, -1)
        )


def test_before_and_grid_follow_the_headers_and_the_field(copy: Path) -> None:
    field, affine = load_itk_field(copy / "displacement.nii.gz")
    moved = np.zeros_like(field)
    ahead_mm = np.array([6.0, 0.0, 0.0])  # to the patient's right, RAS
    moved += (np.linalg.inv(affine[:3, :3]) @ ahead_mm).astype(np.float32).reshape(3, 1, 1, 1)
    save_itk_field(copy / "displacement.nii.gz", moved, affine)
    material = gathered(SavedResult(copy))
    for view in sliced(material):
        expected = {
            "axial": -6.0 / view.sizes_mm[0],
            "coronal": -6.0 / view.sizes_mm[0],
            "sagittal": 0.0,
        }  # right is left
        np.testing.assert_allclose(view.mesh[:, 0], expected[view.cut.view.name], atol=MM)
        np.testing.assert_allclose(view.mesh[:, 1], 0, atol=MM)
        assert (view.stacks["volume"] == round(paint.GREY_MAX / 2)).all()  # a shift changes no volume
    assert material.motion.largest_mm == pytest.approx(6, abs=MM) == material.motion.mean_mm
    # both scans of the chest share a grid, so "before" is the moving file itself
    cut = cut_of(VIEWS[1], material.space.shape)
    moving = nib.load(material.result.inputs["moving"]).get_fdata()  # type: ignore[attr-defined]
    np.testing.assert_allclose(material.before(cut)["before"], cut.take(material.space.turned(moving)), atol=0.1)  # HU


# --- pixels ----------------------------------------------------------------------------------------------------------


def test_equal_is_white_and_folds_stand_out() -> None:
    same = np.full((4, 6), 90, dtype=np.uint8)
    everywhere = np.ones_like(same, dtype=bool)
    assert (paint.difference(same, same, ~everywhere) == paint.DIFFERENCE_SCALE[1]).all()
    assert (paint.difference(same, same, everywhere) == paint.NO_DATA).all()
    brighter = paint.difference(same, same + 100, ~everywhere)[0, 0].astype(int)
    assert brighter[0] > brighter[2] + 50  # red
    det = np.array([[1.0, 2.0, 0.5, -0.2, 0.0]])
    assert paint.volume_grey(det).tolist() == [[128, 255, 0, 0, 0]]
    folds = (det <= 0).astype(np.uint8)
    painted = paint.volume_map(paint.volume_grey(det), folds, np.zeros_like(folds))
    assert (painted[0, 3:] == paint.FOLD).all() and not (painted[0, :3] == paint.FOLD).all(axis=-1).any()


def test_a_checkerboard_is_half_of_each_and_outlines_have_the_length_of_the_border() -> None:
    board = paint.checkerboard(np.zeros((64, 64)), np.ones((64, 64)), (1.0, 1.0))
    assert board.mean() == 0.5 and board[0, 0] == 0 == board[9, 9] and board[0, 9] == 1
    labels = np.zeros((9, 11), dtype=np.uint8)
    labels[2:5, 3:9] = 7
    lines = paint.outlines(labels)
    assert np.linalg.norm(lines[:, 0] - lines[:, 1], axis=1).sum() == 2 * (3 + 6)
    assert lines.reshape(-1, 2).min(axis=0).tolist() == [3, 2] and lines.reshape(-1, 2).max(axis=0).tolist() == [9, 5]


# --- findings --------------------------------------------------------------------------------------------------------

GOOD = {
    "similarity": {"before": {"mse": 9.0, "ncc": 0.8}, "after": {"mse": 1.0, "ncc": 0.99}},
    "folding_fraction": {"all": 0.0, "in_label": 0.0},
    "attempts": 1,
    "tre_mm": {
        when: {"mean": m, "median": m, "p95": m, "max": m, "count": 5} for when, m in (("before", 9.0), ("after", 1.0))
    },
    "dice": {"before": {"mean": 0.8, "labels": {"1": 0.8}}, "after": {"mean": 0.95, "labels": {"1": 0.95}}},
}
FALLING = [{"level": 1, "shape": [2, 2, 2], "losses": {"ssim": list(np.linspace(1, 0, 40))}}]
RESTING = [{"level": 1, "shape": [2, 2, 2], "losses": {"ssim": [1.0, *[0.0] * 39]}}]


@pytest.mark.parametrize(
    ("metrics", "level", "telling"),
    [
        (
            {"folding_fraction__all": 0.01},
            "warning",
            "The map folds: in 137 voxels (1 % of all, 0 % of the fixed label)",
        ),
        ({"folding_fraction__all": 1e-4, "folding_fraction__in_label": None}, "note", "The map folds: in 1 voxels"),
        ({"similarity__after__ncc": 0.7}, "warning", "less alike than before: correlation 0.800 before, 0.700 after"),
        ({"similarity__after__ncc": 0.6, "similarity__before__ncc": 0.5}, "warning", "A large difference is left"),
        ({"similarity__after__ncc": None}, "warning", "cannot be computed"),
        ({"tre_mm__after__mean": 10.0}, "warning", "further apart than before: 9.00 mm, now 10.00 mm"),
        ({"tre_mm__after__p95": 99.0}, "warning", "5 % of the points miss by more than 99.0 mm"),
        ({"tre_mm__after__max": 200.0}, "warning", "misses by 200.0 mm, more than 10 voxels"),
        (
            {"dice__after__mean": 0.0, "dice__after__labels": {"1": 0.0, "2": 0.0}, "dice__before__labels": {}},
            "warning",
            "do both maps call the same organs by the same numbers",
        ),
        ({"dice__after__mean": 0.4}, "warning", "Labels overlap poorly after registration: mean Dice 0.40"),
        ({"dice__after__labels": {"1": 0.7}}, "note", "Label 1 (0.80 to 0.70) fits worse than before"),
        ({"dice__after": {"mean": 0.7, "labels": {"1": 0.7}}}, "warning", "Label 1 (0.80 to 0.70) fits worse"),
        ({"attempts": 2}, "note", "The fit diverged at first; this is attempt 2"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_to_warn_of_is_said(
    copy: Path, material: Material, metrics: dict[str, Any], level: str, telling: str
) -> None:
    change(copy / "metrics.json", **GOOD)
    change(copy / "run.json", losses=RESTING)
    quiet = {finding.text for finding in findings_of(replace(material, result=SavedResult(copy)))}
    change(copy / "metrics.json", **metrics)
    said = [c for c in findings_of(replace(material, result=SavedResult(copy))) if c.text not in quiet]
    assert [finding.level for finding in said if telling in finding.text] == [level], said


BOUNDS = {
    "everywhere": {"median_mm": 2.0, "p95_mm": 9.0, "large_share": 0.3},
    "body": {"median_mm": 2.0, "p95_mm": 9.0, "large_share": 0.04},
    "structures": {
        "1": {"median_mm": 1.0, "p95_mm": 2.0, "large_share": 0.0},
        "2": {"median_mm": None, "p95_mm": None, "large_share": None},
        "3": {"median_mm": 4.0, "p95_mm": 9.0, "large_share": 0.4},
    },
    "largest": {"bound_mm": 14.24, "at_mm": [-33.1, -20.0, 100.2]},
}


@pytest.mark.parametrize(
    ("bounds", "telling"),
    [
        (
            {},
            "is above 5 mm in 40 % of label 3. The largest one, 14.2 mm, is at L 33.1, P 20.0, S 100.2 mm. The picture",
        ),
        ({"body": {"large_share": 0.33}, "structures": {}}, "is above 5 mm in 33 % of the body. The largest one"),
        ({"body": {"large_share": 0.33}, "largest": None}, "in 33 % of the body, 40 % of label 3. The picture"),
        (
            {"structures": {str(n): {"large_share": 0.2 + n / 100} for n in range(7)}},
            "24 % of label 4, 23 % of label 3, ",
        ),
        ({"structures": {}}, None),
        (None, None),
    ],
)
def test_large_bounds_of_the_error_are_said(
    copy: Path, material: Material, bounds: dict[str, Any] | None, telling: str | None
) -> None:
    if bounds is not None:
        (copy / "trust.json").write_text(json.dumps({**BOUNDS, **bounds}), encoding="utf-8")
    found = findings_of(replace(material, result=SavedResult(copy)))
    said = [finding for finding in found if "error of the map" in finding.text]
    assert len(said) == (telling is not None)
    if telling is not None:
        assert said[0].level == "warning" and telling in said[0].text
    if bounds is not None and len(bounds.get("structures", ())) > 5:
        assert "and" not in said[0].text.partition("24 %")[0] and "much of 2 more labels." in said[0].text


def test_bounds_of_an_older_version_are_those_of_the_scan(copy: Path, material: Material) -> None:
    old = {key: value for key, value in BOUNDS.items() if key in ("everywhere", "structures")}
    (copy / "trust.json").write_text(json.dumps(old), encoding="utf-8")
    said = [f.text for f in findings_of(replace(material, result=SavedResult(copy))) if "error of the map" in f.text]
    assert len(said) == 1 and "in 30 % of the scan, 40 % of label 3. The picture" in said[0]


def test_what_the_verdict_says_is_not_said_twice(copy: Path, material: Material) -> None:
    reason = "landmarks are further apart than before (9.0 mm before, 10.0 mm after)"
    verdict = {"word": "doubtful", "reasons": [reason], "evidence": {}}
    change(copy / "metrics.json", **GOOD)
    change(copy / "metrics.json", tre_mm__after__mean=10.0, verdict=verdict)
    contrast = {"chosen": "different", "moved": False, "earned": 0.2, "by_edges": True}
    change(copy / "run.json", losses=[], contrast=contrast)  # the verdict's reasons tell such a refusal
    said = [finding.text for finding in findings_of(replace(material, result=SavedResult(copy)))]
    assert sum("further apart" in text for text in said) == 1 and not any("No motion" in text for text in said)


def test_of_free_contrasts_only_what_they_share_is_warned_of(copy: Path, material: Material) -> None:
    def said() -> dict[str, str]:
        return {finding.text: finding.level for finding in findings_of(replace(material, result=SavedResult(copy)))}

    shared = {"before": {"mse": 1.0, "ncc": 0.8, "nmi": 1.1}, "after": {"mse": 2.0, "ncc": 0.1, "nmi": 1.3}}
    change(copy / "metrics.json", **{**GOOD, "similarity": shared})
    change(copy / "run.json", losses=RESTING, contrast=None)
    assert any("less alike than before" in text for text in said())
    change(copy / "run.json", losses=[{**RESTING[0], "losses": {"local_correlation": RESTING[0]["losses"]["ssim"]}}])
    assert not any("alike" in text or "large difference" in text.lower() for text in said())
    change(
        copy / "run.json", losses=[], contrast={"chosen": "different", "moved": False, "earned": 0.04}
    )  # no motion was taken, so there are no losses
    assert any("removes 4 % of the loss" in text for text in said())
    assert not any("alike" in text or "large difference" in text.lower() for text in said())
    assert {level for text, level in said().items() if "left the contrasts free" in text} == {"note"}
    change(copy / "metrics.json", similarity__after__nmi=1.05)
    worse = "The scans have less in common than before: normalised mutual information 1.100 before, 1.050 after."
    assert said()[worse] == "warning"


def test_a_fit_that_was_cut_short_and_a_far_start_are_told(copy: Path, material: Material) -> None:
    def texts() -> list[str]:
        return [finding.text for finding in findings_of(replace(material, result=SavedResult(copy)))]

    change(copy / "metrics.json", **GOOD)
    for losses, expected in ((FALLING, True), (RESTING, False)):
        change(copy / "run.json", losses=losses)
        assert any("iteration limit was hit while the loss was still falling" in text for text in texts()) == expected
    start = np.eye(4)
    start[:3, 3] = 3.0, 4.0, 0.0
    change(copy / "run.json", initial_transform=start.tolist())
    assert any("shift 5.0 mm, turn 0.0 degrees, size 100 %" in text for text in texts())


def test_folds_and_a_cut_field_of_view_are_found_in_the_field(copy: Path) -> None:
    field, affine = load_itk_field(copy / "displacement.nii.gz")
    away = np.zeros_like(field)
    away[1] = field.shape[2] / 2  # half of the grid reads beyond the scan
    save_itk_field(copy / "displacement.nii.gz", away, affine)
    material = gathered(SavedResult(copy))
    for view in sliced(material):
        shares = [
            np.mean([view.nothing(when, n).mean() for n in range(view.cut.shape[0])]) for when in ("before", "after")
        ]
        assert shares == [0, pytest.approx(0.5, abs=0.05)]
    assert material.motion.outside == pytest.approx(0.5, abs=0.05)
    assert any(c.level == "warning" and "field of view is cut" in c.text for c in findings_of(material))
    folded = np.zeros_like(field)
    folded[0, 12, 11, 13] = -4.0  # its neighbour on one side is overtaken
    save_itk_field(copy / "displacement.nii.gz", folded, affine)
    for view in sliced(gathered(SavedResult(copy))):
        marked = np.argwhere(view.stacks["folds"])
        assert 1 <= len(marked) <= 3 and view.worst is not None and view.stacks["folds"][view.worst].any()


# --- files -----------------------------------------------------------------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_files_give_the_same_bytes_and_nothing_else_is_touched(
    copy: Path, capsys: pytest.CaptureFixture
) -> None:
    before = files(copy)
    page = make_report(copy)
    first = files(copy)
    assert page == copy / "report.html" and set(first) - set(before) == {
        "report.html",
        *(f"pictures/{p}.png" for p in PICTURES),
    }
    assert {name: first[name] for name in before} == before
    (copy / "pictures" / "of_an_older_version.png").write_bytes(b"")
    report(str(copy)).start()
    assert files(copy) == first and f"report      {page}" in capsys.readouterr().out


def test_what_is_serious_is_printed_and_kept_beside_the_page(copy: Path, capsys: pytest.CaptureFixture) -> None:
    before = saved_warnings(copy)
    assert all("field of view is cut" in text for text in before)  # 5.4 % after these few steps
    change(copy / "metrics.json", similarity__after__ncc=0.1)
    report(str(copy)).start()
    said = saved_warnings(copy)
    assert "less alike than before" in said[0] and said[1:] == before
    out = capsys.readouterr().out
    assert all(f"  warning     {text}" in out for text in said)


def test_a_field_of_another_program_has_no_report_and_says_so(copy: Path) -> None:
    change(copy / "run.json", imported={"path": "theirs.nii.gz"})
    with pytest.raises(SystemExit, match=r"^error: .* is a field of another program.*ncf evaluate judges"):
        report(str(copy)).start()


def test_names_cannot_put_anything_into_the_page(copy: Path, tmp_path: Path) -> None:
    odd = copy.rename(tmp_path / "<img src=x onerror=alert(1)>")
    inputs = SavedResult(odd).inputs
    strange = tmp_path / "<script>alert(2)<!script>.nii.gz"
    shutil.copyfile(inputs["fixed"], strange)
    change(odd / "run.json", command="ncf </pre><script>alert(3)</script>", config__seed="</script><b>")
    text = make_report(odd, {"fixed": strange}).read_text(encoding="utf-8")
    assert "&lt;img src=x" in text and "&lt;script&gt;alert(2)" in text and "&lt;/pre&gt;" in text
    assert text.count("<script") == 3 == text.count("</script>") and "<img src=x" not in text


def test_scans_that_have_moved_are_named(copy: Path, tmp_path: Path) -> None:
    inputs = {key: str(path) for key, path in SavedResult(copy).inputs.items()}
    for key in ("fixed", "fixed_label"):
        change(copy / "run.json", **{f"inputs__{key}__path": str(tmp_path / f"gone_{key}.nii.gz")})
    with pytest.raises(
        SystemExit, match=r"^error: .*the fixed scan .*gone_fixed.nii.gz is not there any more; name it with"
    ):
        report(str(copy)).start()
    assert not (copy / "report.html").exists()
    report(str(copy), fixed=inputs["fixed"]).start()
    text = (copy / "report.html").read_text(encoding="utf-8")
    assert "The file of fixed_label is not there any more" in text and "has changed" not in text
    report(str(copy), fixed=inputs["fixed"], fixed_label=inputs["moving_label"]).start()
    assert "The file of fixed_label is not what was registered" in (copy / "report.html").read_text(encoding="utf-8")


def test_mistakes_are_one_line(copy: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.float32), np.eye(4)), small)
    several = tmp_path / "several"
    shutil.copytree(copy, several / "one")
    calls = {
        "cannot read .*gone: No such file": lambda: report(str(tmp_path / "gone")),
        "holds no results of ours": lambda: report(str(tmp_path / "chest" / "nothing")).start(),
        "--fixed: there is no": lambda: report(str(copy), fixed="gone.nii.gz"),
        "--fixed is for a single result": lambda: report(str(several), fixed=str(small)).start(),
        r"has shape \(5, 6, 7\), the registered one had": lambda: report(str(copy), moving=str(small)).start(),
    }
    (copy / "nothing").mkdir()
    for telling, call in calls.items():
        with pytest.raises(SystemExit, match=f"^error: .*{telling}") as stop:
            call()
        assert "\n" not in str(stop.value.code)
    (copy / "metrics.json").unlink()
    refused("holds no complete result", make_report, copy)


# --- beside a registration -------------------------------------------------------------------------------------------


def test_a_run_makes_its_reports_unless_told_not_to(
    run: Run, pair: Mapping[str, str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run(tmp_path, pair, name="with", report=True)
    run(tmp_path, pair, name="without", report=False)
    made = files(tmp_path / "with")
    assert files(tmp_path / "without")["findings.json"] == made["findings.json"]  # warnings are no matter of taste
    assert "report.html" in made and "report.html" not in files(tmp_path / "without")
    assert f"report      {tmp_path / 'with' / 'report.html'}" in capsys.readouterr().out
    make_report(tmp_path / "with")
    assert files(tmp_path / "with") == made  # the saved files tell all
    told = json.loads(made["run.json"])["command"].split()
    assert told and "/" not in told[0]
    run(tmp_path, pair, name="with", report=False)  # what the old report showed is gone
    assert not [name for name in files(tmp_path / "with") if name.endswith((".html", ".png"))]


def test_a_report_that_fails_costs_no_registration(
    run: Run, pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("no ink")

    monkeypatch.setattr("ncf.report.make.make_report", fails)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, pair, name="chest", report=True)
    assert str(stop.value.code).startswith("error: ") and "ValueError: no ink" in str(stop.value.code)
    assert str(tmp_path / "chest") in str(stop.value.code) and "\n" not in str(stop.value.code)
    assert (tmp_path / "chest" / "metrics.json").exists()
