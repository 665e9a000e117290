"""The page of task group 132: spheres by formula, analytic fields, plastimatch, a registration and its command."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from ncf.api.tg132 import tg132
from ncf.commands import main
from ncf.core.errors import PairError
from ncf.core.labels import Labels
from ncf.evaluate.label_overlap import overlap
from ncf.evaluate.structures import Measurable, Scan, determinants, measured_structures
from ncf.evaluate.surfaces import surface_distances
from ncf.evaluate.tg132 import (
    CONSISTENCY,
    DICE_ROW,
    FAIL,
    MDA,
    NO_BACK,
    NOT_MEASURED,
    PASS,
    Limits,
    judged_by_tg132,
)
from ncf.evaluate.tg132_text import as_markdown
from ncf.report.page import environment
from ncf.report.tg132_table import tg132_table
from ncf.space.body import body_mask
from ncf.space.jacobian import jacobian_determinant
from tests.conftest import Run

SPACING = (2.0, 1.5, 1.0)
AFFINE = np.diag([-2.0, -1.5, 1.0, 1.0])
SHAPE = (36, 44, 60)
CENTRE, RADIUS = (36.0, 33.0, 30.0), 18.0


@pytest.fixture(scope="module", autouse=True)
def calm(one_thread: None) -> None:
    """All of this file."""


def ball(centre: tuple[float, float, float] = CENTRE, radius: float = RADIUS) -> torch.Tensor:
    """A ball in mm on an anisotropic grid, bool."""
    at = np.indices(SHAPE).T * SPACING
    return torch.from_numpy((((at - centre) ** 2).sum(axis=-1) <= radius**2).T.copy())


def case(
    fixed: torch.Tensor, moving: torch.Tensor, carried: torch.Tensor, det: torch.Tensor | None = None
) -> Measurable:
    """Labels and scans of one grid; the moving scan has the value 4 everywhere, the fixed one 2."""
    det = torch.ones(SHAPE) if det is None else det
    scans = [Scan(torch.full(SHAPE, v), AFFINE, m.float()) for v, m in ((2.0, fixed), (4.0, moving))]
    return Measurable(*scans, det, ball(radius=25.0), {"before": moving.float(), "after": carried.float()})


def metrics_of(measured: Measurable) -> dict[str, Any]:
    assert measured.fixed.label is not None
    return {"dice": {when: overlap(measured.fixed.label, label, [1]) for when, label in measured.carried.items()}}


def row_of(found: Mapping[str, Any], test: str, structure: str | None = None) -> dict[str, Any]:
    rows = [r for r in found["rows"] if r["test"].startswith(test) and structure in (None, r["structure"])]
    assert len(rows) == 1
    return rows[0]


def test_concentric_balls_are_as_far_apart_as_their_radii() -> None:
    apart = surface_distances(ball(), ball(radius=RADIUS + 6), SPACING)
    assert apart.mean == pytest.approx(6, abs=0.5) and apart.p95 == pytest.approx(6, abs=2.0)  # within a voxel
    nothing = surface_distances(ball(), torch.zeros(SHAPE, dtype=torch.bool), SPACING)
    assert math.isnan(nothing.mean) and math.isnan(nothing.p95)


def test_volume_uptake_and_centroid_by_formula() -> None:
    moved = ball((CENTRE[0] + 4, CENTRE[1] + 3, CENTRE[2]))
    found = measured_structures(case(ball(), moved, ball(radius=12.0)))[1]
    ball_ml = {r: 4 / 3 * math.pi * r**3 / 1000 for r in (12.0, RADIUS)}
    assert found["volume_ml"] == pytest.approx(
        {"moving": ball_ml[18], "carried": ball_ml[12], "fixed": ball_ml[18]}, rel=0.03
    )
    assert found["mean"] == {"moving": 4, "carried": 2, "fixed": 2}
    product = {place: found["volume_ml"][place] * found["mean"][place] for place in found["mean"]}
    assert found["volume_times_mean"] == pytest.approx(product)
    assert found["centroid_shift_mm"] == pytest.approx({"before": 5.0, "after": 0.0}, abs=1e-6)
    assert found["mda_mm"]["after"] == pytest.approx(6, abs=0.5)


def test_hounsfield_units_are_no_amount() -> None:
    measured = case(ball(), ball(), ball())
    air = Scan(measured.moving.image - 1000, AFFINE, measured.moving.label)
    found = measured_structures(Measurable(measured.fixed, air, measured.det, measured.body, measured.carried))[1]
    assert set(found["mean"]) == {"moving", "carried", "fixed"}
    assert set(found["volume_times_mean"]) == {"carried", "fixed"}


def test_large_and_absent_labels() -> None:
    label = ball().float() * 2_000_001
    measured = case(ball(), ball(), ball())
    fixed = Scan(measured.fixed.image, AFFINE, label)
    found = measured_structures(Measurable(fixed, measured.moving, measured.det, measured.body, measured.carried))
    assert set(found) == {1, 2_000_001} and "jacobian" in found[2_000_001] and "mda_mm" not in found[2_000_001]
    assert set(found[1]["volume_ml"]) == {"moving", "carried"}
    lost = measured_structures(case(ball(), ball(), torch.zeros(SHAPE)))[1]
    assert lost["volume_ml"]["carried"] == 0 and math.isnan(lost["mda_mm"]["after"])


def test_overlapping_structures_are_whole_and_named() -> None:
    inner, outer = ball(radius=12.0), ball()
    codes = outer.float() + inner.float()  # 2 is where both are
    table = Labels({1: (7,), 2: (9, 7)}, {7: "PTV", 9: "GTV"})
    scan = Scan(torch.ones(SHAPE), AFFINE, codes, table)
    both = Measurable(scan, scan, torch.ones(SHAPE), outer, {"before": codes, "after": codes})
    found = measured_structures(both)
    plain = {7: measured_structures(case(outer, outer, outer))[1], 9: measured_structures(case(inner, inner, inner))[1]}
    assert {n: e["volume_ml"] for n, e in found.items()} == {n: e["volume_ml"] for n, e in plain.items()}
    assert all(
        e["mda_mm"]["after"] == 0 and e["jacobian"]["voxels"] == plain[n]["jacobian"]["voxels"]
        for n, e in found.items()
    )


def test_determinants_of_a_scaling_and_of_a_fold() -> None:
    index = torch.from_numpy(np.indices(SHAPE).astype(np.float32))
    scaled = jacobian_determinant(0.1 * index)
    whole = torch.ones(SHAPE, dtype=torch.bool)
    found = determinants(scaled, whole)
    assert [found[k] for k in ("min", "p5", "p95", "max")] == pytest.approx([1.1**3] * 4, abs=1e-4)
    assert found["folded"] == 0 and found["voxels"] == math.prod(SHAPE)
    assert determinants(scaled, ~whole)["min"] is None
    folded = torch.ones(SHAPE)
    folded[0, 0, 0] = -1.0  # in air
    measured = case(ball(), ball(), ball(), folded)
    row = row_of(judged_by_tg132(measured, metrics_of(measured), limits=Limits(2.0)), "Jacobian", "inside the body")
    assert row["result"] == PASS and row["measured"]["folded"] == 0 and row["measured"]["folded_outside"] == 1
    folded[18, 22, 30] = 0.0
    found = judged_by_tg132(measured, metrics_of(measured), limits=Limits(2.0))
    assert {row_of(found, "Jacobian", name)["result"] for name in ("inside the body", "label 1")} == {FAIL}


def test_results_follow_the_limits() -> None:
    measured = case(ball(), ball(), ball((CENTRE[0] + 6, CENTRE[1], CENTRE[2])))
    tre = {when: {"mean": m, "p95": m, "max": m, "count": 3} for when, m in (("before", 9.0), ("after", 2.5))}
    numbers = {**metrics_of(measured), "tre_mm": tre, "label_names": {"1": "GTV"}}
    strict = judged_by_tg132(measured, numbers, limits=Limits(2.0, 0.9))
    assert {r["test"]: r["result"] for r in strict["rows"] if "Jacobian" not in r["test"]} == {
        "Target registration error": FAIL,
        "Mean distance to agreement": FAIL,
        "Dice similarity coefficient": FAIL,
        "Consistency": NOT_MEASURED,
    }
    back = {
        way: {"mean": 1.0, "p95": 2.0, "max": 3.0, "known_share": 0.9} for way in ("fixed_to_fixed", "moving_to_moving")
    }
    mild = judged_by_tg132(measured, numbers, limits=Limits(5.0, 0.5), consistency=back)
    assert {row["result"] for row in mild["rows"]} == {PASS} and mild["counts"]["pass"] == len(mild["rows"]) == 7
    assert row_of(mild, "Dice")["structure"] == "GTV" and "90 % of the body" in mild["rows"][-1]["told"]
    bare = Measurable(
        Scan(measured.fixed.image, AFFINE), Scan(measured.moving.image, AFFINE), measured.det, measured.body
    )
    none = judged_by_tg132(bare, {}, limits=Limits(2.0))
    assert none["counts"] == {"pass": 1, "fail": 0, "not_measured": 4}
    page = environment().get_template("tg132.html").render(tg132=tg132_table(strict))
    assert page.count("<tr>") == 1 + len(strict["rows"]) and "GTV" in page and "<details" not in page
    assert environment().get_template("tg132.html").render(tg132=tg132_table(None)).strip() == ""


def test_of_many_rows_the_page_shows_the_worst_of_each_test_and_folds_up_the_rest() -> None:
    shape = {"structure": "all", "limit": "2", "told": "some"}
    rows = [{**shape, "test": MDA, "structure": f"s{n}", "measured": {"mda_mm": n}, "result": PASS} for n in range(9)]
    rows[8]["result"] = FAIL
    rows += [{**shape, "test": DICE_ROW, "structure": f"s{n}", "measured": {"dice": n}, "result": PASS} for n in (3, 2)]
    rows.append({**shape, "test": MDA, "structure": "lost", "measured": {}, "result": NOT_MEASURED})
    rows.append({**shape, "test": CONSISTENCY, "measured": {}, "result": NOT_MEASURED, "told": NO_BACK})
    rows[9:12] = [rows[11], *rows[9:11]]  # rows of one test stand together
    table = tg132_table({"rows": rows, "counts": {}})
    assert table is not None
    assert [(line["test"], line["structure"], line["results"]) for line in table["tests"]] == [
        (MDA, "lost, the worst of 10", [("1 fail", True), ("1 not measured", False), ("8 pass", False)]),
        (DICE_ROW, "s2, the worst of 2", [("2 pass", False)]),
        (CONSISTENCY, "all", [("not measured", False)]),
    ]
    assert (
        table["tests"][2]["command"] == "ncf tg132 RESULT --consistency=true" and "ncf" not in table["tests"][2]["told"]
    )
    assert [row["structure"] for row in table["rows"]][:3] == ["s8", "s0", "s1"] and len(table["rows"]) == 13


def test_a_guided_label_is_told_as_such() -> None:
    measured = case(ball(), ball(), ball())
    numbers = metrics_of(measured)
    numbers["dice"]["guided"] = True
    found = judged_by_tg132(measured, numbers, limits=Limits(2.0))
    assert all("it guided the fit" in row_of(found, test)["told"] for test in ("Mean", "Dice"))


@pytest.mark.parametrize(("air", "lung", "flesh"), [(-1000.0, -850.0, 40.0), (0.0, 5.0, 300.0)])
def test_the_body_is_what_is_bright_and_what_it_encloses(air: float, lung: float, flesh: float) -> None:
    body, lungs = ball(radius=24.0), ball(radius=10.0)
    image = torch.where(body, flesh, air)
    image[lungs] = lung
    image[:2, 20:24, :] = flesh  # a table
    image += torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * 0.02 * (flesh - air)
    found = body_mask(image, torch.ones(SHAPE, dtype=torch.bool))
    assert float((found != body).float().mean()) < 0.01 and bool(found[lungs].all())
    nothing = body_mask(image, torch.zeros(SHAPE, dtype=torch.bool))
    assert not nothing.any()


def test_plastimatch_agrees(tmp_path: Path) -> None:
    program = shutil.which("plastimatch")
    if program is None:
        pytest.skip("no plastimatch (apt-get install plastimatch)")
    moved = ball((CENTRE[0] + 4, CENTRE[1] - 3, CENTRE[2] + 2), radius=15.0)
    for name, mask in (("a", ball()), ("b", moved)):
        nib.save(nib.Nifti1Image(mask.numpy().astype(np.uint8), AFFINE), tmp_path / f"{name}.nii.gz")
    command = [program, "dice", "--all", str(tmp_path / "a.nii.gz"), str(tmp_path / "b.nii.gz")]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    theirs = {key.strip(): float(v) for key, v in re.findall(r"^([A-Z][\w .()]+?)\s*[=:]\s*([\d.]+)$", told, re.M)}
    measured = case(ball(), moved, moved)
    ours = measured_structures(measured)[1]
    assert ours["mda_mm"]["after"] == pytest.approx(theirs["Avg average Hausdorff distance (boundary)"], rel=2e-3)
    assert ours["hd95_mm"]["after"] == pytest.approx(theirs["Percent (0.95) Hausdorff distance (boundary)"], rel=0.05)
    assert metrics_of(measured)["dice"]["after"]["labels"][1] == pytest.approx(theirs["DICE"], abs=1e-5)
    centres = np.array(
        [[float(n) for n in line.split()[1:]] for line in told.splitlines() if line[:3] in ("ref", "cmp")]
    )
    assert ours["centroid_shift_mm"]["after"] == pytest.approx(np.linalg.norm(centres[0] - centres[1]), abs=1e-3)


@pytest.fixture(scope="module")
def result(pair: Mapping[str, str], run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny registration with labels and landmarks."""
    folder = tmp_path_factory.mktemp("tg132")
    run(folder, {key: Path(path) for key, path in pair.items()}, name="chest")
    return folder / "chest"


