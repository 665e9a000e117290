"""From what a user names to the fixed scan and the phases of a series: a list, scans, a 4D file, a DICOM folder.

No images are read here, only headers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ncf.core.errors import PairError
from ncf.core.names import image_stem, safe_name
from ncf.core.notes import note
from ncf.core.paths import there
from ncf.core.scan_paths import scan_path
from ncf.io.pair_lists import Pairs, checked, read_pairs
from ncf.io.volumes import ListedVolume, volumes_in

LISTS = (".csv", ".json")
SAME_FIXED = ("fixed", "fixed_label", "fixed_mask")  # entries of a row that belong to the fixed scan


@dataclass(frozen=True)
class SeriesScans:
    """The scans of a series.

    Attributes:
        pairs: one for each phase, with the same fixed scan.
        times_s: of the phases, by name; None where nobody tells it.
        told: what the files of the phases call them, by name.
    """

    pairs: Pairs
    times_s: Mapping[str, float | None]
    told: Mapping[str, str]


def series_scans(
    scans: Sequence[Path], *, reference: int | None = None, fixed_label: Path | None = None
) -> SeriesScans:
    """Return the fixed scan and the phases that a user names.

    Args:
        scans: the fixed scan, then the phases; a path of several volumes stands for all of them. Or one list, as
            `ncf.io.pair_lists.read_pairs` reads it.
        reference: which volume of the first path is the fixed one; by default its first.
        fixed_label: a label map on the fixed grid; a list names its own.

    Raises:
        PairError: there is no phase, a file is missing, a list names several fixed scans, or two phases have one name.
    """
    if len(scans) == 1 and scans[0].suffix.lower() in LISTS:
        return _listed(scans[0], reference, fixed_label)
    first = volumes_in(scans[0], "fixed")
    fixed = _chosen(first, scans[0], reference)
    phases = [volume for volume in first if volume is not fixed]
    phases += [volume for scan in scans[1:] for volume in _of_phase(scan)]
    phases = [volume for volume in _of_kind(phases, fixed) if volume.path != fixed.path]
    if not phases:
        raise PairError(f"{fixed.path} is one volume; a series needs phases: name their scans after it")
    beside = {} if fixed_label is None else {"fixed_label": str(fixed_label)}
    names = _names([volume.path for volume in phases])
    rows = [
        {"name": name, "fixed": fixed.path, "moving": volume.path, **beside}
        for name, volume in zip(names, phases, strict=True)
    ]
    pairs = checked(rows, where="the series")
    by_name = dict(zip((pair["name"] for pair in pairs), phases, strict=True))
    times = {name: volume.time_s for name, volume in by_name.items()}
    return SeriesScans(pairs, times, {name: volume.told for name, volume in by_name.items()})


def _of_phase(scan: Path) -> list[ListedVolume]:
    """Return the volumes of a scan that is named as a phase; of a file that cannot be read, itself.

    Such a phase fails when its turn comes, and stops no other.
    """
    try:
        return volumes_in(scan, "phase")
    except PairError:
        if not there(scan, "phase").is_file():
            raise
        return [ListedVolume(str(scan))]


def _listed(path: Path, reference: int | None, fixed_label: Path | None) -> SeriesScans:
    """Return the series of a list."""
    if reference is not None or fixed_label is not None:
        option = "reference" if reference is not None else "fixed_label"
        raise PairError(f"--{option} is for scans; {path} is a list and names the fixed scan and its label itself")
    pairs = read_pairs(path)
    for number, pair in enumerate(pairs, start=1):
        odd = next((key for key in SAME_FIXED if pair.get(key) != pairs[0].get(key)), None)
        if odd is not None:
            what = f"{path}, row {number}: {odd} is {pair.get(odd)}, in row 1 {pairs[0].get(odd)}"
            raise PairError(f"{what}; a series has one fixed scan; ncf cohort registers pairs")
    unknown: dict[str, float | None] = dict.fromkeys(pair["name"] for pair in pairs)
    return SeriesScans(pairs, unknown, dict.fromkeys(unknown, ""))


def _chosen(volumes: Sequence[ListedVolume], path: Path, reference: int | None) -> ListedVolume:
    """Return the fixed volume."""
    if reference is None:
        return volumes[0]
    if len(volumes) == 1:
        raise PairError(f"--reference chooses among several volumes, {path} is one; leave it out")
    found = next((v for v in volumes if scan_path(v.path).choice == str(reference)), None)
    if found is None:
        numbers = ", ".join(scan_path(volume.path).choice for volume in volumes)
        raise PairError(f"{path} has no volume {reference} that can be read; there are {numbers:.120}")
    return found


def _of_kind(phases: Sequence[ListedVolume], fixed: ListedVolume) -> list[ListedVolume]:
    """Return the volumes of a DICOM folder that are like the fixed one; a note tells which ones are left out."""
    kept = [v for v in phases if not v.kind or not fixed.kind or v.kind == fixed.kind]
    left = [volume.path for volume in phases if volume not in kept]
    if left:
        note(f"left out, for their kind or size is not that of {fixed.path}: {', '.join(left)}", "series")
    return kept


def _names(paths: Sequence[str]) -> list[str]:
    """Return names of phases by their files; where two have one name, with their folders' before it."""
    names = [safe_name(image_stem(path)) for path in paths]
    many = {name for name, count in Counter(name.casefold() for name in names).items() if count > 1}
    return [
        safe_name(f"{Path(scan_path(path).path).absolute().parent.name}_{name}") if name.casefold() in many else name
        for name, path in zip(names, paths, strict=True)
    ]
