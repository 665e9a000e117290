"""A headless Chromium by its own protocol over a pipe: pages opened, scripts run in them, keys pressed, pictures taken.

No port, driver or package: Chromium reads JSON messages from file descriptor 3 and answers on 4, each ended by a zero
byte (``--remote-debugging-pipe``).
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
BETWEEN_PAGES = ("Inspected target navigated or closed", "Cannot find default execution context")
PATIENCE_S = 60  # on a machine that does other things too
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Tab": 9, "Home": 36, "End": 35, "PageUp": 33, "PageDown": 34}


def found() -> str | None:
    """The path of a Chromium on this machine."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class RefusedError(AssertionError):
    """The browser answered a command with an error."""


class Browser:
    """One page of a running Chromium. complaints: errors, exceptions, refused loads; requests: what was asked for."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in, self._rest = to_browser, from_browser, b""
        self._ids = itertools.count(1)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self._send("Target.createTarget", {"url": "about:blank"}, session=None)["targetId"]
        attached = self._send("Target.attachToTarget", {"targetId": target, "flatten": True}, session=None)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """The answer to a command of the protocol for the page."""
        return self._send(method, params, session=self._session)

    def open(self, path: Path | str, *, width: int = 1360, height: int = 900, dark: bool = False) -> None:
        """Nothing; the file or address is open in a window of that size and says that it is ready."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.complaints.clear()
        self.requests.clear()
        self.send("Page.navigate", url=path if isinstance(path, str) else path.resolve().as_uri())
        self.wait("document.readyState === 'complete' && document.body?.dataset.ready === 'true'")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; an exception there is one here."""
        told = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise AssertionError(told["exceptionDetails"])
        return told["result"].get("value")

    def wait(self, condition: str) -> None:
        """Nothing; the condition holds in the page."""
        until = time.monotonic() + PATIENCE_S
        while not self._holds(condition):
            if time.monotonic() > until:
                raise AssertionError(f"{condition} did not come true; complaints: {self.complaints}")
            time.sleep(0.05)

    def _holds(self, condition: str) -> bool:
        try:
            return bool(self.run(condition))
        except RefusedError as refused:
            if any(sign in str(refused) for sign in BETWEEN_PAGES):
                return False  # asked while a link was being followed: the page that was there is gone
            raise

    def print_to(self, path: Path) -> None:
        """Nothing; the page was printed on A4 into a PDF."""
        told = self.send("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)
        path.write_bytes(base64.b64decode(told["data"]))

    def press(self, key: str) -> None:
        """Nothing; the key went down and up again."""
        named = (
            {"key": key, "windowsVirtualKeyCode": KEYS[key], "code": key} if key in KEYS else {"key": key, "text": key}
        )
        self.send("Input.dispatchKeyEvent", type="keyDown", **named)
        self.send("Input.dispatchKeyEvent", type="keyUp", **{k: v for k, v in named.items() if k != "text"})

    def click(self, x: float, y: float) -> None:
        """Nothing; the left button was pressed and released there, in pixels of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Nothing; the left button went down at one place of the window, moved and was released at another."""
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        for kind, (x, y) in (("Pressed", start), ("Moved", middle), ("Moved", end), ("Released", end)):
            self.send("Input.dispatchMouseEvent", type=f"mouse{kind}", x=x, y=y, button="left", buttons=1, clickCount=1)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Nothing; a PNG of the window, or of the whole page, was written."""
        told = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(told["data"]))

    def _send(self, method: str, params: dict[str, Any], *, session: str | None) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            told = self._receive()
            if told.get("id") == number:
                if "error" in told:
                    raise RefusedError(f"{method}: {told['error']}")
                return told["result"]
            self._event(told)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], PATIENCE_S)
            piece = os.read(self._in, 2**20) if ready else b""
            if not piece:
                raise AssertionError("the browser does not answer")
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _event(self, told: dict[str, Any]) -> None:
        method, params = told.get("method"), told.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    """A running Chromium with a profile folder of its own; it ends with the block."""
    reads, to_browser = os.pipe()
    from_browser, writes = os.pipe()
    options = ["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-dev-shm-usage"]
    options += ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL2 without a card
    options += [
        "--no-first-run",
        "--disable-extensions",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
        "about:blank",
    ]

    def place() -> None:  # in the child: the pipes get the numbers that Chromium expects
        high = [os.dup(reads), os.dup(writes)]
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    process = subprocess.Popen(
        [program, *options], preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(reads)
    os.close(writes)
    try:
        yield Browser(to_browser, from_browser)
    finally:
        os.close(to_browser)  # it ends when nobody speaks to it any more
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(from_browser)
