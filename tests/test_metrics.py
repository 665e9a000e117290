"""The measures against formulas, scipy, numpy and SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation
from scipy.stats import entropy

from ncf.core.errors import PairError
from ncf.evaluate import metrics
from ncf.evaluate.label_overlap import dice_per_label, label_sets, overlap
from ncf.evaluate.metrics import folding_fraction, landmark_summary, sd_log_jacobian, similarity, tre_mm
from ncf.space import jacobian
from ncf.space.jacobian import jacobian_determinant

SHAPE = (20, 24, 28)
READ_MM = 1e-4  # float32 positions and values of some tens of voxels, times a voxel of about 2 mm
DET_ROUNDING = 5e-5  # float32 displacements of up to 30 voxels: 2e-6 each, nine differences, products of three
SUM_ROUNDING = 1e-9  # relative; float64 sums of a few thousand terms
FLOAT32 = 1e-6  # relative; one float32 division


def oblique(seed: int) -> np.ndarray:
    """A rotated voxel -> mm affine with three different spacings."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(rng=seed).as_matrix() @ np.diag([2.1, 1.6, 0.7])
    affine[:3, 3] = [-12.0, 30.0, 7.5]
    return affine


def voxels() -> np.ndarray:
    """Indices of the grid, (3, W, H, D)."""
    return np.indices(SHAPE).astype(np.float64)


def affine_field(matrix: np.ndarray, shift: np.ndarray) -> torch.Tensor:
    """The field of x -> matrix x + shift, exact under linear interpolation and finite differences."""
    x = voxels()
    return torch.from_numpy(np.einsum("cd,d...->c...", matrix, x) + shift[:, None, None, None] - x).float()


MATRIX = np.array([[1.1, 0.05, -0.1], [0.08, 0.9, 0.02], [-0.04, 0.1, 1.2]])


def test_tre_of_an_affine_motion_is_the_distance_left_over() -> None:
    fixed_affine, moving_affine = oblique(1), oblique(2)
    rng = np.random.default_rng(0)
    shift, left_mm = np.array([1.5, -2.0, 0.5]), rng.normal(size=(9, 3)) * 3
    x = rng.uniform(0, np.array(SHAPE) - 1, size=(9, 3))
    world = (x @ MATRIX.T + shift) @ fixed_affine[:3, :3].T + fixed_affine[:3, 3]
    y = np.linalg.solve(moving_affine[:3, :3], (world + left_mm - moving_affine[:3, 3]).T).T
    field, marks = affine_field(MATRIX, shift), np.hstack([x, y])
    after = tre_mm(field, marks, fixed_affine=fixed_affine, moving_affine=moving_affine)
    assert after.shape == (9,)
    np.testing.assert_allclose(after, np.linalg.norm(left_mm, axis=1), atol=READ_MM)
    before = tre_mm(None, marks, fixed_affine=fixed_affine, moving_affine=moving_affine)
    start = x @ fixed_affine[:3, :3].T + fixed_affine[:3, 3]
    np.testing.assert_allclose(before, np.linalg.norm(world + left_mm - start, axis=1), rtol=SUM_ROUNDING)


def test_tre_reads_the_field_between_voxels_as_scipy_does() -> None:
    rng = np.random.default_rng(1)
    field = torch.from_numpy(rng.normal(size=(3, *SHAPE)).astype(np.float32))
    x = rng.uniform(-1, np.array(SHAPE), size=(200, 3))  # up to one voxel outside on either side
    u = np.stack([map_coordinates(f.numpy().astype(np.float64), x.T, order=1, mode="nearest") for f in field], axis=1)
    errors = tre_mm(field, np.hstack([x, x]), fixed_affine=oblique(3), moving_affine=oblique(3))
    np.testing.assert_allclose(errors, np.linalg.norm(u @ oblique(3)[:3, :3].T, axis=1), atol=READ_MM)


