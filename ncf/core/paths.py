"""Paths as users write them: expanded, and checked before anything is opened. Nothing is read here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ncf.core.errors import PairError
from ncf.core.notes import note
from ncf.core.scan_paths import scan_path

LONG, SHOWN = 255, 40  # characters of a part of a path that can be, and that are shown of one that cannot
KINDS = (  # what a path may be beside a file and a folder; opening a pipe would wait for a writer, for ever
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with its home folder written out; ``~name`` stays where no user is called so, as in a shell."""
    found = os.path.expanduser(path)
    if found == os.fspath(path) and found.startswith("~"):
        note(f"{shortened(found)} is taken as the name of a file, for no user is called so")
    return Path(found)


def there(path: str | os.PathLike[str], what: str = "") -> Path:
    """Return a path that can be followed, and is a file or a folder.

    Args:
        path: absolute, or relative to the working folder.
        what: how the message begins, such as ``fixed``.

    Raises:
        PairError: there is nothing, it may not be reached, its name is impossible, or it is a pipe, socket or device.
    """
    begin = f"{what}: " if what else ""
    try:
        mode = os.stat(scan_path(path).path).st_mode
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or str(error)
        told = f"cannot open {shortened(path)} ({reason})" if what else f"cannot read {shortened(path)}: {reason}"
        raise PairError(f"{begin}{told}; correct the path or permissions") from error
    kind = next((word for is_one, word in KINDS if is_one(mode)), None)
    if kind is not None:
        raise PairError(f"{begin}{shortened(path)} is {kind}, expected a file or folder; write it to a file first")
    return Path(path)


def file_there(path: str | os.PathLike[str], what: str = "") -> Path:
    """Return a path that is a file.

    Args:
        path: absolute, or relative to the working folder.
        what: how the message begins.

    Raises:
        PairError: what `there` refuses, and a folder.
    """
    if there(path, what).is_dir():
        begin = f"{what}: " if what else ""
        raise PairError(f"{begin}{shortened(path)} is a folder, expected a file; name a file in it")
    return Path(path)


def missing(path: str | os.PathLike[str]) -> bool:
    """Tell whether there is nothing at a path; a path that may not be followed, or that cannot be, is not missing."""
    try:
        os.stat(scan_path(path).path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def shortened(path: str | os.PathLike[str]) -> str:
    """Return a path for one line of words: no line breaks, and no part longer than a name can be."""
    text = os.fspath(path)
    parts = [part if len(part) <= LONG else f"{part[:SHOWN]}..." for part in text.split(os.sep)]
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in os.sep.join(parts))
