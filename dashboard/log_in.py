"""Lets in only whoever knows the server's token: by a form, or once by ``?token=`` in a link; then by a cookie."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import html
import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlencode

from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.websockets import WebSocketClose

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

PATH = "/log-in"
_COOKIE = "smoe_ray_dashboard"
"""Its name, with the server's port: browsers do not tell servers of one machine apart."""
OPEN_PATHS = ("/_stcore/health",)
"""Answered without a log-in: they tell nothing but that the server runs, which a cluster's probes ask."""

_SECONDS_AFTER_A_WRONG_TOKEN = 0.5
_MOST_BYTES = 10_000
"""Of a form; a token and a path take far less."""

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Log in - smoe-ray</title><style>
:root {{color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif}}
body {{display: grid; place-content: center; min-height: 90vh; margin: 1rem}}
form {{display: grid; gap: .75rem; width: min(22rem, 90vw)}}
h1 {{font-size: 1.5rem; margin: 0}} p {{margin: 0}}
input, button {{font: inherit; padding: .5rem .75rem; border-radius: .4rem; border: 1px solid #888}}
button {{background: #0072b2; border-color: #0072b2; color: #fff; cursor: pointer}}
</style>
<form method="post" action="{path}">
<h1>smoe-ray</h1>
<p>Results of studies. Whoever started this dashboard has its token.</p>
<label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<input type="hidden" name="next" value="{next}">
<p role="alert">{problem}</p>
<button>Log in</button>
</form></html>"""


class LogIn:
    """Middleware: passes on only the requests of browsers that have logged in."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token
        # What the cookie has is no use anywhere else, and a new token makes it worthless.
        self._passport = hmac.new(token.encode(), b"smoe-ray dashboard", hashlib.sha256).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request, or answer it with the form."""
        if (
            scope["type"] not in ("http", "websocket")
            or scope["path"] in OPEN_PATHS
            or self._is_logged_in(HTTPConnection(scope))
        ):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(1008, "log in first")(scope, receive, send)
        else:
            await (await self._answer(Request(scope, receive)))(scope, receive, send)

    def _is_logged_in(self, asked: HTTPConnection) -> bool:
        if asked.url.path == PATH or "token" in asked.query_params:
            return False  # the form is for whoever asks for it, and a token has to leave the address bar
        return _are_equal(asked.cookies.get(_cookie(asked), ""), self._passport)

    async def _answer(self, request: Request) -> Response:
        if request.method == "POST" and request.url.path == PATH:
            return await self._log_in_by_form(request)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("log in first", 401)
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        token = request.query_params.get("token")
        if token is None:
            return _form("/" if request.url.path == PATH else asked)
        rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
        return await self._log_in(request, token, request.url.path + (f"?{urlencode(rest)}" if rest else ""))

    async def _log_in_by_form(self, request: Request) -> Response:
        content = b""
        async for chunk in request.stream():
            content += chunk
            if len(content) > _MOST_BYTES:
                return PlainTextResponse("too large", 413)
        sent = parse_qs(content.decode(errors="replace"))
        return await self._log_in(request, sent.get("token", [""])[0], sent.get("next", ["/"])[0])

    async def _log_in(self, request: Request, token: str, asked: str) -> Response:
        place = asked if _is_here(asked) else "/"
        if not _are_equal(token.strip(), self._token):
            await asyncio.sleep(_SECONDS_AFTER_A_WRONG_TOKEN)  # who tries many is in no hurry
            return _form(place, "This is not the token.")
        answer = RedirectResponse(place, 303)
        is_encrypted = request.url.scheme == "https"
        answer.set_cookie(_cookie(request), self._passport, httponly=True, samesite="lax", secure=is_encrypted)
        return answer


def _cookie(asked: HTTPConnection) -> str:
    return f"{_COOKIE}_{asked.url.port}" if asked.url.port else _COOKIE


def _are_equal(given: str, wanted: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return hmac.compare_digest(given.encode(errors="replace"), wanted.encode())


def _is_here(path: str) -> bool:
    """Whether it is a path of this server: a browser takes //host and /\\host for another one."""
    return re.fullmatch(r"/(?![/\\])[^\x00-\x20\x7f]*", path) is not None


def _form(asked: str, problem: str = "") -> Response:
    content = _PAGE.format(path=PATH, next=html.escape(asked if _is_here(asked) else "/"), problem=html.escape(problem))
    # Without a referrer, a browser would not say either that the form comes from here.
    return HTMLResponse(content, 401, {"Cache-Control": "no-store", "Referrer-Policy": "same-origin"})
