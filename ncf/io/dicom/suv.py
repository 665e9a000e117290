"""PET in SUV (body weight): the factor from Bq/ml, and which tags tell it.

The rules are those of the vendor-neutral pseudo-code of QIBA's FDG-PET/CT profile (appendix G) and of PS3.3 C.8.9.1 of
DICOM: SUV = Bq/ml x weight in g / dose in Bq at the time to which the scan is corrected.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

IN_SUV = "PET in SUV (body weight)"
GE_SCAN_TIME, GE_CREATOR = 0x0009100D, (0x00090010, "GEMS_PETD_01")
PHILIPS_SUV, PHILIPS_BQML, PHILIPS_CREATOR = 0x70531000, 0x70531009, (0x70530010, "Philips PET Private Group")
CORRECTIONS = (("ATTN", "attenuation"), ("DECY", "decay"))
MOST_DECAY_S = 86400.0  # the start of the scan follows the injection within a day
G_OF_KG = 1000.0
SUV_TYPES = {
    "": "body weight",
    "BW": "body weight",
    "LBM": "lean body mass",
    "BSA": "body surface",
    "IBW": "ideal weight",
}


class Unit(NamedTuple):
    """What the values of a PET become: a factor on the rescaled values, and a note for the user."""

    factor: float
    note: str


def suvbw_factor(*, weight_kg: float, dose_bq: float, half_life_s: float, decay_s: float) -> float:
    """Return the factor from Bq/ml to SUV by body weight (g/ml).

    Args:
        weight_kg: of the patient.
        dose_bq: that was injected, at the time of its injection.
        half_life_s: of the nuclide.
        decay_s: from the injection to the time that the scan is corrected to; 0 where that is the injection.

    Raises:
        ValueError: a number is not positive and finite, or the time is negative.
    """
    for name, value in (("weight", weight_kg), ("dose", dose_bq), ("half life", half_life_s)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive, got {value:g}")
    if not (math.isfinite(decay_s) and decay_s >= 0):
        raise ValueError(f"the time of decay must be zero or more, got {decay_s:g} s")
    return weight_kg * G_OF_KG / (dose_bq * 2.0 ** (-decay_s / half_life_s))


def unit_of_pet(headers: Sequence[Any]) -> Unit:
    """Return how to turn the values of a PET series into SUV, or why they stay.

    Args:
        headers: pydicom data sets of all files of the volume, without pixels.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of values that break rules: they would show them
        return _unit(headers)


def _unit(headers: Sequence[Any]) -> Unit:
    """Return the same; pydicom may warn of a value when it is looked at first."""
    first = headers[0]
    units = str(first.get("Units", "") or "")
    if len({str(header.get("Units", "") or "") for header in headers}) > 1:
        return Unit(1.0, "PET values stay as they are: the tag Units differs between slices")
    if units == "GML":
        kind = str(first.get("SUVType", "") or "")
        return Unit(1.0, f"PET in SUV ({SUV_TYPES.get(kind, kind)}), as it is stored")
    if units not in ("BQML", "CNTS"):
        what = f"Units is {units}" if units else "the tag Units is missing"
        return Unit(1.0, f"PET values stay as they are: {what}")
    shown = "Bq/ml" if units == "BQML" else "counts"
    try:
        factor = _factor(headers, units)
    except Exception as error:  # a tag is missing, or pydicom cannot convert a damaged one
        return Unit(1.0, f"PET stays in {shown}, not in SUV: {error}")
    return Unit(factor, IN_SUV)


def _factor(headers: Sequence[Any], units: str) -> float:
    """Return the factor to SUV; raise ValueError with the reason where the tags do not tell it."""
    first, scale = headers[0], 1.0
    if units == "CNTS":
        direct = _private(first, PHILIPS_SUV, PHILIPS_CREATOR)
        if direct:
            return direct
        scale = _private(first, PHILIPS_BQML, PHILIPS_CREATOR)
        if not scale:
            raise ValueError("Units is CNTS, and the factors of Philips (7053,1000) and (7053,1009) are missing")
    corrected = [str(word) for word in _several(first.get("CorrectedImage"))]
    for word, name in CORRECTIONS:
        if word not in corrected:
            raise ValueError(f"CorrectedImage does not name {word} ({name})")
    items = first.get("RadiopharmaceuticalInformationSequence")
    if not items:
        raise ValueError("the tag RadiopharmaceuticalInformationSequence is missing")
    half_life = _number(items[0], "RadionuclideHalfLife")
    decay = _decay_s(headers, items[0], half_life)
    weight, dose = _number(first, "PatientWeight"), _number(items[0], "RadionuclideTotalDose")
    return scale * suvbw_factor(weight_kg=weight, dose_bq=dose, half_life_s=half_life, decay_s=decay)


