"""Result folders: one run at a time in each, and the earlier result stays until the new one is whole.

A new result is made in a hidden folder inside the one it is meant for. Once it is complete its files take the places of the
earlier ones, metrics.json last, which vouches for the others. This room must not know what the files hold.
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

from filelock import FileLock, Timeout

from scripts.errors import PairError
from scripts.files import claim_folder, refusal
from scripts.names import METRICS_FILE, PICTURES, RESULT_FILES

LOCK_FILE = ".lock"  # while a run is at work
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)  # some clusters mount their file systems so
LEFTOVER = re.compile(r"\.[0-9a-f]{12}(\.|$)")  # what was being written when its process was killed


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Make a folder with its parents; when what is done in it fails, those that were made and are empty go again."""
    path = path.absolute()
    made = missing_folders(path)
    try:
        yield claim_folder(path)
    except BaseException:  # Ctrl-C too; raised again below
        remove_empty(made)
        raise


def missing_folders(path: Path) -> list[Path]:
    """Return the folders that would have to be made for a path to be one, the innermost first."""
    return [folder for folder in (path, *path.parents) if not folder.exists()]


def remove_empty(folders: list[Path]) -> None:
    """Remove folders, the innermost first, up to the first one that is not empty."""
    with contextlib.suppress(OSError):
        for folder in folders:
            folder.rmdir()


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written in a result folder."""
    for place in (folder, folder / PICTURES):
        for path in place.glob(".*") if place.is_dir() else ():
            if LEFTOVER.match(path.name):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


class ResultFolder:
    """A folder that this process alone may put a result into, until it lets go of it.

    Raises PairError where the folder cannot be written, or while another run is at work in it.
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
        """The lock of the folder, held; None where the file system knows no locks."""
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
        """A hidden folder in this one, for files that are not complete yet; gone at the end. PairError for an OSError."""
        stage = self.folder / f".{secrets.token_hex(6)}"
        try:
            stage.mkdir()
            yield stage
        except OSError as error:
            raise refusal(self.folder, error) from error
        except PairError as error:  # of a file in it, which has its name after this alone
            raise PairError(str(error).replace(str(stage), str(self.folder))) from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)

    @contextlib.contextmanager
    def whole(self) -> Iterator[Path]:
        """A folder for the files of a new result, which then takes the place of the earlier one; kept if this fails."""
        with self.stage() as stage:
            yield stage
            self._take_place(stage)

    def _take_place(self, stage: Path) -> None:
        """The new files are in the folder, and nothing of an earlier result, whose metrics.json went first."""
        fresh = sorted((path.name for path in stage.iterdir()), key=lambda name: name == METRICS_FILE)
        for name in RESULT_FILES:
            if name == METRICS_FILE or name not in fresh:
                (self.folder / name).unlink(missing_ok=True)
        for picture in (self.folder / PICTURES).glob("*.png"):
            picture.unlink()
        remove_empty([self.folder / PICTURES])
        for name in fresh:
            os.replace(stage / name, self.folder / name)

    def release(self) -> None:
        """Let other runs in; a folder that was made for nothing goes again."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                (self.folder / LOCK_FILE).unlink(missing_ok=True)  # while it is held, so that nobody else holds it
            self._lock.release()
            self._lock = None
        remove_empty(self._made)


class ResultFolders:
    """The folders that the pairs of a run go to, ``<output_dir>/<name>/``, one held at a time."""

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = Path(output_dir)
        self._held: ResultFolder | None = None

    def path(self, name: str) -> Path:
        """Return where a pair's result goes."""
        return (self.output_dir / name).absolute()

    def hold(self, name: str) -> ResultFolder:
        """Take a pair's folder for this run, letting go of another one; raise PairError where it cannot be had."""
        if self._held is None or self._held.folder != self.path(name):
            self.release()
            self._held = ResultFolder(self.path(name))
        return self._held

    def release(self) -> None:
        """Let go of the folder that is held, if one is."""
        if self._held is not None:
            self._held.release()
            self._held = None
