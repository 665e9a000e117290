"""The phantom's truth: its formulas against each other, finite differences, scipy and nibabel."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates, maximum_filter, minimum_filter

from ncf.core.errors import PairError
from ncf.phantom.anatomy import AIR_HU, BLOOD_HU, FIELD_OF_VIEW_MM, Vessels, shapes_at
from ncf.phantom.chest import LABELS, Chest, PhantomPair, breathing_thorax, write
from ncf.space.geometry import field_to_mm, spacing_mm, to_mm, to_vox
from ncf.space.grids import Grid

SMALL = (36, 32, 40)
SMALL_AFFINE = np.diag([*(np.divide(FIELD_OF_VIEW_MM, SMALL) * (-1, -1, 1)), 1.0])

INVERSE_MM = 1e-9  # closed forms: only rounding, a few 1e-14 of 300 mm, magnified by sinh and its inverse
JACOBIAN = 1e-6  # central differences of 0.01 mm: truncation 1e-9, rounding 1e-13 / 0.01 = 1e-11
EXACT_HU = 1e-3  # float32 near 1000 HU keeps 6e-5; edges of 1700 HU over 3 mm turn 1e-9 mm into 6e-7
FIELD_HU = 0.05  # a float32 field of 8 voxels is off by 5e-7 voxels, at an edge of 1700 HU a voxel
SPLINE_VOX = 0.01  # scipy's cubic spline through the field, whose bends span 20 voxels; float32 adds 1e-6


@pytest.fixture(scope="module")
def default() -> PhantomPair:
    """The pair everyone gets who asks for nothing."""
    return breathing_thorax()


@pytest.fixture(scope="module")
def chest() -> Chest:
    """A chest on its own, to be read at single points."""
    return Chest.filling(Grid(SMALL, SMALL_AFFINE), motion=1.0, seed=np.random.SeedSequence(5))


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    """Points (3, 400) spread over the field of view, in body mm."""
    return np.random.default_rng(2).uniform(-0.5, 0.5, (400, 3)).T * np.reshape(FIELD_OF_VIEW_MM, (3, 1))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two masks, 0 to 1."""
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def determinants(field_vox: np.ndarray) -> np.ndarray:
    """Jacobian determinants (W, H, D) of x + u(x) by central differences."""
    rows = [np.stack(np.gradient(u.astype(np.float64)), axis=-1) for u in field_vox]
    return np.linalg.det(np.stack(rows, axis=-2) + np.eye(3))


def read_at(chest: Chest, points_mm: np.ndarray, *, inhale: bool) -> tuple[np.ndarray, np.ndarray]:
    """HU and labels (N,) of a chest at body points (3, N), each read as an image of a single voxel."""
    places = [np.eye(4) + np.pad(p[:, None], ((0, 1), (3, 0))) for p in points_mm.T * chest.scale + chest.centre_mm]
    hu, label = zip(*(chest.image(Grid((1, 1, 1), affine), inhale=inhale) for affine in places), strict=True)
    return np.ravel(hu).astype(np.float64), np.ravel(label)


def rotation(angle: float) -> np.ndarray:
    """A 4x4 rotation about a slanted axis through the world's origin."""
    c, s = np.cos(angle), np.sin(angle)
    about_z, about_x = np.eye(4), np.eye(4)
    about_z[:2, :2] = about_x[1:3, 1:3] = [[c, -s], [s, c]]
    return about_z @ about_x


