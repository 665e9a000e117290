"""What the viewer is given: volumes reduced in place, coded without loss beyond their step, and windows by the scan."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow
from nibabel.affines import apply_affine

from ncf.io.trust_file import save_trust
from ncf.report import scene as scenes
from ncf.report.error_bounds import bounds_shown, scale_of, trust_volume
from ncf.report.material import Material, gathered
from ncf.report.paint import bound_grey, trust_map
from ncf.report.volumes import Volume, coded, factors_for, field_nodes, reduced, step_of
from ncf.report.windows import windows_for, windows_of
from ncf.result.folder import SavedResult

Run = Callable[..., ConfigWorkflow]
AFFINE = np.array([[-1.5, 0, 0, 40], [0, 0, 2, -7], [0, 1, 0.2, 3], [0, 0, 0, 1.0]])


def unpacked(told: Mapping) -> np.ndarray:
    content = np.frombuffer(gzip.decompress(base64.b64decode(told["packed"])), np.uint8)
    if told["type"] != "uint8":
        low, high = content.reshape(2, -1).astype(np.uint16)
        content = (low | high << 8).view(told["type"])
    return content.reshape(told["shape"], order="F") * told["step"] + told["shift"]


@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 1, 3), (3, 2, 2)])
def test_a_block_lies_where_its_voxels_lie(factors: tuple[int, int, int]) -> None:
    shape = tuple(4 * f for f in factors)
    places = np.moveaxis(apply_affine(AFFINE, np.moveaxis(np.indices(shape), 0, -1)), -1, 0)
    for axis, values in enumerate(places):  # the mean of the positions is the position of the block
        small = reduced(Volume(values, AFFINE), factors)
        there = apply_affine(small.affine, np.moveaxis(np.indices(small.values.shape), 0, -1))[..., axis]
        np.testing.assert_allclose(small.values, there, atol=1e-9)
    ragged = reduced(Volume(np.ones((5, 7, 9)), AFFINE), factors, how="middle")
    assert ragged.values.shape == tuple(-(-n // f) for n, f in zip((5, 7, 9), factors, strict=True))


@pytest.mark.parametrize("low", [0, -1024, 0.25])
def test_coded_values_are_off_by_half_a_step_at_most(low: float) -> None:
    values = np.random.default_rng(0).integers(0, 3000, (5, 6, 7)) + low
    step, shift = step_of(values)
    assert step == 1 if low != 0.25 else step < 1
    told = coded(Volume(values, AFFINE), step=step, shift=shift)
    assert np.abs(unpacked(told) - values).max() <= step / 2 + 1e-9


def test_no_bound_of_the_error_is_shown_too_small(
    run: Run, pair: Mapping[str, str], tmp_path: Path, one_thread: None
) -> None:
    folder = Path(run(tmp_path, pair, name="chest").evaluator.state.output["result_dir"])
    grid = SavedResult(folder).grid("fixed")
    bounds = np.random.default_rng(0).uniform(0.6, 60, (*grid.shape, 2)).astype(np.float32)
    bounds[: grid.shape[0] // 2 + 1] = np.nan  # ends within a block
    save_trust(folder / "trust.nii.gz", bounds, grid.affine)
    material = gathered(SavedResult(folder))
    factors = (2, 3, 2)
    shown = trust_volume(bounds_shown(material, factors)[-1])
    step = 0.25  # a coarse one
    told = unpacked(coded(shown, step=step, up=True))
    true = material.space.turned(bounds[..., 1])
    of_block = told[np.ix_(*(np.arange(n) // f for n, f in zip(true.shape, factors, strict=True)))]
    known = of_block > 0
    assert (of_block[known] >= true[known] - 1e-3).all() and not np.isnan(true[known]).any()
    assert 0.3 < known.mean() < 0.5 and np.abs(told - shown.values).max() <= step + 1e-6


@pytest.mark.parametrize("how", ["mean", "min", "max"])
def test_a_block_is_what_its_voxels_are_and_the_last_one_repeats_its_last_voxel(how: str) -> None:
    values = np.random.default_rng(1).random((7, 6, 5)).astype(np.float32).transpose(1, 0, 2)[::-1]
    values[0, 0, 0] = np.nan
    found = reduced(Volume(values, np.eye(4)), (4, 1, 3), how=how)
    padded = np.pad(values, [(0, 2), (0, 0), (0, 1)], mode="edge").reshape(2, 4, 7, 1, 2, 3)
    np.testing.assert_allclose(found.values, getattr(padded, how)(axis=(1, 3, 5)), rtol=1e-6)
    assert found.values.shape == (2, 7, 2) and np.isnan(found.values).sum() == 1
    np.testing.assert_allclose(found.affine, [[4, 0, 0, 1.5], [0, 1, 0, 0], [0, 0, 3, 1], [0, 0, 0, 1]])


def test_blocks_grow_until_the_budget_is_kept() -> None:
    noise = Volume(np.random.default_rng(0).integers(0, 2000, (48, 48, 24)).astype(np.float32), np.diag([1, 1, 2.0, 1]))
    assert factors_for([noise], 10**9) == (1, 1, 1)
    assert factors_for([noise], 60_000) in ((1, 2, 1), (2, 1, 1))
    factors = factors_for([noise], 12_000)
    small = coded(reduced(noise, factors), step=1.0)
    assert len(small["packed"]) * 3 / 4 < 15_000 and factors[2] == min(factors)


def test_the_size_of_a_large_scan_is_guessed_by_planes_from_end_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.zeros((64, 64, 64), np.float32)
    values[..., 20:60] = np.random.default_rng(0).integers(0, 2000, (64, 64, 40))  # nothing at the ends
    scan = Volume(values, np.eye(4))
    all_planes = factors_for([scan], 40_000)
    monkeypatch.setattr("ncf.report.volumes.TRIED_VOXELS", 2**10)
    assert factors_for([scan], 40_000) == all_planes != (1, 1, 1)
    assert len(coded(reduced(scan, all_planes), step=1.0)["packed"]) * 3 / 4 < 50_000


def test_a_linear_field_is_kept_between_its_nodes() -> None:
    at = np.indices((11, 12, 13)).astype(np.float32)
    field = np.stack([0.3 * at[0] - at[2], 0.1 * at[1], at[0] + 2], axis=-1)
    nodes, affine = field_nodes(field, AFFINE, 200)
    assert np.prod(nodes.shape[:3]) <= 200
    steps = (np.linalg.inv(AFFINE) @ affine).diagonal()[:3]
    where = np.indices(nodes.shape[:3]) * steps.reshape(3, 1, 1, 1)
    np.testing.assert_allclose(nodes[..., 0], 0.3 * where[0] - where[2], atol=1e-4)  # beyond the grid too
    np.testing.assert_allclose(nodes[..., 2], where[0] + 2, atol=1e-4)


def test_windows_are_those_of_the_scan() -> None:
    noise = np.random.default_rng(0)
    air, lung, tissue = (noise.normal(*told) for told in ((-1000, 20, 3000), (-750, 60, 1500), (40, 30, 5000)))
    bone = np.full(50, 900.0)
    assert windows_of(np.concatenate([air, lung, tissue, bone])).start == "lung"
    abdomen = windows_of(np.concatenate([air, tissue, bone]))
    assert abdomen.start == "soft tissue" and abdomen.ranges["soft tissue"] == (-160, 240)
    mr = windows_of(np.concatenate([np.zeros(9000), np.arange(1, 1001)]))
    assert mr.start == "1 to 99 %" and mr.ranges["1 to 99 %"] == pytest.approx((11, 990), abs=1)
    flat = windows_of(np.full(8, 3.0))
    assert all(high > low for low, high in flat.ranges.values())


def test_scans_of_one_unit_begin_with_one_window() -> None:
    noise = np.random.default_rng(0)
    air, bone, tissue = noise.normal(-1000, 20, 3000), np.full(50, 900.0), noise.normal(40, 30, 5000)
    breath_out, deep = noise.normal(-750, 60, 1500), noise.normal(-940, 20, 3000)  # a lung can lie beside air
    scans = {key: np.concatenate([air, lung, tissue, bone]) for key, lung in (("fixed", breath_out), ("warped", deep))}
    assert windows_of(scans["warped"]).start == "soft tissue"
    for shared in (True, False):  # Hounsfield units are one unit anyway
        both = windows_for(scans, shared=shared)
        assert both["fixed"] == both["warped"] and both["fixed"].start == "lung"
    mr = {"fixed": np.arange(1000.0), "warped": np.arange(1000.0) * 2}
    apart, same = windows_for(mr, shared=False), windows_for(mr, shared=True)
    assert apart["fixed"] == windows_of(mr["fixed"]) and apart["fixed"] != apart["warped"]
    assert same["fixed"] == same["warped"] and same["fixed"].ranges["whole range"] == (0, 1998)


def test_large_label_numbers_become_small_codes_with_their_own_names(
    run: Run, pair: Mapping[str, str], tmp_path: Path, one_thread: None
) -> None:
    folder = Path(run(tmp_path, pair, name="chest").evaluator.state.output["result_dir"])
    material = gathered(SavedResult(folder))
    fixed = np.asarray(material.labels["fixed"]).astype(np.int64)
    large = np.where(fixed > 0, fixed + 70_000, 0)
    material = replace(material, labels={"fixed": large, "warped": np.where(fixed == 1, 70_001, 0)})
    told = scenes.scene(material, whole=True)
    codes, rows = told.served["fixed_label"], told.told["labels"]
    by_code = {row["value"]: row["name"] for row in rows}
    assert codes.dtype == np.uint8 and (codes == fixed).all()
    assert by_code == {n: f"label {70_000 + n}" for n in np.unique(fixed).tolist() if n}
    back = np.linalg.inv(material.space.affine)
    for row in rows:  # a jump lands in the label
        assert codes[tuple(np.rint(apply_affine(back, row["at_mm"])).astype(int))] == row["value"]


def test_a_reduced_moving_scan_stays_where_it_was(
    run: Run, pair: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    folder = Path(run(tmp_path, pair, name="chest").evaluator.state.output["result_dir"])
    monkeypatch.setattr(scenes, "MOVING_BYTES", 1500)
    told = scenes.scene(gathered(SavedResult(folder))).told
    moving = told["volumes"]["moving"]
    full = nib.load(SavedResult(folder).inputs["moving"])
    assert "moving scan" in told["reduction"] and np.prod(moving["shape"]) < np.prod(full.shape)  # type: ignore[attr-defined]
    np.testing.assert_allclose(told["before_affine"], moving["affine"], atol=1e-9)  # where the headers put it
    assert told["landmarks"][0]["after"] == max(row["after"] for row in told["landmarks"])


def test_the_bar_of_bounds_says_where_it_ends() -> None:
    small, large = (scale_of(cast(Material, SimpleNamespace(bounds=(np.array([np.nan, mm]),)))) for mm in (4.0, 12.0))
    assert small is not None and small.ticks == ("0", "2", "4 mm")
    assert large is not None and large.ticks == ("0", "5", "≥ 10 mm")
    levels = bound_grey(np.array([np.nan, 0.0, 5.0, 10.0, 40.0]), 10.0)
    assert levels.tolist() == [0, 1, 128, 255, 255]
    colours = trust_map(levels[None], np.full((1, 5), 100, np.uint8))[0]
    assert colours[0].tolist() == [100, 100, 100]  # nothing is known: the scan alone
    assert (colours[3] == colours[4]).all() and colours[3, 0] > colours[1, 0]
