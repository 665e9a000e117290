"""Files that are written whole or not at all, JSON, hashes, and folders that can be written.

The same content gives the same bytes. This module does not know what the files hold. A full disk, or a folder that may
not be written, gives one clear line for the user and leaves no incomplete file: every function here raises PairError
for that.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ncf.core.errors import PairError
from ncf.core.paths import file_there, shortened
from ncf.core.scan_paths import scan_path

HASH_BYTES = 2**20  # bytes read at a time
DAMAGE = (OSError, EOFError, ValueError, RecursionError)  # what any reader raises for a damaged file


def write_whole(path: str | Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all.

    ``write`` fills a temporary file beside ``path``, with the same suffixes, which then replaces ``path`` in one step.
    On any exception the temporary file is removed, and an earlier file at ``path`` stays as it was.

    Args:
        path: of the file.
        write: takes the path of the temporary file and writes to it.

    Raises:
        PairError: for any OSError (disk full, no permission).
    """
    path = Path(path)
    # Not by tempfile, which makes files that only their owner may read. A short, hidden name is within every limit.
    temporary = path.parent / f".{secrets.token_hex(6)}{''.join(path.suffixes[-2:])}"
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise refusal(path, error) from error
    finally:
        with contextlib.suppress(
            OSError
        ):  # a folder that refuses the write may refuse this too; the first error counts
            temporary.unlink(missing_ok=True)


def write_folder_whole(path: str | Path, write: Callable[[Path], object]) -> None:
    """Write a folder of files whole or not at all; it replaces an earlier folder of the same name.

    Args:
        path: of the folder; what is in it goes.
        write: takes the path of a temporary folder beside it and writes into that.

    Raises:
        PairError: for any OSError.
    """
    path = Path(path)
    temporary, old = (path.parent / f".{secrets.token_hex(6)}" for _ in range(2))
    try:
        temporary.mkdir()
        write(temporary)
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
    except OSError as error:
        raise refusal(path, error) from error
    except PairError as error:  # about a file in the hidden folder: name the place that the user knows
        raise PairError(str(error).replace(str(temporary), str(path))) from error
    finally:
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)


