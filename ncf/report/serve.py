"""A result served to a browser on this machine, with every voxel: reads only, and nothing but this result.

The address holds a secret, so that other users and web pages cannot ask. The Host header must name this machine, so
that a foreign name that leads here (DNS rebinding) is refused.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from ncf.core.files import encoded
from ncf.core.names import PICTURES
from ncf.report.findings import findings_of
from ncf.report.material import gathered
from ncf.report.page import page
from ncf.report.scene import scene
from ncf.result.folder import SavedResult

LOCAL = "127.0.0.1"
HTML, BYTES = "text/html; charset=utf-8", "application/octet-stream"
PIECE_BYTES = 2**22  # written at a time
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class ResultServer(ThreadingHTTPServer):
    """Serves the page and the volumes of one result.

    Args:
        text: the page.
        volumes: by name, (W, H, D); sent in Fortran order, little-endian.
    """

    daemon_threads = True

    def __init__(self, text: str, volumes: Mapping[str, np.ndarray]) -> None:
        super().__init__((LOCAL, 0), _Handler)
        self.token = secrets.token_urlsafe(24)
        self.text = encoded(text)
        self.volumes = dict(volumes)

    @property
    def hosts(self) -> set[str]:
        """The names that a request may give this machine."""
        return {f"{name}:{self.server_port}" for name in (LOCAL, "localhost")}

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{LOCAL}:{self.server_port}/{self.token}/"


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; every other method is refused by the base class."""

    server: ResultServer
    server_version, sys_version = "ncf", ""
    timeout = 60  # seconds that a silent connection may take

    def do_GET(self) -> None:
        """Send the page or a volume."""
        if self.headers.get("Host", "") not in self.server.hosts:
            return self._refuse(HTTPStatus.FORBIDDEN, "this server answers to its own address only")
        token, _, rest = self.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return self._refuse(HTTPStatus.NOT_FOUND, "no such page")
        name = rest.removeprefix("volumes/")
        if rest == "":
            return self._send(HTML, memoryview(self.server.text))
        if name == rest or name not in self.server.volumes:
            return self._refuse(HTTPStatus.NOT_FOUND, "no such volume")
        volume = self.server.volumes[name]
        flat = volume.astype(volume.dtype.newbyteorder("<"), copy=False).reshape(-1, order="F")
        return self._send(BYTES, flat.view(np.uint8).data)

    do_HEAD = do_GET  # noqa: N815

    def _send(self, kind: str, content: memoryview) -> None:
        self._begin(HTTPStatus.OK, kind, len(content))
        if self.command == "HEAD":
            return
        try:
            for start in range(0, len(content), PIECE_BYTES):
                self.wfile.write(content[start : start + PIECE_BYTES])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the page was closed meanwhile

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        content = encoded(why)
        self._begin(status, "text/plain; charset=utf-8", len(content))
        if self.command != "HEAD":
            self.wfile.write(content)

    def _begin(self, status: HTTPStatus, kind: str, length: int) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal is the user's."""


def result_server(folder: Path, inputs: Mapping[str, Path] | None = None) -> ResultServer:
    """Read a result and open a port for it; nothing is written.

    Args:
        folder: of the result.
        inputs: scans that have moved since, by the keys of `ncf.core.names.PAIR_KEYS`.

    Raises:
        PairError: the result is not complete, or a scan is not there.
    """
    result = SavedResult(folder)
    material = gathered(result, inputs)
    plots = {path.name: path.read_bytes() for path in sorted((folder / PICTURES).glob("*.png"))}
    told = scene(material, whole=True)
    paths = {**result.inputs, **(inputs or {})}
    text = page(material, findings=findings_of(material), plots=plots, paths=paths, scene=told)
    return ResultServer(text, told.served)
