"""Files against SimpleITK, nibabel and formulas; what happens when a disk is full or a file is damaged."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from scripts import exporters
from scripts.errors import PairError
from scripts.exporters import load_checkpoint, load_itk_field, save_checkpoint, save_image, save_itk_field, save_json

SHAPE, SPACING, CENTRE = (20, 24, 28), (2.1, 1.6, 1.3), np.array([11.0, -23.0, 40.0])
MOVING_SHAPE, MOVING_SPACING = (60, 64, 56), (1.6, 1.5, 1.7)
ROTATION = Rotation.from_euler("xyz", [25, -15, 40], degrees=True).as_matrix()
DIRECTIONS = {
    **{"RAS": np.eye(3), "LAS": np.diag([-1, 1, 1]), "LPS": np.diag([-1, -1, 1])},
    "permuted": np.array([[0, -1, 0], [0, 0, 1], [1, 0, 0]]),
    **{"oblique": ROTATION, "mirrored": ROTATION @ np.diag([1, -1, 1])},
}
WAVES = 2 * np.pi / 50 * np.array([[0.6, 0.0, 0.8], [-0.48, 0.8, 0.36]])  # radians a mm: two waves of 50 mm
# Trilinear error: at most the sum over axes of spacing^2 / 8 times the second derivative (the squared wave numbers).
TRILINEAR = float((np.array(MOVING_SPACING) ** 2).sum() / 8 * (WAVES**2).sum())
GRID_MM = 1e-4  # mm, and cosines: float32 sform and quaternion, over some 60 mm
FIELD_VOX = 1e-5  # float32 displacements of a few voxels, to mm and back


def affine_of(direction: np.ndarray, shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """A voxel -> RAS mm affine whose grid is centred at CENTRE."""
    affine = np.eye(4)
    affine[:3, :3] = direction @ np.diag(spacing)
    affine[:3, 3] = CENTRE - affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


def intensity(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """The image as a formula of RAS mm, at voxels (3, W, H, D) of a grid."""
    world = np.einsum("cd,d...->c...", affine[:3, :3], voxels) + affine[:3, 3, None, None, None]
    phases = np.einsum("wc,c...->w...", WAVES, world)
    return np.sin(phases[0]) + np.cos(phases[1])


def smooth_field() -> np.ndarray:
    """A field (3, W, H, D) in voxels whose channels differ in size, sign and course."""
    x = np.indices(SHAPE)
    return np.array([a * np.sin(x[c - 2] / 4 + c) for c, a in enumerate((2.5, -1.8, 3.1))], dtype=np.float32)


def by_nibabel(path: Path, array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    """An image that nibabel wrote and SimpleITK read."""
    nib.save(nib.Nifti1Image(array.astype(np.float32), affine), path)
    return sitk.ReadImage(str(path))


def refused(telling: str, call: Callable[..., object], *args: Any) -> None:
    """Holds that the call raises PairError in one line that matches."""
    with pytest.raises(PairError, match=telling) as caught:
        call(*args)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_itk_resamples_with_the_saved_field_and_gives_it_back(tmp_path: Path, name: str) -> None:
    affine, field = affine_of(DIRECTIONS[name], SHAPE, SPACING), smooth_field()
    moving_affine = affine_of(ROTATION.T @ DIRECTIONS["LPS"], MOVING_SHAPE, MOVING_SPACING)
    fixed = by_nibabel(tmp_path / "fixed.nii", np.zeros(SHAPE), affine)
    moving = by_nibabel(tmp_path / "moving.nii", intensity(np.indices(MOVING_SHAPE), moving_affine), moving_affine)
    save_itk_field(tmp_path / "field.nii.gz", MetaTensor(torch.from_numpy(field)).requires_grad_(), affine)
    image = sitk.ReadImage(str(tmp_path / "field.nii.gz"))
    assert image.GetPixelID() == sitk.sitkVectorFloat32 and image.GetNumberOfComponentsPerPixel() == 3
    assert image.IsSameImageGeometryAs(fixed, GRID_MM / SPACING[0], GRID_MM)
    transform = sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))
    warped = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, -99.0)).T
    truth, unmoved = intensity(np.indices(SHAPE) + field, affine), intensity(np.indices(SHAPE), affine)
    assert np.abs(warped - truth).max() <= TRILINEAR
    assert np.abs(unmoved - truth).max() > 10 * TRILINEAR  # or the test would pass without a field
    sitk.WriteImage(image, str(tmp_path / "itk.nii"))
    for file in ("field.nii.gz", "itk.nii"):
        back, its_affine = load_itk_field(tmp_path / file)
        assert back.dtype == np.float32
        np.testing.assert_allclose(back, field, atol=FIELD_VOX)
        np.testing.assert_allclose(its_affine, affine, atol=GRID_MM)


def test_files_that_are_no_field_are_refused(tmp_path: Path) -> None:
    save_image(tmp_path / "image.nii.gz", np.zeros((5, 6, 7), np.int16), np.eye(4))
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7, 1, 3), np.float32), np.eye(4)), tmp_path / "intent.nii.gz")
    nib.save(nib.MGHImage(np.zeros((5, 6, 7), np.float32), np.eye(4)), tmp_path / "other.mgz")
    for name in ("image.nii.gz", "intent.nii.gz", "other.mgz"):
        refused("no ITK displacement field", load_itk_field, tmp_path / name)
    for path in (tmp_path / "field.nii", tmp_path / "field.nii.gz"):
        save_itk_field(path, smooth_field(), np.eye(4))
        whole = path.read_bytes()
        for length in (0, 100, 352, len(whole) // 2, len(whole) - 100):
            path.write_bytes(whole[:length])
            refused("cannot read", load_itk_field, path)
    refused("cannot read", load_itk_field, tmp_path / "missing.nii.gz")


@pytest.mark.parametrize("dtype", exporters.STORABLE)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_an_image_keeps_type_values_and_grid(tmp_path: Path, dtype: str, suffix: str) -> None:
    affine, path = affine_of(DIRECTIONS["mirrored"], SHAPE, SPACING), tmp_path / f"image{suffix}"
    data = (np.random.default_rng(0).uniform(size=(*SHAPE, 2)) * 120).astype(dtype)
    one = data[..., 0]
    for array in (data, one.astype(one.dtype.newbyteorder(">")), np.asfortranarray(one), one):
        save_image(path, array, affine)
        image: Any = nib.load(path)
        assert image.get_data_dtype() == np.dtype(dtype) and image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), array)
        assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 1
        np.testing.assert_allclose([image.get_sform(), image.get_qform()], [affine, affine], atol=GRID_MM)
    read, referee = sitk.ReadImage(str(path)), by_nibabel(tmp_path / "referee.nii", one, affine)
    assert read.IsSameImageGeometryAs(referee, GRID_MM / SPACING[0], GRID_MM)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read).T, one)


def test_a_sheared_affine_goes_into_the_sform_alone(tmp_path: Path) -> None:
    affine = affine_of(np.array([[1.0, 0.2, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), SHAPE, SPACING)
    save_image(tmp_path / "sheared.nii.gz", np.zeros(SHAPE, np.uint8), affine)
    image: Any = nib.load(tmp_path / "sheared.nii.gz")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 0)
    np.testing.assert_allclose(image.affine, affine, atol=GRID_MM)
    save_itk_field(tmp_path / "field.nii.gz", smooth_field(), affine)
    np.testing.assert_allclose(load_itk_field(tmp_path / "field.nii.gz")[0], smooth_field(), atol=FIELD_VOX)


def test_what_no_file_can_hold_is_refused(tmp_path: Path) -> None:
    volume, unit, image = np.zeros((4, 4, 4), np.int16), np.eye(4), tmp_path / "image.nii"
    refused(r"\.nii or \.nii\.gz", save_image, tmp_path / "a.mha", volume, unit)
    refused("int64", save_image, image, volume.astype(np.int64), unit)
    refused("bool", save_image, image, volume == 0, unit)
    refused(r"got \(4, 4\)", save_image, image, volume[0], unit)
    refused("have an inverse", save_image, image, volume, np.diag([1.0, 0, 1, 1]))
    refused("4x4", save_image, image, volume, np.eye(3))
    refused(r"\(3, W, H, D\)", save_itk_field, image, smooth_field()[None], unit)
    assert list(tmp_path.iterdir()) == []


def state() -> dict[str, Any]:
    """What a run might keep, with a tensor that is a view and a string that is there twice."""
    numbers = torch.rand(64, 640, generator=torch.Generator().manual_seed(0))
    return {"network": {"a": numbers[:, 576:].T, "b": torch.arange(3)}, "kind": "ncf", "more": [1, 2.5, None, ("ncf",)]}


WRITERS: dict[str, Callable[[Path], object]] = {
    "image.nii.gz": lambda p: save_image(p, smooth_field()[0], np.eye(4)),
    "labels.nii.gz": lambda p: save_image(p, np.random.default_rng(0).integers(99, size=SHAPE, dtype="i2"), np.eye(4)),
    "field.nii.gz": lambda p: save_itk_field(p, smooth_field(), np.eye(4)),
    "run.json": lambda p: save_json(p, {"numbers": list(range(3000))}),
    "network.pt": lambda p: save_checkpoint(p, state()),
}


def test_the_same_content_gives_the_same_bytes_at_any_time_and_under_any_name(tmp_path: Path) -> None:
    for name, write in WRITERS.items():
        write(tmp_path / name)
    time.sleep(1.1)  # gzip and zip headers count seconds
    for name, write in WRITERS.items():
        write(tmp_path / f"another {name}")
        assert (tmp_path / name).read_bytes() == (tmp_path / f"another {name}").read_bytes(), name
    gzip.decompress((tmp_path / "field.nii.gz").read_bytes())  # and it is gzip to others, checksum included


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # the kernel refuses more, as a disk without a free block
    try:
        refused(f"{name}: .*free some space", WRITERS[name], tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "old"


def test_half_a_file_is_never_left(tmp_path: Path) -> None:
    def write(error: BaseException, temporary: Path) -> None:
        assert temporary.parent == tmp_path and temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"half")
        raise error

    path, permission = tmp_path / "field.nii.gz", "choose an output folder that you may write to"
    for number, advice in ((errno.ENOSPC, "free some space"), (errno.EROFS, permission), (errno.EACCES, permission)):
        error = OSError(number, os.strerror(number))
        refused(f"{error.strerror}; {advice}", exporters.write_whole, path, partial(write, error))
    with pytest.raises(KeyboardInterrupt):
        exporters.write_whole(path, partial(write, KeyboardInterrupt()))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_claimed_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert exporters.claim_folder(folder) == exporters.claim_folder(folder) == folder and not list(folder.iterdir())
    (folder / "plain").write_text("old")
    os.link(folder / "plain", folder / "ours.json")
    save_json(folder / "ours.json", {})
    assert (folder / "plain").read_text() == "old"  # a new file took the name, the old one was not written into
    assert os.stat(folder / "ours.json").st_mode == os.stat(folder / "plain").st_mode  # no stricter than other files
    refused("cannot write", exporters.claim_folder, folder / "plain")
    below = folder / "plain" / "below"  # what stands below a file is refused to root as well
    for name, write in {"folder": exporters.claim_folder, **WRITERS}.items():
        refused("cannot write .*each part of the path", write, below / name)


def test_json_keeps_order_and_is_strict(tmp_path: Path) -> None:
    odd = {"z": np.float32(0.5), "a": np.int64(3), 7: (np.bool_(True), np.nan, np.inf), "é": np.array([1, np.nan])}
    save_json(tmp_path / "a.json", {**odd, "path": Path("x"), "none": None, "text": "é"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "z": 0.5,\n') and text.endswith("}\n")
    got = json.loads(text)
    assert list(got) == ["z", "a", "7", "é", "path", "none", "text"]
    assert list(got.values()) == [0.5, 3, [True, None, None], [1.0, None], "x", None, "é"]
    with pytest.raises(TypeError):
        save_json(tmp_path / "b.json", {"what": object()})


def test_a_checkpoint_comes_back_and_depends_on_content_alone(tmp_path: Path) -> None:
    path, again, want = tmp_path / "a.pt", tmp_path / "b.pt", state()
    save_checkpoint(path, want)
    got = load_checkpoint(path)
    torch.testing.assert_close(got["network"], want["network"], rtol=0, atol=0)
    assert list(got) == list(want) and got["kind"] == want["kind"] and got["more"] == want["more"]
    save_checkpoint(again, {**got, "kind": "".join(got["kind"])})  # an equal string, but another object
    assert path.read_bytes() == again.read_bytes()
    assert path.stat().st_size < 64 * 64 * 4 + 4096  # the view did not carry its storage along


def test_a_damaged_checkpoint_is_never_taken_for_a_whole_one(tmp_path: Path) -> None:
    path, again, found = tmp_path / "a.pt", tmp_path / "b.pt", 0
    save_checkpoint(path, state())
    whole = path.read_bytes()
    for length in (0, 1, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused("cannot read", load_checkpoint, path)
    for place in np.random.default_rng(0).integers(len(whole), size=200).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            save_checkpoint(again, load_checkpoint(path))
        except PairError:
            found += 1
        else:
            assert again.read_bytes() == whole  # only a byte of filling or of a date was hit
    assert found > 100


def test_a_checkpoint_is_never_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"format": exporters.CHECKPOINT_FORMAT, "x": Evil()}, tmp_path / "a.pt")
    refused("cannot read", load_checkpoint, tmp_path / "a.pt")
    assert not (tmp_path / "made").exists()
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / "made").exists()  # the file would have done it


def test_other_formats_are_refused_by_number(tmp_path: Path) -> None:
    for content, found in (({"format": 99}, "99"), ({"w": torch.ones(2)}, "None"), (torch.ones(2), "None")):
        torch.save(content, tmp_path / "a.pt")
        line = f"format {found}, this program reads format {exporters.CHECKPOINT_FORMAT}: make the checkpoint again"
        refused(line, load_checkpoint, tmp_path / "a.pt")
    refused("No such file", load_checkpoint, tmp_path / "missing.pt")
    with pytest.raises(TypeError, match="ndarray"):
        save_checkpoint(tmp_path / "b.pt", {"affine": np.eye(4)})
    with pytest.raises(ValueError, match="own entry"):
        save_checkpoint(tmp_path / "b.pt", {"format": 1})


def test_sha256_of_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, listed = exporters.claim_folder(tmp_path / "series"), Path.rglob
    for name in ("1.dcm", "2.dcm"):
        (folder / name).write_bytes(name.encode() * 400_000)  # several pieces
    assert exporters.sha256_of(folder / "1.dcm") == hashlib.sha256(b"1.dcm" * 400_000).hexdigest()
    seen = [exporters.sha256_of(folder)]
    monkeypatch.setattr(Path, "rglob", lambda *args: reversed(list(listed(*args))))
    assert exporters.sha256_of(folder) == seen[0]  # disks list in any order
    (folder / "2.dcm").rename(folder / "3.dcm")
    seen.append(exporters.sha256_of(folder))
    (folder / "3.dcm").write_bytes(b"x")
    assert len({*seen, exporters.sha256_of(folder)}) == 3
    refused("no files", exporters.sha256_of, exporters.claim_folder(tmp_path / "empty"))
    refused("No such file", exporters.sha256_of, tmp_path / "missing")
