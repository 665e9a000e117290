"""State of a fit as a small file that is never executed; equal content gives the same bytes."""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from ncf.core.errors import PairError
from ncf.core.files import DAMAGE, unreadable, write_whole

DAMAGED_ARCHIVE = (RuntimeError, TypeError, LookupError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error)
CHECKPOINT_FORMAT = 4  # increase it whenever an older reader would misunderstand the content
# all formats that are read, and the present names of their entries
RENAMED_IN: dict[int, dict[str, str]] = {CHECKPOINT_FORMAT: {}, 3: {"start": "initial_transform"}}


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Write the state of a fit to a file, together with the number `CHECKPOINT_FORMAT` under "format".

    Equal content gives the same bytes.

    Args:
        path: of the file.
        state: tensors, numbers, strings, None, and dicts, lists and tuples of them.

    Raises:
        TypeError: the state holds anything else, which `load_checkpoint` could not read.
        ValueError: the state has an entry "format" of its own.
        PairError: the file cannot be written.
    """
    if "format" in state:
        raise ValueError(f'"format" is the checkpoint\'s own entry, the state may not hold one: {state["format"]!r}')
    buffer = io.BytesIO()  # given a path, torch would put its name into the archive and hide the OSError of a full disk
    torch.save({**_portable(state), "format": CHECKPOINT_FORMAT}, buffer)
    write_whole(path, lambda temporary: _compress(buffer, temporary))


def _compress(archive: io.BytesIO, path: Path) -> None:
    """Write the zip archive that torch made to ``path``, compressed, which torch itself does not do but can read."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            undated = zipfile.ZipInfo(name)  # with a name alone, zipfile would store the present time
            target.writestr(undated, source.read(name), zipfile.ZIP_DEFLATED, compresslevel=9)


def _portable(value: Any) -> Any:
    """Return a copy whose pickle depends on the content alone, not on devices, shared storage or shared strings."""
    if isinstance(value, torch.Tensor):
        return torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())
    if isinstance(value, dict):
        return {_portable(key): _portable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return (tuple if isinstance(value, tuple) else list)(_portable(item) for item in value)
    if isinstance(value, str):
        return sys.intern(str(value))  # pickle writes one object once, but two equal objects twice
    if value is None or type(value) in (bool, int, float):
        return value
    raise TypeError(f"a checkpoint holds tensors and plain values, not {type(value).__name__}: convert it first")


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the state that `save_checkpoint` was given, with tensors on the CPU. Nothing in the file is ever executed.

    Raises:
        PairError: the file cannot be read, is damaged, or has a format that this version does not read.
    """
    try:
        with Path(path).open("rb") as file:
            damaged = zipfile.ZipFile(file).testzip()  # torch does not check the checksums that it writes
            if damaged:
                raise EOFError(f"{damaged} is damaged")
            file.seek(0)
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (*DAMAGE, *DAMAGED_ARCHIVE) as error:
        raise unreadable(path, error) from error
    found = content.pop("format", None) if isinstance(content, dict) else None
    if found not in RENAMED_IN:
        what = f"{path} has checkpoint format {found}, this program reads {' and '.join(map(str, sorted(RENAMED_IN)))}"
        raise PairError(f"{what}: register again with this version")
    return {RENAMED_IN[found].get(name, name): value for name, value in content.items()}
