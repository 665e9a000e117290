"""A viewer of the label server, as far as tests need one: plain HTTP."""

from __future__ import annotations

import email
import json
import secrets
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 120


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
            str(part.get_param("name", header="content-disposition")): (part.get_filename(), part.get_payload(decode=True))
            for part in message.get_payload()
        }


@dataclass(frozen=True)
class Client:
    """Requests to a server's address."""

    address: str

    def ask(
        self, method: str, path: str, *, body: bytes | None = None, kind: str = "application/json", **query: str
    ) -> Answer:
        """The answer, whatever its status; ConnectionError where nobody listens."""
        url = f"{self.address}{path}?{urllib.parse.urlencode(query)}"
        headers = {"Content-Type": kind} if body is not None else {}
        request = urllib.request.Request(url, data=body, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as reply:
                return Answer(reply.status, reply.headers["Content-Type"], reply.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, error.headers["Content-Type"], error.read())
        except urllib.error.URLError as error:
            raise ConnectionError(str(error)) from error

    def allows(self, page: str) -> bool:
        """Whether a browser would let a web page of that address read the answers."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.address}/info/", headers={"Origin": page})) as reply:
            return reply.headers.get("Access-Control-Allow-Origin") in (page, "*")

    def infer(self, image: str, output: str = "json", *, model: str = "ncf", params: Any = None, **given: Any) -> Answer:
        """POST /infer; ``given`` are the parameters, or ``params`` as they stand."""
        form = urllib.parse.urlencode({"params": json.dumps(given) if params is None else params}).encode()
        kind = "application/x-www-form-urlencoded"
        return self.ask("POST", f"/infer/{model}", body=form, kind=kind, image=image, output=output)

    def upload(self, path: str, field: str, content: bytes, *, name: str, params: str = "{}", **query: str) -> Answer:
        """PUT of a file."""
        limit = secrets.token_hex(8)
        head = f'--{limit}\r\nContent-Disposition: form-data; name="params"\r\n\r\n{params}\r\n--{limit}\r\n'
        head += f'Content-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        body = head.encode() + content + f"\r\n--{limit}--\r\n".encode()
        return self.ask("PUT", path, body=body, kind=f"multipart/form-data; boundary={limit}", **query)
