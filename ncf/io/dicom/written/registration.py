"""Maps as DICOM's registrations, PS3.3 C.20.2 and C.20.3, written; `ncf.io.dicom.registrations` reads them.

Two directions meet here. A map of ours goes from a fixed to its moving point. The matrix of a Spatial Registration
goes from the moving frame of reference (its source) to the fixed one (the registered frame): it is our map's inverse.
The grid of a Deformable Spatial Registration goes from the fixed to the moving frame, as ours does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ncf.core.packages import optional
from ncf.io.dicom.written.between import Between
from ncf.io.dicom.written.identity import (
    NO_SERIAL,
    coded,
    copy_named,
    identified,
    new_object,
    save_object,
    set_dates,
    set_side,
)
from ncf.io.dicom.written.planes import decimal, planes_of
from ncf.io.dicom.written.source import Scan
from ncf.space.geometry import RAS_TO_LPS, field_to_mm, from_lps
from ncf.space.grids import Grid

MATRIX_KIND, GRID_KIND = "1.2.840.10008.5.1.4.1.1.66.1", "1.2.840.10008.5.1.4.1.1.66.3"
NUMBER = 9002  # of the series
WHAT = "a DICOM registration"
EXACT = 1e-6  # how far a matrix may be from a rotation and still be called one
BY_CONTENT, IDENTITY = ("125024", "Image Content-based Alignment"), ("125021", "Frame of Reference Identity")


def save_matrix(path: Path, matrix: np.ndarray, scans: Between) -> None:
    """Write a rigid or affine map as a Spatial Registration; equal maps and scans give the same bytes.

    Args:
        path: of the file.
        matrix: (4, 4), RAS mm, fixed to moving.
        scans: the fixed scan's frame is the registered one.

    Raises:
        PairError: the file cannot be written.
    """
    data = _new(MATRIX_KIND, "Registration", scans)
    home = from_lps(np.linalg.inv(matrix))
    items = []
    for scan, found, method in ((scans.fixed, np.eye(4), IDENTITY), (scans.moving, home, BY_CONTENT)):
        item = optional("pydicom").Dataset()
        item.FrameOfReferenceUID, item.ReferencedImageSequence = scan.frame, scan.references()
        inner = optional("pydicom").Dataset()
        inner.RegistrationTypeCodeSequence, inner.MatrixSequence = coded(*method), [_matrix(found)]
        item.MatrixRegistrationSequence = [inner]
        items.append(item)
    data.RegistrationSequence = items
    save_object(path, identified(data, anonymous=scans.anonymous))


def save_grid(path: Path, field_vox: Any, grid: Grid, scans: Between) -> None:
    """Write a field as a Deformable Spatial Registration; equal fields and scans give the same bytes.

    Args:
        path: of the file.
        field_vox: (3, W, H, D), float32, in voxels of ``grid``, fixed to moving.
        grid: where the field lies; any right-handed one at right angles.
        scans: the fixed scan's frame is the registered one, the moving scan's is the source.

    Raises:
        PairError: the grid is none of DICOM's, or the file cannot be written.
    """
    planes, data = planes_of(grid, WHAT), _new(GRID_KIND, "Deformable registration", scans)
    lps_mm = field_to_mm(field_vox.float(), RAS_TO_LPS @ np.asarray(grid.affine)[:3, :3]).numpy()
    place, item = (optional("pydicom").Dataset() for _ in range(2))
    place.ImagePositionPatient, place.ImageOrientationPatient = planes.position(0), planes.orientation
    place.GridDimensions, place.GridResolution = list(planes.shape), planes.spacing.tolist()
    # x runs fastest after the components of a vector
    place.VectorGridData = np.ascontiguousarray(lps_mm.transpose(3, 2, 1, 0)).astype("<f4").tobytes()
    item.SourceFrameOfReferenceUID = scans.moving.frame
    item.ReferencedImageSequence = scans.moving.references()
    item.RegistrationTypeCodeSequence = coded(*BY_CONTENT)
    item.PreDeformationMatrixRegistrationSequence = [_matrix(np.eye(4))]
    item.PostDeformationMatrixRegistrationSequence = [_matrix(np.eye(4))]
    item.DeformableRegistrationGridSequence = [place]
    data.DeformableRegistrationSequence = [item]
    save_object(path, identified(data, anonymous=scans.anonymous))


def _new(kind: str, words: str, scans: Between) -> Any:
    """Return a data set with what both kinds of registration have."""
    data = new_object(kind, scans.fixed, modality="REG", series=(NUMBER, words), anonymous=scans.anonymous)
    copy_named(data, scans.fixed.header, ("BodyPartExamined", "Laterality"))
    set_side(data)
    data.DeviceSerialNumber = NO_SERIAL
    set_dates(data, (scans.fixed, scans.moving), anonymous=scans.anonymous)
    data.ContentLabel, data.ContentDescription, data.ContentCreatorName = "REGISTRATION", words, ""
    add_references(data, (scans.fixed, scans.moving))
    return data


def add_references(data: Any, scans: Sequence[Scan]) -> None:
    """Add the Common Instance Reference module: every file that an object refers to, by series and study.

    Args:
        data: the object.
        scans: whose files it refers to.
    """
    dataset, elsewhere = optional("pydicom").Dataset, []
    data.ReferencedSeriesSequence = []
    for scan in {scan.series: scan for scan in scans}.values():
        series = dataset()
        series.SeriesInstanceUID, series.ReferencedInstanceSequence = scan.series, scan.references()
        if scan.study == data.StudyInstanceUID:
            data.ReferencedSeriesSequence.append(series)
            continue
        study = dataset()
        study.StudyInstanceUID, study.ReferencedSeriesSequence = scan.study, [series]
        elsewhere.append(study)
    if elsewhere:
        data.StudiesContainingOtherReferencedInstancesSequence = elsewhere


def _matrix(matrix: np.ndarray) -> Any:
    """Return an item with a matrix (4, 4) in LPS mm and its type."""
    item = optional("pydicom").Dataset()
    item.FrameOfReferenceTransformationMatrix = list(_numbers(matrix))
    item.FrameOfReferenceTransformationMatrixType = kind_of(matrix)
    return item


def kind_of(matrix: np.ndarray) -> str:
    """Return what DICOM calls an affine map: RIGID, RIGID_SCALE or AFFINE.

    Args:
        matrix: (4, 4).
    """
    linear = matrix[:3, :3]
    size = np.cbrt(np.linalg.det(linear))
    turned = size > 0 and np.abs(linear @ linear.T - size**2 * np.eye(3)).max() < EXACT
    return "RIGID" if turned and abs(size - 1) < EXACT else "RIGID_SCALE" if turned else "AFFINE"


def _numbers(matrix: np.ndarray) -> Iterator[str]:
    """Yield the numbers of a matrix, row by row."""
    yield from (decimal(value) for value in np.asarray(matrix, dtype=np.float64).ravel())
