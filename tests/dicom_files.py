"""DICOM series written by hand, so that a test can put into them what scanners put."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

RAS_OF_LPS = np.array([-1.0, -1.0, 1.0])


def set_pixels(data: Dataset, pixels: np.ndarray, *, rgb: bool) -> None:
    data.Rows, data.Columns = pixels.shape
    bits = 8 if rgb else 16
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if rgb else (1, "MONOCHROME2")
    data.PixelRepresentation, data.PlanarConfiguration = int(not rgb), 0
    data.PixelData = np.stack([pixels] * 3, axis=-1).astype("u1").tobytes() if rgb else pixels.astype("<i2").tobytes()


def write_dicom(
    folder: Path,
    stored: np.ndarray,
    affine: np.ndarray,
    *,
    rescale: list[tuple[float, float]] | None = None,
    tilt_mm: float = 0.0,
    skip: tuple[int, ...] = (),
    rgb: bool = False,
    changed: Callable[[Dataset, int], None] = lambda data, k: None,
) -> str:
    """A CT series with file names and instance numbers in random order. changed: gets each slice before it is saved."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0).round(9)
    columns = np.diag(RAS_OF_LPS) @ affine[:3, :3] / spacing_mm
    series, study = generate_uid(), generate_uid()
    for k in range(stored.shape[2]):
        if k in skip:
            continue
        data, meta = Dataset(), FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.file_meta, data.SOPClassUID, data.Modality = meta, CTImageStorage, "CT"
        data.SeriesInstanceUID, data.StudyInstanceUID, data.SeriesDate = series, study, "20200102"
        data.InstanceNumber = int(rng.integers(1, 10**6))
        position = RAS_OF_LPS * affine[:3, 3] + k * (columns[:, 2] * spacing_mm[2] + np.array([0, tilt_mm, 0]))
        data.ImagePositionPatient = [f"{v:.9g}" for v in position]
        data.ImageOrientationPatient = [f"{v:.12g}" for v in (*columns[:, 0], *columns[:, 1])]
        data.PixelSpacing, data.SliceThickness = [spacing_mm[1], spacing_mm[0]], spacing_mm[2]
        data.RescaleSlope, data.RescaleIntercept = rescale[k] if rescale else (1, 0)
        set_pixels(data, stored[:, :, k].T, rgb=rgb)
        changed(data, k)
        data.save_as(folder / f"{rng.integers(1 << 40):x}", enforce_file_format=True)
    return str(folder)


def write_enhanced(
    folder: Path,
    stored: np.ndarray,
    affine: np.ndarray,
    *,
    order: Sequence[int] | None = None,
    times: int = 1,
    tilt_mm: float = 0.0,
    rescale: list[tuple[float, float]] | None = None,
) -> str:
    """The same as one enhanced multi-frame file, its frames in ``order``, all of them ``times`` over."""
    folder.mkdir(exist_ok=True)
    spacing_mm = np.linalg.norm(affine[:3, :3], axis=0).round(9)
    columns = np.diag(RAS_OF_LPS) @ affine[:3, :3] / spacing_mm
    planes = [k for _ in range(times) for k in (order or range(stored.shape[2]))]

    def item(**values: Any) -> Dataset:
        data = Dataset()
        for name, value in values.items():
            setattr(data, name, value)
        return data

    data, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, EnhancedCTImageStorage
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.file_meta, data.SOPClassUID, data.Modality = meta, EnhancedCTImageStorage, "CT"
    data.SeriesInstanceUID, data.StudyInstanceUID = generate_uid(), generate_uid()
    turned = [f"{v:.12g}" for v in (*columns[:, 0], *columns[:, 1])]
    sizes = [spacing_mm[1], spacing_mm[0]]
    shared = item(
        PlaneOrientationSequence=Items([item(ImageOrientationPatient=turned)]),
        PixelMeasuresSequence=Items([item(PixelSpacing=sizes, SliceThickness=spacing_mm[2])]),
    )
    frames = []
    for k in planes:
        position = RAS_OF_LPS * affine[:3, 3] + k * (columns[:, 2] * spacing_mm[2] + np.array([0, tilt_mm, 0]))
        slope, intercept = rescale[k] if rescale else (1, 0)
        frames.append(
            item(
                PlanePositionSequence=Items([item(ImagePositionPatient=[f"{v:.9g}" for v in position])]),
                PixelValueTransformationSequence=Items([item(RescaleSlope=slope, RescaleIntercept=intercept)]),
            )
        )
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = Items([shared]), Items(frames)
    set_pixels(data, stored[:, :, planes[0]].T, rgb=False)
    data.NumberOfFrames = len(planes)
    later = np.repeat(np.arange(times), len(planes) // times)  # each time point is brighter by 1
    data.PixelData = (stored[:, :, planes] + later).transpose(2, 1, 0).astype("<i2").tobytes()
    data.save_as(folder / "frames.dcm", enforce_file_format=True)
    return str(folder)
