"""Headers of MetaImage and NRRD files, checked before ITK opens them.

ITK takes every length for millimetres and every space that it does not know for LPS, in silence; some numbers end the
process, and some names of data files make it wait for ever. What is read here is only what must be known before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ncf.core.paths import file_there

HEADER_BYTES = 2**22  # more is no header; NRRD keeps the values of a whole study there
AXES = (2, 3, 4)
MOST_FILES = 100_000  # of one volume
PACKING = 1032  # zlib's best, for one byte
UNIT_MM = {
    "": 1.0, "?": 1.0, "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "millimetre": 1.0, "millimetres": 1.0,
    "cm": 10.0, "centimeter": 10.0, "centimeters": 10.0, "centimetre": 10.0, "centimetres": 10.0,
    "m": 1000.0, "meter": 1000.0, "meters": 1000.0, "metre": 1000.0, "metres": 1000.0,
    "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3, "micrometers": 1e-3,
    "micrometre": 1e-3, "micrometres": 1e-3, "nm": 1e-6, "nanometer": 1e-6, "nanometers": 1e-6,
}  # fmt: skip
META_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
NRRD_BYTES = {
    "8": 1,
    "char": 1,
    "16": 2,
    "short": 2,
    "64": 8,
    "long long": 8,
    "double": 8,
    "32": 4,
    "int": 4,
    "float": 4,
}
PATIENT = {"left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"}
NUMBERED = re.compile(r"[^%]*%0?\d{0,2}d[^%]*")  # a pattern of file names that holds one number and nothing else
ITK = "SimpleITK and 3D Slicer"


class Told(NamedTuple):
    """What a header says that ITK does not hear.

    Attributes:
        unit_mm: millimetres of its unit of length.
        notes: what a person should know of its grid.
    """

    unit_mm: float
    notes: tuple[str, ...]


def checked_header(path: str | Path) -> Told:
    """Check the header of a MetaImage (.mha, .mhd) or NRRD (.nrrd, .nhdr), and the files of its data.

    Raises:
        ValueError: the header is none, or says something that ITK cannot follow.
        PairError: a file of its data is missing, or is none.
    """
    path = file_there(path)
    with path.open("rb") as file:
        text = file.read(HEADER_BYTES).decode("utf-8", errors="surrogateescape")
    return _nrrd(path, text) if text.startswith("NRRD") else _meta(path, text)


def _meta(path: Path, text: str) -> Told:
    """Return what the header of a MetaImage says."""
    entries: dict[str, str] = {}
    lines = iter(text.split("\n"))
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals:
            raise ValueError(f"its header has the line {line[:40]!r}, expected key = value")
        entries[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    else:
        raise ValueError("its header has no ElementDataFile")
    axes = _axes(entries.get("NDims", ""))
    sizes = _sizes(entries.get("DimSize", ""), axes)
    _finite(entries, ("ElementSpacing", "ElementSize", "Offset", "Position", "Origin", "TransformMatrix", "Rotation"))
    if float(entries.get("ElementToIntensityFunctionSlope", 1)) != 1 or float(
        entries.get("ElementToIntensityFunctionOffset", 0)
    ):
        raise ValueError("it has an ElementToIntensityFunction, which no program applies; store the real values")
    if _whole(entries.get("HeaderSize", "0"), "HeaderSize") < -1:
        raise ValueError(f"its HeaderSize is {entries['HeaderSize']}, expected -1 or more")
    channels = _whole(entries.get("ElementNumberOfChannels", "1"), "ElementNumberOfChannels")
    each = META_BYTES.get(entries.get("ElementType", "").removeprefix("MET_").removeprefix("U"), 1) * max(channels, 1)
    files = _files(path, entries["ElementDataFile"], ("LOCAL", "Local", "local"), rest=lines)
    _fits(files, math.prod(sizes) * each)
    unit = _unit_mm([entries.get("DistanceUnits", "").removeprefix("MET_")])
    notes = []
    if not {"ElementSpacing", "ElementSize"} & set(entries):
        notes.append("its header has no ElementSpacing; voxels are taken as 1 mm")
    return Told(unit, (*notes, *_of_unit(unit)))


def _nrrd(path: Path, text: str) -> Told:
    """Return what the header of an NRRD says."""
    entries: dict[str, str] = {}
    lines = iter(line.rstrip("\r") for line in text.split("\n"))
    for line in lines:
        key, colon, value = line.partition(":")
        if not line.strip():
            break
        if colon and not line.startswith("#") and not value.startswith("="):
            entries[key.strip().lower().replace(" ", "")] = value.strip()
        if key.strip().lower().replace(" ", "") == "datafile" and value.strip().startswith("LIST"):
            break
    axes = _axes(entries.get("dimension", ""))
    sizes = _sizes(entries.get("sizes", ""), axes)
    kind = re.sub(r"unsigned|signed|_t$|^u(?=int)|^u(?=short|char|long)", "", entries.get("type", "")).strip()
    files = _files(path, entries.get("datafile", "LOCAL"), ("LOCAL",), rest=lines)
    _fits(files, math.prod(sizes) * next((size for word, size in NRRD_BYTES.items() if word in kind), 1))
    units = _quoted(entries.get("spaceunits") or entries.get("units", ""))
    unit = _unit_mm(units)
    return Told(unit, (*_of_space(entries), *_of_unit(unit)))


def _of_space(entries: Mapping[str, str]) -> Iterator[str]:
    """Yield what a person should know of the space of an NRRD; raise ValueError for one that is mirrored somewhere."""
    space = entries.get("space", "").lower()
    if space in PATIENT:
        return
    if "left-handed" in space:
        raise ValueError(f"its space is {space}, which does not say which axis of the patient is mirrored")
    named = f"its space is {space}" if space else "its header does not name its space"
    sized = "" if {"spacedirections", "spacings"} & set(entries) else ", and voxels as 1 mm"
    yield f"{named}; its axes are taken as L P S{sized}, as in {ITK}"


def _of_unit(unit: float) -> Iterator[str]:
    if unit != 1:
        yield f"its unit of length is {unit:g} mm and is converted; {ITK} take it for mm"


def _axes(text: str) -> int:
    axes = _whole(text, "number of axes")
    if axes not in AXES:
        raise ValueError(f"it has {axes} axes, expected 3")
    return axes


def _sizes(text: str, axes: int) -> list[int]:
    sizes = [_whole(word, "size") for word in text.split()]
    if len(sizes) != axes or min(sizes) < 1:
        raise ValueError(f"its sizes are {text[:40]!r}, expected {axes} whole numbers from 1")
    return sizes


def _whole(text: str, what: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"its {what} is {text[:40]!r}, expected a whole number") from error


def _finite(entries: Mapping[str, str], names: Iterable[str]) -> None:
    """Raise ValueError where an entry that says where the grid lies holds something that is no finite number."""
    for name in names:
        for word in entries.get(name, "").split():
            try:
                fits = math.isfinite(float(word))
            except ValueError:
                fits = False
            if not fits:
                raise ValueError(f"its {name} is {entries[name][:40]!r}, expected finite numbers")


def _quoted(text: str) -> list[str]:
    return re.findall(r'"([^"]*)"', text)


def _unit_mm(units: Sequence[str]) -> float:
    """Return the millimetres of the units of the axes; raise ValueError where they differ, or one is not known."""
    lengths = {UNIT_MM.get(unit.strip().lower()) for unit in units if unit.strip() or len(units) == 1}
    unknown = [unit for unit in units if unit.strip().lower() not in UNIT_MM]
    if unknown:
        raise ValueError(f"its unit of length is {unknown[0][:40]!r}, expected mm, cm, m, um or nm")
    if len(lengths) > 1:
        raise ValueError(f"its axes have different units of length, {', '.join(units)}; write it in mm")
    return next((length for length in lengths if length is not None), 1.0)


def _files(path: Path, named: str, local: Sequence[str], *, rest: Iterator[str]) -> list[Path]:
    """Return the files that hold the data of a header."""
    first = named.split()[0] if named.split() else ""
    if named in local:
        return [path]
    if first.startswith("LIST"):
        names: Iterable[str] = [line.strip() for line in rest if line.strip()]
    elif "%" in named:
        names = _numbered(named)
    else:
        names = [named]
    files = [file_there(path.parent / name) for name in names]
    if not files:
        raise ValueError("its header names no file of data")
    return files


def _numbered(named: str) -> list[str]:
    """Return the names of a pattern with its first number, last number and step."""
    pattern, *numbers = named.split()
    if not NUMBERED.fullmatch(pattern) or not 2 <= len(numbers) <= 4:
        raise ValueError(f"its files of data are {named[:60]!r}, expected a pattern such as name%03d.raw 1 20 1")
    first, last, step = (*(_whole(number, "number of a file") for number in numbers), 1)[:3]
    if step < 1 or last < first or (last - first) // step >= MOST_FILES:
        raise ValueError(f"its files of data are {named[:60]!r}, which counts no files; expected first, last and step")
    return [pattern % number for number in range(first, last + 1, step)]


def _fits(files: Sequence[Path], wanted: int) -> None:
    """Raise ValueError where no compression could have put so many bytes into these files."""
    held = sum(file.stat().st_size for file in files)
    if wanted > PACKING * held:
        raise ValueError(f"its header asks for {wanted} bytes, its data holds {held}")
