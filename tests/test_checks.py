"""What is refused before a registration, in words that name the file; landmarks against numpy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from ncf.core.errors import PairError
from ncf.pair.checks import CheckFilesd, CheckPaird
from ncf.pair.read import ReadPaird
from tests.dicom_files import write_dicom
from tests.refusing import refused
from tests.test_reading import SHAPE, affine_of, volume, write_sitk


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, str]:
    return {
        "fixed": write_sitk(tmp_path / "exhale.nii.gz", volume(), affine_of("RAS")),
        "moving": write_sitk(tmp_path / "inhale.mha", volume(), affine_of("RAS")),
    }


def test_empty_entries_are_dropped_and_the_pair_gets_a_name(pair: dict[str, str], tmp_path: Path) -> None:
    label = write_sitk(tmp_path / "label.nii.gz", (volume() > 0).astype("uint8"), affine_of("RAS"))
    given = {**pair, "fixed_label": None, "moving_label": label, "fixed_mask": "", "landmarks": None, "note": 3}
    before = dict(given)
    checked = CheckFilesd()(given)
    assert given == before
    assert {"fixed_label", "fixed_mask", "landmarks"}.isdisjoint(checked)
    assert checked["name"] == "exhale__inhale" and checked["note"] == 3
    assert CheckFilesd()({**pair, "name": "case 7/b"})["name"] == "case_7_b"
    read = ReadPaird()(checked)
    assert {key: tuple(read[key].shape) for key in ("fixed", "moving", "moving_label")} == dict.fromkeys(
        ("fixed", "moving", "moving_label"), (1, *SHAPE)
    )
    assert read["note"] == 3 and checked["fixed"] == pair["fixed"]


@pytest.mark.parametrize("key", ["fixed", "moving", "fixed_label", "fixed_mask", "landmarks"])
def test_a_missing_file_is_named(pair: dict[str, str], tmp_path: Path, key: str) -> None:
    with pytest.raises(PairError, match=rf"^{key}: cannot open .*gone\.nii\.gz \(No such file"):
        CheckFilesd()({**pair, key: str(tmp_path / "gone.nii.gz")})


@pytest.mark.parametrize("value", [None, ""])
@pytest.mark.parametrize("key", ["fixed", "moving"])
def test_both_images_must_be_named(pair: dict[str, str], key: str, value: str | None) -> None:
    with pytest.raises(PairError, match=f"^{key}: a pair needs"):
        CheckFilesd()({**pair, key: value})


def test_files_that_no_reader_could_take(pair: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty.nii").touch()
    (tmp_path / "x.png").write_bytes(b"\x89PNG")
    for value, text in (("empty.nii", "empty.nii is empty"), ("x.png", r"no known format; give \.nii\.gz")):
        with pytest.raises(PairError, match=text):
            CheckFilesd()({**pair, "moving": str(tmp_path / value)})
    with pytest.raises(PairError, match="fixed: expected a path, got int 3"):
        CheckFilesd()({**pair, "fixed": 3})
    with pytest.raises(PairError, match="landmarks: cannot open"):
        CheckFilesd()({**pair, "landmarks": str(tmp_path)})


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(pair: dict[str, str]) -> None:
    os.chmod(pair["fixed"], 0)
    with pytest.raises(PairError, match=r"fixed: cannot open .*Permission denied"):
        CheckFilesd()(pair)


@pytest.mark.parametrize("kept", [100, 400, 800])
def test_slices_that_were_cut_off_are_missed(pair: dict[str, str], tmp_path: Path, kept: int) -> None:
    folder = Path(write_dicom(tmp_path / "series", volume(), affine_of("oblique")))
    places = {file: float(pydicom.dcmread(file).ImagePositionPatient[2]) for file in folder.iterdir()}
    last = max(places, key=lambda file: places[file])
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")  # a list of the others is no slice
    CheckFilesd()({**pair, "moving": str(folder)})
    cut = last.rename(last.with_suffix(".dcm"))  # an end of the series, so that the others are evenly spaced
    cut.write_bytes(cut.read_bytes()[:kept])
    refused(f"moving: 1 DICOM file cannot be read, {cut}", CheckFilesd(), {**pair, "moving": str(folder)})


def test_a_folder_holds_one_dicom_series(pair: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    write_dicom(folder, volume(), affine_of("oblique"))
    (folder / "notes.txt").write_text("not an image")
    checked = CheckFilesd()({**pair, "moving": str(folder)})
    assert checked["name"] == "exhale__scans"
    np.testing.assert_array_equal(ReadPaird()(checked)["moving"].numpy()[0], volume())
    for file in sorted(folder.iterdir())[:5]:  # a copy under another series
        if file.name != "notes.txt":
            data = pydicom.dcmread(file)
            data.SeriesInstanceUID, data.SOPInstanceUID = "1.2.3", generate_uid()
            data.save_as(folder / f"copy_{file.name}")
    with pytest.raises(
        PairError,
        match=r"moving: .*scans holds 2 DICOM volumes: 1 CT axial 9x12x5 \(.*evenly spaced\); 2 CT axial 9x12x10; ",
    ):
        CheckFilesd()({**pair, "moving": str(folder)})
    (tmp_path / "bare").mkdir()
    with pytest.raises(PairError, match=r"bare holds no DICOM scan; name an image file"):
        CheckFilesd()({**pair, "fixed": str(tmp_path / "bare")})


@pytest.mark.parametrize("name", ["RAS", "oblique"])
def test_a_series_that_fills_no_box_is_refused(pair: dict[str, str], tmp_path: Path, name: str) -> None:
    missing = write_dicom(tmp_path / "missing", volume(), affine_of(name), skip=(4,))
    with pytest.raises(PairError, match=r"missing: slices must be evenly spaced, these are 3\.4 to 6\.8 mm apart"):
        CheckFilesd()({**pair, "fixed": missing})
    tilted = write_dicom(tmp_path / "tilted", volume(), affine_of(name), tilt_mm=0.5)
    with pytest.raises(PairError, match="gantry tilt"):
        CheckFilesd()({**pair, "fixed": tilted})
    times = write_dicom(tmp_path / "times", volume(), affine_of(name))
    for file in list(Path(times).iterdir()):
        data = pydicom.dcmread(file)
        data.SOPInstanceUID = generate_uid()
        data.PixelData = data.PixelData[2:] + b"\7\0"
        data.save_as(file.with_name(f"second_{file.name}"))
    with pytest.raises(PairError, match=r"up to 2 lie at one place .10 of 10 places., and no tag tells them apart"):
        CheckFilesd()({**pair, "fixed": times})


def read(tmp_path: Path, **files: tuple[np.ndarray, np.ndarray] | str) -> dict[str, Any]:
    """A pair as `ReadPaird` gives it, of (array, affine) saved as float32; fixed and moving are there unless given."""
    volumes = {key: (volume("float32"), affine_of("oblique")) for key in ("fixed", "moving")} | files
    paths: dict[str, str] = {}
    for key, value in volumes.items():
        paths[key] = value if isinstance(value, str) else str(tmp_path / f"{key}.nii.gz")
        if not isinstance(value, str):
            nib.save(nib.Nifti1Image(value[0].astype("float32"), value[1]), paths[key])
    return ReadPaird()(paths)


def changed(value: float, *, at: tuple[slice, ...] = (slice(2, 4), slice(0, 1), slice(0, 3))) -> np.ndarray:
    array = volume("float32")
    array[at] = value
    return array


@pytest.mark.parametrize(("bad", "count"), [(np.nan, 6), (np.inf, 6), (-np.inf, 6)])
@pytest.mark.parametrize("key", ["fixed", "moving", "fixed_label", "fixed_mask", "moving_mask"])
def test_voxels_that_are_no_numbers_are_counted(tmp_path: Path, key: str, bad: float, count: int) -> None:
    with pytest.raises(PairError, match=rf"^{key} .*{key}\.nii\.gz: {count} of 1080 voxels are NaN or infinite"):
        CheckPaird()(read(tmp_path, **{key: (changed(bad), affine_of("oblique"))}))


def test_an_image_without_content(tmp_path: Path) -> None:
    pair = read(tmp_path, moving=(np.full(SHAPE, -1000.0), affine_of("oblique")))
    with pytest.raises(PairError, match=r"moving .*moving\.nii\.gz: all voxels are -1000"):
        CheckPaird()(pair)


@pytest.mark.parametrize("min_size", [8, 9, 10])
def test_min_size_is_a_knob(tmp_path: Path, min_size: int) -> None:
    pair = read(tmp_path)  # 9 x 12 x 10
    if min_size <= 9:
        assert "initial_mm" in CheckPaird(min_size=min_size)(pair)
        return
    with pytest.raises(PairError, match=r"shape \(9, 12, 10\) is too small, every axis needs 10"):
        CheckPaird(min_size=min_size)(pair)


@pytest.mark.parametrize("flat", [[0, 0, 0], "copy", [np.nan] * 3])
def test_a_grid_without_volume(tmp_path: Path, flat: Any) -> None:
    pair = read(tmp_path)
    pair["fixed"].affine[:3, 2] = (
        pair["fixed"].affine[:3, 1] if flat == "copy" else pair["fixed"].affine.new_tensor(flat)
    )
    with pytest.raises(PairError, match=r"fixed .*fixed\.nii\.gz: affine .* cannot be inverted"):
        CheckPaird()(pair)


@pytest.mark.parametrize(
    ("key", "owner"),
    [("fixed_label", "fixed"), ("fixed_mask", "fixed"), ("moving_label", "moving"), ("moving_mask", "moving")],
)
def test_labels_and_masks_lie_on_their_images_grid(tmp_path: Path, key: str, owner: str) -> None:
    own = volume("float32") % 5
    turned = affine_of("oblique")
    turned[:3, 3] += turned[:3, 0] * 0.02  # voxels
    for affine, off in ((affine_of("LPS"), None), (turned, "0.02")):
        pair = read(tmp_path, **{key: (own, affine)})
        with pytest.raises(
            PairError, match=rf"{key} .*: affine .* is not that of {owner} .*{owner}\.nii\.gz"
        ) as caught:
            CheckPaird()(pair)
        assert off is None or f"up to {off} voxels off" in str(caught.value)
    with pytest.raises(PairError, match=rf"shape \(9, 12, 8\) is not that of {owner} .*, \(9, 12, 10\); resample"):
        CheckPaird()(read(tmp_path, **{key: (own[:, :, 2:], affine_of("oblique"))}))
    shifted = affine_of("oblique")
    shifted[:3, 3] += shifted[:3, 0] * 5e-4  # within the tolerance of 1e-3 voxels
    np.testing.assert_array_equal(CheckPaird()(read(tmp_path, **{key: (own, shifted)}))[key].numpy()[0], own)


def test_what_labels_and_masks_may_hold(tmp_path: Path) -> None:
    affine = affine_of("oblique")
    label = (volume("float32") % 4).round()
    label[1, 2, 3] = 1.5
    with pytest.raises(PairError, match=r"moving_label .*: labels must be whole numbers, 1 are not \(1\.5\)"):
        CheckPaird()(read(tmp_path, moving_label=(label, affine)))
    with pytest.raises(PairError, match=r"moving_label .*: labels are 0 and more, .* -1000; is this a scan\?"):
        CheckPaird()(read(tmp_path, moving_label=(label.round() - 1000, affine)))
    with pytest.raises(PairError, match=r"fixed_mask .*: the mask is zero everywhere"):
        CheckPaird()(read(tmp_path, fixed_mask=(np.zeros(SHAPE), affine)))
    with pytest.raises(PairError, match=r"must not be negative, the lowest is -0\.5"):
        CheckPaird()(read(tmp_path, fixed_mask=(changed(-0.5).clip(-0.5), affine)))
    CheckPaird()(read(tmp_path, fixed_mask=(np.abs(label) / 7, affine), fixed_label=(np.zeros(SHAPE), affine)))


@pytest.mark.parametrize("gap_mm", [12.5, -0.5])
def test_headers_far_apart_are_refused_with_the_distance(tmp_path: Path, gap_mm: float) -> None:
    fixed, moving = affine_of("RAS"), affine_of("RAS")
    moving[0, 3] += SHAPE[0] * 1.1 + gap_mm  # the boxes are SHAPE * SPACING_MM wide, 1.1 mm along x
    pair = read(tmp_path, fixed=(volume(), fixed), moving=(volume(), moving))
    if gap_mm > 0:
        with pytest.raises(PairError, match=r"fixed\.nii.*moving\.nii.* 12\.5 mm apart; correct the header") as caught:
            CheckPaird()(pair)
        assert caught.value.hint == "align_centres"
    else:
        np.testing.assert_array_equal(CheckPaird()(pair)["initial_mm"], np.zeros(3))
    initial = CheckPaird(align_centres=True)(pair)["initial_mm"]
    np.testing.assert_allclose(initial, [SHAPE[0] * 1.1 + gap_mm, 0, 0], atol=1e-4)  # mm, float32 headers


def test_initial_mm_brings_the_centres_together_on_any_two_grids(tmp_path: Path) -> None:
    small = volume()[:, 2:, :8]
    pair = read(tmp_path, fixed=(volume(), affine_of("oblique")), moving=(small, affine_of("permuted")))
    before = pair["moving"].affine.clone()
    out = CheckPaird(align_centres=True)(pair)
    centres = [
        nib.affines.apply_affine(pair[k].affine.numpy(), (np.array(pair[k].shape[1:]) - 1) / 2)
        for k in ("fixed", "moving")
    ]
    np.testing.assert_allclose(out["initial_mm"], centres[1] - centres[0], atol=1e-9)
    assert out["initial_mm"].dtype == np.float64 and (out["moving"].affine == before).all()
    assert "initial_mm" not in pair
