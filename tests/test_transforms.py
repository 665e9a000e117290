"""Where an image holds data and how it is scaled: formulas on made scans, and what is marked on the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy.ndimage import affine_transform

from ncf.core.errors import PairError
from ncf.io.image_files import read_image
from ncf.pair import scaling
from ncf.pair.checks import CheckFilesd, CheckPaird
from ncf.pair.data_region import DataWeightd, data_region, padding
from ncf.pair.read import ReadPaird
from ncf.pair.scaling import RobustScaled

SHAPE = (40, 48, 44)
KEYS = ("fixed", "moving")
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
ROUNDING = 1e-6  # float32 values in [0, 1]
AIR, TISSUE = -1000.0, 40.0


def distance() -> np.ndarray:
    """1 on the surface of an ellipsoid that fills most of the grid, less within."""
    x = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    return np.sqrt(sum((a / r) ** 2 for a, r in zip(x, (0.75, 0.8, 0.85), strict=True)))


def scan(*, noise: float = 15.0, background: float = AIR, seed: int = 0) -> np.ndarray:
    """A body with a dense core in a background; the noise is in the body alone when the background is zero."""
    d, rng = distance(), np.random.default_rng(seed)
    body = np.where(d < 0.3, TISSUE + 700, TISSUE) - (AIR if background == 0 else 0)
    values = np.where(d < 1, body, background) + noise * rng.normal(size=SHAPE) * ((d < 1) | (background != 0))
    return values.astype(np.float32)


def outside_circle() -> np.ndarray:
    x, y = np.meshgrid(np.linspace(-1, 1, SHAPE[0]), np.linspace(-1, 1, SHAPE[1]), indexing="ij")
    return np.broadcast_to((x**2 + y**2 > 1.1)[..., None], SHAPE)


def valid_of(array: np.ndarray) -> np.ndarray:
    return data_region(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))).numpy()


@pytest.mark.parametrize("value", [-2048.0, -3024.0, -32768.0])
def test_padding_is_what_lies_in_a_gap_below_air(value: float) -> None:
    np.testing.assert_array_equal(valid_of(np.where(outside_circle(), value, scan())), ~outside_circle())


def test_resampled_padding_is_cut_in_the_middle_of_the_gap() -> None:
    turn = np.array([[0.99, -0.14, 0], [0.14, 0.99, 0], [0, 0, 1]])
    array = affine_transform(np.where(outside_circle(), -2048, scan()), turn, (2.0, -1.0, 0.3), order=1, cval=-2048)
    valid = valid_of(array)
    assert array[valid].min() > -1560 and array[~valid].max() < -1520  # halfway from -2048 to air, -1024 to -1060
    assert 0.1 < (~valid).mean() < 0.4


@pytest.mark.parametrize("background", [AIR, -1024.0, 0.0])
@pytest.mark.parametrize("noise", [0.0, 15.0])
def test_background_is_information(background: float, noise: float) -> None:
    assert valid_of(scan(noise=noise, background=background)).all()


def test_no_value_is_padding_without_all_its_signs() -> None:
    within = scan()
    within[distance() < 0.4] = -2048  # a hole that reaches no face
    few = scan()
    few[0, 0, :5] = -2048
    noisy = scan(noise=400.0)  # far below air, without a gap
    for array in (within, few, noisy, scan() * 0 - 2048):
        assert not padding(torch.from_numpy(array)).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", ["low", "high", "both"])
@pytest.mark.parametrize("noise", [0.0, 15.0])
def test_slabs_beyond_a_cut_are_marked_to_the_voxel(axis: int, end: str, noise: float) -> None:
    index = np.arange(SHAPE[axis])
    empty = ((index < 13) & (end != "high")) | ((index >= SHAPE[axis] - 12) & (end != "low"))
    empty = np.broadcast_to(np.expand_dims(empty, [a for a in range(3) if a != axis]), SHAPE)
    slab = AIR + noise * np.random.default_rng(5).normal(size=SHAPE)
    np.testing.assert_array_equal(valid_of(np.where(empty, slab, scan())), ~empty)


def test_a_slab_of_another_value() -> None:
    index = np.broadcast_to(np.arange(SHAPE[2]), SHAPE)
    np.testing.assert_array_equal(valid_of(np.where(index < 12, 0.0, scan(noise=0.0))), index >= 12)


def test_the_bent_edge_of_a_slab_is_followed_within_the_patient() -> None:
    edge = np.where(np.arange(SHAPE[0]) > 30, 16, 15)[:, None, None]
    empty = np.arange(SHAPE[2]) < edge * np.ones(SHAPE)
    valid, patient = valid_of(np.where(empty, AIR, scan())), distance() < 1
    np.testing.assert_array_equal(valid[..., :15], np.zeros((*SHAPE[:2], 15), dtype=bool))
    assert valid[patient & ~empty].all() and valid[..., 16:].all()


def test_a_sparse_image_has_no_slabs() -> None:
    bar = np.zeros(SHAPE)
    bar[10:14, 10:14, 10:30] = 1.0
    assert valid_of(bar).all()


def pair_of(tmp_path: Path, fixed: np.ndarray, moving: np.ndarray, **masks: np.ndarray | None) -> dict[str, Any]:
    """The pair after weighting, from NIfTI files; masks by their keys."""
    paths = {}
    for key, array in {"fixed": fixed, "moving": moving, **masks}.items():
        if array is not None:
            paths[key] = str(tmp_path / f"{key}.nii.gz")
            nib.save(nib.Nifti1Image(array.astype(np.float32), np.diag([1.5, 2.0, 2.5, 1.0])), paths[key])
    return DataWeightd(keys=KEYS)(CheckPaird()(ReadPaird()(paths)))


@pytest.mark.parametrize(("own", "other"), [("fixed", "moving"), ("moving", "fixed")])
def test_a_mask_weighs_its_own_image_alone(tmp_path: Path, own: str, other: str) -> None:
    mask = np.random.default_rng(3).uniform(0, 7, SHAPE).astype(np.float32) * (distance() < 1.3)
    padded = np.where(outside_circle(), -2048, scan())
    pair = pair_of(tmp_path, padded, padded, **{f"{own}_mask": mask})
    data = ~outside_circle()
    np.testing.assert_allclose(pair[f"{own}_weight"].numpy()[0], data * mask / mask.max(), atol=ROUNDING)
    np.testing.assert_array_equal(pair[f"{other}_weight"].numpy()[0], data)
    for key in KEYS:
        np.testing.assert_array_equal(pair[f"{key}_valid"].numpy()[0], data)
        assert isinstance(pair[f"{key}_weight"], MetaTensor) and pair[f"{key}_weight"].dtype == torch.float32
        assert (pair[f"{key}_weight"].affine == pair[key].affine).all()
    with_mask, without = (RobustScaled(keys=KEYS)(p)["intensity"] for p in (pair, pair_of(tmp_path, padded, padded)))
    assert with_mask == without


def test_a_mask_where_there_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(PairError, match=r"fixed .*fixed\.nii\.gz: no voxel has both data and weight"):
        pair_of(tmp_path, np.where(outside_circle(), -2048, scan()), scan(), fixed_mask=outside_circle())


def scaled(tmp_path: Path, fixed: np.ndarray, moving: np.ndarray, **options: float) -> dict[str, Any]:
    return RobustScaled(keys=KEYS, **options)(pair_of(tmp_path, fixed, moving))


def ramp() -> np.ndarray:
    """0 to 1 in equal steps, in random order: the p-th percentile is p / 100."""
    values = np.random.default_rng(2).permutation(np.prod(SHAPE))
    return (values / values.max()).reshape(SHAPE)


def test_percentiles_map_to_zero_and_one(tmp_path: Path) -> None:
    pair = scaled(tmp_path, 200 * ramp(), 200 * ramp(), lower=10, upper=80)
    np.testing.assert_allclose(pair["intensity"]["fixed"], [20, 160], rtol=1e-5)
    assert pair["intensity"]["shared"] is True
    np.testing.assert_allclose(pair["fixed_scaled"].numpy()[0], ((ramp() - 0.1) / 0.7).clip(0, 1), atol=1e-5)
    np.testing.assert_allclose(pair["fixed"].numpy()[0], 200 * ramp(), rtol=ROUNDING)  # the original stays
    assert pair["fixed_scaled"].dtype == torch.float32 and (pair["fixed_scaled"].affine == pair["fixed"].affine).all()


@pytest.mark.parametrize(
    ("moving", "shared"),
    [
        ("same", True),
        ("a tenth more", True),
        ("other unit", False),
        ("offset", False),
    ],
)
def test_images_without_hounsfield_units_share_a_range_when_theirs_agree(
    tmp_path: Path, moving: str, shared: bool
) -> None:
    change = {"same": (1.0, 0.0), "a tenth more": (1.1, 0.0), "other unit": (2.0, 0.0), "offset": (1.0, 300.0)}[moving]
    pair = scaled(tmp_path, 500 * ramp(), change[0] * 500 * ramp() + change[1])
    assert pair["intensity"]["shared"] is shared
    assert (pair["intensity"]["fixed"] == pair["intensity"]["moving"]) is shared
    if not shared:  # each by its own range: a change of unit vanishes
        np.testing.assert_allclose(pair["fixed_scaled"], pair["moving_scaled"], atol=1e-5)


def test_hounsfield_units_are_always_shared_but_never_with_an_offset(tmp_path: Path) -> None:
    thorax = scan()
    contrast = np.where(distance() < 0.45, 1500.0, scan(seed=1))
    pair = scaled(tmp_path, thorax, contrast)
    ends = [np.percentile(a, [0.5, 99.5]) for a in (thorax, contrast)]
    assert ends[1][1] - ends[0][1] > 0.15 * (ends[1][1] + 1000)  # far beyond what MR would be granted
    assert pair["intensity"]["shared"] is True
    np.testing.assert_allclose(pair["intensity"]["moving"], [min(e[0] for e in ends), ends[1][1]], rtol=1e-4)
    shell = (distance() > 0.5) & (distance() < 0.9)
    means = [float(pair[f"{key}_scaled"].numpy()[0][shell].mean()) for key in KEYS]
    assert abs(means[0] - means[1]) < 1e-3  # noise of 15 HU over 20000 voxels; one density, one value
    assert scaled(tmp_path, thorax, thorax + 1024)["intensity"]["shared"] is False


def test_padding_does_not_stretch_the_range(tmp_path: Path) -> None:
    pair = scaled(tmp_path, np.where(outside_circle(), -3024, scan()), scan())
    assert -1060 < pair["intensity"]["fixed"][0] < -1000
    values = pair["fixed_scaled"]
    assert values.min() == 0 and values.max() == 1


def test_of_many_voxels_a_sample_gives_the_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scaled(tmp_path, ramp(), ramp())["intensity"]["fixed"]
    monkeypatch.setattr(scaling, "PERCENTILE_VOXELS", 2_000)
    some = scaled(tmp_path, ramp(), ramp())["intensity"]["fixed"]
    assert some != whole
    np.testing.assert_allclose(some, whole, atol=0.02 * (whole[1] - whole[0]))


def test_a_sparse_image_is_scaled_by_its_extremes(tmp_path: Path) -> None:
    dots = np.zeros(SHAPE)
    dots[10, 10, 10:30] = np.arange(1, 21)
    pair = scaled(tmp_path, dots, dots)
    assert pair["intensity"]["fixed"] == [0.0, 20.0]
    np.testing.assert_allclose(pair["moving_scaled"].numpy()[0], dots / 20, atol=ROUNDING)


def test_an_image_whose_only_content_is_padding(tmp_path: Path) -> None:
    with pytest.raises(PairError, match=r"moving .*all voxels with data are 5"):
        scaled(tmp_path, scan(), np.where(outside_circle(), -2048, 5.0))


@pytest.mark.parametrize(("lower", "upper"), [(50, 50), (-1, 99), (1, 101), (80, 20)])
def test_percentiles_in_the_wrong_order(lower: float, upper: float) -> None:
    with pytest.raises(ValueError, match=f"got {lower} and {upper}"):
        RobustScaled(keys=KEYS, lower=lower, upper=upper)


def preprocessing() -> Compose:
    return Compose([CheckFilesd(), ReadPaird(), CheckPaird(), DataWeightd(keys=KEYS), RobustScaled(keys=KEYS)])


def test_a_compose_of_all_leaves_its_input_alone_and_hands_on_the_message(tmp_path: Path) -> None:
    for key in KEYS:
        nib.save(nib.Nifti1Image(scan(), np.eye(4)), tmp_path / f"{key}.nii.gz")
    files = {key: str(tmp_path / f"{key}.nii.gz") for key in KEYS} | {"landmarks": None}
    before = dict(files)
    first, second = preprocessing()(files), preprocessing()(files)
    assert files == before and first["name"] == "fixed__moving"
    assert {f"{key}{suffix}" for key in KEYS for suffix in ("", "_scaled", "_weight", "_valid")} <= set(first)
    assert (first["fixed_scaled"] == second["fixed_scaled"]).all()
    with pytest.raises(RuntimeError) as caught:
        preprocessing()({**files, "moving": str(tmp_path / "gone.nii")})
    cause: BaseException | None = caught.value
    while cause is not None and not isinstance(cause, PairError):
        cause = cause.__cause__
    assert cause is not None and "gone.nii" in str(cause)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the checkout")
@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [  # percent without data
        ("lung_ct_real/fixed", 1.28, 1.29),  # exactly the voxels of -2048 HU
        ("lung_ct_real/moving", 3.36, 3.37),
        ("lung_ct_semi/a/fixed", 21, 23),  # 23 of 208 slices at either end
        ("lung_ct_semi/b/moving", 22.1, 22.2),
        ("brain_mr/fixed", 0, 0),
        ("brain_mr/moving", 0, 0),
        ("head_neck_ct/pt_34_ct", 2.34, 2.35),  # 3 of 128 slices beyond the shoulders
        ("head_neck_ct/pt_54_ct", 7.03, 7.04),  # 9 of 128
        ("head_neck_ct/pt_60_ct", 0, 0),
        ("head_neck_ct/pt_109_ct", 0, 0),
    ],
)
def test_what_is_marked_on_real_scans(name: str, lowest: float, highest: float) -> None:
    image = read_image("fixed", str(DATA / f"{name}.nii.gz")).as_tensor()[0]
    assert lowest <= 100 * (~data_region(image)).float().mean() <= highest
