"""Public data sets, downloaded, checked and unpacked. A download that was interrupted is continued.

Nothing else in the project uses the network. Size and hash of an archive come from the record at its keeper, so no
number is written down here that could be out of date.
"""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ncf.core.errors import PairError
from ncf.core.files import claim_folder

TIMEOUT_S = 30.0
BLOCK = 2**20  # bytes read at a time
NO_RANGE = 200  # HTTP status of the whole file, where a part was asked for


@dataclass(frozen=True)
class Source:
    """An archive of a Zenodo record.

    Attributes:
        record: address of its description.
        file: name of the archive in the record.
        holds: name of the folder in the archive.
    """

    record: str
    file: str
    holds: str


SOURCES = {
    # Hering, Murphy, van Ginneken: Learn2Reg Challenge, CT lung registration, training data (2020); reference 14 of the
    # paper
    "lungct": Source("https://zenodo.org/api/records/3835682", "training.zip", "training"),
}


def fetch(source: Source, folder: str | Path, *, progress: bool = True) -> Path:
    """Download and unpack an archive; what is there already and whole is not downloaded again.

    Args:
        source: the archive.
        folder: it is unpacked below this folder.
        progress: False hides the progress bar.

    Returns:
        The unpacked folder.

    Raises:
        PairError: there is no network, or the archive is damaged or not what its record describes.
    """
    from monai.apps.utils import check_hash, extractall  # takes seconds to import

    target = claim_folder(folder)
    unpacked = target / source.holds
    if unpacked.is_dir():
        return unpacked
    described = _described(source)
    archive = target / source.file
    if not archive.exists():
        _load(described["url"], archive, size=described["size"], progress=progress)
    kind, _, digest = described["checksum"].partition(":")
    if archive.stat().st_size != described["size"] or (digest and not check_hash(archive, digest, kind)):
        archive.unlink()
        raise PairError(f"{archive} is not what {source.record} describes; it was removed, run the command again")
    fresh = target / f".{source.holds}"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        extractall(archive, fresh, has_base=False)
    except (ValueError, OSError, zipfile.BadZipFile) as error:  # names outside the folder, a full disk, a damaged file
        shutil.rmtree(fresh, ignore_errors=True)
        raise PairError(f"cannot unpack {archive}: {str(error).partition(chr(10))[0]}") from error
    inside = fresh / source.holds
    if not inside.is_dir():
        raise PairError(f"{archive} holds no folder {source.holds!r}; its keeper changed it")
    inside.rename(unpacked)
    shutil.rmtree(fresh, ignore_errors=True)
    return unpacked


def _described(source: Source) -> dict[str, Any]:
    """Return address, size and checksum of the archive, from the record."""
    try:
        with urllib.request.urlopen(source.record, timeout=TIMEOUT_S) as answer:
            files = json.load(answer)["files"]
        (entry,) = [file for file in files if file["key"] == source.file]
        return {"url": entry["links"]["self"], "size": int(entry["size"]), "checksum": str(entry.get("checksum", ""))}
    except urllib.error.URLError as error:
        raise _no_network(source.record, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise PairError(f"{source.record} does not describe {source.file} as expected; load it by hand") from error


def _load(url: str, archive: Path, *, size: int, progress: bool) -> None:
    """Download the archive; what an earlier try has downloaded is kept and continued."""
    part = archive.with_name(f"{archive.name}.part")
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        if have < size:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                have = 0 if answer.status == NO_RANGE else have
                _copy(answer, part, have=have, size=size, progress=progress)
    except OSError as error:  # URLError and a broken connection are OSErrors too
        raise _no_network(url, error) from error
    if part.stat().st_size < size:
        raise PairError(f"the connection to {url} ended early; run the command again to go on from there")
    part.rename(archive)


def _copy(answer: Any, part: Path, *, have: int, size: int, progress: bool) -> None:
    with (
        part.open("ab" if have else "wb") as file,
        tqdm(
            total=size, initial=have, unit="B", unit_scale=True, desc=part.stem, disable=None if progress else True
        ) as bar,
    ):
        while block := answer.read(BLOCK):
            file.write(block)
            bar.update(len(block))


def _no_network(url: str, error: OSError) -> PairError:
    reason = getattr(error, "reason", None) or error
    return PairError(f"cannot reach {url} ({reason}); check the network, or load and unpack the archive by hand")
