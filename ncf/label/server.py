"""The process of the label server: its settings, the folder for what passes through it, and its end."""

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

from ncf.core import drawing
from ncf.core.errors import PairError
from ncf.core.presets import bundle_folder

HOST = "127.0.0.1"  # patients' scans are served without a password
GRACE_S = 3  # for replies that are under way when the server is stopped
ENDED_BY_SIGNAL = 128  # added to the number of the signal, this is the status that a shell gives


def serve(studies: Path, *, port: int, device: str | None = None) -> None:
    """Run the server until it is stopped.

    Args:
        studies: folder of scans.
        port: on this machine.
        device: that registers; None for the default.

    Raises:
        PairError: the server cannot run, or not on this device.
    """
    if not studies.is_dir():
        raise PairError(f"{studies} is no folder; name the one with your scans")
    if device is not None:
        from ncf.fit.device import check_device

        check_device(device)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise PairError(f"cannot listen on {HOST}:{port} ({error.strerror}); choose another --port") from error
    _end_in_order()
    with _passage() as folder:
        # MONAI Label reads them at its import; the worker and a batch, which are processes of their own, inherit them
        os.environ.update(_settings(studies, port, device), **{drawing.FOLDER: folder, "TMPDIR": folder})
        try:
            from ncf.label.web import run
        except ImportError as error:
            what = f"the label server needs MONAI Label in an environment of its own, and here is no {error.name}"
            raise PairError(f"{what}; docs/monai_label.md says how to install it") from error
        run(HOST, port, grace_s=GRACE_S)


@contextmanager
def _passage() -> Iterator[str]:
    """Make the temporary folder of this process; it is removed at the end, with every scan that was left in it."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        try:
            yield folder
        finally:
            tempfile.tempdir = before


def _end_in_order() -> None:
    """Let the two signals that end a process first release the folder and the other processes.

    The second one comes from a closed terminal, except on Windows. A process that was told to ignore it still does.
    """

    def end(number: int, _: FrameType | None) -> NoReturn:
        """End the process with the status of a signal."""
        signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the end
        sys.exit(ENDED_BY_SIGNAL + number)

    signal.signal(signal.SIGTERM, end)
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        signal.signal(hangup, lambda *_: signal.raise_signal(signal.SIGTERM))  # uvicorn ends in order after SIGTERM


def _settings(studies: Path, port: int, device: str | None) -> dict[str, str]:
    """Return the environment variables that MONAI Label reads."""
    roots = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, roots)),
        "MONAI_LABEL_APP_DIR": str(bundle_folder() / "scripts" / "label_app"),
        "MONAI_LABEL_STUDIES": str(studies.resolve()),
        "MONAI_LABEL_SERVER_PORT": str(port),
        "MONAI_LABEL_APP_CONF": json.dumps({} if device is None else {"device": device}),
        "MONAI_LABEL_SESSIONS": "false",  # their files would lie in the home folder
        "MONAI_LABEL_TASKS_TRAIN": "false",
        "MONAI_LABEL_TASKS_SCORING": "false",
    }
