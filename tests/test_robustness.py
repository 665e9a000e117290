"""Disturbed pairs: what is done to the scans is what their names say, and the landmarks stay the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nibabel.affines import apply_affine

from benchmarks.disturb import CUT, DISTURBANCES, NOISE_FACTOR, Scan, Scans, own_noise, read_scans, write_scans
from benchmarks.evaluate import evaluate
from benchmarks.results import read_lines, value
from benchmarks.robustness import main

SIZES = {name: d.size for name, d in DISTURBANCES.items()}
CUTS = [name for name in DISTURBANCES if "_no_" in name]
SAME_IMAGES = [
    "undisturbed",
    *(name for name in DISTURBANCES if name.startswith(("shift", "turn", "size", "no_overlap"))),
]


@pytest.fixture(scope="module")
def scans(pair: dict[str, str]) -> Scans:
    """The tiny chest."""
    return read_scans({key: Path(path) for key, path in pair.items()})


def landmarks_mm(scans: Scans) -> tuple[np.ndarray, np.ndarray]:
    assert scans.landmarks is not None
    ends = (scans.landmarks[:, :3], scans.fixed.affine), (scans.landmarks[:, 3:], scans.moving.affine)
    return tuple(apply_affine(affine, points) for points, affine in ends)  # type: ignore[return-value]


@pytest.mark.parametrize("name", SAME_IMAGES)
def test_a_scan_that_is_moved_keeps_its_shape_up_to_its_size(name: str, scans: Scans) -> None:
    changed = DISTURBANCES[name].change(scans)
    assert changed.moving.image is scans.moving.image
    (_, before), (_, after) = landmarks_mm(scans), landmarks_mm(changed)
    apart = [np.linalg.norm(np.diff(points, axis=0), axis=1) for points in (before, after)]
    assert np.allclose(apart[1], SIZES[name] * apart[0])
    assert (name == "undisturbed") == np.allclose(before, after, atol=1e-6)


def test_it_is_moved_by_what_is_said(scans: Scans) -> None:
    before = landmarks_mm(scans)[1]
    moved = {name: landmarks_mm(DISTURBANCES[name].change(scans))[1] for name in SAME_IMAGES}
    assert np.allclose(moved["shift_80_along"] - before, [0, 0, 80])
    centre = apply_affine(scans.moving.affine, (np.array(scans.moving.image.shape) - 1) / 2)
    turned, straight = (points - centre for points in (moved["turn_25_axial"], before))
    assert np.allclose(turned[:, 2], straight[:, 2])
    cosine = (turned[:, :2] * straight[:, :2]).sum(axis=1) / np.linalg.norm(straight[:, :2], axis=1) ** 2
    assert np.allclose(np.degrees(np.arccos(cosine)), 25)


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_takes_planes_and_leaves_every_voxel_its_place(name: str, scans: Scans) -> None:
    which, end = name.split("_no_")
    before, after = getattr(scans, which), getattr(DISTURBANCES[name].change(scans), which)
    assert after.image.size / before.image.size == pytest.approx(1 - CUT, abs=0.02)
    assert after.label.shape == after.image.shape
    corners = [apply_affine(scan.affine, [(0, 0, 0), np.array(scan.image.shape) - 1])[:, 2] for scan in (before, after)]
    lowest, highest = ((min(c) for c in corners), (max(c) for c in corners))
    assert (len(set(lowest)), len(set(highest))) == ((2, 1) if end == "bottom" else (1, 2))


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_keeps_the_landmarks_that_are_still_there(name: str, scans: Scans) -> None:
    changed = DISTURBANCES[name].change(scans)
    assert changed.landmarks is not None and scans.landmarks is not None
    assert 0 < len(changed.landmarks) < len(scans.landmarks)
    before, after = (np.hstack(landmarks_mm(s)) for s in (scans, changed))
    kept = (np.abs(before[:, None] - after[None]).max(axis=2) < 1e-6).any(axis=1)
    assert kept.sum() == len(after)
    for ends, scan in ((slice(0, 3), changed.fixed), (slice(3, 6), changed.moving)):
        points = changed.landmarks[:, ends]
        if name.startswith("fixed" if ends.start == 0 else "moving"):
            assert (points >= 0).all() and (points <= np.array(scan.image.shape) - 1).all()


def test_noise_is_known_and_made_three_times_as_strong() -> None:
    random = np.random.default_rng(1)
    image = random.normal(0, 10, (40, 40, 40)).astype(np.float32)
    image[:20] = -1000  # padding
    assert own_noise(image) == pytest.approx(10, rel=0.1)
    scan = Scan(image, None, np.eye(4))
    noisy = DISTURBANCES["noise_x3"].change(Scans(scan, scan, None))
    added = [(s.image - image).std() for s in (noisy.fixed, noisy.moving)]
    assert added == pytest.approx([NOISE_FACTOR * own_noise(image)] * 2, rel=0.02)
    assert not np.array_equal(noisy.fixed.image, noisy.moving.image)


def test_streaks_are_in_a_tenth_of_the_planes_and_fade(scans: Scans) -> None:
    rest = DISTURBANCES["streaks"].change(scans).moving.image - scans.moving.image
    planes = np.abs(rest).max(axis=(0, 1)) > 0
    assert 0.05 < planes.mean() < 0.15
    plane = np.abs(rest[:, :, planes.argmax()])
    assert (rest > 0).any() and (rest < 0).any()
    x, y = (np.abs(np.arange(n) - (n - 1) / 2) for n in plane.shape)
    distance = np.hypot(x[:, None], y)
    far, near = distance > 0.8 * distance.max(), (distance > 4) & (distance < 8)
    assert plane[far].max() < 0.8 * plane[near].max()


def test_blur_and_other_intensities(scans: Scans) -> None:
    image = scans.moving.image
    assert np.abs(np.diff(DISTURBANCES["blur"].change(scans).moving.image)).mean() < 0.9 * np.abs(np.diff(image)).mean()
    rescaled = DISTURBANCES["intensity"].change(scans).moving.image
    assert np.allclose(np.polyfit(image.ravel(), rescaled.ravel(), 1)[0], 1.2, atol=1e-3)
    assert not np.allclose(rescaled, 1.2 * image)


def test_what_is_written_is_what_is_measured(scans: Scans, pair: dict[str, str], tmp_path: Path) -> None:
    files = {key: Path(path) for key, path in pair.items()}
    assert evaluate(None, write_scans(scans, tmp_path / "case")) == evaluate(None, files)


def test_the_table_has_every_case_and_is_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"output_dir": str(tmp_path), "phantom_size": "24,24,24", "pairs": "phantom", "methods": "none"}
    main(**options, cases="undisturbed,shift_80_side")
    main(**options, cases="undisturbed,shift_80_side,size_0.8")
    lines = read_lines(tmp_path / "runs.jsonl")
    assert [line["case"] for line in lines] == ["undisturbed", "shift_80_side", "size_0.8"]
    errors = [value(line, "TRE mm") for line in lines]
    assert errors[1] == pytest.approx(80, abs=errors[0])
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert (
        f"| phantom | shift_80_side | {errors[1]:.4g} |" in table
        and f" {100 * (errors[1] / errors[0] - 1):+.0f} |" in table
    )
    assert capsys.readouterr().out.count("phantom_undisturbed, none") == 1
    assert not (tmp_path / "case").exists()


def test_a_case_that_is_not_known_is_one_line() -> None:
    with pytest.raises(SystemExit, match="error: no case flood; there are: undisturbed"):
        main(cases="flood")