def _decay_s(headers: Sequence[Any], injection: Any, half_life: float) -> float:
    """Return the seconds from the injection to the time to which the values are corrected."""
    correction = str(headers[0].get("DecayCorrection", "") or "")
    if correction == "ADMIN":
        return 0.0
    if correction != "START":
        raise ValueError(f"DecayCorrection is {correction or 'missing'}")
    scan = scan_start(headers, half_life)
    full = str(injection.get("RadiopharmaceuticalStartDateTime", "") or "")
    if full:
        begun = _moment(full[:8], full[8:].partition("+")[0].partition("-")[0])
    else:
        time = str(injection.get("RadiopharmaceuticalStartTime", "") or "")
        if not time:
            raise ValueError("the tag RadiopharmaceuticalStartTime is missing")
        begun = _moment(scan.strftime("%Y%m%d"), time)
        if begun > scan:  # injected before midnight, scanned after it: only the time of day is told
            begun -= timedelta(days=1)
    seconds = (scan - begun).total_seconds()
    if not 0 <= seconds < MOST_DECAY_S:
        raise ValueError(f"the injection lies {seconds / 3600:.3g} hours before the scan; are the dates right?")
    return seconds


def scan_start(headers: Sequence[Any], half_life: float) -> datetime:
    """Return when the scan began, which values with DecayCorrection START are corrected to.

    It is the time of the series where no slice was acquired before it. A series that was made anew later has another
    time: then GE's own tag, else the time of each frame less its FrameReferenceTime, counts.

    Args:
        headers: of all slices.
        half_life: of the nuclide, s.

    Raises:
        ValueError: no tag tells it.
    """
    first = headers[0]
    series = _at(first, "Series")
    acquired = [_at(header, "Acquisition", "Series") for header in headers]
    if series <= min(acquired):
        return series
    private = _private_text(first, GE_SCAN_TIME, GE_CREATOR)
    if private:
        return _moment(private[:8], private[8:])
    earliest = min(range(len(headers)), key=lambda n: acquired[n])
    header = headers[earliest]
    frame, offset = header.get("ActualFrameDuration"), header.get("FrameReferenceTime")
    if not frame or not offset:
        raise ValueError(
            "SeriesTime is after AcquisitionTime, and FrameReferenceTime or ActualFrameDuration is missing"
        )
    return acquired[earliest] + timedelta(seconds=_mean_s(float(frame) / 1000, half_life) - float(offset) / 1000)


def _mean_s(frame: float, half_life: float) -> float:
    """Return when, from the start of a frame in seconds, the count rate has its mean over the frame."""
    decay = math.log(2) / half_life
    return math.log(decay * frame / -math.expm1(-decay * frame)) / decay


def _at(header: Any, word: str, instead: str = "") -> datetime:
    """Return the date and time of a header's series or acquisition."""
    date = str(header.get(f"{word}Date", "") or header.get(f"{instead}Date", "") or header.get("StudyDate", "") or "")
    time = str(header.get(f"{word}Time", "") or "")
    if not date or not time:
        raise ValueError(f"the tag {word}{'Time' if date else 'Date'} is missing")
    return _moment(date, time)


def _moment(date: str, time: str) -> datetime:
    """Return a date (YYYYMMDD) and a time (HHMMSS.ffffff, less is enough) of DICOM."""
    day = date.strip().replace(".", "").replace("-", "")
    whole, _, part = time.strip().replace(":", "").partition(".")
    try:
        begun = datetime.strptime(day + (whole + "000000")[:6], "%Y%m%d%H%M%S")
    except ValueError as error:
        raise ValueError(f"the date and time {date} {time} cannot be read") from error
    return begun + timedelta(seconds=float(f"0.{part}") if part.isdigit() else 0.0)


def _number(data: Any, word: str) -> float:
    value = data.get(word)
    if value is None or str(value) == "":
        raise ValueError(f"the tag {word} is missing")
    if not float(value) > 0:
        raise ValueError(f"{word} is {float(value):g}")
    return float(value)


def _several(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _private_text(header: Any, tag: int, creator: tuple[int, str]) -> str:
    """Return the text of a vendor's own tag where that vendor made the block; nothing without it."""
    if tag not in header or creator[0] not in header or str(header[creator[0]].value) != creator[1]:
        return ""
    value = header[tag].value
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).strip("\0 ")


def _private(header: Any, tag: int, creator: tuple[int, str]) -> float:
    """Return the number of a vendor's own tag, 0 without one."""
    text = _private_text(header, tag, creator)
    number = float(text) if text else 0.0
    return number if math.isfinite(number) and number > 0 else 0.0
