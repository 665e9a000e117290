"""Files whole or not at all, the same bytes for the same content; folders that can be written, hashes, JSON.

This room knows nothing of what the files hold. A full disk or a folder that may not be written is one clear line for the
user and leaves no half a file: every function here raises PairError for that.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scripts.errors import PairError

HASH_BYTES = 2**20  # read at a time
DAMAGE = (OSError, EOFError, ValueError)  # what any reader raises over a damaged file


def write_whole(path: str | Path, write: Callable[[Path], object]) -> None:
    """Nothing; ``write`` fills a temporary file beside ``path`` (same suffixes), which then takes its place at once.

    On any exception the temporary file is removed and what stood at ``path`` before still stands; an OSError (disk
    full, no permission) becomes a PairError.
    """
    path = Path(path)
    # No tempfile: it makes files that only their owner may read. A hidden, short name is within every length limit.
    temporary = path.parent / f".{secrets.token_hex(6)}{''.join(path.suffixes[-2:])}"
    try:
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise refusal(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # a folder that refuses the write may refuse this; the first error is told
            temporary.unlink(missing_ok=True)


def refusal(path: Path, error: OSError) -> PairError:
    """The one line that says which path could not be written, why, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "free some space or choose an output folder on another disk"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "choose an output folder that you may write to"
    elif error.errno == errno.EEXIST:
        advice = "there is a file of that name; name a folder"
    else:
        advice = "check that each part of the path but the last is a folder, and that the disk is sound"
    return PairError(f"cannot write {path}: {error.strerror or error}; {advice}")


def claim_folder(path: str | Path) -> Path:
    """The output folder, made with its parents where missing, after one byte was written to it and removed again."""
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
    """The one line that says that a file cannot be read, with the first line of the reason."""
    reason = str(error).partition("\n")[0] or type(error).__name__
    return PairError(f"cannot read {path}: {reason}; check the path, or make or copy the file again")


def save_json(path: str | Path, obj: Any) -> None:
    """Nothing; UTF-8 JSON in the order given, nan and infinity as null, numpy's scalars and arrays as plain numbers."""
    text = json.dumps(_json_ready(obj), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda temporary: temporary.write_bytes(text.encode()))


def load_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file; PairError for a file that cannot be read or holds something else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except DAMAGE as error:
        raise unreadable(path, error) from error
    if not isinstance(content, dict):
        raise PairError(f"cannot read {path}: expected a JSON object {{...}}, got {content!r:.40}")
    return content


def _json_ready(obj: Any) -> Any:
    """The same content in the types that JSON knows."""
    if isinstance(obj, dict):
        return {str(key): _json_ready(value) for key, value in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [_json_ready(value) for value in obj]
    if isinstance(obj, (np.generic, np.ndarray)):
        return _json_ready(obj.tolist())
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else None
    return str(obj) if isinstance(obj, Path) else obj


def sha256_of(path: str | Path) -> str:
    """Hexadecimal SHA-256 of a file, or of a folder (a DICOM series): sorted names, each with its contents."""
    path = Path(path)
    try:
        if not path.is_dir():
            return _digest(path)
        files = sorted((p.relative_to(path).as_posix(), p) for p in path.rglob("*") if p.is_file())
        if not files:
            raise PairError(f"cannot read {path}: the folder holds no files; give the folder of one image series")
        lines = [f"{_digest(file)}  {name}\n" for name, file in files]  # as sha256sum lists them
    except OSError as error:
        raise unreadable(path, error) from error
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _digest(file: Path) -> str:
    """Hexadecimal SHA-256 of one file, read in pieces."""
    total = hashlib.sha256()
    with file.open("rb") as stream:
        while piece := stream.read(HASH_BYTES):
            total.update(piece)
    return total.hexdigest()


def record_of(path: str | Path) -> dict[str, str]:
    """What run.json keeps of an input: its path, SHA-256, and `stamp_of`."""
    return {"path": str(path), "sha256": sha256_of(path), "stamp": stamp_of(path)}


def stamp_of(path: str | Path) -> str:
    """A short word for names, sizes and times of a file, or of all files in a folder: while it stays, so did the content."""
    path = Path(path)
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        lines = [f"{file.name} {(told := file.stat()).st_size} {told.st_mtime_ns}" for file in files]
    except OSError as error:
        raise unreadable(path, error) from error
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def unchanged(path: str | Path, record: Mapping[str, Any]) -> bool:
    """Whether a file (or the files of a folder) is what a run.json recorded; hashed only where size or time differ."""
    return record.get("stamp") == stamp_of(path) or sha256_of(path) == record["sha256"]
