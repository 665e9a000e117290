"""The web pages that may ask for a change: only the server's own."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

READING = ("GET", "HEAD", "OPTIONS")  # the browser asks whether a page may read the answer


class OwnPages:
    """Refuses (403) a change that a page of another address asks for. A browser names the page, other programs do not.

    Args:
        app: answers all other requests.
        pages: addresses of the server's own pages, besides the one that it was asked by (at the end of a tunnel its
            port is another). The Host header is checked before.
    """

    def __init__(self, app: ASGIApp, pages: Collection[str]) -> None:
        self.app, self.pages = app, frozenset(pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it.

        Args:
            scope: of the request.
            receive: of ASGI.
            send: of ASGI.
        """
        if scope["type"] == "http" and scope["method"] not in READING:
            told = Headers(scope=scope)
            page = told.get("origin")
            if page is not None and page not in {*self.pages, f"http://{told.get('host')}"}:
                what = f"a web page of {page!r:.80} may not change anything here; ask from {min(self.pages)}"
                await JSONResponse({"detail": what}, status_code=403)(scope, receive, send)
                return
        await self.app(scope, receive, send)
