"""How the files of a pair are called: its keys, the suffixes of images, names of result folders. Nothing is read here."""

from __future__ import annotations

import os
import re

IMAGES = ("fixed", "moving")
GRID_OF = {"fixed_label": "fixed", "moving_label": "moving", "fixed_mask": "fixed"}  # each lies on that image's grid
POINTS = ("landmarks", "fixed_landmarks", "moving_landmarks")  # six columns, or three and three
PAIR_KEYS = (*IMAGES, *GRID_OF, *POINTS)
# what a result folder holds; metrics.json is written last
FIELD_FILE, WARPED_FILE, WARPED_LABEL_FILE = "displacement.nii.gz", "warped.nii.gz", "warped_label.nii.gz"
NETWORK_FILE, RUN_FILE, METRICS_FILE = "network.pt", "run.json", "metrics.json"
# the report, made of those
REPORT_FILE, CONCERNS_FILE, INDEX_FILE, PICTURES = "report.html", "concerns.json", "index.html", "pictures"
# all of a result, metrics.json first, which vouches for the others
RESULT_FILES = (METRICS_FILE, RUN_FILE, FIELD_FILE, NETWORK_FILE, WARPED_FILE, WARPED_LABEL_FILE, REPORT_FILE, CONCERNS_FILE)
LONGEST_NAME = 255  # bytes of a file's or folder's name on every usual file system
# the inverse, and the mask of where it is known
INVERSE_FILE, VALID_FILE = "inverse.nii.gz", "inverse_valid.nii.gz"
SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
MAP_SUFFIXES = (".h5", ".hdf5", ".tfm", ".txt", ".nhdr", ".pt")  # of fields and transforms, beside those


def safe_name(text: str) -> str:
    """``text`` fit for a file name anywhere: letters, digits, dot, dash and underscore stay, the rest becomes ``_``."""
    return re.sub(r"[^\w.\-]", "_", text).lstrip(".") or "_"


def image_stem(path: str) -> str:
    """The name of an image file without its suffix, of a DICOM series that of its folder."""
    stem = os.path.basename(os.path.abspath(path))  # abspath: "scans/." and "scans/" are called scans
    return _without(stem, SUFFIXES)


def map_stem(path: str) -> str:
    """The name of a field's, transform's or network's file without its suffix."""
    return _without(os.path.basename(path), (*SUFFIXES, *MAP_SUFFIXES))


def _without(name: str, suffixes: tuple[str, ...]) -> str:
    suffix = next((s for s in suffixes if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)]


def pair_name(fixed_path: str, moving_path: str) -> str:
    """``<fixed>__<moving>`` from the file names without image suffix (the folder's for DICOM), safe as a file name.

    Two files of one name in two folders give ``image__image``: give such pairs a ``name`` of their own.
    """
    return "__".join(safe_name(image_stem(path)) for path in (fixed_path, moving_path))
