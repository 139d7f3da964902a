"""A dashboard that cannot listen says so in one line, and nothing before it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from smoe_ray.errors import SmoeRayError
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
