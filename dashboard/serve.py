"""Replaces this process by the Streamlit server, after checks that need no Streamlit."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import os
import re
import secrets
import socket
import sys
from pathlib import Path
from typing import NoReturn

from smoe_ray.errors import ResultsError, SmoeRayError
from smoe_ray.results import Store, list_studies
from smoe_ray.results.annotations import refuse_annotating

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
    "theme.dark.primaryColor": "#2678B2",
    "theme.light.textColor": "#16181D",
    "theme.headingFontSizes": '["1.75rem","1.25rem","1.1rem"]',
    "theme.metricValueFontSize": "1.5rem",
    "theme.paddingTop": "1.5rem",
}
"""Options of Streamlit; they override configuration files of this machine.

Colours: white on the primary one, and captions (the text's colour at 60 %) have a contrast of 4.5 or more (WCAG AA).
"""

LOOPBACK = ("127.0.0.1", "localhost", "::1")

LOG_IN = "SMOE_RAY_DASHBOARD_TOKEN"
"""Variable of the environment: where it is set, whoever opens the dashboard has to know what it contains."""

_LEAST_CHARACTERS = 16
"""Of a token: fewer might be guessed."""


def serve(
    out: str,
    port: int,
    host: str,
    address: str | None,
    *,
    auth: bool = False,
    insecure: bool = False,
    annotate: bool = False,
) -> NoReturn:
    """Replace this process by Streamlit on `out`.

    Args:
        out: folder or URI with studies.
        port: to listen on.
        host: address to listen on.
        address: of a Ray cluster, whose Submit page is then there.
        auth: require a log-in, by the token in the environment (`LOG_IN`) or by a new one, which is printed.
        insecure: let the network in without a log-in.
        annotate: let readers note tags, stars and words beside the results.

    Raises:
        SmoeRayError: no Streamlit; `address` is no URL; `out` has no studies; nobody can listen on the port; the
            network could come in without a log-in; the token is too short; `out` cannot be annotated.
    """
    if importlib.util.find_spec("streamlit") is None or importlib.util.find_spec("plotly") is None:
        raise SmoeRayError(
            "the dashboard needs the extra 'dashboard': in the repository, make dashboard, "
            "or pip install '.[dashboard]'"
        )
    if address is not None:
        refuse_address(address)
    refuse(out, may_be_absent=address is not None)
    if annotate:
        refuse_annotating(Store(out))
    refuse_port(host, port)
    token = os.environ.get(LOG_IN, "").strip()
    refuse_open_door(host, token, auth=auth, insecure=insecure)
    flags = [f"--{name}={value}" for name, value in OPTIONS.items()]
    flags += [f"--server.address={host}", f"--server.port={port}"]
    if host in LOOPBACK:  # against DNS rebinding: requests with another host name are refused
        flags += [f"--server.allowedHosts={name}" for name in LOOPBACK]
    ours = [out, *(["--address", address] if address else []), *(["--annotate"] if annotate else [])]
    app = Path(__file__).parent / "script" / "server.py"
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if auth and not token:
        token = secrets.token_urlsafe(24)
        url += f"/?token={token}"
    sys.stdout.write(f"smoe-ray: {url} serves {out}; press Ctrl-C to stop\n")
    sys.stdout.flush()
    command = [sys.executable, "-m", __package__, "run", str(app), *flags, "--", *ours]
    os.execve(sys.executable, command, os.environ | {LOG_IN: token})  # noqa: S606 - no shell is wanted


def refuse_open_door(host: str, token: str, *, auth: bool, insecure: bool) -> None:
    """Raise SmoeRayError if the network could come in without a log-in that nobody wanted, or by a short token."""
    if token and len(token) < _LEAST_CHARACTERS:
        raise SmoeRayError(
            f"{LOG_IN}: {len(token)} characters, which might be guessed; take {_LEAST_CHARACTERS} or "
            "more, e.g. from openssl rand -hex 24"
        )
    if not (token or auth or insecure or is_loopback(host)):
        raise SmoeRayError(
            f"--host {host}: whoever reaches it would see all results; add --auth for a log-in, or --insecure if "
            "something before it lets only the right people in"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return host in LOOPBACK or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


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