@pytest.mark.parametrize(
    ("marks", "telling"),
    [
        (np.zeros((4, 3)), r"shape \(N, 6\)"),
        (np.zeros(6), r"shape \(N, 6\)"),
        (np.array([[1.0, 1, 1, 1, 1, 1], [np.nan, 1, 1, 1, 1, 1]]), "row 1"),
        (np.array([[1.0, 1, 1, 1, 1, 1], [5, 5, 29.5, 1, 1, 1]]), "landmark 1 lies at"),
    ],
)
def test_tre_refuses_landmarks_that_are_none(marks: np.ndarray, telling: str) -> None:
    with pytest.raises(PairError, match=telling) as caught:
        tre_mm(torch.zeros(3, *SHAPE), marks, fixed_affine=np.eye(4), moving_affine=np.eye(4))
    assert "\n" not in str(caught.value)


def test_summary_of_known_errors_and_of_none() -> None:
    summary = landmark_summary(np.arange(101)[::-1])
    assert summary == {"mean": 50.0, "median": 50.0, "p95": 95.0, "max": 100.0, "count": 101}
    none = landmark_summary(
        tre_mm(torch.zeros(3, *SHAPE), np.zeros((0, 6)), fixed_affine=np.eye(4), moving_affine=np.eye(4))
    )
    assert none["count"] == 0 and all(np.isnan(none[k]) for k in ("mean", "median", "p95", "max"))


def test_determinant_of_an_affine_field_is_exact_up_to_the_borders() -> None:
    det = jacobian_determinant(affine_field(MATRIX, np.array([3.0, -4.0, 5.0])))
    assert det.shape == SHAPE and det.dtype == torch.float32
    np.testing.assert_allclose(det.numpy(), np.linalg.det(MATRIX), atol=DET_ROUNDING)


WAVES = np.array([[0.10, 0.06, -0.08], [-0.05, 0.11, 0.07], [0.09, -0.04, 0.06]])  # radians a voxel
HEIGHTS = np.array([1.5, -2.0, 1.0])  # voxels


def test_determinant_of_waves_follows_the_formula() -> None:
    phase = np.einsum("cd,d...->c...", WAVES, voxels())
    field = torch.from_numpy(HEIGHTS[:, None, None, None] * np.sin(phase)).float()
    slope = HEIGHTS[:, None, None, None] * np.cos(phase)
    jacobian = np.eye(3) + np.einsum("cwhk,cd->whkcd", slope, WAVES)
    # Taylor: a central difference of a sin(kx) is off by a k^3 / 6 at most, a one-sided one by a k^2 / 2. A determinant
    # is linear in each row, so the error is at most the sum over rows of |row error| times the other rows' lengths.
    lengths = 1 + np.abs(HEIGHTS) * np.linalg.norm(WAVES, axis=1)
    others = lengths.prod() / lengths
    inside = (np.abs(HEIGHTS) * np.linalg.norm(np.abs(WAVES) ** 3, axis=1) / 6 * others).sum()
    border = (np.abs(HEIGHTS) * np.linalg.norm(WAVES**2, axis=1) / 2 * others).sum()
    error = np.abs(jacobian_determinant(field).numpy() - np.linalg.det(jacobian))
    core = (slice(1, -1),) * 3
    assert error[core].max() <= inside + DET_ROUNDING < 0.01 * np.ptp(np.linalg.det(jacobian))
    assert error.max() <= border + DET_ROUNDING


def test_determinant_agrees_with_itk_and_is_the_one_in_mm() -> None:
    spacing = np.array([2.1, 1.6, 0.7])
    field = np.random.default_rng(2).normal(size=(3, *SHAPE)).astype(np.float32)
    det = jacobian_determinant(torch.from_numpy(field)).numpy()
    image = sitk.GetImageFromArray((field * spacing[:, None, None, None]).T.astype(np.float64), isVector=True)
    image.SetSpacing(spacing.tolist())
    core = (slice(1, -1),) * 3  # ITK mirrors its borders
    referee = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image)).T
    np.testing.assert_allclose(det[core], referee[core], atol=DET_ROUNDING)
    matrix = oblique(4)[:3, :3]
    in_mm = np.einsum("cd,dwhk->cwhk", matrix, field.astype(np.float64))
    by_axis = np.stack([np.stack(np.gradient(part)) for part in in_mm])  # d u_mm / d voxel: (3, 3, W, H, D)
    jacobian = np.eye(3) + np.einsum("cawhk,ad->whkcd", by_axis, np.linalg.inv(matrix))
    np.testing.assert_allclose(det, np.linalg.det(jacobian), atol=DET_ROUNDING)


