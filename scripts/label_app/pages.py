"""Which web pages may have something changed: the server's own."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

READING = ("GET", "HEAD", "OPTIONS")  # whether the answer may be read is for the browser to ask


class OwnPages:
    """Refuses (403) to change anything for a page of another address; a browser names it, other programs do not.

    Args:
        app: what is asked otherwise.
        pages: the addresses of the server's own, besides the one it was asked by (its port, at the end of a tunnel, is
            another). Who may stand in the Host header is checked before.
    """

    def __init__(self, app: ASGIApp, pages: Collection[str]) -> None:
        self.app, self.pages = app, frozenset(pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nothing; the request was answered."""
        if scope["type"] == "http" and scope["method"] not in READING:
            told = Headers(scope=scope)
            page = told.get("origin")
            if page is not None and page not in {*self.pages, f"http://{told.get('host')}"}:
                what = f"a web page of {page!r:.80} may not change anything here; ask from {min(self.pages)}"
                await JSONResponse({"detail": what}, status_code=403)(scope, receive, send)
                return
        await self.app(scope, receive, send)
