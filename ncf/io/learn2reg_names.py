"""Learn2Reg's names of images and of displacement files (Hering et al. 2023, doi:10.1109/TMI.2022.3213983)."""

from __future__ import annotations

import re
from typing import NamedTuple

from ncf.core.errors import PairError

NAMINGS = ("auto", "short", "long")
STEM = re.compile(r"(?P<task>.+)_(?P<case>\d{4})_(?P<modality>\d{4})")
ZENODO_STEM = re.compile(r"case_(?P<case>\d{3})_(?P<breath>exp|insp)")  # of the data of 2020; exhale is fixed
SHORT_PAIR = ("0000", "0001")  # modalities of the pairs, fixed then moving, that have short names


def displacement_name(fixed_stem: str, moving_stem: str, *, names: str = NAMINGS[0]) -> str:
    """Return the name of a pair's file without suffix, by the stems of its images, such as LungCT_0001_0000.

    The name is short, ``disp_<fixed>_<moving>``, where modality 0001 is registered to modality 0000 of the same task.
    Otherwise it is long, ``disp_<fixed>_<modality>_<moving>_<modality>``. An older evaluation wants short names for two
    subjects of one modality.

    Args:
        fixed_stem: of the fixed image.
        moving_stem: of the moving image.
        names: auto follows this rule; short or long overrules it.

    Raises:
        PairError: a stem is no name of Learn2Reg, or ``names`` is another word.
    """
    if names not in NAMINGS:
        raise PairError(f"names is one of {', '.join(NAMINGS)}, got {names!r}")
    fixed, moving = (_image_name(stem) for stem in (fixed_stem, moving_stem))
    short = fixed.task == moving.task and (fixed.modality, moving.modality) == SHORT_PAIR
    if names == "short" or (names == "auto" and short):
        return f"disp_{fixed.case}_{moving.case}"
    return f"disp_{fixed.case}_{fixed.modality}_{moving.case}_{moving.modality}"


class ImageName(NamedTuple):
    """What one of Learn2Reg's image names says; case and modality have four digits."""

    task: str
    case: str
    modality: str


def _image_name(stem: str) -> ImageName:
    if match := STEM.fullmatch(stem):
        return ImageName(match["task"], match["case"], match["modality"])
    if match := ZENODO_STEM.fullmatch(stem):
        return ImageName("LungCT", f"0{match['case']}", SHORT_PAIR[match["breath"] == "insp"])
    raise PairError(
        f"{stem!r} is no Learn2Reg image name; expected <task>_<case>_<modality>, such as "
        "LungCT_0001_0000; for other scans give --format=nii.gz, nrrd, mha or h5"
    )