@pytest.mark.parametrize("piece", [1, 24 * 28 * 3, 24 * 28 * 19])
def test_slabs_leave_no_seam(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    field = torch.from_numpy(np.random.default_rng(3).normal(size=(3, *SHAPE)).astype(np.float32))
    whole = jacobian_determinant(field)
    share, spread = folding_fraction(whole), sd_log_jacobian(whole)
    monkeypatch.setattr(jacobian, "PIECE_VOXELS", piece)
    assert torch.equal(jacobian_determinant(field), whole)
    monkeypatch.setattr(metrics, "PIECE_VOXELS", 1000)
    assert folding_fraction(whole) == share and sd_log_jacobian(whole) == pytest.approx(spread, rel=SUM_ROUNDING)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8, 8), (8, 8, 8, 3), (3, 8, 8, 1)])
def test_a_field_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PairError, match=r"\(3, W, H, D\)"):
        jacobian_determinant(torch.zeros(shape))


def test_a_made_fold_is_counted() -> None:
    ramp = -1.5 * np.clip(np.arange(SHAPE[0]) - 4.0, 0, 5)  # slope -1.5 from plane 4 to 9: det -0.5 on planes 5 to 8,
    field = torch.zeros(3, *SHAPE)  # and at the two knees 1 - 0.75 = 0.25
    field[0] = torch.from_numpy(ramp).float().view(-1, 1, 1)
    det = jacobian_determinant(field)
    assert folding_fraction(det) == 4 / SHAPE[0]
    mask = torch.zeros(SHAPE, dtype=torch.uint8)
    mask[:6] = 1
    assert folding_fraction(det, mask) == 1 / 6
    assert folding_fraction(torch.zeros(2, 2, 2)) == 1.0  # a determinant of 0 is a fold
    assert folding_fraction(torch.tensor([[[1.0, float("nan")]]])) == 0.5
    assert np.isnan(folding_fraction(det, torch.zeros(SHAPE)))
    with pytest.raises(PairError, match="one shape"):
        folding_fraction(det, mask[1:])


def test_sd_log_jacobian_leaves_folds_out() -> None:
    logs = np.random.default_rng(4).normal(0.1, 0.3, size=SHAPE)
    det = torch.from_numpy(np.exp(logs))
    assert sd_log_jacobian(det) == pytest.approx(logs.std(), rel=SUM_ROUNDING)
    det[:5] = -1.0
    assert sd_log_jacobian(det) == pytest.approx(logs[5:].std(), rel=SUM_ROUNDING)
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[3:9] = True
    assert sd_log_jacobian(det, mask) == pytest.approx(logs[5:9].std(), rel=SUM_ROUNDING)
    assert np.isnan(sd_log_jacobian(-torch.ones(SHAPE)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32])
def test_dice_by_hand(dtype: torch.dtype) -> None:
    fixed = torch.zeros(4, 5, 6, dtype=dtype)
    other = torch.zeros(4, 5, 6, dtype=dtype)
    fixed[0, 0, :4], other[0, 0, 2:5] = 1, 1  # 4 and 3 voxels, 2 shared: 2 * 2 / 7
    fixed[1], other[1] = 7, 7  # the same
    fixed[2, 0], other[3, 0] = 9, 12  # 9 is lost, 12 is invented
    scores = dice_per_label(fixed, other)
    assert list(scores) == [1, 7, 9]
    assert scores == pytest.approx({1: 4 / 7, 7: 1.0, 9: 0.0}, rel=FLOAT32)
    asked = dice_per_label(fixed, other, labels=[7, 12])
    assert asked[7] == 1.0 and np.isnan(asked[12])


