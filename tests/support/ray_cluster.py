"""A real Ray head of the test's own: processes on loopback with token authentication, ended by their ids."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests

BIN = Path(sys.executable).parent
START_S = 180.0


@dataclass(frozen=True)
class Head:
    """A head that runs: where it is, and what lets one in."""

    address: str
    token: str
    folder: Path


def clean_environment(**added: str) -> dict[str, str]:
    """This process's environment without what Ray reads from it."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return plain | {"PATH": f"{BIN}:{plain['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"} | added


@contextmanager
def ray_head(num_cpus: int = 2, **environment: str) -> Iterator[Head]:
    """Start a head on free ports and end it, with all that it started."""
    token = secrets.token_hex(16)
    names = (
        "port", "dashboard-port", "ray-client-server-port", "metrics-export-port", "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port", "runtime-env-agent-port", "node-manager-port", "object-manager-port",
    )  # fmt: skip
    with ExitStack() as stack:
        # Ray's sockets must have short paths: no folder of pytest's.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)))
        ports = dict(zip(names, _free_ports(len(names)), strict=True))
        command = [
            BIN / "ray", "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1",
            f"--num-cpus={num_cpus}", f"--temp-dir={folder}", "--object-store-memory=200000000",
            *(f"--{name}={port}" for name, port in ports.items()),
        ]  # fmt: skip
        address = f"http://127.0.0.1:{ports['dashboard-port']}"
        log = stack.enter_context((folder / "start.log").open("w"))
        process = subprocess.Popen(
            command,
            env=clean_environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token, **environment),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        stack.callback(_end, process)
        _wait_for(process, address, token, folder / "start.log")
        yield Head(address, token, folder)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_for(process: subprocess.Popen[bytes], address: str, token: str, log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with suppress(requests.RequestException):
            headers = {"Authorization": f"Bearer {token}"}
            if requests.get(f"{address}/api/jobs/", headers=headers, timeout=10).ok:
                return
        time.sleep(0.5)
    raise AssertionError(f"no head after {START_S:g} s: {log.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """`ray start --block` ends what it started, and workers end with their raylet."""
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
