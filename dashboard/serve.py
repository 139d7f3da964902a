"""Replaces this process by the Streamlit server, after checks that need no Streamlit."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import socket
import sys
from pathlib import Path
from typing import NoReturn

from smoe_ray.errors import ResultsError, SmoeRayError
from smoe_ray.results import Store, list_studies

OPTIONS = {
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.toolbarMode": "viewer",
    "logger.hideWelcomeMessage": "true",
    "runner.magicEnabled": "false",
    "server.fileWatcherType": "none",
    "server.headless": "true",
    "server.maxUploadSize": "10",
    "theme.light.primaryColor": "#0072B2",
    "theme.dark.primaryColor": "#2E86C1",
    "theme.headingFontSizes": '["1.75rem","1.25rem","1.1rem"]',
    "theme.metricValueFontSize": "1.5rem",
    "theme.paddingTop": "3rem",
}
"""Options of Streamlit; they override configuration files of this machine."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(out: str, port: int, host: str, address: str | None) -> NoReturn:
    """Replace this process by Streamlit on `out`. Raises SmoeRayError without Streamlit, if `address` is no URL, if
    `out` has no studies, or if nobody can listen on the port.
    """
    if importlib.util.find_spec("streamlit") is None or importlib.util.find_spec("plotly") is None:
        raise SmoeRayError(
            "the dashboard needs the extra 'dashboard': in the repository, make dashboard, "
            "or pip install '.[dashboard]'"
        )
    if address is not None:
        refuse_address(address)
    refuse(out, may_be_absent=address is not None)
    refuse_port(host, port)
    flags = [f"--{name}={value}" for name, value in OPTIONS.items()]
    flags += [f"--server.address={host}", f"--server.port={port}"]
    if host in LOOPBACK:  # against DNS rebinding: requests with another host name are refused
        flags += [f"--server.allowedHosts={name}" for name in LOOPBACK]
    ours = [out, *(["--address", address] if address else [])]
    app = Path(__file__).parent / "script" / "server.py"
    sys.stdout.write(
        f"smoe-ray: http://{f'[{host}]' if ':' in host else host}:{port} serves {out}; press Ctrl-C to stop\n"
    )
    sys.stdout.flush()
    command = [sys.executable, "-m", __package__, "run", str(app), *flags, "--", *ours]
    os.execv(sys.executable, command)  # noqa: S606 - no shell is wanted


def refuse_address(address: str) -> None:
    """Raise SmoeRayError unless `address` can be that of a cluster's head: http or https, without user and path."""
    if not re.fullmatch(r"https?://[^\s/@]+/?", address):
        raise SmoeRayError(f"--address {address}: not the address of a cluster; it is written http://<head>:8265")


def refuse_port(host: str, port: int) -> None:
    """Raise SmoeRayError if a server cannot listen on `host` and `port`."""
    shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, kind, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as server:
            server.setsockopt(
                socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
            )  # as the server does: old connections may linger
            server.bind(where)
            server.listen()
    except PermissionError:
        raise SmoeRayError(f"{shown}: ports below 1024 are not for every user; choose another --port") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SmoeRayError(f"{shown} is taken; choose another --port") from None
        if error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
            raise SmoeRayError(f"{host}: not an address of this machine; choose another --host") from None
        raise SmoeRayError(f"{shown}: cannot be listened on ({error.strerror or error})") from None
    except UnicodeError:
        raise SmoeRayError(f"{host}: no name that a host can have; choose another --host") from None


def refuse(out: str, may_be_absent: bool = False) -> None:
    """Raise ResultsError unless `out` contains studies, or is empty, so that studies may still appear there."""
    store = Store(out)
    if store.folder is not None and not store.folder.is_dir():
        if may_be_absent and not store.folder.exists():  # the first job creates it
            return
        raise ResultsError(f"{out}: no such folder; give the one that smoe-ray run --out wrote to")
    folders = store.folders()
    if "trials" in folders:
        raise ResultsError(f"{out}: is a study itself; give the folder that contains it")
    if store.folder is not None and any(store.folder.iterdir()) and not list_studies(out):
        raise ResultsError(f"{out}: no study there; give the folder that smoe-ray run --out wrote to")
