"""DICOM registrations: both directions by a formula, other programs' objects read, and ours read by them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from scipy.spatial.transform import Rotation

from ncf.core.files import save_json
from ncf.io.dicom.registrations import load_grid, load_matrix
from ncf.io.dicom.written.between import between
from ncf.io.dicom.written.registration import save_grid, save_matrix
from ncf.io.fields.table import load_map
from ncf.io.itk_fields import load_affine
from ncf.io.nifti import save_itk_field
from ncf.space.mapping import SpatialMap
from ncf.use.carry import open_map
from ncf.use.dicom import export_dicom
from tests.dicom_pair import AFFINE, of_two_series, valid, write_pair
from tests.dicom_pair import SHAPE as SERIES_SHAPE
from tests.maps import RAS_TO_LPS, SHAPE, points_in, smooth_map
from tests.refusing import refused

POINT_MM = 1e-4
TURNED = np.eye(4)
TURNED[:3, :3] = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix()
TURNED[:3, 3] = (4.0, -7.0, 11.0)


def series_map() -> SpatialMap:
    """A smooth field on the fixed series' grid."""
    x = np.indices(SERIES_SHAPE)
    field = np.array([a * np.sin(x[c - 2] / 4 + c) for c, a in enumerate((1.5, -1.2, 0.9))], dtype=np.float32)
    grid = smooth_map("lps").grid
    return SpatialMap(torch.from_numpy(field), type(grid)(SERIES_SHAPE, AFFINE))


def lps(points_mm: np.ndarray, matrix: list[float]) -> np.ndarray:
    """Points (N, 3) in LPS mm after a matrix of sixteen numbers."""
    whole = np.array(matrix, dtype=float).reshape(4, 4)
    return points_mm @ whole[:3, :3].T + whole[:3, 3]


@pytest.mark.parametrize("name", ["lps", "ras", "oblique"])
def test_the_vectors_lead_from_the_fixed_to_the_moving_frame(tmp_path: Path, name: str) -> None:
    mapping, scans = smooth_map(name), of_two_series(tmp_path)
    save_grid(tmp_path / "r.dcm", mapping.field, mapping.grid, scans)
    data = pydicom.dcmread(tmp_path / "r.dcm")
    item = data.DeformableRegistrationSequence[0]
    assert (data.FrameOfReferenceUID, item.SourceFrameOfReferenceUID) == (scans.fixed.frame, scans.moving.frame)
    grid = item.DeformableRegistrationGridSequence[0]
    vectors = np.frombuffer(grid.VectorGridData, "<f4").reshape(*reversed(SHAPE), 3)
    axes = np.array(grid.ImageOrientationPatient, float).reshape(2, 3)
    axes = np.array([*axes, np.cross(*axes)])
    for index in ((0, 0, 0), (3, 5, 7), (19, 23, 27)):
        start = np.array(grid.ImagePositionPatient, float) + (np.array(index) * grid.GridResolution) @ axes
        moved, _ = mapping.to_moving((start * RAS_TO_LPS)[None])
        np.testing.assert_allclose((start + vectors[index[::-1]]) * RAS_TO_LPS, moved[0], atol=POINT_MM)
    points = points_in(SHAPE, mapping.grid.affine)
    np.testing.assert_allclose(
        load_map(tmp_path / "r.dcm").to_moving(points)[0], mapping.to_moving(points)[0], atol=POINT_MM
    )
    valid(tmp_path / "r.dcm")


def test_the_matrices_around_a_grid_are_those_of_the_standard(tmp_path: Path) -> None:
    mapping, scans = smooth_map("oblique"), of_two_series(tmp_path)
    save_grid(tmp_path / "r.dcm", mapping.field, mapping.grid, scans)
    data = pydicom.dcmread(tmp_path / "r.dcm")
    item = data.DeformableRegistrationSequence[0]
    before, after = TURNED.ravel().tolist(), np.linalg.inv(TURNED @ TURNED).ravel().tolist()
    item.PreDeformationMatrixRegistrationSequence[0].FrameOfReferenceTransformationMatrix = [
        f"{v:.12g}" for v in before
    ]
    item.PostDeformationMatrixRegistrationSequence[0].FrameOfReferenceTransformationMatrix = [
        f"{v:.12g}" for v in after
    ]
    data.save_as(tmp_path / "both.dcm")
    points = points_in(SHAPE, mapping.grid.affine) * RAS_TO_LPS
    vectors = mapping.to_moving(points * RAS_TO_LPS)[0] * RAS_TO_LPS - points  # looked up where the point was
    expected = lps(lps(points, before) + vectors, after)
    found = load_grid(tmp_path / "both.dcm").to_moving(points * RAS_TO_LPS)[0] * RAS_TO_LPS
    np.testing.assert_allclose(found, expected, atol=POINT_MM)


