"""Doses carried onto the fixed grid: read as DICOM says, true to the rule, and written as valid RTDOSE."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from pydicom.dataset import Dataset
from scipy.ndimage import map_coordinates

from ncf.commands.main import main
from ncf.io.image_files import read_image
from ncf.io.nifti import save_image, save_itk_field
from ncf.space.doses import carry_dose
from ncf.space.grids import Grid
from ncf.space.mapping import SpatialMap
from ncf.use.carry import Applied, open_map
from ncf.use.dose import carry_doses
from tests.dicom_pair import AFFINE, NAME, SHAPE, valid, write_pair
from tests.dose_files import DOSE_AFFINE, DOSE_SHAPE, STEP_GY, in_16_bits, some_dose, write_dose
from tests.grids import OBLIQUE
from tests.refusing import refused

HALF_STEP = 0.51 / (2**32 - 1)  # of the largest dose; float32 adds its own rounding
FLOAT32 = 3e-7
AT = np.indices(SHAPE).astype(float)
FIELD_VOX = np.stack([1.2 * np.sin(AT[1] / 4), 0.8 * np.cos(AT[0] / 5), 0.5 * np.sin(AT[0] / 6 + AT[1] / 7)])


@pytest.fixture
def series(tmp_path: Path) -> tuple[str, str]:
    """The folders of the fixed and the moving series, beside a map between them."""
    save_itk_field(tmp_path / "field.nii.gz", FIELD_VOX.astype(np.float32), AFFINE)
    return write_pair(tmp_path)[:2]


def opened(folder: Path, series: tuple[str, str]) -> Applied:
    return open_map(folder / "field.nii.gz", reference=series[0], moving=series[1])


def at_points(dose: np.ndarray, affine: np.ndarray = DOSE_AFFINE) -> tuple[np.ndarray, np.ndarray]:
    """The dose where the map leads, by scipy, and where that lies in the dose grid."""
    mm = AFFINE[:3, :3] @ (AT + FIELD_VOX).reshape(3, -1) + AFFINE[:3, 3:]
    vox = np.linalg.inv(affine[:3, :3]) @ (mm - affine[:3, 3:])
    last = np.array(dose.shape)[:, None] - 1
    there = ((vox > -0.5) & (vox < last + 0.5)).all(axis=0)
    found = np.where(there, map_coordinates(dose, np.clip(vox, 0, last), order=1), 0)
    return found.reshape(SHAPE), there.reshape(SHAPE)


def written(path: Path) -> tuple[Dataset, np.ndarray]:
    """An RTDOSE as pydicom has it, and its doses (W, H, D)."""
    data = pydicom.dcmread(path)
    return data, (data.pixel_array.astype(np.float64) * float(data.DoseGridScaling)).transpose(2, 1, 0)


def offsets(*values: float, turned: bool = False, scaling: float | None = STEP_GY) -> object:
    """Changes a dose file: where its frames lie, whether its planes look down, how its numbers are scaled."""

    def changed(data: Dataset) -> None:
        data.GridFrameOffsetVector = list(values)
        if turned:
            data.ImageOrientationPatient = [1, 0, 0, 0, -1, 0]
        data.DoseGridScaling = scaling

    return changed


@pytest.mark.parametrize(
    ("first", "step", "turned"),
    [(0.0, 2.75, False), (-41.25, 2.75, False), (0.0, -2.75, False), (0.0, 2.75, True), (-41.25, 2.75, True)],
)
def test_frames_lie_where_the_offsets_say(tmp_path: Path, first: float, step: float, turned: bool) -> None:
    dose, count = some_dose(), DOSE_SHAPE[2]
    path = write_dose(tmp_path / "d.dcm", dose, changed=offsets(*(first + step * np.arange(count)), turned=turned))
    image = read_image("dose", path)
    values, affine = image.as_tensor()[0].numpy(), np.asarray(image.affine)
    down = -1 if turned and not first else 1  # distances run along the normal, and z is z
    for i, j, k in [(0, 0, 0), (3, 5, 7), (13, 12, 10)]:
        y = 10.0 + (2.5 if turned else -2.5) * j
        mm = [19.5 - 3 * i, y, -41.25 + down * step * k, 1]
        at = np.rint(np.linalg.solve(affine, mm)).astype(int)
        np.testing.assert_allclose(affine @ [*at[:3], 1], mm, atol=1e-4)
        assert values[tuple(at[:3])] == pytest.approx(dose[i, j, k], rel=FLOAT32)


def test_an_oblique_dose_lies_along_its_normal(tmp_path: Path) -> None:
    dose = some_dose((6, 5, 4))
    affine = OBLIQUE if np.linalg.det(OBLIQUE) > 0 else OBLIQUE @ np.diag([1.0, -1, 1, 1])
    image = read_image("dose", write_dose(tmp_path / "d.dcm", dose, affine))
    np.testing.assert_allclose(np.asarray(image.affine), affine, atol=1e-4)
    np.testing.assert_allclose(image.as_tensor()[0].numpy(), dose, rtol=FLOAT32)


def test_single_frames_are_scaled_too(tmp_path: Path) -> None:
    dose = some_dose((5, 4, 3))
    (tmp_path / "planes").mkdir()

    def alone(data: Dataset, k: int) -> None:
        data.SeriesInstanceUID = "1.2.3"
        data.ImagePositionPatient = [0, 0, 2.0 * k]
        del data.NumberOfFrames, data.GridFrameOffsetVector, data.FrameIncrementPointer

    for k in range(3):
        write_dose(tmp_path / "planes" / f"{k}.dcm", dose[:, :, k : k + 1], changed=lambda data, k=k: alone(data, k))
    found = read_image("dose", str(tmp_path / "planes")).as_tensor()[0].numpy()
    np.testing.assert_allclose(found, dose, rtol=FLOAT32)


@pytest.mark.parametrize(
    ("telling", "changed"),
    [
        ("frames that are 2.75 to 3.75 mm apart.*even grid", offsets(0, 2.75, 5.5, 9.25)),
        ("frames from 7 mm on.*expected 0 or.*-41.2", offsets(7, 9.75, 12.5, 15.25)),
        ("4 frames without their places", offsets(0, 2.75, 5.5)),
        ("without DoseGridScaling", offsets(0, 2.75, 5.5, 8.25, scaling=None)),
    ],
)
def test_a_dose_without_place_or_scale_is_refused(tmp_path: Path, telling: str, changed: object) -> None:
    path = write_dose(tmp_path / "d.dcm", some_dose((5, 4, 4)), changed=changed)
    refused(telling, read_image, "dose", path)


@pytest.mark.parametrize("anonymous", [False, True])
def test_a_carried_dose_is_the_dose_at_each_point(tmp_path: Path, series: tuple[str, str], anonymous: bool) -> None:
    dose = some_dose()
    path = write_dose(tmp_path / "d.dcm", dose, like=series[1])
    options = {"reference": series[0], "anonymous": anonymous}
    (made,), (line,) = carry_doses(opened(tmp_path, series), [path], tmp_path / "out", **options)
    expected, there = at_points(dose)
    assert 0.02 < 1 - there.mean() < 0.3 and line.startswith(f"d.dcm: {100 * (1 - there.mean()):.3g} % of the fixed")
    data, found = written(made)
    assert np.abs(found - expected).max() <= expected.max() * (HALF_STEP + 20 * FLOAT32) and not found[~there].any()
    fixed = pydicom.dcmread(next(Path(series[0]).iterdir()))
    assert (data.FrameOfReferenceUID == fixed.FrameOfReferenceUID) != anonymous
    assert (data.StudyInstanceUID == fixed.StudyInstanceUID) != anonymous
    assert data.PatientName == ("ANONYMOUS" if anonymous else NAME)
    own = pydicom.dcmread(path)
    plan, source = data.ReferencedRTPlanSequence[0], data.SourceImageSequence[0]
    assert (plan.ReferencedSOPInstanceUID == own.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID) != anonymous
    assert (source.ReferencedSOPInstanceUID == own.SOPInstanceUID) != anonymous
    assert (data.DoseUnits, data.DoseType, data.DoseSummationType) == ("GY", "PHYSICAL", "PLAN")
    assert list(data.GridFrameOffsetVector) == [3.0 * k for k in range(SHAPE[2])]
    assert (data.BitsAllocated, data.SpatialTransformOfDose) == (32, "NON_RIGID")
    np.testing.assert_allclose(np.asarray(read_image("dose", str(made)).affine), AFFINE, atol=1e-6)
    again = carry_doses(opened(tmp_path, series), [path], tmp_path / "again", **options)[0][0]
    assert again.read_bytes() == made.read_bytes()
    valid(in_16_bits(made))


def narrowing(at: np.ndarray, middle: float) -> tuple[np.ndarray, np.ndarray]:
    """A map of one axis that presses its middle together, and its slope: x + 6 tanh((x - middle) / 8)."""
    t = np.tanh((at - middle) / 8)
    return at + 6 * t, 1 + 6 / 8 * (1 - t**2)


def test_energy_is_kept_and_dose_is_not() -> None:
    shape, grid = (40, 36, 32), np.diag([2.0, 2.5, 3.0, 1.0])
    at = np.indices(shape).astype(float)
    moved, slopes = zip(*(narrowing(at[a], (shape[a] - 1) / 2) for a in range(3)), strict=True)
    mapping = SpatialMap(torch.from_numpy(np.stack(moved) - at).float(), Grid(shape, grid))
    wide = np.diag([1.5, 2.0, 2.5, 1.0])  # the moving dose has a grid of its own, and lies wholly inside
    wide[:3, 3] = -10.0
    points = np.moveaxis(np.indices((80, 72, 56)), 0, -1) @ wide[:3, :3] + wide[:3, 3]
    middle = (np.array(shape) - 1) / 2 * np.diag(grid)[:3]
    dose = 60 * np.exp(-((points - middle) ** 2).sum(axis=-1) / (2 * 12.0**2))
    carried = {
        rule: carry_dose(mapping, torch.from_numpy(dose), moving=wide, reference=Grid(shape, grid), rule=rule)
        for rule in ("dose", "energy")
    }
    given = dose.sum() * np.prod(np.diag(wide)[:3])
    total = {rule: float(c.values.sum(dtype=np.float64)) * np.prod(np.diag(grid)[:3]) for rule, c in carried.items()}
    assert total["energy"] == pytest.approx(given, rel=0.005)
    assert total["dose"] < 0.5 * given
    there = np.stack(moved) * np.diag(grid)[:3, None, None, None] - middle[:, None, None, None]
    exact = 60 * np.exp(-(there**2).sum(axis=0) / (2 * 12.0**2))
    assert np.abs(carried["dose"].values - exact).max() < 0.01 * exact.max()
    pressed = exact * np.prod(slopes, axis=0)
    assert np.abs(carried["energy"].values - pressed).max() < 0.02 * pressed.max()
    assert carried["energy"].folded == 0


def test_energy_has_no_meaning_in_folds() -> None:
    shape, at = (12, 6, 6), np.indices((12, 6, 6)).astype(float)
    field = np.zeros((3, *shape), np.float32)
    field[0, 6:] = -2 * (at[0, 6:] - 6)  # the second half is turned round
    mapping, ones = SpatialMap(torch.from_numpy(field), Grid(shape, np.eye(4))), torch.ones(shape)
    carried = carry_dose(mapping, ones, moving=np.eye(4), reference=Grid(shape, np.eye(4)), rule="energy")
    assert carried.folded == 0.5 and not carried.values[6:].any() and (carried.values[:6] == 1).all()
    with pytest.raises(ValueError, match="rule is one of dose, energy"):
        carry_dose(mapping, ones, moving=np.eye(4), reference=Grid(shape, np.eye(4)), rule="mass")


def test_doses_are_added_up(tmp_path: Path, series: tuple[str, str], caplog: pytest.LogCaptureFixture) -> None:
    wide = DOSE_AFFINE @ np.diag([1.2, 1.3, 1.1, 1])
    doses = [(some_dose(seed=1), DOSE_AFFINE), (some_dose(seed=2), wide)]
    paths = [write_dose(tmp_path / f"{n}.dcm", *dose, like=series[1]) for n, dose in enumerate(doses)]
    (made,), lines = carry_doses(opened(tmp_path, series), paths, tmp_path / "out", add=True, reference=series[0])
    expected = sum(at_points(*dose)[0] for dose in doses)
    data, found = written(made)
    assert made.name == "dose_sum.dcm" and len(lines) == 2
    assert np.abs(found - expected).max() <= expected.max() * (HALF_STEP + 20 * FLOAT32)
    plans = [pydicom.dcmread(path).ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID for path in paths]
    assert data.DoseSummationType == "MULTI_PLAN"
    assert [item.ReferencedSOPInstanceUID for item in data.ReferencedRTPlanSequence] == plans
    valid(in_16_bits(made))

    def of_one_plan(data: Dataset) -> None:
        data.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID = plans[0]

    third = write_dose(tmp_path / "2.dcm", some_dose(seed=3), like=series[1], changed=of_one_plan)
    pair, options = [paths[0], third], {"add": True, "reference": series[0]}
    (made,), _ = carry_doses(opened(tmp_path, series), pair, tmp_path / "one", **options)
    assert "note: sum: all doses name one plan" in caplog.text
    data, _ = written(made)
    assert data.DoseSummationType == "PLAN" and len(data.ReferencedRTPlanSequence) == 1


def test_a_result_knows_its_fixed_series_and_whether_it_is_rigid(tmp_path: Path, series: tuple[str, str]) -> None:
    path = write_dose(tmp_path / "d.dcm", some_dose(), like=series[1])
    own = {"inputs": {"fixed": Path(series[0])}, "matrix": np.diag([-1.0, -1, 1, 1])}
    result = replace(opened(tmp_path, series), **own)
    (made,), _ = carry_doses(result, [path], tmp_path / "out")
    assert pydicom.dcmread(made).SpatialTransformOfDose == "RIGID"
    (made,), _ = carry_doses(replace(result, matrix=np.diag([1.0, 1, 1.1, 1])), [path], tmp_path / "affine")
    assert pydicom.dcmread(made).SpatialTransformOfDose == "NON_RIGID"
    save_image(tmp_path / "fixed.nii.gz", np.zeros(SHAPE, np.int16), AFFINE)
    image = replace(result, inputs={"fixed": tmp_path / "fixed.nii.gz"})
    assert carry_doses(image, [path], tmp_path / "image")[0][0].name == "d.nii.gz"
    refused("is no DICOM series", lambda: carry_doses(image, [path], tmp_path / "no", dicom=True))
    assert not (tmp_path / "no").exists()


def test_what_cannot_be_carried_or_added_is_refused(tmp_path: Path, series: tuple[str, str]) -> None:
    fixed, moving = series

    def dose(name: str, **words: str) -> str:
        def changed(data: Dataset) -> None:
            for word, value in words.items():
                if value:
                    setattr(data, word, value)
                else:
                    del data[word]

        return write_dose(tmp_path / f"{name}.dcm", some_dose((4, 4, 4)), like=moving, changed=changed)

    found = opened(tmp_path, series)

    def carry(files: list[str], **options: object) -> None:
        carry_doses(found, files, tmp_path / "out", reference=fixed, **options)

    plain = dose("plain")
    save_image(tmp_path / "d.nii.gz", np.ones((4, 4, 4), np.float32), AFFINE)
    image = str(tmp_path / "d.nii.gz")
    relative = dose("relative", DoseUnits="RELATIVE")
    for telling, files, options in [
        ("DoseUnits GY and .*relative.dcm RELATIVE", [plain, relative], {"add": True}),
        ("DoseUnits RELATIVE, and such doses have no sum", [relative, dose("b", DoseUnits="RELATIVE")], {"add": True}),
        ("DoseType PHYSICAL and .* EFFECTIVE", [plain, dose("effective", DoseType="EFFECTIVE")], {"add": True}),
        ("energy is of PHYSICAL ones", [str(tmp_path / "effective.dcm")], {"rule": "energy"}),
        ("named twice", [plain, plain], {"add": True}),
        ("two doses or more", [plain], {"add": True}),
        ("d.nii.gz names no unit, and an RTDOSE does", [plain, image], {"add": True}),
        ("dose of a BEAM.*--dicom=false", [plain, dose("beam", DoseSummationType="BEAM")], {"add": True}),
        ("tells no DoseType", [dose("untold", DoseType="")], {}),
        ("names no plan", [dose("planless", ReferencedRTPlanSequence="")], {}),
        ("d.nii.gz names no unit, type and plan.*--dicom=false", [image], {"dicom": True}),
        ("is a scan \\(CT\\), expected a dose", [moving], {}),
        ("another frame of reference than the scan", [dose("far", FrameOfReferenceUID="1.2.3")], {}),
        ("name different patients", [dose("whose", PatientID="0815")], {}),
    ]:
        refused(telling, lambda files=files, options=options: carry(files, **options))
    assert not (tmp_path / "out").exists()


def test_the_command_writes_what_the_files_are(
    tmp_path: Path, series: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    dose = some_dose()
    path, expected = write_dose(tmp_path / "d.dcm", dose, like=series[1]), at_points(dose)[0]
    save_image(tmp_path / "n.nii.gz", dose.astype(np.float32), DOSE_AFFINE)
    words = [str(tmp_path / "field.nii.gz"), "--to=dose", f"--reference={series[0]}", f"--moving={series[1]}"]
    for files, options, name in [
        ([path], [], "d.dcm"),
        ([path], ["--dicom=false"], "d.nii.gz"),
        ([str(tmp_path / "n.nii.gz")], [], "n.nii.gz"),
    ]:
        main(["apply", words[0], *files, *words[1:], *options, f"--output_dir={tmp_path / 'out'}"])
        told = capsys.readouterr().out.splitlines()
        assert told[0].startswith(Path(files[0]).name) and told[1] == str(tmp_path / "out" / name)
    for name in ("d.nii.gz", "n.nii.gz"):
        found = nib.load(tmp_path / "out" / name)
        np.testing.assert_allclose(found.get_fdata(), expected, atol=20 * FLOAT32 * expected.max())
        np.testing.assert_allclose(found.affine, AFFINE, atol=1e-4)
    for telling, refused_words in {
        "doses need files": ["apply", *words],
        "--rule is one of dose, energy": ["apply", words[0], path, *words[1:], "--rule=mass"],
        "--rule is for --to=dose": ["apply", words[0], path, "--to=image", "--rule=dose"],
        "--interpolation is for --to=image and --to=label": [
            "apply",
            words[0],
            path,
            *words[1:],
            "--interpolation=cubic",
        ],
    }.items():
        with pytest.raises(SystemExit, match=telling):
            main([*refused_words, f"--output_dir={tmp_path / 'no'}"])
    assert not (tmp_path / "no").exists()


def plastimatch(*words: object) -> None:
    """Runs it; without an output its status is 0 too, so that the files are read."""
    subprocess.run(["plastimatch", *map(str, words)], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("plastimatch") is None, reason="no plastimatch: apt-get install plastimatch")
def test_plastimatch_carries_the_same_dose(tmp_path: Path, series: tuple[str, str]) -> None:
    at = np.indices(DOSE_SHAPE).astype(float) - np.array([6.0, 6, 5])[:, None, None, None]
    dose = 4 + 56 * np.exp(-((at / np.array([4.0, 4, 3])[:, None, None, None]) ** 2).sum(axis=0))
    path = write_dose(tmp_path / "d.dcm", dose, like=series[1])
    (made,), _ = carry_doses(opened(tmp_path, series), [path], tmp_path / "out", reference=series[0])
    plastimatch("convert", "--input", made, "--output-dose-img", tmp_path / "ours.nrrd")
    ours = sitk.ReadImage(str(tmp_path / "ours.nrrd"))
    lps = np.einsum("ij,jwhd->dhwi", np.diag([-1.0, -1, 1]) @ AFFINE[:3, :3], FIELD_VOX).astype(np.float32)
    masks = (np.indices(SHAPE) - np.array([8, 7, 5])[:, None, None, None]) ** 2
    masks = (masks.sum(axis=0) < 20).astype(np.uint32)
    for name, array in {"field.mha": lps, "ball.mha": masks.T}.items():
        image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
        image.CopyInformation(ours)
        sitk.WriteImage(image, str(tmp_path / name))
    plastimatch("warp", "--input", path, "--xf", tmp_path / "field.mha", "--fixed", tmp_path / "ours.nrrd",
                "--output-dose-img", tmp_path / "theirs.nrrd")  # fmt: skip
    theirs = sitk.ReadImage(str(tmp_path / "theirs.nrrd"))
    read = [sitk.GetArrayFromImage(image).T for image in (ours, theirs)]
    np.testing.assert_allclose(read[0], written(made)[1], rtol=1e-5)
    off = np.abs(read[0] - read[1])
    assert off.max() < 0.01 * read[1].max()
    (tmp_path / "ball.txt").write_text("0|255 0 0|ball\n", encoding="utf-8")
    curves = []
    for name in ("ours", "theirs"):
        plastimatch("dvh", "--input-ss-img", tmp_path / "ball.mha", "--input-ss-list", tmp_path / "ball.txt",
                    "--input-dose", tmp_path / f"{name}.nrrd", "--output-csv", tmp_path / f"{name}.csv")  # fmt: skip
        curves.append(np.loadtxt(tmp_path / f"{name}.csv", delimiter=",", skiprows=1))
    assert (curves[0][:, 0] == curves[1][:, 0]).all() and np.abs(curves[0][:, 1] - curves[1][:, 1]).max() < 0.01
    assert curves[0][0, 1] == 1 and 0.2 < curves[0][60, 1] < 0.99  # of more than 30 Gy
