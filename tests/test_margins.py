"""Inner and outer structures: what stays inside, and what could be, for an error of the map's bound."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ncf.evaluate.margins import label_maps, margin_of, surface_mm
from ncf.io.label_names import save_names
from ncf.io.nifti import save_image, save_itk_field
from ncf.io.trust_file import save_trust
from ncf.space.grids import Grid
from ncf.use.carry import open_map
from ncf.use.carry_labels import apply_to_labels
from ncf.use.trust import bounds_on

SPACING = (2.0, 1.0, 3.0)
SHAPE = (40, 50, 30)
AFFINE = np.diag([*SPACING, 1.0])


def block(shape: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> np.ndarray:
    """A mask of a block of voxels."""
    found = np.zeros(shape, dtype=bool)
    found[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return found


def test_a_distance_is_that_to_the_faces_of_the_voxels_outside() -> None:
    mask = block(SHAPE, (10, 10, 10), (20, 30, 20))
    found, places = surface_mm(mask, SPACING, reach_mm=99.0), np.argwhere(mask)
    to_faces = np.minimum(places - [10, 10, 10] + 0.5, [19.5, 29.5, 19.5] - places) * SPACING
    np.testing.assert_allclose(found[mask], to_faces.min(axis=1), rtol=1e-6)
    assert (found[~mask] == 0).all()
    assert np.isinf(surface_mm(np.ones((3, 3, 3), bool), SPACING, reach_mm=9.0)).all()
    odd = np.random.default_rng(1).random((12, 11, 10)) > 0.02  # single voxels outside
    boxes = np.abs(np.argwhere(odd)[:, None] - np.argwhere(~odd)[None]) - 0.5
    by_hand = np.sqrt(((boxes.clip(min=0) * SPACING) ** 2).sum(axis=2)).min(axis=1)
    near = by_hand <= 5
    np.testing.assert_allclose(surface_mm(odd, SPACING, reach_mm=5.0)[odd][near], by_hand[near], rtol=1e-6)
    assert near.any() and not near.all() and (surface_mm(odd, SPACING, reach_mm=5.0)[odd][~near] > 5).all()


@pytest.mark.parametrize("bound", [0.4, 2.0, 4.0, 7.0])
def test_a_block_shrinks_and_grows_by_the_bound_to_the_nearest_voxel(bound: float) -> None:
    low, high = (14, 15, 10), (26, 40, 20)
    found = margin_of(block(SHAPE, low, high), np.full(SHAPE, bound, np.float32), SPACING)
    layers = [int(np.floor(bound / mm + 0.5)) for mm in SPACING]  # a voxel goes where its centre is reached
    expected = block(SHAPE, tuple(np.add(low, layers)), tuple(np.subtract(high, layers)))
    np.testing.assert_array_equal(found.whole(found.inner), expected)
    grown = found.whole(found.outer)
    for axis, more in enumerate(layers):
        across = np.flatnonzero(grown.any(axis=tuple(a for a in range(3) if a != axis)))
        assert (across[0], across[-1] + 1) == (low[axis] - more, high[axis] + more)
    assert found.volumes_ml == pytest.approx(
        [part.sum() * 6 / 1000 for part in (expected, found.inner | block(SHAPE, low, high)[found.box], grown)]
    )


@pytest.mark.parametrize("bound", [1.5, 4.0])
def test_a_ball_has_the_volumes_of_balls(bound: float) -> None:
    shape, radius = (61, 61, 61), 18.0
    at = np.indices(shape) - 30.0
    found = margin_of(np.sqrt((at**2).sum(axis=0)) <= radius, np.full(shape, bound, np.float32), (1.0, 1.0, 1.0))
    inner, carried, outer = np.cbrt(np.array(found.volumes_ml) * 1000 / (4 / 3 * np.pi))  # as radii
    assert carried == pytest.approx(radius, abs=0.05)
    assert -0.6 < inner - (radius - bound) <= 0 <= outer - (radius + bound) < 0.6  # corners of voxels are reached first


def test_every_voxel_asks_its_own_bound_and_what_is_not_known_changes_nothing() -> None:
    mask = block(SHAPE, (10, 10, 10), (30, 40, 20))
    bounds = np.full(SHAPE, 1.2, np.float32)
    bounds[:, 25:] = 5.2
    bounds[25:] = np.nan
    found = margin_of(mask, bounds, SPACING)
    inner, outer = found.whole(found.inner), found.whole(found.outer)
    assert inner[12, 11, 15] and not inner[12, 36, 15]  # 1.5 and 3.5 mm below faces
    assert outer[12, 9, 15] and not outer[12, 8, 15] and outer[12, 44, 15] and not outer[12, 45, 15]
    assert not inner[25:].any() and np.array_equal(outer[25:], mask[25:])
    assert found.unknown == pytest.approx(0.25) and "not known in 25 % of it" in found.told()
    nothing = margin_of(mask, np.full(SHAPE, np.nan, np.float32), SPACING)
    assert nothing.volumes_ml[0] == 0 and nothing.volumes_ml[1] == nothing.volumes_ml[2] and nothing.unknown == 1


def test_a_structure_that_is_cut_by_the_grid_goes_on() -> None:
    found = margin_of(block(SHAPE, (0, 0, 0), (40, 50, 15)), np.full(SHAPE, 3.0, np.float32), SPACING)
    assert found.whole(found.inner)[..., :14].all() and not found.whole(found.inner)[..., 14:].any()


def test_in_a_label_map_the_carried_label_stays_and_the_nearest_one_wins() -> None:
    shown = np.zeros(SHAPE, dtype=np.uint16)
    shown[10:15, 10:20, 10:20], shown[18:23, 10:20, 10:20] = 300, 4
    bounds = np.full(SHAPE, 9.0, np.float32)
    made = [margin_of(shown == number, bounds, SPACING, number=number) for number in (4, 300)]
    for margins in (made, made[::-1]):
        inner, outer = label_maps(shown, margins)
        assert inner.dtype == outer.dtype == shown.dtype and not inner.any()
        np.testing.assert_array_equal(outer[shown > 0], shown[shown > 0])
        assert outer[15, 15, 15] == 300 and outer[17, 15, 15] == 4 and outer[6, 15, 15] == 300
    overlapping = margin_of(shown > 0, np.full(SHAPE, 0.1, np.float32), SPACING, number=7)
    small = margin_of(shown == 4, np.full(SHAPE, 0.1, np.float32), SPACING, number=4)
    inner, _ = label_maps(shown, [overlapping, small])
    assert (inner[shown == 4] == 4).all() and (inner[shown == 300] == 7).all()


def test_bounds_come_onto_another_grid(tmp_path: Path) -> None:
    bounds = np.empty((*SHAPE, 2), np.float32)
    bounds[..., 0], bounds[..., 1] = np.arange(SHAPE[0])[:, None, None], 99.0
    bounds[35:] = np.nan
    save_trust(tmp_path / "trust.nii.gz", bounds, AFFINE)
    own = bounds_on(tmp_path / "trust.nii.gz", Grid(SHAPE, AFFINE))
    np.testing.assert_array_equal(own, bounds[..., 0])
    finer = AFFINE @ np.diag([0.5, 2.0, 1.0, 1.0])
    found = bounds_on(tmp_path / "trust.nii.gz", Grid((80, 30, 10), finer))
    np.testing.assert_allclose(found[:68, :25], np.broadcast_to(np.arange(68)[:, None, None] / 2, (68, 25, 10)), 1e-5)
    assert np.isnan(found[70:]).all() and np.isnan(found[:, 26:]).all()


@pytest.fixture
def carried(tmp_path: Path) -> Path:
    """A field that moves nothing, bounds of 2.5 mm, and a label map with names."""
    save_itk_field(tmp_path / "field.nii.gz", np.zeros((3, *SHAPE), np.float32), AFFINE)
    save_trust(tmp_path / "trust.nii.gz", np.full((*SHAPE, 2), 2.5, np.float32), AFFINE)
    labels = np.zeros(SHAPE, np.uint8)
    labels[10:20, 10:20, 10:20], labels[24:30, 24:40, 10:20] = 3, 8
    save_image(tmp_path / "organs.nii.gz", labels, AFFINE)
    save_names(tmp_path / "organs.nii.gz", {3: "Heart"})
    return tmp_path


def test_files_of_inner_and_outer_structures_lie_beside_the_carried_one(carried: Path) -> None:
    opened = replace(open_map(carried / "field.nii.gz"), trust=carried / "trust.nii.gz")
    files, lines = apply_to_labels(opened, [carried / "organs.nii.gz"], carried / "out", mode="nearest")
    assert [file.name for file in files] == ["organs.nii.gz", "organs_inner.nii.gz", "organs_outer.nii.gz"]
    own, inner, outer = (np.asarray(nib.load(file).dataobj) for file in files)
    np.testing.assert_array_equal(own, np.asarray(nib.load(carried / "organs.nii.gz").dataobj))
    heart = block(SHAPE, (11, 13, 11), (19, 17, 19))
    np.testing.assert_array_equal(inner == 3, heart)
    assert ((own == 3) <= (outer == 3)).all() and (outer == 3).sum() > (own == 3).sum()
    for file in files:
        assert (carried / "out" / f"{file.name.partition('.')[0]}.tsv").read_text() == "index\tname\n3\tHeart\n"
    volumes = [(part == 3).sum() * 6 / 1000 for part in (inner, own, outer)]
    assert lines[0] == "with the 68 % bound of the error:"
    assert lines[1] == "  Heart: inner {:.1f} ml, carried {:.1f} ml, outer {:.1f} ml".format(*volumes)
    assert lines[2].startswith("  label 8: inner ")
    named, _ = apply_to_labels(opened, [carried / "organs.nii.gz"], carried, mode="soft", named=carried / "x.nrrd")
    assert [file.name for file in named] == ["x.nrrd", "x_inner.nrrd", "x_outer.nrrd"]
    assert all(file.exists() for file in named)


def test_the_command_tells_volumes_before_the_files(
    result: Path,
    pair: Mapping[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    from ncf.commands.main import main
    from ncf.result.folder import SavedResult

    folder = tmp_path / "chest"
    shutil.copytree(result, folder)
    grid = SavedResult(folder).grid("fixed")
    save_trust(folder / "trust.nii.gz", np.full((*grid.shape, 2), 3.0, np.float32), grid.affine)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["ncf", "apply", str(folder), "--to=label", f"--output_dir={out}"])
    main()
    told = capsys.readouterr().out.splitlines()
    assert (
        told[0].startswith("with the 68 %")
        and told[1].startswith("  label ")
        and told[-3:]
        == [
            str(out / f"{Path(pair['moving_label']).name.partition('.')[0]}{side}.nii.gz")
            for side in ("", "_inner", "_outer")
        ]
    )
    still = ["ncf", "apply", str(folder), "--to=label", f"--output_dir={tmp_path / 'moved'}"]
    (tmp_path / "a.txt").write_text("1 0 0 5\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [*still, f"--post_transform={tmp_path / 'a.txt'}"])
    main()  # bounds are those of the map alone
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.fixture(scope="module")
def result(run, pair: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:  # type: ignore[no-untyped-def]
    """The result folder of a short fit."""
    return Path(run(tmp_path_factory.mktemp("margins"), pair, name="chest").evaluator.state.output["result_dir"])
