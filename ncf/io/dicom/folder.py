"""The DICOM files of a folder and its subfolders, of a DICOMDIR, or one file by itself."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ncf.core.errors import PairError
from ncf.core.names import IMAGE_SUFFIXES
from ncf.core.packages import optional

PREAMBLE, MAGIC = 128, b"DICM"
LIST_FILE = "DICOMDIR"  # names other files
MAC_SHADOW = "._"  # macOS writes such a file beside every other file on foreign disks
BARE = tuple(bytes([8, 0, element, 0]) for element in (0, 1, 5, 8, 0x16, 0x18))  # a data set without preamble begins so


@dataclass(frozen=True)
class Files:
    """What was found.

    Attributes:
        dicom: DICOM files, sorted.
        shadows: how many files of macOS were left out.
        others: how many files are no DICOM.
    """

    dicom: tuple[Path, ...]
    shadows: int = 0
    others: int = 0


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM by its name or its first bytes, and is not a list of other files."""
    if path.name.upper() == LIST_FILE or path.name.startswith(MAC_SHADOW) or not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.read(PREAMBLE + len(MAGIC))
    return path.suffix.lower() == ".dcm" or first.endswith(MAGIC) or first.startswith(BARE)


def is_list(path: Path) -> bool:
    """Tell whether a path is a DICOMDIR."""
    return path.name.upper() == LIST_FILE and path.is_file()


def is_read_as_dicom(path: Path) -> bool:
    """Tell whether a path of a scan is DICOM: a folder, a DICOMDIR, or a DICOM file that is named as no other image."""
    if path.is_dir() or is_list(path):
        return True
    return not path.name.lower().endswith(IMAGE_SUFFIXES) and is_dicom(path)


def dicom_files(path: Path, what: str) -> Files:
    """Find DICOM files.

    Args:
        path: of a folder, whose subfolders count too, of a DICOMDIR, or of one DICOM file.
        what: how messages begin.

    Raises:
        PairError: a folder or file below it cannot be read, or a DICOMDIR names files that are not there.
    """
    try:
        if is_list(path):
            return Files(tuple(_listed(path, what)))
        if not path.is_dir():
            return Files((path,))
        every = sorted(_below(path, set()))
        dicom = tuple(file for file in every if is_dicom(file))
    except OSError as error:
        where = error.filename or path
        raise PairError(f"{what}: cannot read {where} ({error.strerror}); correct the path or permissions") from error
    shadows = sum(file.name.startswith(MAC_SHADOW) for file in every)
    return Files(dicom, shadows, len(every) - len(dicom) - shadows)


def _below(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Yield all plain files below a folder; links are followed, each folder once."""
    told = folder.stat()
    if (told.st_dev, told.st_ino) in seen:
        return
    seen.add((told.st_dev, told.st_ino))
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir():
            yield from _below(Path(entry.path), seen)
        elif entry.is_file():  # no pipe, no device, no broken link
            yield Path(entry.path)


def _listed(path: Path, what: str) -> Iterator[Path]:
    """Yield the files that a DICOMDIR names, whatever the case of their names on this disk."""
    pydicom = optional("pydicom")
    try:
        records = pydicom.dcmread(path, force=True).DirectoryRecordSequence
        named = [record.ReferencedFileID for record in records if "ReferencedFileID" in record]
    except Exception as error:  # whatever pydicom meets in a damaged file
        raise PairError(f"{what}: {path} is no readable DICOMDIR ({type(error).__name__}); name the folder") from error
    lost = []
    for name in named:
        file = _on_disk(path.parent, [name] if isinstance(name, str) else list(name))
        if file is None:
            lost.append("/".join([name] if isinstance(name, str) else name))
        else:
            yield file
    if lost:
        raise PairError(
            f"{what}: {path} names {len(lost)} of {len(named)} files that are not there, {lost[0]} for one; copy the "
            "whole disc, or name a folder"
        )


def _on_disk(folder: Path, parts: list[str]) -> Path | None:
    """Return the file of a name in parts, None without one; discs are often copied in small letters."""
    for part in parts:
        exact = folder / part
        if not exact.exists():
            names = [name for name in os.listdir(folder) if name.lower() == part.lower()] if folder.is_dir() else []
            if not names:
                return None
            exact = folder / names[0]
        folder = exact
    return folder if stat.S_ISREG(folder.stat().st_mode) else None
