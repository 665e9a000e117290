"""State of a fit as a small file that is never executed, the same bytes for equal content."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from scripts.errors import PairError
from scripts.files import DAMAGE, unreadable, write_whole

DAMAGED_ARCHIVE = (RuntimeError, TypeError, LookupError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error)
CHECKPOINT_FORMAT = 3  # raise it whenever an older reader would misunderstand the content


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Nothing; ``state`` with the number `CHECKPOINT_FORMAT` under "format", the same bytes for equal content.

    ``state`` holds tensors, numbers, strings, None, and dicts, lists and tuples of them; TypeError for anything else,
    which `load_checkpoint` could not read back.
    """
    if "format" in state:
        raise ValueError(f'"format" is the checkpoint\'s own entry, the state may not hold one: {state["format"]!r}')
    buffer = io.BytesIO()  # given a path, torch would put its name into the archive and hide a full disk's OSError
    torch.save({**_portable(state), "format": CHECKPOINT_FORMAT}, buffer)
    write_whole(path, lambda temporary: _compress(buffer, temporary))


def _compress(archive: io.BytesIO, path: Path) -> None:
    """Nothing; the zip archive that torch writes, which it does not compress but reads compressed too, is at ``path``."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            undated = zipfile.ZipInfo(name)  # a name alone would be given the present time
            target.writestr(undated, source.read(name), zipfile.ZIP_DEFLATED, compresslevel=9)


def _portable(value: Any) -> Any:
    """A copy whose pickle depends on the content alone, not on devices, shared storage or shared strings."""
    if isinstance(value, torch.Tensor):
        return torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
    if isinstance(value, dict):
        return {_portable(key): _portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (tuple if isinstance(value, tuple) else list)(_portable(item) for item in value)
    if isinstance(value, str):
        return sys.intern(str(value))  # pickle writes one object once, two equal ones twice
    if value is None or type(value) in (bool, int, float):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain values, not {type(value).__name__}: convert it first")


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """The state that `save_checkpoint` was given, tensors on the CPU; nothing in the file is ever executed."""
    try:
        with Path(path).open("rb") as file:
            damaged = zipfile.ZipFile(file).testzip()  # torch does not look at the checksums it writes
            if damaged:
                raise EOFError(f"{damaged} is damaged")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (*DAMAGE, *DAMAGED_ARCHIVE) as error:
        raise unreadable(path, error) from error
    found = content.pop("format", None) if isinstance(content, dict) else None
    if found != CHECKPOINT_FORMAT:
        what = f"{path} has checkpoint format {found}, this program reads format {CHECKPOINT_FORMAT}"
        raise PairError(f"{what}: register again with this version")
    return content
