"""The label server's process: its settings, the folder for what passes through it, and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from scripts import drawing
from scripts.errors import PairError

HOST = "127.0.0.1"  # patients' scans are served without a password
GRACE_S = 3  # for replies that are under way when the server is stopped
ENDED_BY_SIGNAL = 128  # a shell's status of a process, plus the number of the signal


def serve(studies: Path, *, port: int, device: str | None = None) -> None:
    """Nothing; the server ran until it was stopped. Raises PairError where it cannot run, or not on this device."""
    if not studies.is_dir():
        raise PairError(f"{studies} is no folder; name the one with your scans")
    if device is not None:
        from scripts.guard import check_device

        check_device(device)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PairError(f"cannot listen on {HOST}:{port} ({error.strerror}); choose another --port") from error
    _end_in_order()
    with _passage() as folder:
        # MONAI Label reads them at its import; the worker and a batch, processes of their own, inherit them
        os.environ.update(_settings(studies, port, device), **{drawing.FOLDER: folder, "TMPDIR": folder})
        try:
            from scripts.label_app.web import run
        except ImportError as error:
            what = f"the label server needs MONAI Label in an environment of its own, and here is no {error.name}"
            raise PairError(f"{what}; docs/monai_label.md says how to install it") from error
        run(HOST, port, grace_s=GRACE_S)


@contextmanager
def _passage() -> Iterator[str]:
    """A folder that is this process's temporary one and is gone at the end, with every scan that was left in it."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield folder
        finally:
            tempfile.tempdir = before


def _end_in_order() -> None:
    """Nothing; the two signals that end a process at once let go of the folder and of other processes first.

    A closed terminal sends the second one, if Windows is not the system; one that was told to ignore it goes on to.
    """

    def end(number: int, _: FrameType | None) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # a second one must not break off the end
        sys.exit(ENDED_BY_SIGNAL + number)

    signal.signal(signal.SIGTERM, end)
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        signal.signal(hangup, lambda *_: signal.raise_signal(signal.SIGTERM))  # uvicorn ends in order after that one


def _settings(studies: Path, port: int, device: str | None) -> dict[str, str]:
    here = Path(__file__).resolve().parent
    roots = [str(here.parent.parent), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, roots)),
        "MONAI_LABEL_APP_DIR": str(here),
        "MONAI_LABEL_STUDIES": str(studies.resolve()),
        "MONAI_LABEL_SERVER_PORT": str(port),
        "MONAI_LABEL_APP_CONF": json.dumps({} if device is None else {"device": device}),
        "MONAI_LABEL_SESSIONS": "false",  # they would lie in the home folder
        "MONAI_LABEL_TASKS_TRAIN": "false",
        "MONAI_LABEL_TASKS_SCORING": "false",
    }