def flipped(affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The affine of ``image.transpose(2, 0, 1)[:, ::-1]``."""
    return affine @ np.array([[0, -1, 0, shape[0] - 1], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def test_motion_and_inverse_undo_each_other(chest: Chest, points: np.ndarray) -> None:
    there, growth = chest.breathing.forward(points)
    back, same_growth = chest.breathing.inverse(there)
    assert np.abs(there - points).max() > 10
    assert np.abs(back - points).max() < INVERSE_MM
    assert np.abs(chest.breathing.forward(chest.breathing.inverse(points)[0])[0] - points).max() < INVERSE_MM
    np.testing.assert_allclose(same_growth, growth, rtol=1e-9)


@pytest.mark.parametrize("motion", [0.5, 1.0, 2.0])
def test_jacobian_is_that_of_finite_differences(motion: float, points: np.ndarray) -> None:
    chest = Chest.filling(Grid(SMALL, SMALL_AFFINE), motion=motion, seed=np.random.SeedSequence(1))
    step_mm, columns = 0.01, []
    for axis in range(3):
        shift = step_mm * np.eye(3)[:, axis : axis + 1]
        ahead, behind = (chest.breathing.forward(points + s)[0] for s in (shift, -shift))
        columns.append((ahead - behind) / (2 * step_mm))
    matrix = np.moveaxis(np.array(columns), (0, 1, 2), (2, 1, 0))
    growth = chest.breathing.forward(points)[1]
    assert growth.min() > 0.2 and growth.max() > 1.05
    assert np.abs(np.linalg.det(matrix) - growth).max() < JACOBIAN


def test_signed_distances_are_deep_in_the_very_middle() -> None:
    """A gauge is 0 / 0 on the axis of a body; the distance there must not become that of the surface."""
    assert shapes_at(np.array([[0.0], [0.0], [-108.0]])).body < -100
    assert shapes_at(np.array([[0.0], [0.0], [-108.0]])).cage < -80
    assert shapes_at(np.array([[50.0], [6.0], [-108.0]])).liver < -3


def test_labels_and_tissue_travel_with_the_points(chest: Chest, points: np.ndarray) -> None:
    there, growth = chest.breathing.forward(points)
    before, label = read_at(chest, points, inhale=False)
    after, label_after = read_at(chest, there, inhale=True)
    depth = -shapes_at(points).lungs / chest.anatomy.edge_mm
    outside, inside = depth < -0.5, depth > 0.5  # of the blurred edge
    assert set(label) == set(LABELS.values())
    np.testing.assert_array_equal(label_after, label)
    np.testing.assert_allclose(after[outside], before[outside], atol=EXACT_HU)

    # inside, HU above air = (1 - share) * tissue + share * blood, and only the tissue is diluted by the growth
    blood = chest.anatomy.vessels.share(points) * (BLOOD_HU - AIR_HU)
    diluted = AIR_HU + blood + (before - AIR_HU - blood) / growth
    assert inside.sum() > 20 and np.abs(after - before)[inside].max() > 10
    np.testing.assert_allclose(after[inside], diluted[inside], atol=EXACT_HU)


def test_field_leads_to_the_same_tissue_in_the_moving_image() -> None:
    """The public pair only: a moving grid whose voxel 5, 6, 7 is put where the field sends a fixed voxel."""
    pair = breathing_thorax(SMALL, noise_hu=0, seed=3)
    some = np.random.default_rng(0)
    bone, soft = np.argwhere(pair.fixed > 200), np.argwhere(pair.fixed_label >= LABELS["heart"])
    for voxel in (*some.choice(bone, 4), *some.choice(soft, 4)):
        target = to_mm((voxel + pair.field_vox[(slice(None), *voxel)])[None], pair.affine)[0]
        affine = rotation(0.3) @ pair.affine
        affine[:3, 3] += target - to_mm(np.array([[5, 6, 7]]), affine)[0]
        there = breathing_thorax(SMALL, noise_hu=0, seed=3, moving_affine=affine, moving_shape=(16, 17, 18))
        assert there.moving[5, 6, 7] == pytest.approx(pair.fixed[tuple(voxel)], abs=FIELD_HU)
        assert there.moving_label[5, 6, 7] == pair.fixed_label[tuple(voxel)]
        marks = to_vox(to_mm(pair.landmarks[:, 3:], pair.affine), affine)
        np.testing.assert_allclose(there.landmarks, np.hstack([pair.landmarks[:, :3], marks]), atol=INVERSE_MM)


def test_warping_by_the_field_aligns_the_pair() -> None:
    """scipy resamples the moving image: away from edges it gives the fixed one, lungs diluted by the field's growth."""
    pair = breathing_thorax((80, 72, 80), noise_hu=0)
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in pair.fixed.shape], indexing="ij"))
    label = map_coordinates(pair.moving_label, voxels + pair.field_vox, order=0, mode="nearest")
    for number in range(1, 5):
        part = pair.fixed_label == number
        assert dice(part, label == number) > 0.95 > dice(part, pair.moving_label == number)
    image = map_coordinates(pair.moving, voxels + pair.field_vox, order=1, mode="nearest")
    lungs, growth = np.isin(pair.fixed_label, (1, 2)), determinants(pair.field_vox)
    expected = np.where(lungs, AIR_HU + (pair.fixed - AIR_HU) / growth, pair.fixed)
    flat = maximum_filter(pair.fixed, 3) - minimum_filter(pair.fixed, 3) < 20
    flat &= (voxels[2] + pair.field_vox[2]) > 1  # below, the moving image ends
    for part in (flat & lungs, flat & (pair.fixed_label == LABELS["liver"])):
        assert part.sum() > 2000
        assert np.percentile(np.abs(image - expected)[part], 99) < 2  # HU: linear interpolation of the soft texture
    assert np.median((image - pair.fixed)[flat & lungs]) < -15


