"""DICOM in the study folder: series as folders, RTSTRUCT and SEG as labels, and both as NIfTI for a viewer."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from ncf.core.names import DICOM_SUFFIX
from ncf.io.dicom.folder import is_dicom
from ncf.io.image_files import read_image
from ncf.io.label_files import is_label_object, read_label, shown_labels, table_of
from ncf.io.nifti import save_image

LOOKED_AT = 8  # files of a folder: if none of them is DICOM, it is no series
SENT_SUFFIX = ".nii.gz"  # of what a viewer gets


def is_series(folder: Path) -> bool:
    """Tell whether a folder holds DICOM files, perhaps in subfolders."""
    files = (Path(where) / name for where, _, names in os.walk(folder) for name in sorted(names))
    with contextlib.suppress(OSError):  # a folder that may not be read is none; whoever wants it finds out why
        return any(is_dicom(file) for file in islice(files, LOOKED_AT))
    return False


def is_label(file: Path) -> bool:
    """Tell whether a file is an RTSTRUCT or a SEG."""
    return file.suffix.lower() == DICOM_SUFFIX and is_label_object(file)


def is_scan(file: Path) -> bool:
    """Tell whether a file is DICOM by its name, and no RTSTRUCT or SEG."""
    return file.suffix.lower() == DICOM_SUFFIX and file.is_file() and not is_label_object(file)


def is_image_file(place: str) -> bool:
    """Tell whether a scan or label is an image file, which is sent as it is."""
    return not (Path(place).is_dir() or place.lower().endswith(DICOM_SUFFIX))


def scan_to_send(scan: str, place: str) -> Path | None:
    """Write a DICOM scan as NIfTI to the temporary folder; None for an image file, which is sent as it is.

    Args:
        scan: its id.
        place: its folder or file.

    Raises:
        PairError: it cannot be read.
    """
    if is_image_file(place):
        return None
    image = read_image(scan, place)
    return _written(scan, lambda path: save_image(path, image.as_tensor()[0], image.affine.numpy()))


def label_to_send(scan: str, label: str, place: str) -> Path | None:
    """Write an RTSTRUCT or SEG as a label map on the grid of its scan; None for an image file.

    Args:
        scan: id of the scan.
        label: the label's file.
        place: the scan's folder or file.

    Raises:
        PairError: one cannot be read, or they do not belong together.
    """
    if is_image_file(label):
        return None
    found = read_label(scan, label, read_image(scan, place))
    shown = shown_labels(found.as_tensor()[0], table_of(found))
    return _written(scan, lambda path: save_image(path, shown, found.affine.numpy()))


def _written(scan: str, write: Callable[[Path], object]) -> Path:
    """Write a file into the temporary folder; whoever sends it deletes it."""
    path = Path(tempfile.gettempdir()) / f"{scan}__{secrets.token_hex(4)}{SENT_SUFFIX}"
    write(path)
    return path
