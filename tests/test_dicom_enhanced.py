"""Enhanced multi-frame files as fixed and moving scans: objects lie in their frame of reference, and name frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from nibabel.affines import apply_affine
from pydicom.uid import generate_uid

from ncf.io.dicom.series import read_series
from ncf.io.dicom.written.between import between
from ncf.io.image_files import read_image
from ncf.io.label_files import read_label, table_of
from ncf.io.nifti import save_image, save_itk_field
from ncf.use.carry import apply_to_images, open_map
from ncf.use.carry_labels import apply_to_labels
from ncf.use.dicom import WRITERS
from tests.dicom_files import write_enhanced
from tests.dicom_pair import (
    AFFINE,
    MOVING_AFFINE,
    MOVING_SHAPE,
    SHAPE,
    headers,
    valid,
)

ENHANCED = {"CT": "1.2.840.10008.5.1.4.1.1.2.1", "MR": "1.2.840.10008.5.1.4.1.1.4.1"}


def enhanced(folder: Path, modality: str, affine: np.ndarray, shape: tuple[int, ...], study: str = "1.2.9") -> Path:
    """A multi-frame file of the patient, with its frames in any order."""
    rng = np.random.default_rng(shape[2])
    mm = apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))
    values = np.rint(1200 * np.exp(-(((mm - [4, -4, -26]) / [9, 7, 8]) ** 2).sum(axis=-1)) + rng.integers(0, 60, shape))
    path = Path(write_enhanced(folder, values, affine, order=rng.permutation(shape[2]).tolist())) / "frames.dcm"
    data = pydicom.dcmread(path)
    headers("CT", generate_uid(), study)(data, 0)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = ENHANCED[modality]
    data.Modality = modality
    data.save_as(path)
    return path


def written(tmp_path: Path, modality: str, *, as_file: bool) -> tuple[Path, dict[str, Path]]:
    """The fixed file, and an object of each kind."""
    fixed = enhanced(tmp_path / "fixed", modality, AFFINE, SHAPE)
    moving = enhanced(tmp_path / "moving", modality, MOVING_AFFINE, MOVING_SHAPE, "1.2.8")
    drawn = np.zeros(MOVING_SHAPE, np.uint8)
    drawn[4:12, 4:10, 3:9] = 5
    save_image(tmp_path / "label.nii.gz", drawn, MOVING_AFFINE)
    save_itk_field(tmp_path / "field.nii.gz", np.full((3, *SHAPE), 0.5, np.float32), AFFINE)
    named = [path if as_file else path.parent for path in (fixed, moving)]
    opened = open_map(tmp_path / "field.nii.gz", reference=named[0], moving=named[1])
    opened = replace(opened, inputs={"moving_label": tmp_path / "label.nii.gz"})
    made = {}
    for kind in ("dicom", "dicom-reg", "rtstruct", "seg", "seg-labelmap"):
        made[kind] = tmp_path / f"{kind}.dcm"
        WRITERS[kind](opened, between(*named, anonymous=False), made[kind])
    apply_to_images(opened, [named[1]], tmp_path / "nifti", mode="bilinear")
    apply_to_labels(opened, [tmp_path / "label.nii.gz"], tmp_path / "nifti", mode="nearest")
    return fixed, made


@pytest.mark.parametrize(("modality", "as_file"), [("CT", True), ("MR", False)])
def test_objects_lie_on_the_frames_of_the_fixed_file(tmp_path: Path, modality: str, as_file: bool) -> None:
    fixed, made = written(tmp_path, modality, as_file=as_file)
    own = pydicom.dcmread(fixed)
    for kind, path in made.items():
        for file in sorted(path.iterdir())[::4] if path.is_dir() else [path]:
            data = pydicom.dcmread(file)
            assert data.FrameOfReferenceUID == own.FrameOfReferenceUID and data.StudyInstanceUID == own.StudyInstanceUID
            if kind != "seg-labelmap":  # dciodvfy does not know that class
                valid(file)
    values, affine, _ = read_series(made["dicom"], "warped")
    nifti = read_image("x", str(tmp_path / "nifti" / ("moving.nii.gz" if not as_file else "frames.nii.gz")))
    np.testing.assert_allclose(values, nifti.numpy()[0], atol=0.501)
    assert np.abs(affine - AFFINE).max() < 1e-6
    carried = read_image("x", str(tmp_path / "nifti" / "label.nii.gz")).numpy()[0] == 5
    scan = read_image("fixed", str(fixed if as_file else fixed.parent))
    for kind in ("seg", "seg-labelmap", "rtstruct"):
        image = read_label("label", made[kind], scan)
        np.testing.assert_array_equal(table_of(image).mask(image.numpy()[0], 1), carried)


def test_contours_and_segments_name_the_frame_that_they_lie_on(tmp_path: Path) -> None:
    fixed, made = written(tmp_path, "CT", as_file=True)
    frames = pydicom.dcmread(fixed).PerFrameFunctionalGroupsSequence
    heights = [float(frame.PlanePositionSequence[0].ImagePositionPatient[2]) for frame in frames]
    (roi,) = pydicom.dcmread(made["rtstruct"]).ROIContourSequence
    for contour in roi.ContourSequence:
        (image,) = contour.ContourImageSequence
        assert abs(heights[int(image.ReferencedFrameNumber) - 1] - float(contour.ContourData[2])) < 1e-3
    for group in pydicom.dcmread(made["seg"]).PerFrameFunctionalGroupsSequence:
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        position = float(group.PlanePositionSequence[0].ImagePositionPatient[2])
        assert abs(heights[int(source.ReferencedFrameNumber) - 1] - position) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_registration_of_enhanced_files_writes_its_objects(
    tmp_path: Path, run: Callable[..., object], modality: str
) -> None:
    fixed = enhanced(tmp_path / "fixed", modality, AFFINE, SHAPE)
    moving = enhanced(tmp_path / "moving", modality, MOVING_AFFINE, MOVING_SHAPE)
    pair = {"fixed": str(fixed), "moving": str(moving), "name": "p"}
    relaxed = {"preparing::transforms::0::min_size": 4, "measuring::transforms::2": {"_target_": "Identity"}}
    run(tmp_path / "out", pair, **relaxed, dicom=True)
    made = tmp_path / "out" / "p" / "dicom"
    values, _, kind = read_series(made / "warped", "warped")
    told = pydicom.dcmread(made / "warped" / "0001.dcm")
    assert kind == modality and told.FrameOfReferenceUID == pydicom.dcmread(fixed).FrameOfReferenceUID
    nifti = read_image("x", str(tmp_path / "out" / "p" / "warped.nii.gz"))
    np.testing.assert_allclose(values, nifti.numpy()[0], atol=0.501)
    valid(made / "registration.dcm")