def test_default_pair_is_worth_registering(default: PhantomPair) -> None:
    assert default.fixed.shape == default.moving.shape == default.fixed_label.shape == default.field_vox.shape[1:]
    assert 0.9e6 < default.fixed.size < 1.2e6
    assert default.fixed.dtype == default.moving.dtype == default.field_vox.dtype == np.float32
    assert default.fixed_label.dtype == default.moving_label.dtype == np.uint8
    assert nib.aff2axcodes(default.affine) == ("L", "P", "S")
    for number in (LABELS["right_lung"], LABELS["left_lung"]):
        assert 0.85 < dice(default.fixed_label == number, default.moving_label == number) < 0.93
        assert (default.moving_label == number).sum() > 1.05 * (default.fixed_label == number).sum()
    assert np.linalg.norm(default.landmarks[:, 3:] - default.landmarks[:, :3], axis=1).mean() > 3
    for image in (default.fixed, default.moving):
        assert -1200 < image.min() < -1000 and 500 < image.max() < 1000


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_field_is_smooth_like_breathing_and_free_of_folds(seed: int) -> None:
    pair = breathing_thorax((56, 48, 52), seed=seed)
    largest_mm = np.abs(field_to_mm(torch.from_numpy(pair.field_vox), pair.affine).numpy()).max(axis=(1, 2, 3))
    assert determinants(pair.field_vox).min() > 0.2
    assert (largest_mm > [2.5, 5, 22]).all() and (largest_mm < [4, 7, 28]).all()
    bends = [np.abs(np.diff(pair.field_vox, n=2, axis=axis)).max() for axis in (1, 2, 3)]
    assert max(bends) < 0.25  # voxels; a kink, as of sliding lungs, would be half a voxel or more


def test_landmarks_agree_with_the_field_and_lie_on_vessels(default: PhantomPair) -> None:
    fixed, moving = default.landmarks[:, :3], default.landmarks[:, 3:]
    assert default.landmarks.shape == (100, 6) and default.landmarks.dtype == np.float64
    shift = [map_coordinates(u.astype(np.float64), fixed.T, order=3, mode="nearest") for u in default.field_vox]
    assert np.abs(moving - fixed - np.transpose(shift)).max() < SPLINE_VOX
    at_exhale, at_inhale = (default.fixed_label, default.fixed, fixed), (default.moving_label, default.moving, moving)
    for label, hu, where in (at_exhale, at_inhale):
        nearest = tuple(np.rint(where).astype(int).T)
        assert np.isin(label[nearest], (1, 2)).all()
        assert hu[nearest].mean() > hu[np.isin(label, (1, 2))].mean() + 150
    assert len(np.unique(np.rint(fixed), axis=0)) > 95


def test_without_motion_nothing_moves() -> None:
    pair = breathing_thorax(SMALL, motion=0, noise_hu=0)
    assert not pair.field_vox.any()
    np.testing.assert_array_equal(pair.moving, pair.fixed)
    np.testing.assert_array_equal(pair.moving_label, pair.fixed_label)
    np.testing.assert_allclose(pair.landmarks[:, 3:], pair.landmarks[:, :3], atol=1e-12)


def test_noise_is_gaussian_and_independent() -> None:
    clean, noisy = breathing_thorax(SMALL, noise_hu=0), breathing_thorax(SMALL, noise_hu=20)
    first, second = (noisy.fixed - clean.fixed).ravel(), (noisy.moving - clean.moving).ravel()
    for noise in (first, second):
        assert abs(noise.mean()) < 0.4 and abs(noise.std() - 20) < 0.3  # HU: 4 standard errors of 46080 voxels
        assert abs((np.abs(noise) < 20).mean() - 0.6827) < 0.01
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


def test_a_permuted_grid_holds_the_same_chest_and_motion() -> None:
    plain = breathing_thorax(SMALL, noise_hu=0)
    affine = flipped(plain.affine, SMALL)
    turned = breathing_thorax((SMALL[2], *SMALL[:2]), noise_hu=0, affine=affine)
    for name in ("fixed", "moving", "fixed_label", "moving_label"):
        expected = getattr(plain, name).transpose(2, 0, 1)[:, ::-1]
        np.testing.assert_allclose(getattr(turned, name), expected, atol=EXACT_HU)
    there, here = (field_to_mm(torch.from_numpy(p.field_vox), p.affine).numpy() for p in (turned, plain))
    np.testing.assert_allclose(there, here.transpose(0, 3, 1, 2)[:, :, ::-1], atol=1e-5)  # mm; float32 of 25 mm
    for half in (slice(0, 3), slice(3, 6)):
        there, here = (to_mm(p.landmarks[:, half], p.affine) for p in (turned, plain))
        np.testing.assert_allclose(there, here, atol=INVERSE_MM)