def test_a_matrix_leads_from_the_moving_to_the_fixed_frame(tmp_path: Path) -> None:
    scans = of_two_series(tmp_path)
    stretched = TURNED @ np.diag([1.1, 0.9, 1.0, 1.0])
    for matrix, kind in (
        (TURNED, "RIGID"),
        (1.2 * TURNED + np.diag([0, 0, 0, -0.2]), "RIGID_SCALE"),
        (stretched, "AFFINE"),
    ):
        save_matrix(tmp_path / "m.dcm", matrix, scans)
        data = pydicom.dcmread(tmp_path / "m.dcm")
        fixed, moving = data.RegistrationSequence
        assert data.FrameOfReferenceUID == fixed.FrameOfReferenceUID == scans.fixed.frame
        told = moving.MatrixRegistrationSequence[0].MatrixSequence[0]
        assert moving.FrameOfReferenceUID == scans.moving.frame
        assert told.FrameOfReferenceTransformationMatrixType == kind
        at = points_in(SHAPE, np.eye(4))
        there = (at @ matrix[:3, :3].T + matrix[:3, 3]) * RAS_TO_LPS  # in the moving frame
        np.testing.assert_allclose(lps(there, told.FrameOfReferenceTransformationMatrix) * RAS_TO_LPS, at, atol=1e-9)
        np.testing.assert_allclose(load_affine(tmp_path / "m.dcm"), matrix, atol=1e-9)
        valid(tmp_path / "m.dcm")
    refused("expected a registration with one grid.*--pre_transform", load_grid, tmp_path / "m.dcm")
    save_grid(tmp_path / "g.dcm", smooth_map("lps").field, smooth_map("lps").grid, scans)
    refused("expected a registration with one matrix, got 0", load_matrix, tmp_path / "g.dcm")
    (tmp_path / "bad.dcm").write_bytes((tmp_path / "g.dcm").read_bytes()[:3000])
    refused("bad.dcm", load_map, tmp_path / "bad.dcm")


def test_a_rigid_result_becomes_a_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed, moving, _ = write_pair(tmp_path)
    save_itk_field(tmp_path / "f.nii.gz", series_map().field, AFFINE)
    out = {"kind": "dicom-reg", "reference": fixed, "moving": moving}
    (path,) = export_dicom(tmp_path / "f.nii.gz", tmp_path / "out", **out)
    assert path.name == "f_reg.dcm" and "DeformableRegistrationSequence" in pydicom.dcmread(path)
    monkeypatch.setattr("ncf.result.folder.SavedResult.matrix", lambda self: TURNED)
    result = tmp_path / "result"
    result.mkdir()
    shutil.copy(tmp_path / "f.nii.gz", result / "displacement.nii.gz")
    grid = {"shape": SERIES_SHAPE, "affine": AFFINE}
    save_json(result / "run.json", {"inputs": {}, "grids": {"fixed": grid, "moving": grid}, "imported": {}})
    (path,) = export_dicom(result, tmp_path / "out", **out)
    np.testing.assert_allclose(load_matrix(path), TURNED, atol=1e-9)
    assert path.name == "result_reg.dcm" and open_map(result).matrix is not None


def test_plastimatch_writes_the_same_vectors(tmp_path: Path) -> None:
    if shutil.which("plastimatch") is None:
        pytest.skip("no plastimatch: apt-get install plastimatch")
    fixed, moving, _ = write_pair(tmp_path)
    mapping, scans = series_map(), between(fixed, moving, anonymous=False)
    save_itk_field(tmp_path / "f.nii.gz", mapping.field, AFFINE)
    options = ["--output-dicom", str(tmp_path / "p"), "--fixed-rcs", fixed, "--moving-rcs", moving]
    command = ["plastimatch", "xf-convert", "--input", str(tmp_path / "f.nii.gz"), *options]
    subprocess.run(command, check=True, capture_output=True)
    (theirs,) = (tmp_path / "p").glob("*.dcm")
    points = points_in(SERIES_SHAPE, AFFINE)
    np.testing.assert_allclose(load_map(theirs).to_moving(points)[0], mapping.to_moving(points)[0], atol=POINT_MM)
    save_grid(tmp_path / "ours.dcm", mapping.field, mapping.grid, scans)
    grids = [
        pydicom.dcmread(file).DeformableRegistrationSequence[0].DeformableRegistrationGridSequence[0]
        for file in (theirs, tmp_path / "ours.dcm")
    ]
    first, second = (np.frombuffer(grid.VectorGridData, "<f4") for grid in grids)
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert list(grids[0].GridDimensions) == list(grids[1].GridDimensions)


def test_pydicomrt_reads_ours_and_we_read_its(tmp_path: Path) -> None:
    reg = pytest.importorskip("pydicomrt.reg", reason="no pydicomRT")
    sitk = pytest.importorskip("SimpleITK")
    fixed, moving, _ = write_pair(tmp_path)
    mapping = series_map()
    save_itk_field(tmp_path / "f.nii.gz", mapping.field, AFFINE)
    (path,) = export_dicom(tmp_path / "f.nii.gz", tmp_path / "out", kind="dicom-reg", reference=fixed, moving=moving)
    told = reg.get_deformable_registrations(pydicom.dcmread(path))[0]["DeformableRegistrationGrid"]
    image = sitk.ReadImage(str(tmp_path / "f.nii.gz"))
    assert np.abs(told["VectorGridData"] - sitk.GetArrayFromImage(image)).max() < POINT_MM
    np.testing.assert_allclose(np.array(told["ImagePositionPatient"], float), image.GetOrigin(), atol=POINT_MM)
    series = [[pydicom.dcmread(f) for f in sorted(Path(scan).iterdir())] for scan in (fixed, moving)]
    field = sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))
    builder = reg.DeformableSpatialRegistrationBuilder(series[0])
    builder.add_registration(series[1], field)
    builder.build().save_as(tmp_path / "theirs.dcm")
    points = points_in(SERIES_SHAPE, AFFINE)
    np.testing.assert_allclose(
        load_map(tmp_path / "theirs.dcm").to_moving(points)[0], mapping.to_moving(points)[0], atol=POINT_MM
    )
