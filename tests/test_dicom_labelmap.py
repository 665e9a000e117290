"""Carried labels as a label map segmentation: the same voxels, names and colours by three readers."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from ncf.core.labels import Labels
from ncf.io.dicom.objects import SEGMENTATIONS
from ncf.io.dicom.written.between import between
from ncf.io.dicom.written.segments import save_labelmap
from ncf.io.dicom.written.structures import Structure, structures_of
from ncf.io.image_files import read_image
from ncf.io.label_files import read_label, table_of
from ncf.io.nifti import save_image, save_itk_field
from ncf.use.carry import open_map
from ncf.use.carry_labels import apply_to_labels
from ncf.use.dicom import WRITERS
from tests.dicom_pair import AFFINE, MOVING_AFFINE, MOVING_SHAPE, NAME, SHAPE, errors_of, write_pair
from tests.refusing import refused
from tests.test_dicom_structures import NAMES, labels

# dicom3tools 1.00 of 2022 is older than the class (2024). Asked as the older class, it has nothing against a label map
# but what the newer class asks for: its type, the background as segment 0, and frames that belong to no segment.
OF_THE_CLASS = (
    "Error - Unrecognized enumerated value <LABELMAP> for value 1 of attribute <Segmentation Type>",
    "Error - Value is zero for value 1 of attribute <Segment Number>",
    "Error - SegmentNumber not monotonically increasing from one by one - have SegmentSequence item number 1 (from one)"
    " with SegmentNumber of 0",
    "Error - Missing attribute Type 1 Required Element=<SegmentIdentificationSequence> Module=<SegmentationMacro>",
)


def written(tmp_path: Path, *, anonymous: bool = False) -> tuple[Path, str, list[Structure]]:
    """A label map, the fixed series that it lies on, and what was written."""
    fixed, moving, _ = write_pair(tmp_path)
    found = structures_of(labels(), Labels(names=NAMES))
    save_labelmap(tmp_path / "map.dcm", found, between(fixed, moving, anonymous=anonymous))
    return tmp_path / "map.dcm", fixed, found


@pytest.mark.parametrize("anonymous", [False, True])
def test_a_label_map_is_always_the_same_and_tells_what_it_may(tmp_path: Path, anonymous: bool) -> None:
    path, fixed, found = written(tmp_path, anonymous=anonymous)
    before = path.read_bytes()
    scans = between(fixed, tmp_path / "moving", anonymous=anonymous)
    save_labelmap(path, found, scans)
    assert path.read_bytes() == before
    data = pydicom.dcmread(path)
    assert data.SOPClassUID == SEGMENTATIONS[1] and data.SegmentationType == "LABELMAP"
    assert (data.PatientName == NAME) != anonymous
    assert (data.FrameOfReferenceUID == scans.fixed.frame) != anonymous
    assert not any(element.tag.is_private for element in data.iterall())
    secrets = [NAME.encode(), b"19700203", b"20200101", scans.fixed.series.encode(), scans.fixed.frame.encode()]
    assert any(secret in before for secret in secrets) != anonymous


def test_dciodvfy_has_nothing_against_it_but_its_class(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path)
    assert set(errors_of(path)) <= {"Error - Information Object Not found", *OF_THE_CLASS}
    data = pydicom.dcmread(path)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SEGMENTATIONS[0]
    data.save_as(tmp_path / "older.dcm")
    assert set(errors_of(tmp_path / "older.dcm")) == set(OF_THE_CLASS)


def test_we_and_highdicom_read_the_same_voxels(tmp_path: Path) -> None:
    path, fixed, found = written(tmp_path)
    image = read_label("label", path, read_image("fixed", fixed))
    table = table_of(image)
    assert table.names == dict(enumerate(NAMES.values(), start=1))
    codes = image.numpy()[0]
    theirs = highdicom.seg.segread(path)
    volume = theirs.get_volume(combine_segments=True).to_patient_orientation("LPH")
    origin = np.array(volume.position) - [-20.5, -11.25, -40.125]
    first = round(origin[2] / 3)
    assert np.abs(origin[:2]).max() < 1e-6 and first == 0  # LPS, of the fixed scan's first voxel
    other = np.zeros(SHAPE, int)
    other[:, :, : volume.shape[2]] = volume.array
    for number, (structure, code) in enumerate(zip(found, NAMES, strict=True), start=1):
        np.testing.assert_array_equal(table.mask(codes, number), labels() == code)
        np.testing.assert_array_equal(other == number, labels() == code)
        told = theirs.get_segment_description(number)
        assert told.segment_label == structure.name
        wanted = highdicom.color.CIELabColor.from_rgb(*structure.colour)
        assert list(told.RecommendedDisplayCIELabValue) == list(wanted.value)


def test_dcmqi_reads_the_same_voxels_names_and_colours(tmp_path: Path) -> None:
    reader = shutil.which("segimage2itkimage")
    if reader is None:
        pytest.skip("no dcmqi")
    path, fixed, found = written(tmp_path)
    (tmp_path / "out").mkdir()
    command = [reader, "--inputDICOM", str(path), "--outputDirectory", str(tmp_path / "out"), "-t", "nrrd"]
    subprocess.run(command, check=True, capture_output=True)
    scan = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(fixed))
    image = sitk.ReadImage(str(tmp_path / "out" / "1.nrrd"))
    numbers = sitk.GetArrayFromImage(sitk.Resample(image, scan, sitk.Transform(), sitk.sitkNearestNeighbor)).T
    for number, code in enumerate(NAMES, start=1):
        np.testing.assert_array_equal(numbers == number, labels() == code)
    (told,) = json.loads((tmp_path / "out" / "meta.json").read_text())["segmentAttributes"]
    assert [(one["labelID"], one["SegmentLabel"]) for one in told] == list(enumerate(NAMES.values(), start=1))
    colours = [np.array(one["recommendedDisplayRGBValue"]) for one in told]
    assert all(np.abs(c - s.colour).max() <= 1 for c, s in zip(colours, found, strict=True))


def test_structures_that_overlap_are_refused(tmp_path: Path) -> None:
    fixed, moving, _ = write_pair(tmp_path)
    mask = np.zeros(SHAPE, bool)
    mask[2:5, 2:5, 2:5] = True
    found = [Structure(1, "Heart", mask), Structure(2, "Lung", np.roll(mask, 2, axis=0))]
    scans = between(fixed, moving, anonymous=False)
    telling = r"overlap: Heart and Lung \(9 voxels\); .* write --format=seg, whose segments may overlap"
    refused(telling, save_labelmap, tmp_path / "map.dcm", found, scans)
    assert not (tmp_path / "map.dcm").exists()


def test_a_result_is_exported_as_a_label_map(tmp_path: Path) -> None:
    fixed, moving, _ = write_pair(tmp_path)
    drawn = np.zeros(MOVING_SHAPE, np.uint8)
    drawn[4:12, 4:10, 3:9] = 5
    save_image(tmp_path / "label.nii.gz", drawn, MOVING_AFFINE)
    save_itk_field(tmp_path / "field.nii.gz", np.zeros((3, *SHAPE), np.float32), AFFINE)
    opened = open_map(tmp_path / "field.nii.gz", reference=fixed, moving=moving)
    (carried,), _ = apply_to_labels(opened, [tmp_path / "label.nii.gz"], tmp_path / "o", mode="nearest")
    named = replace(opened, inputs={"moving_label": tmp_path / "label.nii.gz"})
    WRITERS["seg-labelmap"](named, between(fixed, moving, anonymous=False), tmp_path / "map.dcm")
    codes = read_label("label", tmp_path / "map.dcm", read_image("fixed", fixed)).numpy()[0]
    np.testing.assert_array_equal(codes > 0, read_image("x", str(carried)).numpy()[0] == 5)
    assert (codes > 0).any()