@pytest.mark.parametrize("shape", [(32, 32, 32), (40, 33, 50)])
def test_any_shape_shows_the_same_chest(shape: tuple[int, int, int], default: PhantomPair) -> None:
    pair = breathing_thorax(shape)
    for number in range(1, 5):
        share, expected = ((p.fixed_label == number).mean() for p in (pair, default))
        assert share == pytest.approx(expected, rel=0.05)  # counting voxels of 10 mm


def test_spacing_scales_the_chest_with_the_grid() -> None:
    adult, child = breathing_thorax(SMALL), breathing_thorax(SMALL, spacing_mm=(4, 5, 3))
    np.testing.assert_allclose(spacing_mm(child.affine), (4, 5, 3))
    np.testing.assert_allclose(child.fixed, adult.fixed, atol=EXACT_HU)
    np.testing.assert_allclose(child.field_vox, adult.field_vox, atol=1e-5)


def test_files_hold_the_pair(tmp_path: Path) -> None:
    affine = rotation(0.2) @ np.diag([-9.0, -8.5, 7.5, 1])
    pair = breathing_thorax(SMALL, moving_affine=affine, moving_shape=(30, 31, 32))
    paths = write(pair, tmp_path / "new" / "folder")
    assert list(paths) == ["fixed", "moving", "fixed_label", "moving_label", "landmarks"]
    for name in list(paths)[:4]:
        image, data = nib.Nifti1Image.from_filename(paths[name]), getattr(pair, name)
        expected = pair.moving_affine if "moving" in name else pair.affine
        for stored, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
            assert code == 1
            np.testing.assert_allclose(stored, expected, atol=1e-3)  # mm; the header keeps float32 quaternions
        assert image.header.get_xyzt_units()[0] == "mm"
        assert image.get_data_dtype() == (np.uint8 if "label" in name else np.int16)
        np.testing.assert_allclose(np.asarray(image.dataobj), data, atol=0 if "label" in name else 0.5)
    assert Path(paths["landmarks"]).read_text().startswith("fixed_i,fixed_j,fixed_k,moving_i,moving_j,moving_k\n")
    np.testing.assert_allclose(np.loadtxt(paths["landmarks"], delimiter=",", skiprows=1), pair.landmarks, atol=1e-6)


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    first, again, other = (
        {name: Path(path).read_bytes() for name, path in write(pair, tmp_path / str(n)).items()}
        for n, pair in enumerate(breathing_thorax(SMALL, seed=seed) for seed in (4, 4, 5))
    )
    assert first == again
    assert all(first[name] != other[name] for name in ("fixed", "moving", "moving_label", "landmarks"))


@pytest.mark.parametrize("seed", [0, 1])
def test_vessels_fill_the_lungs(seed: int) -> None:
    """Every block of 28 mm that lies for a good part inside the lungs holds some vessel."""
    where = np.stack(np.meshgrid(*[np.arange(-e / 2 + 3.5, e / 2, 4.0) for e in FIELD_OF_VIEW_MM])).reshape(3, -1)
    where = where[:, shapes_at(where).lungs < -4]
    blood = Vessels(np.random.default_rng(seed), edge_mm=3.0).share(where) > 0.3
    block = np.unique(np.floor(where / 28), axis=1, return_inverse=True)[1].ravel()
    full = np.bincount(block) > 150  # points, of 343
    assert full.sum() > 50 and (np.bincount(block, weights=blood)[full] > 0).all()


BAD_ARGUMENTS = (
    ({"shape": (32, 32)}, "three whole numbers"),
    ({"shape": (32, 8, 32)}, "at least 16"),
    ({"moving_shape": (32.5, 32, 32)}, "three whole numbers"),
    ({"spacing_mm": (1, 0, 1)}, "three positive numbers"),
    ({"spacing_mm": (1, 1, 1), "affine": np.eye(4)}, "not both"),
    ({"affine": np.zeros((4, 4))}, "invertible"),
    ({"moving_affine": np.eye(3)}, "4x4"),
    ({"motion": -1}, "motion must be"),
    ({"noise_hu": float("nan")}, "noise_hu must be"),
    ({"seed": -1}, "seed must be"),
)


@pytest.mark.parametrize(("arguments", "fragment"), BAD_ARGUMENTS)
def test_bad_arguments_are_named(arguments: dict, fragment: str) -> None:
    with pytest.raises(PairError, match=fragment):
        breathing_thorax(**arguments)
