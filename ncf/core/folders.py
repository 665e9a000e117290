"""Result folders: one run at a time in each, and the earlier result stays until the new one is whole.

A new result is made in a hidden folder inside its result folder. Once it is complete, its files replace the earlier
ones. metrics.json comes last: where it exists, the result is complete. This module must not know what the files hold.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ncf.core.errors import PairError
from ncf.core.files import claim_folder, refusal
from ncf.core.names import DICOM_FOLDER, METRICS_FILE, PICTURES, RESULT_FILES
from ncf.core.paths import missing

if TYPE_CHECKING:
    from filelock import FileLock

LOCK_FILE = ".lock"  # exists while a run is at work
# errors of file systems without locks, as some clusters mount them
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
LEFTOVER = re.compile(r"\.[0-9a-f]{12}(\.|$)")  # temporary files and folders of a process that was killed


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make a folder with its parents, for the time of a ``with``.

    When what is done inside the ``with`` fails, those folders that were made and are empty are removed again.

    Raises:
        PairError: the folder cannot be made or written.
    """
    path = path.absolute()
    made = missing_folders(path)
    try:
        yield claim_folder(path)
    except BaseException:  # Ctrl-C too; raised again below
        remove_empty(made)
        raise


def missing_folders(path: Path) -> list[Path]:
    """Return the folders that do not exist among a path and its parents, the innermost first."""
    return [folder for folder in (path, *path.parents) if missing(folder)]


def remove_empty(folders: list[Path]) -> None:
    """Remove folders, the innermost first, up to the first one that is not empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def sweep(folder: Path) -> None:
    """Remove the incomplete files that a killed process left in a result folder."""
    for place in (folder, folder / PICTURES):
        for path in place.glob(".*") if place.is_dir() else ():
            if LEFTOVER.match(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def remove_begun(folder: Path) -> None:
    """Remove what a process that has ended left of a result that it had begun; a folder that holds more stays."""
    sweep(folder)
    (folder / LOCK_FILE).unlink(missing_ok=True)
    remove_empty([folder])


class ResultFolder:
    """A result folder that this process alone may write to until it releases it.

    Raises:
        PairError: the folder cannot be written, or another run is at work in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()
        self._made = missing_folders(self.folder)
        self._lock: FileLock | None = None
        try:
            claim_folder(self.folder)
            self._lock = self._locked()
        except PairError:
            remove_empty(self._made)
            raise
        sweep(self.folder)

    def _locked(self) -> FileLock | None:
        """Lock the folder and return the lock; None where the file system knows no locks."""
        from filelock import FileLock, Timeout  # loads asyncio, which no help or refusal needs

        lock = FileLock(self.folder / LOCK_FILE, blocking=False, fallback_to_soft=False)
        try:
            lock.acquire()
        except Timeout as error:
            advice = "wait until it has ended, or choose another name or output_dir"
            raise PairError(f"another run is at work in {self.folder}; {advice}") from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise refusal(self.folder / LOCK_FILE, error) from error
            return None
        return lock

    @contextlib.contextmanager
    def stage(self) -> Iterator[Path]:
        """Make a hidden folder inside this one, for files that are not complete yet; it is removed at the end.

        Raises:
            PairError: for any OSError inside the ``with``.
        """
        stage = self.folder / f".{secrets.token_hex(6)}"
        try:
            stage.mkdir()
            yield stage
        except OSError as error:
            raise refusal(self.folder, error) from error
        except PairError as error:  # about a file in the hidden folder: name the place that the user knows
            raise PairError(str(error).replace(str(stage), str(self.folder))) from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    @contextlib.contextmanager
    def whole(self) -> Iterator[Path]:
        """Make a folder for the files of a new result, which then replaces the earlier result.

        If anything inside the ``with`` fails, the earlier result is kept.

        Raises:
            PairError: for any OSError inside the ``with``.
        """
        with self.stage() as stage:
            yield stage
            self._take_place(stage)

    def _take_place(self, stage: Path) -> None:
        """Remove the files of an earlier result, metrics.json first, and move the new ones in, metrics.json last."""
        fresh = sorted((path.name for path in stage.iterdir()), key=lambda name: name == METRICS_FILE)
        for name in RESULT_FILES:
            if name == METRICS_FILE or name not in fresh:
                (self.folder / name).unlink(missing_ok=True)
        for picture in (self.folder / PICTURES).glob("*.png"):
            picture.unlink()
        remove_empty([self.folder / PICTURES])
        shutil.rmtree(self.folder / DICOM_FOLDER, ignore_errors=True)
        for name in fresh:
            os.replace(stage / name, self.folder / name)

    def release(self) -> None:
        """Let other runs use the folder; remove it if it was made here and is empty."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                # removed while this process holds the lock, so that no other process can hold it
                (self.folder / LOCK_FILE).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None
        remove_empty(self._made)


class ResultFolders:
    """The folders that the pairs of a run go to, ``<output_dir>/<name>/``; one of them is held at a time."""

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = Path(output_dir)
        self._held: ResultFolder | None = None

    def path(self, name: str) -> Path:
        """Return the folder for a pair's result, as an absolute path."""
        return (self.output_dir / name).absolute()

    def hold(self, name: str) -> ResultFolder:
        """Lock a pair's folder for this run, and release the one held before.

        Raises:
            PairError: the folder cannot be written, or another run is at work in it.
        """
        if self._held is None or self._held.folder != self.path(name):
            self.release()
            self._held = ResultFolder(self.path(name))
        return self._held

    def release(self) -> None:
        """Release the folder that is held, if there is one."""
        if self._held is not None:
            self._held.release()
            self._held = None
