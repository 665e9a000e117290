"""The bent head and neck: its formulas against differences, and a tiny one made whole and judged by the referee."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine

from benchmarks.bent import COUNTS, PATIENTS, WAYS, files, landmarks, pairs_in, write_bent
from benchmarks.beside import cut, draw, fields, frames
from benchmarks.disturb import Scan
from benchmarks.evaluate import LPS, evaluate
from benchmarks.pairs import DATA
from benchmarks.pet_ct import AIR_HU, BODY_HU, LEAST_HU, PLANNING_HU, Scanner, planning
from benchmarks.posture import BRAINSTEM, CORD, MANDIBLE, SHARES, Posture, find_posture

SHAPE, STEP = (54, 42, 58), 6.0
AFFINE = np.array([[-STEP, 0, 0, 159], [0, -STEP, 0, 132], [0, 0, STEP, -216], [0, 0, 0, 1.0]])
BEND, JAW = 15.0, 4.0
SCANNER = Scanner(pixels=80, field_mm=340.0, slice_mm=6.5, noise_hu=30.0)
FEW = {"head": 20, "jaw": 8, "neck": 20, "torso": 10}
HEAD = DATA / "head_neck_ct"


def ball(points: np.ndarray, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    return np.linalg.norm((points - centre) / radii, axis=-1) < 1


@pytest.fixture(scope="module")
def head() -> Scan:
    """A ball on a pipe on a box, with a jaw, a brainstem and a cord: 54 x 42 x 58 voxels of 6 mm."""
    at = apply_affine(AFFINE, np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1))
    x, y, z = np.moveaxis(at, -1, 0)
    body = ball(at, (0, 30, 60), (75, 95, 95)) | ((np.hypot(x, y) < 60) & (z < 60))
    body |= (np.abs(x) < 150) & (np.abs(y) < 80) & (z < -90)
    hu = np.where(body, 40.0 + 60 * np.sin(x / 17) * np.sin(y / 15) * np.sin(z / 16), AIR_HU)
    label = np.zeros(SHAPE, np.uint8)
    label[(np.hypot(x, y) < 10) & (z < 20)] = CORD
    label[(np.hypot(x, y) < 12) & (z >= 20) & (z < 50)] = BRAINSTEM
    jaw = (np.abs(x) < 50) & (np.abs(x) > 25) & (y > 18) & (y < 38) & (z > -25) & (z < 32)  # two rami and the chin
    label[jaw | ((np.abs(x) < 50) & (y > 38) & (y < 95) & (z > -25) & (z < -5))] = MANDIBLE
    hu[label == MANDIBLE] = 900
    return Scan(hu.astype(np.float32), label, AFFINE)


@pytest.fixture(scope="module")
def posture(head: Scan) -> Posture:
    assert head.label is not None
    return find_posture(head.label, head.affine, bend_deg=BEND, jaw_deg=JAW)


def body_points(head: Scan, step: int = 1) -> np.ndarray:
    return apply_affine(head.affine, np.argwhere(head.image > BODY_HU)[::step])


def test_the_joints_follow_the_cord_from_the_brainstem_down(posture: Posture) -> None:
    assert np.allclose(posture.joints[:, 0], 0, atol=STEP / 2)
    assert posture.joints[0, 2] == pytest.approx(24 - 5, abs=STEP)  # the brainstem's lowest voxel, 5 mm on
    assert np.allclose(np.diff(posture.joints[:, 2]), -16, atol=0.5)
    assert SHARES.sum() == pytest.approx(1)


def test_the_skull_turns_whole_by_the_bend_and_the_torso_stays(head: Scan, posture: Posture) -> None:
    points = body_points(head)
    skull = points[points[:, 2] > posture.joints[0, 2] + 40]
    steps = posture.jacobian(skull[::50])
    cosine, sine = np.cos(np.radians(BEND)), np.sin(np.radians(BEND))
    assert np.allclose(steps, [[1, 0, 0], [0, cosine, sine], [0, -sine, cosine]], atol=1e-8)  # the nose goes down
    torso = points[points[:, 2] < posture.joints[-1, 2] - 100]
    assert len(torso) > 1000 and (posture.there(torso) == torso).all()


def test_the_jaw_opens_about_its_hinge_and_turns_whole(head: Scan, posture: Posture) -> None:
    assert head.label is not None
    jaw = apply_affine(head.affine, np.argwhere(head.label == MANDIBLE))
    away = np.hypot(*(jaw[:, 1:] - posture.hinge).T)
    whole = jaw[(posture.opened(jaw) == 1) & (away > 20)]
    assert len(whole) > 0.7 * (away > 20).sum()
    turned = replace(posture, bend=0.0).jacobian(whole)
    assert np.allclose(np.degrees(np.arcsin(turned[:, 1, 2])), JAW, atol=1e-6)
    chin = whole[whole[:, 1] > 60]
    assert (replace(posture, bend=0.0).there(chin)[:, 2] < chin[:, 2]).all()


def test_the_map_has_no_folds_in_the_body_and_its_inverse_is_exact(head: Scan, posture: Posture) -> None:
    points = body_points(head, 3)
    assert np.linalg.det(posture.jacobian(points)).min() > 0.1
    found, known = posture.back(posture.there(points))
    assert known.all()
    assert np.abs(found - points).max() < 1e-5


@pytest.fixture(scope="module")
def made(head: Scan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the tiny pair, named as those of a patient called tiny."""
    folder = tmp_path_factory.mktemp("bent") / "pairs" / f"tiny_{BEND:.0f}"
    write_bent(head, folder, bend_deg=BEND, jaw_deg=JAW, scanner=SCANNER, counts=FEW)
    return folder


