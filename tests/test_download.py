"""Fetching from a server on this machine that describes, sends, breaks off and lies as the real one might."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ncf.commands.fetch import fetch as fetch_command
from ncf.io import download
from ncf.io.download import Source, fetch
from tests.refusing import refused

CONTENT = {f"training/scans/case_00{n}_{b}.nii.gz": bytes([n]) * 50_000 for n in (1, 2) for b in ("exp", "insp")}


def zipped(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


class Keeper(ThreadingHTTPServer):
    """Keeps one archive. breaks_off: bytes after which it hangs up, once. ranges: whether it can send a part."""

    daemon_threads = True
    archive = zipped(CONTENT)
    breaks_off: int | None = None
    ranges = True
    described: dict[str, Any] | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[tuple[str, str | None]] = []

    @property
    def source(self) -> Source:
        return Source(f"http://127.0.0.1:{self.server_port}/record", "training.zip", "training")

    def description(self) -> dict[str, Any]:
        own = {"size": len(self.archive), "checksum": f"md5:{hashlib.md5(self.archive).hexdigest()}"}
        link = {"self": f"http://127.0.0.1:{self.server_port}/training.zip"}
        return {
            "files": [{"key": "other.zip"}, {"key": "training.zip", "links": link, **own, **(self.described or {})}]
        }


class Answer(BaseHTTPRequestHandler):
    server: Keeper

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:  # http.server's name
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        described = json.dumps(self.server.description()).encode()
        body = described if self.path == "/record" else self.server.archive
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body) - first))
        self.end_headers()
        stop = len(body)
        if self.path != "/record" and self.server.breaks_off is not None:
            stop, self.server.breaks_off = self.server.breaks_off, None
        self.wfile.write(body[first:stop])


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    server = Keeper()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_archive_is_loaded_checked_and_unpacked_once(keeper: Keeper, tmp_path: Path) -> None:
    found = fetch(keeper.source, tmp_path / "data", progress=False)
    assert found == tmp_path / "data" / "training"
    assert {p.relative_to(tmp_path / "data").as_posix(): p.read_bytes() for p in found.rglob("*.gz")} == CONTENT
    count = len(keeper.asked)
    assert fetch(keeper.source, tmp_path / "data", progress=False) == found and len(keeper.asked) == count
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["training", "training.zip"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_gone_on_from(keeper: Keeper, tmp_path: Path, ranges: bool) -> None:
    keeper.breaks_off, keeper.ranges = 70_000, ranges
    refused("ended early; run the command again|cannot reach", fetch, keeper.source, tmp_path)
    assert (tmp_path / "training.zip.part").stat().st_size == 70_000 and not (tmp_path / "training").exists()
    assert len(list(fetch(keeper.source, tmp_path, progress=False).rglob("*.gz"))) == 4
    assert keeper.asked[-1] == ("/training.zip", "bytes=70000-")


@pytest.mark.parametrize("lie", [{"size": 1234}, {"checksum": "md5:" + "0" * 32}])
def test_another_archive_than_described_is_not_unpacked(keeper: Keeper, tmp_path: Path, lie: dict[str, Any]) -> None:
    keeper.described = lie
    refused("is not what .* describes; it was removed", fetch, keeper.source, tmp_path)
    assert list(tmp_path.iterdir()) == []
    keeper.described = None
    assert fetch(keeper.source, tmp_path, progress=False).is_dir()


def test_an_archive_that_would_write_elsewhere_is_refused(keeper: Keeper, tmp_path: Path) -> None:
    keeper.archive = zipped({"../evil.txt": b"x", **CONTENT})
    refused("cannot unpack", fetch, keeper.source, tmp_path / "data")
    assert not list(tmp_path.rglob("evil.txt")) and not (tmp_path / "data" / "training").exists()


def test_what_cannot_be_had_is_one_line(keeper: Keeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper.described = {"key": "renamed.zip"}
    refused(r"does not describe training\.zip as expected", fetch, keeper.source, tmp_path)
    gone = Source("http://127.0.0.1:9/record", "training.zip", "training")  # discard: nobody listens there
    refused(r"cannot reach http://127\.0\.0\.1:9/record \(.*refused.*\); check the network", fetch, gone, tmp_path)
    monkeypatch.setitem(download.SOURCES, "lungct", gone)
    with pytest.raises(SystemExit, match=r"^error: cannot reach"):
        fetch_command("lungct", dir=str(tmp_path)).start()
    with pytest.raises(SystemExit, match=r"^error: no data set 'brains'; there are: lungct"):
        fetch_command("brains", dir=str(tmp_path))