def test_a_label_that_one_map_lacks_is_listed_and_counts_in_no_mean() -> None:
    fixed, moving = torch.tensor([[0, 1, 1, 2, 5, 5]]), torch.tensor([[0, 1, 2, 2, 7]])
    sets = label_sets(fixed, moving)
    assert (sets.shared, sets.absent) == ([1, 2], {"not_in_moving": [5], "not_in_fixed": [7]})
    carried = torch.tensor([[0, 1, 0, 2, 2, 7]])
    found = overlap(fixed, carried, sets.shared)
    assert found == {"mean": pytest.approx(2 / 3), "labels": {1: pytest.approx(2 / 3), 2: pytest.approx(2 / 3)}}
    assert overlap(fixed, carried, []) == {"mean": None, "labels": {}}


def test_dice_of_many_labels_follows_the_formula() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 46, size=SHAPE), rng.integers(0, 46, size=SHAPE)
    b[a > 20] = a[a > 20]
    scores = dice_per_label(torch.from_numpy(a), torch.from_numpy(b))
    truth = {n: 2 * ((a == n) & (b == n)).sum() / ((a == n).sum() + (b == n).sum()) for n in range(1, 46)}
    assert scores == pytest.approx(truth, rel=FLOAT32)


def test_dice_refuses_what_are_no_label_maps() -> None:
    labels = torch.ones(4, 4, 4)
    with pytest.raises(PairError, match="share a grid"):
        dice_per_label(labels, labels[1:])
    with pytest.raises(PairError, match=r"other label map .* nearest neighbour"):
        dice_per_label(labels, labels * 0.5)


def test_similarity_is_the_weighted_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PIECE_VOXELS", 1000)  # so that sums run over several pieces
    rng = np.random.default_rng(6)
    fixed = rng.normal(1000, 1, size=SHAPE)  # far from zero: a careless correlation would cancel
    warped = 0.5 * fixed + rng.normal(size=SHAPE)
    weight = np.clip(rng.uniform(-0.5, 1, size=SHAPE), 0, None)
    inside = weight > 0
    covariance = np.cov(fixed[inside], warped[inside], aweights=weight[inside])
    ncc = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    mse = np.average((fixed - warped)[inside] ** 2, weights=weight[inside])
    fixed[~inside], warped[~inside] = np.nan, 1e9  # padding may hold anything
    got = similarity(torch.from_numpy(fixed), torch.from_numpy(warped), torch.from_numpy(weight))
    assert {key: got[key] for key in ("mse", "ncc")} == pytest.approx({"mse": mse, "ncc": ncc}, rel=SUM_ROUNDING)
    size = int(np.clip(np.sqrt(inside.sum() / 20), 2, 64))  # so that a bin holds 20 voxels, if they were spread evenly
    edges = [np.linspace(*np.percentile(v[inside], [0.5, 99.5]), size + 1) for v in (fixed, warped)]
    joint = np.histogram2d(
        *(np.clip(v[inside], e[0], e[-1]) for v, e in zip((fixed, warped), edges, strict=True)), edges
    )[0]
    own, other, both = (entropy(counts.ravel()) for counts in (joint.sum(axis=1), joint.sum(axis=0), joint))
    assert got["nmi"] == pytest.approx((own + other) / both, rel=SUM_ROUNDING)


def test_similarity_at_its_ends() -> None:
    image = torch.from_numpy(np.random.default_rng(7).normal(size=SHAPE))
    ones = torch.ones(SHAPE, dtype=torch.bool)
    assert similarity(image, image, ones) == pytest.approx({"mse": 0.0, "ncc": 1.0, "nmi": 2.0}, abs=SUM_ROUNDING)
    assert similarity(image, -(image**3), ones)["nmi"] > 1.4 > 1.2 > similarity(image, image.flip(0), ones)["nmi"] > 1
    assert np.isnan(similarity(image * 0, image * 0 + 1, ones)["nmi"])
    assert similarity(image, 3 - 2 * image, ones)["ncc"] == pytest.approx(-1.0, rel=SUM_ROUNDING)
    flat = similarity(image * 0 + 2, image, ones)
    assert np.isnan(flat["ncc"]) and flat["mse"] == pytest.approx(float(((image - 2) ** 2).mean()), rel=SUM_ROUNDING)
    assert all(np.isnan(v) for v in similarity(image, image, ~ones).values())
