"""One run at a time in an output folder: a second one would take the half-written files of the first for leftovers.

The system's own lock on an open file, by filelock, which ends with the process that holds it, however that ends. The
process that deals out the pairs holds it; workers, here or on other machines, hold none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from scripts.errors import PairError
from scripts.files import claim_folder
from scripts.folders import NO_LOCKS

LOCK_FILE = ".cohort.lock"  # empty, and it stays: to remove it would take it from whoever opened it just now


@contextmanager
def only_run(output_dir: Path) -> Iterator[None]:
    """Within it, no other run is at work in the folder, which is made where missing; PairError while one is.

    Where the file system knows no locks, that is printed, and the run goes on.
    """
    path = claim_folder(output_dir) / LOCK_FILE
    lock = FileLock(path, blocking=False, fallback_to_soft=False)  # a soft lock would outlive a killed run
    try:
        lock.acquire()
    except Timeout as error:
        what = f"another run is at work in {output_dir}"
        raise PairError(f"{what}; wait until it has ended, or give another output_dir") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise PairError(f"cannot lock {path}: {error.strerror}; choose an output folder on another disk") from error
        print(f"the file system of {output_dir} knows no locks: start no second run there before this one has ended")
    try:
        yield
    finally:
        lock.release()
