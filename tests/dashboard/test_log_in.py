"""With a token, the dashboard answers only browsers that have given it; without one, it stays on this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from smoe_ray.errors import SmoeRayError
from smoe_ray_dashboard import log_in
from smoe_ray_dashboard.log_in import LogIn
from smoe_ray_dashboard.serve import refuse_open_door

TOKEN = "correct horse battery"
HOST = "127.0.0.1:8501"


class Answer(NamedTuple):
    status: int | str
    """Or what a websocket got."""
    headers: dict[str, str]
    body: str

    @property
    def cookie(self) -> str:
        """Name and value."""
        return self.headers["set-cookie"].partition(";")[0]


def ask(
    path: str, *, kind: str = "http", method: str = "GET", cookie: str = "", form: dict[str, str] | None = None
) -> Answer:
    """What a browser gets."""
    sent: list[dict[str, Any]] = []

    async def behind(_scope: object, _receive: object, send: Any) -> None:
        if kind == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"results"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        if kind == "websocket":
            return {"type": "websocket.connect"}
        return {"type": "http.request", "body": urlencode(form or {}).encode(), "more_body": False}

    place, _, query = path.partition("?")
    scope = {
        "type": kind,
        "method": "POST" if form is not None else method,
        "scheme": "http" if kind == "http" else "ws",
        "path": place,
        "query_string": query.encode(),
        "headers": [(b"host", HOST.encode()), (b"cookie", cookie.encode())],
    }
    asyncio.run(LogIn(behind, TOKEN)(scope, receive, send))
    if kind == "websocket":
        return Answer(sent[0]["type"], {}, "")
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], headers, b"".join(message["body"] for message in sent[1:]).decode())


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_in, "_SECONDS_AFTER_A_WRONG_TOKEN", 0)


@pytest.mark.parametrize("cookie", ["", "smoe_ray_dashboard_8501=", f"smoe_ray_dashboard_8501={TOKEN}", "=;=\x00;;"])
def test_nothing_is_answered_to_who_has_not_logged_in(cookie: str) -> None:
    for path in (
        "/",
        "/trial?study=toy",
        "/static/js/index.js",
        "/_stcore/health/../stream",
        "//_stcore/health",
        "/log-in",
    ):
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"):
            answer = ask(path, method=method, cookie=cookie)
            assert answer.status == 401
            assert "results" not in answer.body.replace("Results", "")
            assert "set-cookie" not in answer.headers
    assert ask("/_stcore/stream", kind="websocket", cookie=cookie).status == "websocket.close"
    assert ask("/_stcore/health", cookie=cookie).body == "results"  # of the server behind, for probes


@pytest.mark.parametrize("token", ["wrong", "", TOKEN[:-1], TOKEN + "x", "ÿ\ud800"])
def test_a_wrong_token_is_told_and_the_link_kept(token: str) -> None:
    answer = ask("/log-in", form={"token": token.encode(errors="replace").decode(), "next": "/trial?study=a&trial=b"})
    assert answer.status == 401
    assert "This is not the token." in answer.body
    assert 'value="/trial?study=a&amp;trial=b"' in answer.body
    assert "set-cookie" not in answer.headers


def test_the_form_leads_to_what_was_asked_for_and_the_cookie_opens_everything() -> None:
    assert 'value="/trial?study=toy"' in ask("/trial?study=toy").body
    answer = ask("/log-in", form={"token": f" {TOKEN}\n", "next": "/trial?study=toy"})
    assert (answer.status, answer.headers["location"]) == (303, "/trial?study=toy")
    assert TOKEN not in answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= {*answer.headers["set-cookie"].split("; ")}
    for path in ("/", "/trial?study=toy", "/static/js/index.js"):
        assert ask(path, cookie=f"other=1; {answer.cookie}; _xsrf=2|a").body == "results"
    assert ask("/_stcore/stream", kind="websocket", cookie=answer.cookie).status == "websocket.accept"


def test_a_link_with_the_token_logs_in_and_loses_it() -> None:
    link = f"/trial?study=a%20b&{urlencode({'token': TOKEN})}&view="
    for cookie in ("", ask(link).cookie):
        answer = ask(link, cookie=cookie)
        assert (answer.status, answer.headers["location"]) == (303, "/trial?study=a+b&view=")
    assert ask("/", cookie=answer.cookie).body == "results"


@pytest.mark.parametrize(
    "place", ["//evil.example", "/\\evil.example", "https://evil.example", "", "/a\r\nSet-Cookie: b", "evil"]
)
def test_it_leads_to_no_other_server(place: str) -> None:
    assert ask("/log-in", form={"token": TOKEN, "next": place}).headers["location"] == "/"
    assert 'value="/"' in ask("/log-in", form={"token": "wrong", "next": place}).body


def test_what_a_link_contains_is_no_markup() -> None:
    body = ask('/trial?study="><script>alert(1)</script>').body
    assert "<script>" not in body
    assert ask("/log-in", form={"token": "wrong", "next": '/"><script>'}).body.count("<script>") == 0


def test_a_large_form_is_refused() -> None:
    assert ask("/log-in", form={"token": "x" * 20_000}).status == 413


def test_the_cookie_of_another_token_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = ask("/log-in", form={"token": TOKEN}).cookie
    monkeypatch.setitem(globals(), "TOKEN", "another long enough token")
    assert ask("/", cookie=cookie).status == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_this_machine_needs_no_log_in(host: str) -> None:
    refuse_open_door(host, "", auth=False, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "machine"])
def test_the_network_comes_in_only_as_somebody_wanted(host: str) -> None:
    with pytest.raises(
        SmoeRayError, match=r"whoever reaches it would see all results; add --auth .* or --insecure"
    ) as told:
        refuse_open_door(host, "", auth=False, insecure=False)
    assert f"--host {host}:" in str(told.value)
    refuse_open_door(host, "", auth=True, insecure=False)
    refuse_open_door(host, "", auth=False, insecure=True)
    refuse_open_door(host, TOKEN, auth=False, insecure=False)


def test_the_command_tells_what_is_missing(smoe_ray: Any, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out.mkdir()
    code, printed, error = smoe_ray("dashboard", out, "--host", "0.0.0.0")
    assert (code, printed) == (1, "")
    assert error.startswith("smoe-ray: --host 0.0.0.0: whoever reaches it")
    monkeypatch.setenv("SMOE_RAY_DASHBOARD_TOKEN", "short")
    code, _, error = smoe_ray("dashboard", out)
    assert code == 1
    assert error == (
        "smoe-ray: SMOE_RAY_DASHBOARD_TOKEN: 5 characters, which might be guessed; take 16 or more, e.g. from "
        "openssl rand -hex 24\n"
    )
