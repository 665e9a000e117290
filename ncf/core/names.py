"""Names: the keys of a pair, the suffixes of images, the files of a result folder. Nothing is read here."""

from __future__ import annotations

import os
import re

IMAGES = ("fixed", "moving")
# the image on whose grid each label map or mask lies
LABEL_KEYS = ("fixed_label", "moving_label")
GRID_OF = {"fixed_label": "fixed", "moving_label": "moving", "fixed_mask": "fixed", "moving_mask": "moving"}
POINTS = ("landmarks", "fixed_landmarks", "moving_landmarks")  # one file of six columns, or two files of three
GUIDE_POINTS = ("guide_points", "fixed_guide_points", "moving_guide_points")  # likewise; they guide the fit
PAIR_KEYS = (*IMAGES, *GRID_OF, *POINTS, *GUIDE_POINTS)
MODALITY = "modality"  # in a volume's meta: what DICOM calls it, such as CT
# one contrast or two: by the pair itself, or as a person says
AUTO, SAME, DIFFERENT = "auto", "same", "different"
MODALITIES = (AUTO, SAME, DIFFERENT)
# what a verdict says; the third, a refusal, is an error
GOOD, DOUBTFUL = "good", "doubtful"
DOUBTFUL_STATUS = 2  # exit status of a strict command
# what a map may do
RIGID, AFFINE, DEFORMABLE = "rigid", "affine", "deformable"
TRANSFORMS = (RIGID, AFFINE, DEFORMABLE)
# how a dose is carried: as it is at a point, or with its energy kept; the first is the default
DOSE_RULES = ("dose", "energy")
# what a result folder holds; metrics.json is written last
FIELD_FILE, WARPED_FILE, WARPED_LABEL_FILE = "displacement.nii.gz", "warped.nii.gz", "warped_label.nii.gz"
WARPED_NAMES_FILE = "warped_label.tsv"  # names of these labels, where they have any
AFFINE_FILE = "affine.tfm"
NETWORK_FILE, RUN_FILE, METRICS_FILE = "network.pt", "run.json", "metrics.json"
# the report, made from those
REPORT_FILE, FINDINGS_FILE, INDEX_FILE, PICTURES = "report.html", "findings.json", "index.html", "pictures"
# the page of task group 132, made from a result on demand
TG132_FILE, TG132_TABLE = "tg132.json", "tg132.md"
# bounds of the map's error, and what they come from; made from a result on demand
TRUST_FILE, TRUST_NUMBERS_FILE = "trust.nii.gz", "trust.json"
# all files of a result; metrics.json, which says that the result is complete, is first
RESULT_FILES = (
    METRICS_FILE,
    RUN_FILE,
    FIELD_FILE,
    AFFINE_FILE,
    NETWORK_FILE,
    WARPED_FILE,
    WARPED_LABEL_FILE,
    WARPED_NAMES_FILE,
    REPORT_FILE,
    FINDINGS_FILE,
    TG132_FILE,
    TG132_TABLE,
    TRUST_FILE,
    TRUST_NUMBERS_FILE,
)
DICOM_FOLDER = "dicom"  # of a result: its DICOM objects, where they were asked for
LONGEST_NAME = 255  # bytes in the name of a file or folder, on every usual file system
# the inverse field, and the mask of where it is known
INVERSE_FILE, VALID_FILE = "inverse.nii.gz", "inverse_valid.nii.gz"
DICOM_SUFFIX = ".dcm"
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")


def safe_name(text: str) -> str:
    """Return a text as a name that is safe for a file everywhere.

    Letters, digits, dot, dash and underscore stay, and every other character becomes ``_``. Dots at the beginning are
    removed.
    """
    return re.sub(r"[^\w.\-]", "_", text).lstrip(".") or "_"


def image_stem(path: str) -> str:
    """Return the name of an image file without its suffix; for a DICOM series, the name of its folder."""
    stem = os.path.basename(os.path.abspath(path))  # abspath: the name of "scans/." and of "scans/" is scans
    known = (*IMAGE_SUFFIXES, DICOM_SUFFIX)
    base, mark, choice = stem.rpartition("#")  # a volume, or labels, that were chosen of several
    if mark and base and (re.fullmatch(r"[\d.]+", choice) or base.lower().endswith(known)):
        return f"{without_suffix(base, known)}_{choice}"
    return without_suffix(stem, known)


def without_suffix(name: str, suffixes: tuple[str, ...]) -> str:
    """Return the name of a file without whichever of some suffixes, in lower case, it ends in."""
    suffix = next((s for s in suffixes if name.lower().endswith(s)), "")
    return name[: len(name) - len(suffix)]


def pair_name(fixed_path: str, moving_path: str) -> str:
    """Return the name of a pair, ``<fixed>__<moving>``, by the names of its files without image suffix.

    The name is safe for a file. Two files of the same name in two folders give ``image__image``: such pairs need a
    ``name`` of their own.

    Args:
        fixed_path: of the fixed image, or the folder of its DICOM series.
        moving_path: of the moving image, likewise.
    """
    return "__".join(safe_name(image_stem(path)) for path in (fixed_path, moving_path))
