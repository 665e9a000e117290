"""One run at a time in an output folder: a second one would take the half-written files of the first for leftovers.

The system's own lock on an open file, which ends with the process that holds it, however that ends. The process that deals
out the pairs holds it; workers, here or on other machines, hold none.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from scripts.errors import PairError
from scripts.files import claim_folder

LOCK_FILE = ".cohort.lock"  # empty, and it stays: to remove it would take it from whoever opened it just now
HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)  # EDEADLK: of Windows
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)  # some clusters mount their file systems so


@contextmanager
def only_run(output_dir: Path) -> Iterator[None]:
    """Within it, no other run is at work in the folder, which is made where missing; PairError while one is.

    Where the file system knows no locks, that is printed, and the run goes on.
    """
    path = claim_folder(output_dir) / LOCK_FILE
    try:
        file = path.open("ab")
    except OSError as error:
        raise PairError(f"cannot write {path}: {error.strerror}; choose an output folder that you may write to") from error
    with file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in HELD:
                what = f"another run is at work in {output_dir}"
                raise PairError(f"{what}; wait until it has ended, or give another output_dir") from error
            if error.errno not in NO_LOCKS:
                raise PairError(f"cannot lock {path}: {error.strerror}; choose an output folder on another disk") from error
            print(f"the file system of {output_dir} knows no locks: start no second run there before this one has ended")
        yield


def _lock(file: IO[bytes]) -> None:
    """Nothing; the file is locked until it is closed. OSError where it cannot be, at once."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
