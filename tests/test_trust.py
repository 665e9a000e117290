"""Bounds of a map's error: where other fits lead elsewhere, they are large."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from ncf.api.disturbed import CUT_MM, disturbed
from ncf.core.errors import PairError
from ncf.evaluate.trust import FACTORS, FLOOR, Trust, trust_in_words, trust_of
from ncf.io.trust_file import load_trust, save_trust
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap
from ncf.use.trust import write_errors

SHAPE = (24, 20, 16)
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
FLOOR_MM = FLOOR * 3.0
MOVING = Grid(SHAPE, AFFINE)


def a_map(shift_vox: float, *, grid: Grid | None = None, of: slice = slice(None)) -> SpatialMap:
    """A map that moves a part of a grid by some voxels along the first axis."""
    grid = Grid(SHAPE, AFFINE) if grid is None else grid
    field = torch.zeros(3, *grid.shape)
    field[0, of] = shift_vox
    return SpatialMap(field, grid)


def test_where_all_fits_agree_the_floor_is_left() -> None:
    own, home = a_map(2.0), a_map(-2.0)
    found = trust_of(own, MOVING, [a_map(2.0)], [home], ["one", "other"])
    assert found.bounds_mm.shape == (*SHAPE, 2) and found.members == ("one", "other")
    led_out = np.isnan(found.bounds_mm[..., 1])
    assert led_out[23:].all() and not led_out[:21].any()  # out of the moving scan agreement tells nothing
    for channel, factor in enumerate(FACTORS.values()):
        inner = found.bounds_mm[4:16, ..., channel]
        np.testing.assert_allclose(inner, factor * FLOOR_MM, atol=1 / 64 + 1e-4)


def test_a_bound_is_as_large_as_the_fits_lie_apart_there() -> None:
    moved = a_map(3.0, of=slice(0, 12))  # 6 mm in half of the grid
    found = trust_of(a_map(0.0), MOVING, [moved], [], ["one"])
    near, far = found.bounds_mm[2, 10, 8, 1], found.bounds_mm[23, 10, 8, 1]
    assert near == pytest.approx(FACTORS[95] * np.hypot(6.0, FLOOR_MM), rel=0.03)
    assert far == pytest.approx(FACTORS[95] * FLOOR_MM, rel=0.05)
    back = trust_of(a_map(0.0), MOVING, [], [moved], ["one"])  # home is 6 mm away
    assert back.bounds_mm[2, 10, 8, 1] == pytest.approx(near, rel=0.03)
    assert "above 5 mm in" in trust_in_words({"everywhere": found.summary()})


def test_one_fit_that_is_lost_counts_as_one_of_several() -> None:
    lost, agreeing = a_map(3.0, of=slice(0, 12)), a_map(0.0)
    found = trust_of(a_map(0.0), MOVING, [agreeing, lost], [], ["one", "other"])
    typical = np.sqrt(FLOOR_MM * np.hypot(6.0, FLOOR_MM))  # the geometric mean
    assert found.bounds_mm[2, 10, 8, 1] == pytest.approx(FACTORS[95] * typical, rel=0.03)


def test_the_largest_bound_has_a_place() -> None:
    bounds = np.ones((*SHAPE, 2), dtype=np.float32)
    bounds[3, 4, 5], bounds[6, 7, 8], bounds[0] = 9.0, 7.0, np.nan
    found, where = Trust(bounds, ()), np.ones(SHAPE, dtype=bool)
    assert found.largest(AFFINE, where) == {"bound_mm": 9.0, "at_mm": [6.0, 8.0, 15.0]}
    where[3] = False
    assert found.largest(AFFINE, where) == {"bound_mm": 7.0, "at_mm": [12.0, 14.0, 24.0]}
    where[1:] = False
    assert found.largest(AFFINE, where) is None


def test_maps_on_grids_of_their_own_are_compared_in_mm() -> None:
    shifted = AFFINE.copy()
    shifted[:3, 3] = AFFINE[:3, :3] @ [3, 2, 1]
    smaller = Grid((SHAPE[0] - 3, SHAPE[1] - 2, SHAPE[2] - 1), shifted)
    found = trust_of(a_map(1.0), MOVING, [a_map(1.0, grid=smaller)], [], ["one"])
    assert found.bounds_mm[12, 10, 8, 0] == pytest.approx(FACTORS[68] * FLOOR_MM, abs=1 / 64 + 1e-4)
    assert np.isnan(found.bounds_mm[0, 0, 0, 0])  # it does not know this corner
    nothing = trust_of(a_map(500.0), MOVING, [a_map(500.0)], [a_map(-500.0)], ["one"])
    assert np.isnan(nothing.bounds_mm).all() and "nothing is known" in trust_in_words({"everywhere": nothing.summary()})


def test_a_disturbed_pair_shows_the_same_places() -> None:
    random = np.random.default_rng(0)
    values = random.random((1, 40, 40, 40)).astype(np.float32)
    values[0, 5] = 0  # as padding is
    image = MetaTensor(torch.from_numpy(values), affine=torch.eye(4, dtype=torch.float64))
    mask = MetaTensor((image.as_tensor() > 0.5).float(), affine=torch.eye(4, dtype=torch.float64))
    pair = {"fixed": image, "moving": image, "fixed_mask": mask, "guide_points": np.array([[9.0, 9, 9, 9, 9, 9]])}
    found = disturbed(pair, 0)
    cut = min(int(CUT_MM[0]), int(0.06 * 40))
    assert found["fixed"].shape == (1, 38, 38, 38) == found["fixed_mask"].shape and cut == 2
    assert found["moving"].shape == image.shape
    np.testing.assert_array_equal(found["fixed"].affine[:3, 3], [2, 2, 2])
    np.testing.assert_array_equal(found["guide_points"], [[7, 7, 7, 9, 9, 9]])
    apart = found["fixed"].as_tensor() - image.as_tensor()[:, 2:, 2:, 2:]
    assert 0.01 < float(apart.std()) < 0.03 and (found["fixed"].as_tensor()[0, 3] == 0).all()
    assert torch.equal(disturbed(pair, 0)["moving"].as_tensor(), found["moving"].as_tensor())
    assert not torch.equal(disturbed(pair, 4)["moving"].as_tensor(), found["moving"].as_tensor())


def test_points_get_the_bounds_of_their_places(tmp_path: Path) -> None:
    bounds = np.ones((*SHAPE, 2), dtype=np.float32)
    bounds[..., 1] = np.arange(SHAPE[0])[:, None, None]
    bounds[20:] = np.nan
    save_trust(tmp_path / "trust.nii.gz", bounds, AFFINE)
    read, grid = load_trust(tmp_path / "trust.nii.gz")
    np.testing.assert_array_equal(read, bounds)
    assert grid.same_as(Grid(SHAPE, AFFINE))
    points = np.array([[9.0, 4, 6], [44, 4, 6], [-50, 0, 0]])
    write_errors(tmp_path / "trust.nii.gz", points, tmp_path / "errors.csv")
    rows = list(csv.DictReader((tmp_path / "errors.csv").read_text(encoding="utf-8").splitlines()))
    assert list(rows[0]) == ["point", "bound_68_mm", "bound_95_mm"]
    assert [row["bound_95_mm"] for row in rows] == ["4.50", "", ""] and rows[0]["bound_68_mm"] == "1.00"
    nib.save(nib.Nifti1Image(bounds[..., 0], AFFINE), tmp_path / "other.nii.gz")
    with pytest.raises(PairError, match="expected bounds of an error"):
        load_trust(tmp_path / "other.nii.gz")


@pytest.mark.slow
def test_the_command_bounds_the_errors_of_a_result(pair: dict[str, str], tmp_path: Path) -> None:
    import subprocess
    import sys

    def ncf(*words: str) -> str:
        command = [sys.executable, "-W", "ignore", "-m", "ncf", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    scans = (pair["fixed"], pair["moving"], f"--fixed_label={pair['fixed_label']}")
    ncf("register", *scans, "--name=x", "--preset=fast", "--trust=true")
    result = tmp_path / "output" / "x"
    told = json.loads((result / "trust.json").read_text(encoding="utf-8"))
    first = (result / "trust.nii.gz").read_bytes()
    assert len(told["members"]) == 4 and told["everywhere"]["median_mm"] > 0 and told["structures"]
    assert told["body"]["median_mm"] > 0 and told["labels"]["median_mm"] > 0 and len(told["largest"]["at_mm"]) == 3
    assert "trust.nii.gz" in ncf("trust", "output/x", "--members=4") and (result / "trust.nii.gz").read_bytes() == first
    ncf("apply", "output/x", pair["landmarks"], "--to=points", "--from=fixed", "--space=voxel", "--output_dir=moved")
    table = (tmp_path / "moved" / "landmarks_error_mm.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(table.splitlines()))
    assert rows and all(float(r["bound_95_mm"]) > float(r["bound_68_mm"]) > 0 for r in rows if r["bound_95_mm"])
    ncf("register", *scans, "--name=x", "--preset=fast")
    assert not (result / "trust.nii.gz").exists()  # of an earlier map