def exact_field(head: Scan, posture: Posture, place: Path, *, wrong_mm: float = 0.0) -> Path:
    """Save the true field, from the CT to the PET/CT, as a program would."""
    at = apply_affine(head.affine, np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1))
    u = posture.there(at) + SCANNER.shift_mm - at + [wrong_mm, 0, 0]
    image = nib.Nifti1Image((u * LPS)[:, :, :, None].astype(np.float32), head.affine)
    image.header.set_intent(1007)
    place.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, place)
    return place


def test_the_true_field_brings_scan_labels_and_landmarks_together(
    head: Scan, posture: Posture, made: Path, tmp_path: Path
) -> None:
    paths = files(made, WAYS[0])
    score = evaluate(exact_field(head, posture, tmp_path / "field.nii"), paths)
    before = evaluate(None, paths)
    assert score["tre_mm"]["count"] == sum(FEW.values())
    assert score["tre_mm"]["max"] < 0.6 < 15 < before["tre_mm"]["mean"]  # the field is read between voxels of 6 mm
    assert score["dice"]["mean"] > 0.85 > before["dice"]["mean"]
    assert score["folding_fraction"]["in_label"] == 0


def test_the_other_way_has_the_same_landmarks(made: Path) -> None:
    for name, count in FEW.items():
        there, back = (np.loadtxt(files(made, way)[f"landmarks_{name}"], delimiter=",") for way in WAYS)
        assert there.shape == (count, 6) and (np.roll(there, 3, axis=1) == back).all()


def test_landmarks_follow_the_formula(head: Scan, posture: Posture, made: Path) -> None:
    bent = nib.load(made / "pet_ct.nii.gz")
    found = landmarks(head, Scan(np.zeros(bent.shape), None, bent.affine), posture, scanner=SCANNER, counts=FEW)
    for points in found.values():
        true = posture.there(apply_affine(head.affine, points[:, :3])) + SCANNER.shift_mm
        assert np.allclose(apply_affine(bent.affine, points[:, 3:]), true, atol=1e-9)
    with pytest.raises(ValueError, match="of 100000 landmarks found in the torso"):
        landmarks(
            head, Scan(np.zeros(bent.shape), None, bent.affine), posture, scanner=SCANNER, counts={"torso": 10**5}
        )


