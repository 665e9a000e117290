"""One run at a time in an output folder: a second one would take the half-written files of the first for leftovers.

It is the system's own lock on an open file, by filelock. It ends with the process that holds it, however that process
ends. The process that deals out the pairs holds it; workers, here or on other machines, hold none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ncf.core.errors import PairError
from ncf.core.files import claim_folder
from ncf.core.folders import NO_LOCKS

# empty, and it stays: if it were removed, a process that has just opened it would lose it
COHORT_LOCK_FILE = ".cohort.lock"


@contextmanager
def only_run(output_dir: Path) -> Iterator[None]:
    """Keep other runs out of a folder, for the time of a ``with``.

    The folder is made where it is missing. Where the file system knows no locks, that is printed and the run goes on.

    Args:
        output_dir: of the cohort.

    Raises:
        PairError: another run is at work in the folder, or it cannot be locked.
    """
    path = claim_folder(output_dir) / COHORT_LOCK_FILE
    from filelock import FileLock, Timeout  # loads asyncio, which no help or refusal needs

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
