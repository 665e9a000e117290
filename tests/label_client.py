"""The label server in a process of its own, and a viewer of it as far as tests need one: plain HTTP."""

from __future__ import annotations

import email
import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 240  # the server's imports alone take 10 to 30 s on a busy machine


@dataclass(frozen=True)
class Answer:
    """Status, content type and body of a reply."""

    status: int
    kind: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def sentence(self) -> str:
        """Why a request was refused."""
        assert self.status == 400, self.body
        detail = self.json["detail"]
        assert isinstance(detail, str) and detail and "\n" not in detail
        return detail

    @property
    def parts(self) -> dict[str, tuple[str | None, bytes]]:
        """Name -> file name and content, of a reply in several parts."""
        message = email.message_from_bytes(f"Content-Type: {self.kind}\r\n\r\n".encode() + self.body)
        return {
            str(part.get_param("name", header="content-disposition")): (
                part.get_filename(),
                part.get_payload(decode=True),
            )
            for part in message.get_payload()
        }


@dataclass(frozen=True)
class Client:
    """Requests to a server's address."""

    address: str

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        kind: str = "application/json",
        told: Mapping[str, str] | None = None,
        **query: str,
    ) -> Answer:
        """The answer, whatever its status; ConnectionError where nobody listens. told: headers."""
        url = f"{self.address}{path}?{urllib.parse.urlencode(query)}"
        headers = {"Content-Type": kind} if body is not None else {}
        request = urllib.request.Request(url, data=body, headers={**headers, **(told or {})}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
                return Answer(reply.status, reply.headers["Content-Type"], reply.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers["Content-Type"], error.read())
        except urllib.error.URLError as error:
            raise ConnectionError(str(error)) from error

    def answers(self) -> bool:
        """Whether the server is there."""
        try:
            return self.ask("GET", "/info/").status == 200
        except ConnectionError:
            return False

    def allows(self, page: str) -> bool:
        """Whether a browser would let a web page of that address read the answers."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.address}/info/", headers={"Origin": page})) as reply:
            return reply.headers.get("Access-Control-Allow-Origin") in (page, "*")

    def batch(self, images: str | list[str], *, run_sync: str = "false", **given: Any) -> Answer:
        """POST /batch/infer; ``given`` are the parameters."""
        body = json.dumps({"images": images, **given}).encode()
        return self.ask("POST", "/batch/infer/ncf", body=body, run_sync=run_sync)

    def infer(
        self, image: str, output: str = "json", *, model: str = "ncf", params: Any = None, **given: Any
    ) -> Answer:
        """POST /infer; ``given`` are the parameters, or ``params`` as they stand."""
        form = urllib.parse.urlencode({"params": json.dumps(given) if params is None else params}).encode()
        kind = "application/x-www-form-urlencoded"
        return self.ask("POST", f"/infer/{model}", body=form, kind=kind, image=image, output=output)

    def upload(
        self, path: str, field: str, content: bytes, *, name: str, params: str = "{}", method: str = "PUT", **query: str
    ) -> Answer:
        """A file that is sent."""
        limit = secrets.token_hex(8)
        head = f'--{limit}\r\nContent-Disposition: form-data; name="params"\r\n\r\n{params}\r\n--{limit}\r\n'
        head += f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        body = head.encode() + content + f"\r\n--{limit}--\r\n".encode()
        return self.ask(method, path, body=body, kind=f"multipart/form-data; boundary={limit}", **query)


@dataclass(frozen=True)
class Server:
    """A running server: its process, what it prints, and the folder that it takes for the system's temporary one."""

    client: Client
    process: subprocess.Popen[bytes]
    log: Path
    passage: Path

    @property
    def passing(self) -> set[str]:
        """The files in its temporary folder, without the list of fonts that matplotlib keeps there."""
        files = {path.name for path in self.passage.rglob("*") if path.is_file()}
        return {name for name in files if not name.startswith("fontlist")}

    def end(self, by: int) -> int:
        """Its exit status after that signal; it has left nothing, neither files nor processes, and nobody listens."""
        self.process.send_signal(by)
        status = self.process.wait(timeout=PATIENCE_S)
        assert "Traceback" not in self.log.read_text(), self.log.read_text()
        assert not list(self.passage.iterdir()) and not self.client.answers()
        wait_for(lambda: not processes_of(self.process.pid), self.log)
        return status


@contextmanager
def started(command: list[str], *, root: Path, here: Path) -> Iterator[Server]:
    """The server of a command line without its port, once it answers. root: of the bundle; here: an empty folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    passage, log = (here.parent / f"{here.name}{end}" for end in (".tmp", ".log"))
    passage.mkdir()
    given = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(here), "TMPDIR": str(passage)}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=here,
            env={**os.environ, **given},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    client = Client(f"http://127.0.0.1:{port}")
    try:
        wait_for(lambda: process.poll() is not None or client.answers(), log)
        assert process.poll() is None, log.read_text()
        yield Server(client, process, log, passage)
    finally:
        with suppress(ProcessLookupError):  # none is left where `end` was called
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(condition: Callable[[], Any], log: Path) -> None:
    """Returns once the condition holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, log.read_text() if log.is_file() else log
        time.sleep(0.1)


def processes_of(session: int) -> list[str]:
    """State and command of the processes of a session, without those that have ended."""
    told = subprocess.run(["ps", "-s", str(session), "-o", "stat=,args="], capture_output=True, text=True).stdout
    return [line for line in told.splitlines() if not line.startswith("Z")]
