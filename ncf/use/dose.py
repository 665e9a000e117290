"""Doses of the moving side carried onto the fixed grid by a saved map, as RTDOSE or as NIfTI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ncf.core.errors import PairError
from ncf.core.names import image_stem
from ncf.core.notes import note
from ncf.core.scan_paths import scan_path
from ncf.io.dicom.doses import dose_of, said
from ncf.io.dicom.folder import is_read_as_dicom
from ncf.io.dicom.objects import check_frame
from ncf.io.dicom.written.between import Between
from ncf.io.dicom.written.dose import WHAT, check_doses, plans_of, save_dose
from ncf.io.dicom.written.planes import planes_of
from ncf.io.dicom.written.registration import kind_of
from ncf.io.dicom.written.source import Scan, require_one_patient, scan_of
from ncf.io.image_files import read_image
from ncf.io.label_files import empty_scan
from ncf.io.nifti import save_image
from ncf.pair.checks import check_finite
from ncf.space.doses import CarriedDose, carry_dose
from ncf.space.grids import Grid
from ncf.use.carry import Applied, output_paths

SUM_NAME = "dose_sum"
ALIKE = ("DoseUnits", "DoseType")  # what doses of a sum share
RULE_WORDS = {
    "dose": "dose at each point, linear interpolation",
    "energy": "energy kept at one density, dose times change of volume",
}


@dataclass(frozen=True)
class Doses:
    """What is to be carried, and how.

    Attributes:
        files: RTDOSE files (or folders of them), and images.
        scans: their headers, None for an image.
        rule: of `ncf.core.names.DOSE_RULES`.
        add: writes one file, the sum of all.
    """

    files: Sequence[str | Path]
    scans: Sequence[Scan | None]
    rule: str
    add: bool

    def parts(self) -> list[list[int]]:
        """Return which doses become one file, by file."""
        every = range(len(self.files))
        return [list(every)] if self.add else [[n] for n in every]

    def names(self, suffix: str) -> list[str]:
        """Return the names of the files to write."""
        return [f"{SUM_NAME if self.add else image_stem(str(self.files[part[0]]))}{suffix}" for part in self.parts()]


def carry_doses(
    opened: Applied,
    files: Sequence[str | Path],
    output_dir: str | Path,
    *,
    rule: str = "dose",
    add: bool = False,
    dicom: bool | None = None,
    reference: str | Path | None = None,
    anonymous: bool = False,
) -> tuple[list[Path], list[str]]:
    """Carry doses of the moving side onto the reference grid (`ncf.space.doses.carry_dose`).

    Args:
        opened: the map.
        files: RTDOSE files or images of doses, each on a grid of its own in the moving scan's space.
        output_dir: where the results go, under the files' names; a sum is called dose_sum.
        rule: of `ncf.core.names.DOSE_RULES`.
        add: adds all doses up, into one file.
        dicom: writes RTDOSE; by default where all files are RTDOSE and the fixed scan is a DICOM series. Else NIfTI, in
            the same unit.
        reference: the scan whose grid the results lie on; by default the fixed scan.
        anonymous: see `ncf.io.dicom.written.between.Between`.

    Returns:
        The files that were written, and a line for each dose: what share of the fixed grid lies outside of its grid.

    Raises:
        PairError: a file is no dose or lies in another frame of reference, doses of a sum differ in unit or type, an
            RTDOSE cannot be written of them, an output is an input, or a file cannot be read or written.
    """
    doses = Doses(files, [dose_of(file) for file in files], rule, add)
    _check(opened, doses)
    fixed = _fixed_series(opened, doses, reference, dicom)
    own = opened.reference if fixed is None else _own_grid(opened, doses, fixed, anonymous=anonymous)
    suffix = ".nii.gz" if fixed is None else ".dcm"
    targets = output_paths(doses.names(suffix), output_dir, read=[*files, *opened.read])
    lines: list[str] = []
    for target, part in zip(targets, doses.parts(), strict=True):
        values = np.zeros(own.shape, np.float32)
        for n in part:
            carried = _carried(opened, files[n], rule)
            lines += _told(files[n], carried)
            values += carried.values
        if fixed is None:
            save_image(target, values, own.affine)
            continue
        of = [scan for scan in (doses.scans[n] for n in part) if scan is not None]
        rigid = opened.matrix is not None and kind_of(opened.matrix) == "RIGID"
        words = f"Carried: {RULE_WORDS[rule]}"
        save_dose(target, values, fixed=fixed, doses=of, words=words, rigid=rigid, anonymous=anonymous)
    return targets, lines


def _own_grid(opened: Applied, doses: Doses, fixed: Scan, *, anonymous: bool) -> Grid:
    """Return the grid of the fixed series; raise PairError where RTDOSE cannot be written on it."""
    scans = [scan for scan in doses.scans if scan is not None]
    for part in doses.parts():
        check_doses([scans[n] for n in part])
    require_one_patient((fixed, *scans), anonymous=anonymous)
    own = Between(fixed, scans[0]).require_grid(opened.reference)
    planes_of(own, WHAT)
    return own


def _check(opened: Applied, doses: Doses) -> None:
    """Raise PairError for doses of another place, of which energy is not known, or that cannot be added up."""
    scan = None if opened.moving is None else empty_scan(opened.moving, opened.moving_scan)
    for file, dose in zip(doses.files, doses.scans, strict=True):
        if dose is None:
            continue
        check_frame(dose.header, scan, f"the dose {file}", partial(note, what=str(file)))
        kind = said(dose, "DoseType")
        if doses.rule == "energy" and kind not in ("", "PHYSICAL"):
            raise PairError(f"{file} is a dose of type {kind}, and energy is of PHYSICAL ones only; use --rule=dose")
    if doses.add:
        _check_sum(doses)


def _check_sum(doses: Doses) -> None:
    """Raise PairError for doses that have no sum."""
    if len(doses.files) == 1:
        raise PairError("a sum needs two doses or more; name them all in one call")
    first, known = doses.files[0], [dose is not None for dose in doses.scans]
    if any(known) and not all(known):
        odd = doses.files[known.index(False)]
        raise PairError(
            f"{odd} names no unit, and an RTDOSE does, so they cannot be added up; convert all to one format"
        )
    scans = [dose for dose in doses.scans if dose is not None]
    for word in ALIKE if scans else ():
        own = [said(dose, word) for dose in scans]
        other = next((n for n, value in enumerate(own) if value != own[0]), None)
        if other is not None:
            raise PairError(
                f"{first} has {word} {own[0] or 'not told'} and {doses.files[other]} {own[other] or 'not told'}, so "
                "they cannot be added up; carry them in two calls"
            )
        if own[0] in ("RELATIVE", "ERROR"):
            raise PairError(f"{first} has {word} {own[0]}, and such doses have no sum; carry them without --sum")
    seen = [dose.instances for dose in scans]
    twice = next((n for n, one in enumerate(seen) if one in seen[:n]), None)
    if twice is not None:
        raise PairError(f"{doses.files[twice]} is named twice, so its dose would count twice; name each dose once")
    if scans and len(plans_of(scans)) == 1:
        note("all doses name one plan, and each counts in full", "sum")


def _fixed_series(opened: Applied, doses: Doses, reference: str | Path | None, dicom: bool | None) -> Scan | None:
    """Return the series that RTDOSE are written for, None where NIfTI is written."""
    image = next((f for f, dose in zip(doses.files, doses.scans, strict=True) if dose is None), None)
    if dicom is None:
        place = opened.inputs.get("fixed") if reference is None else Path(reference)
        dicom = image is None and place is not None and is_read_as_dicom(scan_path(place).path)
    if not dicom:
        return None
    if image is not None:
        raise PairError(
            f"{image} names no unit, type and plan, which {WHAT} must; name an RTDOSE, or use --dicom=false"
        )
    return scan_of(opened.registered("fixed") if reference is None else reference, "fixed", what=WHAT)


def _carried(opened: Applied, file: str | Path, rule: str) -> CarriedDose:
    """Read one dose and carry it."""
    image = read_image("dose", str(file))
    check_finite(str(file), image)
    volume, affine = image.as_tensor()[0], np.asarray(image.affine, dtype=np.float64)
    return carry_dose(opened.map, volume, moving=affine, reference=opened.reference, rule=rule)


def _told(file: str | Path, carried: CarriedDose) -> list[str]:
    """Return what a user must know of a carried dose."""
    name = Path(file).name
    lines = [f"{name}: {100 * carried.outside:.3g} % of the fixed grid lies outside the dose grid; the dose is 0 there"]
    if carried.folded:
        lines.append(f"{name}: the map folds in {100 * carried.folded:.2g} % of the fixed grid; the dose is 0 there")
    return lines