def write_together(folder: str | Path, write: Callable[[Path], object]) -> None:
    """Write files that belong together, all or none; they replace earlier files of their names.

    Args:
        folder: where they go; its other files stay.
        write: takes the path of a temporary folder in it and writes into that.

    Raises:
        PairError: for any OSError.
    """
    folder = Path(folder)
    temporary = folder / f".{secrets.token_hex(6)}"
    try:
        temporary.mkdir()
        write(temporary)
        for file in sorted(temporary.iterdir()):
            os.replace(file, folder / file.name)
    except OSError as error:
        raise refusal(folder, error) from error
    except PairError as error:  # about a file in the hidden folder: name the place that the user knows
        raise PairError(str(error).replace(str(temporary), str(folder))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refusal(path: Path, error: OSError) -> PairError:
    """Return a PairError that says in one line which path could not be written, why, and what to do.

    Args:
        path: that could not be written.
        error: what the system raised.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "free some space or choose an output folder on another disk"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "choose an output folder that you may write to"
    elif error.errno == errno.ENAMETOOLONG:
        advice = "choose a shorter name"
    elif error.errno == errno.EEXIST:
        advice = "there is a file of that name; name a folder"
    else:
        advice = "check that each part of the path but the last is a folder, and that the disk is sound"
    return PairError(f"cannot write {shortened(path)}: {error.strerror or error}; {advice}")


def claim_folder(path: str | Path) -> Path:
    """Make a folder and its parents where they are missing, and check that it can be written.

    The check writes one byte to the folder and removes it again.

    Returns:
        The folder.

    Raises:
        PairError: the folder cannot be made or written.
    """
    folder = Path(path)
    probe = folder / f".{secrets.token_hex(6)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(b"0")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise refusal(folder, error) from error
    return folder


def unreadable(path: str | Path, error: Exception) -> PairError:
    """Return a PairError that says in one line that a file cannot be read, with the first line of the reason.

    Args:
        path: that could not be read.
        error: what its reader raised.
    """
    reason = str(error).partition("\n")[0] or type(error).__name__
    return PairError(f"cannot read {path}: {reason}; check the path, or make or copy the file again")


def save_json(path: str | Path, obj: Any) -> None:
    """Write an object as JSON in UTF-8, in the order given.

    Args:
        path: of the file.
        obj: nan and infinity become null, scalars and arrays of numpy become plain numbers, paths become text.

    Raises:
        PairError: the file cannot be written.
    """
    text = json.dumps(_json_ready(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    content = encoded(text)  # JSON reads \udcXX back
    write_whole(path, lambda temporary: temporary.write_bytes(content))


def encoded(text: str) -> bytes:
    """Return a text in UTF-8. Names of files may be no UTF-8; what is none becomes \\udcXX."""
    return text.encode(errors="backslashreplace")


def load_json(path: str | Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        PairError: the file cannot be read, or holds something other than an object.
    """
    try:
        content = json.loads(file_there(path).read_text(encoding="utf-8"))
    except DAMAGE as error:
        raise unreadable(path, error) from error
    if not isinstance(content, dict):
        raise PairError(f"cannot read {path}: expected a JSON object {{...}}, got {content!r:.40}")
    return content


def _json_ready(obj: Any) -> Any:
    """Return the same content in the types that JSON knows."""
    if isinstance(obj, dict):
        return {str(key): _json_ready(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_json_ready(value) for value in obj]
    if hasattr(obj, "tolist"):  # numpy's scalars and arrays; numpy itself is not loaded for them
        return _json_ready(obj.tolist())
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else None
    return str(obj) if isinstance(obj, Path) else obj


def sha256_of(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file, or of a folder (a DICOM series).

    The hash of a folder is that of a list of its files, sorted by name, each with its own hash.

    Raises:
        PairError: the file or folder cannot be read, or the folder holds no files.
    """
    path = scan_path(path).path
    try:
        if not path.is_dir():
            return _digest(path)
        files = sorted((p.relative_to(path).as_posix(), p) for p in path.rglob("*") if p.is_file())
        if not files:
            raise PairError(f"cannot read {path}: the folder holds no files; give the folder of one image series")
        lines = [f"{_digest(file)}  {name}\n" for name, file in files]  # as sha256sum lists them
    except OSError as error:
        raise unreadable(path, error) from error
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()


def _digest(file: Path) -> str:
    """Return the hexadecimal SHA-256 of one file, read in pieces."""
    total = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(HASH_BYTES):
            total.update(piece)
    return total.hexdigest()


def record_of(path: str | Path) -> dict[str, str]:
    """Return what run.json keeps of an input: its path, SHA-256, and `stamp_of`."""
    return {"path": str(path), "sha256": sha256_of(path), "stamp": stamp_of(path)}


def stamp_of(path: str | Path) -> str:
    """Return a short hash of the names, sizes and times of a file, or of all files in a folder.

    As long as the stamp is the same, the content is taken to be the same.

    Raises:
        PairError: the file or folder cannot be read.
    """
    path = scan_path(path).path
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        lines = [f"{file.name} {(told := file.stat()).st_size} {told.st_mtime_ns}" for file in files]
    except OSError as error:
        raise unreadable(path, error) from error
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16]


def unchanged(path: str | Path, record: Mapping[str, Any]) -> bool:
    """Tell whether a file (or the files of a folder) is still what a run.json recorded.

    Args:
        path: of the file or folder.
        record: as `record_of` made it. The SHA-256 is computed only where the stamp (names, sizes, times) differs.

    Raises:
        PairError: the file or folder cannot be read.
    """
    return record.get("stamp") == stamp_of(path) or sha256_of(path) == record["sha256"]
