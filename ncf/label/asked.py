"""A viewer's request, understood or refused: which two scans, and how they are registered.

This room knows ids and words alone, neither a server nor a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ncf.core.errors import PairError
from ncf.core.names import AUTO, DEFORMABLE, MODALITIES, TRANSFORMS
from ncf.core.presets import MOST_SEED

AUTOMATIC = "automatic: same patient"  # a value of `moving`: `partner` chooses the scan
DEFAULT = "default"  # a value of `preset`
EXTENSIONS = (".nii.gz", ".nii", ".nrrd")  # file types of the reply; viewers ask for one
LABEL_NUMBERS = ("rigid_label", "keep_volume_label")
KNOWN = (
    "moving",
    "preset",
    "modality",
    "transform",
    "seed",
    "align_centres",
    "guide_points",
    "guide_labels",
    *LABEL_NUMBERS,
    "result_extension",
)
NAMED = 12  # most ids named in one line


@dataclass(frozen=True)
class Asked:
    """A registration as a viewer wants it.

    Attributes:
        fixed: id of the fixed scan.
        moving: id of the moving scan.
        preset: the name of one, None for the default.
        modality: ``auto``, ``same`` or ``different``.
        transform: ``rigid``, ``affine`` or ``deformable``.
        seed: of the network's first weights.
        align_centres: True starts with the centres of both grids together.
        guide_points: True lets the points that are saved for both scans guide the fit.
        guide_labels: True lets the saved labels of both scans guide it.
        rigid_label: labels of the fixed scan in which the map stays rigid.
        keep_volume_label: labels of the fixed scan whose volume is kept.
        extension: the file type of the reply.
    """

    fixed: str
    moving: str
    preset: str | None
    modality: str
    transform: str
    seed: int
    align_centres: bool
    guide_points: bool
    guide_labels: bool
    rigid_label: list[int]
    keep_volume_label: list[int]
    extension: str

    @property
    def overrides(self) -> dict[str, Any]:
        """The entries of configs/inference.json that are overridden."""
        given: dict[str, Any] = {"modality": self.modality, "transform": self.transform}
        given |= {"seed": self.seed, "align_centres": self.align_centres}
        wishes = {name: getattr(self, name) for name in ("guide_labels", *LABEL_NUMBERS)}
        return given | {name: wish for name, wish in wishes.items() if wish}


def understood(request: Mapping[str, Any], *, labelled: Mapping[str, bool], presets: Iterable[str]) -> Asked:
    """Return the registration that a request asks for.

    Args:
        request: ``image``, an id, and the entries of `KNOWN`. Other entries belong to MONAI Label or to the viewer.
        labelled: every id of the study folder, and whether that scan has a label that somebody saved.
        presets: the names that there are.

    Raises:
        PairError: whatever cannot be done.
    """
    for word in request:
        near = get_close_matches(word, KNOWN, n=1, cutoff=0.8)
        if near and word not in KNOWN:
            raise PairError(f"unknown parameter {word!r}, did you mean {near[0]}?")
    fixed = _known(request.get("image"), "image", labelled)
    moving = request.get("moving")
    moving = partner(fixed, labelled) if moving in (None, "", AUTOMATIC) else _known(moving, "moving", labelled)
    if moving == fixed:
        raise PairError(f"image and moving are the same scan, {fixed!r}; name two")
    if not labelled[moving]:
        raise PairError(
            f"the moving scan {moving!r} has no saved label that could be carried over; save one for it first"
        )
    return Asked(
        fixed,
        moving,
        preset=_preset(request.get("preset"), tuple(presets)),
        modality=_word("modality", request.get("modality") or AUTO, MODALITIES),
        transform=_word("transform", request.get("transform") or DEFORMABLE, TRANSFORMS),
        seed=_seed(request.get("seed", 0)),
        align_centres=_truth("align_centres", request),
        guide_points=_truth("guide_points", request),
        guide_labels=_truth("guide_labels", request),
        rigid_label=_labels("rigid_label", request),
        keep_volume_label=_labels("keep_volume_label", request),
        extension=_word("result_extension", request.get("result_extension") or EXTENSIONS[0], EXTENSIONS),
    )


def patient(scan: str) -> str:
    """Return whose scan it is: the part of its id before the first underscore."""
    return scan.partition("_")[0]


def partner(fixed: str, labelled: Mapping[str, bool]) -> str:
    """Choose the moving scan when none is named: of this patient's other scans, the first by name with a label.

    Args:
        fixed: id of the fixed scan.
        labelled: every id, and whether that scan has a saved label.

    Raises:
        PairError: there is none.
    """
    others = sorted(scan for scan in labelled if scan != fixed and patient(scan) == patient(fixed))
    found = next((scan for scan in others if labelled[scan]), None)
    if found is None:
        what = f"none of {_some(others)} has a saved label" if others else "there is none in the study folder"
        rule = f"the first labelled scan of patient {patient(fixed)!r} (before the first underscore) besides {fixed!r}"
        raise PairError(f"moving was not named, so it is {rule}, but {what}; name one, or save a label first")
    return found


def _known(scan: Any, parameter: str, labelled: Mapping[str, bool]) -> str:
    """Return an id that is in the study folder; raise PairError for others."""
    if not isinstance(scan, str) or scan not in labelled:
        raise PairError(f"{parameter}: no scan {scan!r:.80} in the study folder; there are: {_some(sorted(labelled))}")
    return scan


def _some(scans: list[str]) -> str:
    """List ids, at most `NAMED` of them."""
    rest = f" and {len(scans) - NAMED} more" if len(scans) > NAMED else ""
    return (", ".join(scans[:NAMED]) or "none") + rest


def _preset(value: Any, presets: tuple[str, ...]) -> str | None:
    """Return the preset of a request, None for the default; raise PairError for an unknown one."""
    if value in (None, "", DEFAULT):
        return None
    if value not in presets:
        raise PairError(f"preset is one of {', '.join((DEFAULT, *presets))}, got {value!r:.80}")
    return str(value)


def _word(parameter: str, value: Any, words: tuple[str, ...]) -> str:
    """Return a value that is one of some words; raise PairError for another."""
    if value not in words:
        raise PairError(f"{parameter} is one of {', '.join(words)}, got {value!r:.80}")
    return str(value)


def _seed(value: Any) -> int:
    """Return the seed of a request; raise PairError for what is no whole number from zero."""
    if isinstance(value, bool) or not str(value).strip().isdecimal() or int(str(value)) > MOST_SEED:
        raise PairError(f"seed must be a whole number from zero to {MOST_SEED}, got {value!r:.80}")
    return int(str(value))


def _truth(parameter: str, request: Mapping[str, Any]) -> bool:
    """Return true or false of a request; raise PairError for other values."""
    value = request.get(parameter, False)
    if str(value).lower() not in ("true", "false"):
        raise PairError(f"{parameter} is true or false, got {value!r:.80}")
    return str(value).lower() == "true"


def _labels(parameter: str, request: Mapping[str, Any]) -> list[int]:
    """Return the label numbers of a request: one, a list, or a text such as "3, 5"; raise PairError for others."""
    value = request.get(parameter)
    several = value if isinstance(value, list) else str("" if value is None else value).replace(",", " ").split()
    words = [str(label) for label in several]
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise PairError(f"{parameter} is a label number above zero, or several, got {value!r:.80}")
    return [int(word) for word in words]