def test_the_command_says_what_the_registration_said(result: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = json.loads((result / "metrics.json").read_text(encoding="utf-8"))
    main.main(["tg132", str(result)])
    told = json.loads((result / "tg132.json").read_text(encoding="utf-8"))
    assert told["counts"] == kept["tg132"]["counts"]
    for ours, saved in zip(told["rows"], kept["tg132"]["rows"], strict=True):
        assert ours["measured"] == pytest.approx(saved["measured"], abs=1e-5)  # the file of the field is float32 in mm
        assert [ours[key] for key in ("test", "structure", "limit", "result")] == [
            saved[key] for key in ("test", "structure", "limit", "result")
        ]
    assert row_of(told, "Target")["measured"]["mean"] == pytest.approx(kept["tre_mm"]["after"]["mean"])
    assert told["limits"]["dice"] == 0.8 and row_of(told, "Consistency")["result"] == NOT_MEASURED
    table = (result / "tg132.md").read_text(encoding="utf-8")
    assert table == as_markdown("chest", told) and table in capsys.readouterr().out
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    assert all(len(line) == len(lines[0]) for line in lines[: len(told["rows"]) + 1])
    main.main(["tg132", str(result), "--limit_mm=0.001", "--limit_dice=1", "--json=true"])
    strict = json.loads(capsys.readouterr().out)
    assert strict["limits"] == {"mm": 0.001, "dice": 1.0} and strict["counts"]["fail"] > told["counts"]["fail"]


def test_consistency_is_measured_by_a_second_registration(result: Path) -> None:
    overlay = result.parent / "small.json"
    level = {"voxels": 3000, "control_points": 300, "iterations": 12, "learning_rate": 1e-3}
    overlay.write_text(json.dumps({"fit::levels": {"only": level}, "inferer::search": None}), encoding="utf-8")
    found, _ = tg132(result, consistency=True, preset=str(overlay))
    ways = [row for row in found["rows"] if row["test"] == "Consistency"]
    assert len(ways) == 2 and found["consistency"]["same_settings"] is True
    for row in ways:
        assert 0 < row["measured"]["mean"] < row["measured"]["max"] and row["measured"]["known_share"] > 0.5


def test_what_cannot_be_judged_is_told_in_one_line(result: Path, tmp_path: Path) -> None:
    for wrong, telling in (
        (["tg132", str(tmp_path / "none")], "No such file"),
        (["tg132", str(result), "--limit_mm=-1"], "--limit_mm is a number above 0"),
        (["tg132", str(result), "--limit_dice=2"], "at most 1"),
        (["tg132", str(result), "--preset=fast"], "--preset is for --consistency=true"),
        (["tg132", str(result), "--fixed=/nowhere.nii.gz"], "there is no"),
        (["tg132", str(tmp_path)], "is no result folder"),
    ):
        with pytest.raises(SystemExit, match=telling) as caught:
            main.main(wrong)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    fixed = nib.load(json.loads((result / "run.json").read_text(encoding="utf-8"))["inputs"]["fixed"]["path"])
    nib.save(nib.Nifti1Image(fixed.get_fdata(), fixed.affine + np.eye(4, k=3) * 5), tmp_path / "moved.nii.gz")
    with pytest.raises(PairError, match="is not the fixed scan"):
        tg132(result, inputs={"fixed": tmp_path / "moved.nii.gz"})
    copy = shutil.copytree(result, tmp_path / "copy")
    run = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    (copy / "run.json").write_text(json.dumps({**run, "inputs": {}}), encoding="utf-8")  # saved from Python
    with pytest.raises(PairError, match="does not lie on the grid of the scan"):
        scans = {"fixed": tmp_path / "moved.nii.gz", "moving": Path(run["inputs"]["moving"]["path"])}
        tg132(copy, inputs=scans)
    run["inputs"]["fixed"] |= {"sha256": "0", "stamp": "0"}
    (copy / "run.json").write_text(json.dumps(run), encoding="utf-8")
    with pytest.raises(PairError, match="has changed since it was registered"):
        tg132(copy)
