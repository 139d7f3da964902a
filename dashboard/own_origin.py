"""Keeps other web pages out: none may show the dashboard in a frame, or speak to it in its visitor's name."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocketClose

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'; object-src 'none'; base-uri 'self'; form-action 'self'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Of every answer. Scripts are left to Streamlit, whose pages need inline ones and `eval`."""


class OwnOrigin:
    """Middleware: refuses requests whose `Origin` is another host or port than they were sent to.

    Streamlit itself accepts every port of this machine as an origin.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, and with its answer those `HEADERS` that it does not have."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if not _is_own(Headers(scope=scope)):
            refusal = PlainTextResponse("requests from other pages are refused", 403)
            await (refusal if scope["type"] == "http" else WebSocketClose())(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


def _is_own(headers: Headers) -> bool:
    """Whether no page, or one of the same host and port, sent a request. A reverse proxy has to pass on `Host`."""
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
