"""A warped scan as a DICOM series: the moving scan's modality, units and settings on the fixed scan's planes."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ncf.core.errors import PairError
from ncf.io.dicom.written.identity import (
    coded,
    copy_named,
    made_by,
    new_object,
    save_object,
)
from ncf.io.dicom.written.modalities import DATES, MODALITIES, Modality
from ncf.io.dicom.written.planes import Planes, decimal, planes_of
from ncf.io.dicom.written.source import Scan
from ncf.io.dicom.written.stored import Stored, as_stored
from ncf.io.dicom.written.uids import uid_of, without_traces
from ncf.space.grids import Grid

NUMBER = 9001  # of the series, beyond those of scanners
WHAT = "a warped DICOM series"
DERIVATION = "Warped onto the planes of another scan by a registration of the two, linear interpolation"
SCALED = ("CT", "PT")  # whose definition asks for slope and intercept


@dataclass(frozen=True)
class Warped:
    """A warped moving scan, with where its planes were read.

    Attributes:
        values: (W, H, D), real values, such as HU.
        grid: of the fixed scan, or of another reference.
        read: the first moving plane that each plane was read from, and the one after the last, (D, 2).
    """

    values: np.ndarray
    grid: Grid
    read: Sequence[tuple[int, int]]


def save_series(folder: Path, warped: Warped, *, fixed: Scan, moving: Scan, anonymous: bool = False) -> None:
    """Write a warped scan as one file a plane, 0001.dcm and on, into a folder that is there.

    Equal values and scans give the same bytes. Stored numbers are half a step from the values, or nearer.

    Args:
        folder: for the files.
        warped: the values.
        fixed: gives patient, study and frame of reference.
        moving: gives modality, units, window and settings.
        anonymous: see `ncf.io.dicom.written.identity.new_object`.

    Raises:
        PairError: the moving scan's modality has no writer, the grid is none of DICOM's, or a file cannot be written.
    """
    modality = MODALITIES.get(moving.modality)
    if modality is None:
        raise PairError(
            f"{WHAT} is written of {', '.join(MODALITIES)}, and {moving.path} is {moving.modality or 'of no modality'};"
            " choose another format"
        )
    planes = planes_of(warped.grid, WHAT)
    stored = as_stored(warped.values, moving, modality)
    common = _common(modality, stored, planes, fixed, moving, anonymous=anonymous)
    content = (stored.numbers.tobytes(), warped.grid.affine.tobytes(), str(common))
    common.SeriesInstanceUID = uid_of("warped series", fixed.series, moving.series, *content)
    for plane in range(planes.shape[2]):
        data = deepcopy(common)
        _add_plane(data, plane, stored, planes)
        data.SOPInstanceUID = uid_of("warped plane", common.SeriesInstanceUID, str(plane))
        first, last = warped.read[plane]
        if first < last:
            data.SourceImageSequence = _sources(moving, first, last)
        data = without_traces(data) if anonymous else data
        save_object(folder / f"{plane + 1:04d}.dcm", data)


def _common(modality: Modality, stored: Stored, planes: Planes, fixed: Scan, moving: Scan, *, anonymous: bool) -> Any:
    """Return what all planes share."""
    own = str(moving.header.get("SeriesDescription", "") or moving.modality)
    told = moving.modality if anonymous else own
    data = new_object(
        modality.kind, fixed, modality=moving.modality, series=(NUMBER, f"Warped: {told}"), anonymous=anonymous
    )
    data.ContributingEquipmentSequence = made_by()
    copy_named(data, moving.header, modality.copied)
    copy_named(data, moving.header, DATES)  # `without_traces` takes them out again
    modality.complete(data, fixed.header, moving.header)
    if moving.in_suv:
        data.Units, data.SUVType = "GML", "BW"
    data.ImageType = list(modality.image_type)
    data.DerivationDescription = DERIVATION
    data.DerivationCodeSequence = coded("113085", "Spatial resampling")
    data.ImageOrientationPatient, data.PixelSpacing = planes.orientation, planes.pixel_spacing
    data.SliceThickness = decimal(planes.spacing[2])
    data.SpacingBetweenSlices = decimal(planes.spacing[2])
    data.Rows, data.Columns = planes.shape[1], planes.shape[0]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = int(stored.numbers.dtype.kind == "i")
    data.WindowCenter, data.WindowWidth = (decimal(value) for value in stored.window)
    return data


def _add_plane(data: Any, plane: int, stored: Stored, planes: Planes) -> None:
    """Add place, numbers and scale of one plane."""
    data.InstanceNumber = plane + 1
    data.ImagePositionPatient = planes.position(plane)
    if stored.scaled or data.Modality in SCALED:
        data.RescaleSlope, data.RescaleIntercept = stored.slopes[plane], stored.intercept
    if data.Modality == "PT":
        data.ImageIndex, data.NumberOfSlices = plane + 1, planes.shape[2]
    data.PixelData = stored.numbers[:, :, plane].T.astype(stored.numbers.dtype.newbyteorder("<")).tobytes()


def _sources(moving: Scan, first: int, last: int) -> list[Any]:
    """Return the moving files that a plane was read from."""
    items = moving.references(first, last)
    for item in items:
        item.PurposeOfReferenceCodeSequence = coded("121322", "Source image for image processing operation")
    return items
