"""A dashboard that cannot listen says so in one line, and nothing before it; it answers no pages but its own."""

from __future__ import annotations

import asyncio
import os
import runpy
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smoe_ray.errors import SmoeRayError
from smoe_ray_dashboard import serve
from smoe_ray_dashboard.own_origin import OwnOrigin
from smoe_ray_dashboard.serve import refuse_port
from support.planted_folder import plant


@pytest.fixture
def results(out: Path) -> Path:
    plant(out, "demo", seeds=1, embeddings=False)
    return out


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("::1", "[::1]")])
def test_a_port_in_use_is_told_first(smoe_ray, results: Path, host: str, shown: str) -> None:
    try:
        taken = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError:
        pytest.skip(f"this machine has no {host}")
    with taken:
        port = taken.getsockname()[1]
        code, printed, error = smoe_ray("dashboard", results, "--host", host, "--port", port)
    assert (code, printed) == (1, "")
    assert error == f"smoe-ray: {shown}:{port} is taken; choose another --port\n"


@pytest.mark.parametrize("host", ["10.255.255.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_told_first(smoe_ray, results: Path, host: str) -> None:
    code, printed, error = smoe_ray("dashboard", results, "--host", host, "--port", 18602)
    assert (code, printed) == (1, "")
    assert error == f"smoe-ray: {host}: not an address of this machine; choose another --host\n"


@pytest.mark.parametrize("address", ["foo", "head:8265", "ray://head:10001", "http://", "http://user:word@head:8265"])
def test_an_address_that_is_no_url_of_a_cluster_is_told_first(smoe_ray, results: Path, address: str) -> None:
    code, printed, error = smoe_ray("dashboard", results, "--address", address)
    assert (code, printed) == (1, "")
    assert error == (f"smoe-ray: --address {address}: not the address of a cluster; it is written http://<head>:8265\n")


def test_without_the_extra_both_ways_to_get_it_are_told(
    smoe_ray, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    code, printed, error = smoe_ray("dashboard", results)
    assert (code, printed) == (1, "")
    assert error.endswith("in the repository, make dashboard, or pip install '.[dashboard]'\n")


def test_a_port_of_the_system_is_told_first() -> None:
    user = os.geteuid()
    if user == 0:  # root may listen on any port, so nobody asks
        os.seteuid(65534)
    try:
        with pytest.raises(SmoeRayError, match=r"ports below 1024|is taken"):
            refuse_port("127.0.0.1", 80)
    finally:
        os.seteuid(user)


def _answers(origin: str | None, kind: str) -> list[dict[str, Any]]:
    """Messages that a server gets for a request to 127.0.0.1:8501."""
    sent: list[dict[str, Any]] = []

    async def behind(_scope: object, _receive: object, send: Callable[..., Any]) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": []}
            if kind == "http"
            else {"type": "websocket.accept"}
        )

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": f"{kind}.connect"}

    headers = [(b"host", b"127.0.0.1:8501"), *([(b"origin", origin.encode())] if origin is not None else [])]
    asyncio.run(OwnOrigin(behind)({"type": kind, "headers": headers}, receive, send))
    return sent


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:8501", "https://127.0.0.1:8501"])
def test_its_own_pages_are_answered_and_not_to_be_framed(origin: str | None) -> None:
    [answer] = _answers(origin, "http")
    headers = dict(answer["headers"])
    assert answer["status"] == 200
    assert headers[b"x-frame-options"] == b"DENY"
    assert b"frame-ancestors 'none'" in headers[b"content-security-policy"]
    assert _answers(origin, "websocket") == [{"type": "websocket.accept"}]


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:9999", "http://localhost:8501", "http://evil.example", "null", ""]
)
def test_pages_of_other_hosts_and_ports_are_refused(origin: str) -> None:
    assert _answers(origin, "http")[0]["status"] == 403
    assert [message["type"] for message in _answers(origin, "websocket")] == ["websocket.close"]


def test_the_server_is_behind_it() -> None:
    namespace = runpy.run_path(str(Path(serve.__file__).parent / "script" / "server.py"))
    assert [each.cls for each in namespace["app"]._user_middleware] == [OwnOrigin]