def test_the_noise_has_the_strength_that_is_said_and_a_grain(head: Scan, posture: Posture) -> None:
    few = replace(SCANNER, slice_mm=40.0)
    noisy, quiet = (replace(few, noise_hu=n).scanned(head, posture, seed=0).image for n in (30.0, 0.0))
    inside = quiet > BODY_HU
    rest = (noisy.astype(float) - quiet)[inside]
    assert rest.std() == pytest.approx(30, rel=0.05) and abs(rest.mean()) < 1
    other = few.scanned(head, posture, seed=1).image
    assert (other != noisy)[inside].mean() > 0.9
    assert (noisy[0, 0] == noisy.min()).all()  # off the circle there is nothing


def test_the_planning_ct_has_air_and_its_own_noise(head: Scan) -> None:
    stored = replace(head, image=np.where(head.image > BODY_HU, head.image, LEAST_HU))
    rest = planning(stored).image - head.image  # around the tiny head is air
    assert rest.mean() == pytest.approx(0, abs=1) and rest.std() == pytest.approx(PLANNING_HU, rel=0.05)


def test_an_organ_that_is_missing_is_named(head: Scan) -> None:
    assert head.label is not None
    with pytest.raises(ValueError, match="mandible"):
        find_posture(np.where(head.label == MANDIBLE, 0, head.label), head.affine, bend_deg=BEND, jaw_deg=JAW)


def test_a_picture_is_drawn_of_the_saved_fields(head: Scan, posture: Posture, made: Path) -> None:
    folder = made.parent.parent
    pair = pairs_in(folder / "pairs")[0]
    assert pair.name == "tiny_bent_15_ct_fixed" and not pair.missing
    exact_field(head, posture, folder / "runs" / f"{pair.name}_elastix" / "field.nii", wrong_mm=15)
    exact_field(head, posture, folder / "runs" / f"{pair.name}_ours_seed0" / "displacement.nii.gz")
    saved = fields(folder, pair, ["elastix", "ours"])
    planes = cut(pair, saved)
    plane = planes["coronal"]
    near = {
        name: np.abs(image - plane.fixed).mean() for name, image in [*plane.warped.items(), ("before", plane.before)]
    }
    assert near["ours"] < near["elastix"] < near["before"]
    boxes = frames(plane, window=(-250, 450))
    assert boxes and {colour for *_, colour in boxes} == {"#ff3b30"}
    draw(planes, window=(-250, 450), titles=["elastix", "NCF"], head=pair.name, place=folder / "beside.png")
    assert (folder / "beside.png").stat().st_size > 10_000


@pytest.mark.data
@pytest.mark.skipif(not HEAD.exists(), reason="no ../shared/data beside the checkout")
@pytest.mark.parametrize("patient", PATIENTS)
def test_real_heads_bend_without_folds_and_bones_stay_nearly_rigid(patient: str) -> None:
    ct, seg = (nib.load(HEAD / f"pt_{patient}_{what}.nii.gz") for what in ("ct", "seg"))
    stored, label = np.asarray(ct.dataobj), np.asarray(seg.dataobj)
    voxels = np.argwhere(stored > 1024 + BODY_HU)[::5]
    points = apply_affine(ct.affine, voxels)
    posture = find_posture(label, ct.affine, bend_deg=20, jaw_deg=4)
    steps = posture.jacobian(points)
    strain = np.abs(np.linalg.svd(steps, compute_uv=False) - 1).max(axis=1)
    assert np.linalg.det(steps).min() > 0.2
    dense, jaw = stored[tuple(voxels.T)] > 1024 + 400, label[tuple(voxels.T)] == MANDIBLE
    skull = dense & ~jaw & (points[:, 2] > posture.joints[0, 2] + 8)
    spine = dense & (np.linalg.norm(points[:, None] - posture.joints, axis=2).min(axis=1) < 15)
    assert np.percentile(strain[skull], 95) < 0.01 and np.percentile(strain[jaw], 90) < 0.1
    assert np.median(strain[spine]) < 0.06
    found, known = posture.back(posture.there(points[::10]))
    assert known.all() and np.abs(found - points[::10]).max() < 1e-4
    assert set(COUNTS) == {"head", "jaw", "neck", "torso"} and sum(COUNTS.values()) == 300
