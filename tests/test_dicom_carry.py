"""Labels carried by ``ncf apply`` as RTSTRUCT and SEG: the same voxels as in NIfTI, with names, on the fixed series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ncf.commands.main import main
from ncf.core.labels import Labels
from ncf.io.dicom.objects import RTSTRUCT, SEGMENTATIONS
from ncf.io.dicom.written.between import between
from ncf.io.dicom.written.segments import save_segments
from ncf.io.dicom.written.structures import save_structures, structures_of
from ncf.io.image_files import read_image
from ncf.io.label_files import read_label, table_of
from ncf.io.nifti import save_image
from ncf.io.trust_file import save_trust
from ncf.use.carry import grid_of, open_map
from ncf.use.dicom import carry_structures
from tests.dicom_pair import MOVING_AFFINE, MOVING_SHAPE, SHAPE, valid, write_pair
from tests.test_dicom_out import field

__all__ = ["field"]  # a fixture
NAMES = {3: "Heart", 4: "Lung L"}


def drawn() -> np.ndarray:
    codes = np.zeros(MOVING_SHAPE, np.uint8)
    codes[4:12, 3:9, 3:9], codes[13:18, 6:12, 2:12] = 3, 4
    return codes


@pytest.fixture
def made(tmp_path: Path) -> dict[str, str]:
    """A pair of series, and labels of the moving one: contours, segments, and a map."""
    fixed, moving, _ = write_pair(tmp_path)
    scans = between(moving, fixed, anonymous=False)  # drawn on the moving series
    found = structures_of(drawn(), Labels(names=NAMES))
    save_structures(tmp_path / "RS.dcm", found, scans)
    save_segments(tmp_path / "SEG.dcm", found, scans)
    save_image(tmp_path / "map.nii.gz", drawn(), MOVING_AFFINE)
    return {"fixed": fixed, "moving": moving}


def apply(tmp_path: Path, field: Path, made: dict[str, str], file: str, *options: str) -> None:
    series = [f"--reference={made['fixed']}", f"--moving={made['moving']}", f"--output_dir={tmp_path / 'out'}"]
    main(["apply", str(field), str(tmp_path / file), "--to=label", *series, *options])


@pytest.mark.parametrize(
    ("file", "asked", "name", "kind"),
    [
        ("RS.dcm", "true", "RS_rtstruct.dcm", RTSTRUCT),
        ("SEG.dcm", "true", "SEG_seg.dcm", SEGMENTATIONS[0]),
        ("map.nii.gz", "true", "map_rtstruct.dcm", RTSTRUCT),
        ("RS.dcm", "seg-labelmap", "RS_labelmap.dcm", SEGMENTATIONS[1]),
    ],
)
def test_labels_are_carried_as_objects(
    tmp_path: Path, field: Path, made: dict[str, str], file: str, asked: str, name: str, kind: str
) -> None:
    apply(tmp_path, field, made, file, f"--dicom={asked}")
    apply(tmp_path, field, made, file)  # as NIfTI
    path = tmp_path / "out" / name
    data, own = pydicom.dcmread(path), pydicom.dcmread(next(Path(made["fixed"]).iterdir()))
    assert data.SOPClassUID == kind and data.FrameOfReferenceUID == own.FrameOfReferenceUID
    if kind != SEGMENTATIONS[1]:
        valid(path)
    found = read_label("label", path, read_image("fixed", made["fixed"]))
    nifti = read_image("x", str(tmp_path / "out" / f"{file.partition('.')[0]}.nii.gz")).numpy()[0]
    numbers = sorted(set(np.unique(nifti)) - {0})
    assert len(numbers) == 2
    for number, other in zip((1, 2), numbers, strict=True):
        np.testing.assert_array_equal(table_of(found).mask(found.numpy()[0], number), nifti == other)
    wanted = ["label 3", "label 4"] if file == "map.nii.gz" else list(NAMES.values())
    assert list(table_of(found).names.values()) == wanted


def test_some_labels_and_no_patient(tmp_path: Path, field: Path, made: dict[str, str]) -> None:
    apply(tmp_path, field, made, "RS.dcm", "--dicom=true", "--labels=heart", "--anonymous=true")
    data = pydicom.dcmread(tmp_path / "out" / "RS_rtstruct.dcm")
    assert [roi.ROIName for roi in data.StructureSetROISequence] == ["Heart"]
    assert data.PatientName == "ANONYMOUS"


def test_what_cannot_be_is_refused(tmp_path: Path, field: Path, made: dict[str, str]) -> None:
    with pytest.raises(SystemExit, match="true, false, rtstruct, seg, seg-labelmap"):
        apply(tmp_path, field, made, "RS.dcm", "--dicom=nrrd")
    image = str(tmp_path / "scan.nii.gz")
    save_image(tmp_path / "scan.nii.gz", np.zeros(SHAPE, np.int16), np.eye(4))
    with pytest.raises(SystemExit, match="is no DICOM series"):
        apply(tmp_path, field, {**made, "fixed": image}, "map.nii.gz", "--dicom=true")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_inner_and_outer_structures_are_objects_of_their_own(tmp_path: Path, field: Path, made: dict[str, str]) -> None:
    grid = grid_of(made["fixed"], "fixed")
    bounds = np.full((*grid.shape, 2), 2.0, np.float32)
    save_trust(tmp_path / "trust.nii.gz", bounds, grid.affine)
    opened = open_map(field, reference=made["fixed"], moving=made["moving"])
    opened = replace(opened, trust=tmp_path / "trust.nii.gz")
    files, lines = carry_structures(opened, [tmp_path / "RS.dcm"], tmp_path / "out", reference=made["fixed"])
    assert [file.name for file in files] == ["RS_rtstruct.dcm", "RS_inner_rtstruct.dcm", "RS_outer_rtstruct.dcm"]
    assert [line.partition(":")[0].strip() for line in lines[1:]] == list(NAMES.values())
    own, inner, outer = (read_label("label", file, read_image("fixed", made["fixed"])) for file in files)
    assert list(table_of(outer).names.values()) == [f"{name} (outer)" for name in NAMES.values()]
    for number in (1, 2):
        parts = [table_of(label).mask(label.numpy()[0], number) for label in (inner, own, outer)]
        assert (parts[0] <= parts[1]).all() and (parts[1] <= parts[2]).all() and parts[0].sum() < parts[2].sum()
    save_trust(tmp_path / "trust.nii.gz", np.full_like(bounds, 500.0), grid.affine)
    files, lines = carry_structures(opened, [tmp_path / "RS.dcm"], tmp_path / "out", reference=made["fixed"])
    assert "RS_inner_rtstruct.dcm" not in [file.name for file in files] and "inner 0.0 ml" in lines[1]
    assert not (tmp_path / "out" / "RS_inner_rtstruct.dcm").exists()  # of the bounds before
