"""An address at which no Ray answers is named within seconds, before anything is written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from smoe_ray.cluster import runtime
from smoe_ray.errors import ClusterError
from support.raw_server import raw_server

STUDY = """
name: tiny
question: q
base:
  data: {source: synthetic, classes: [eye, pencil], train_per_class: 20, test_per_class: 5}
  model: {num_experts: 2, encoder: lite}
  training: {budget: 1 epochs, batch_size: 16}
"""


@pytest.fixture(autouse=True)
def _no_ray_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("127.0.0.1:1", "no Ray answers there (Connection refused)"),
        ("[::1]:1", "no Ray answers there ("),
        ("no-such-host.invalid:6379", "no Ray answers there ("),
        ("head", "not the address of a Ray; write <host>:6379 or auto"),
        ("head:ray", "not the address of a Ray; write <host>:6379 or auto"),
        ("127.0.0.1:99999", "not the address of a Ray; write <host>:6379 or auto"),
        ("http://head:8265", "use `smoe-ray submit` for this address"),
        ("ray://head:10001", "not a Ray to run on"),
    ],
)
@pytest.mark.parametrize("source", ["option", "environment"])
def test_a_wrong_address_is_named_with_its_source(
    monkeypatch: pytest.MonkeyPatch, address: str, problem: str, source: str
) -> None:
    if source == "environment":
        monkeypatch.setenv("RAY_ADDRESS", address)
    started = time.monotonic()
    with pytest.raises(ClusterError) as caught:
        runtime.refuse_unreachable(address if source == "option" else None)
    assert time.monotonic() - started < 10
    named = address if source == "option" else f"{address} (RAY_ADDRESS)"
    assert str(caught.value).startswith(f"{named}: {problem}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\0\0"])
def test_a_server_that_is_no_ray_is_told_apart(answer: bytes) -> None:
    with (
        raw_server(lambda send: send(answer)) as port,
        pytest.raises(ClusterError, match=f"127.0.0.1:{port}: what answers there is no Ray"),
    ):
        runtime.refuse_unreachable(f"127.0.0.1:{port}")


def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    started = time.monotonic()
    over = threading.Event()

    def says_nothing(_send: Callable[[bytes], None]) -> None:
        over.wait()

    with (
        raw_server(says_nothing) as port,
        pytest.raises(ClusterError, match="no Ray answers there \\(timed out\\)"),
    ):
        runtime.refuse_unreachable(f"127.0.0.1:{port}")
    over.set()
    assert time.monotonic() - started < 10


def test_a_real_ray_is_known(private_ray: None) -> None:
    import ray

    host, _, port = ray.get_runtime_context().gcs_address.rpartition(":")
    with socket.create_connection((host, int(port)), 5) as connection:
        assert runtime._speaks_grpc(connection)
    runtime.refuse_unreachable("127.0.0.1:1")  # this process is connected: nothing is asked


@pytest.mark.parametrize(
    ("address", "named"),
    [("127.0.0.1:1", "127.0.0.1:1 (RAY_ADDRESS)"), ("http://127.0.0.1:8265", "http://127.0.0.1:8265 (RAY_ADDRESS)")],
)
def test_a_run_with_a_stale_address_writes_nothing(tmp_path: Path, address: str, named: str) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(STUDY)
    ended = subprocess.run(
        [sys.executable, "-m", "smoe_ray.cli", "run", str(study), "--out", str(tmp_path / "out")],
        env={**os.environ, "RAY_ADDRESS": address}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"smoe-ray: {named}: ")
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.endswith("unset RAY_ADDRESS to use this machine\n") or "smoe-ray submit" in ended.stderr
    assert not (tmp_path / "out").exists()
