"""The Ray instance that a study runs on: an existing cluster, or a private one on this machine."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from smoe_ray.errors import ClusterError
from smoe_ray.temporary import private_folder


class Logs:
    """Log files of a private Ray, which are deleted when it ends, unless they are kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self.are_kept = False

    def keep(self) -> str:
        """Keep the log files; return where they are, in words."""
        self.are_kept = True
        return f"logs in {self._folder}/session_latest/logs" if self._folder else "Ray's logs on its node"


@contextmanager
def connected(address: str | None, num_cpus: int, dashboard: bool = False) -> Iterator[Logs]:
    """Context in which this process is connected to Ray.

    If the process is connected already, that connection is used. Otherwise it connects to `address` (``auto``,
    ``<host>:6379``), by default RAY_ADDRESS, which Ray sets for its jobs. Without an address, a private Ray with
    `num_cpus` CPUs is started on this machine; it accepts only this process and ends with the context.

    Raises:
        ClusterError: no Ray answers at the address, or none can be started.
    """
    import ray

    refuse_unreachable(address)
    said = _said(address)
    address = address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        yield Logs()
    elif address:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, AuthenticationError …
            raise ClusterError(f"{said}: no Ray answers there ({_first_line(error)}){_way_out(said)}") from error
        try:
            with _silenced():
                yield Logs()
        finally:
            ray.shutdown()
    else:
        with _private_ray(num_cpus, dashboard) as logs, _silenced():
            yield logs


@contextmanager
def _silenced() -> Iterator[None]:
    """Silence what Ray prints on the driver about dead processes and nodes: the user gets a one-line notice instead."""
    from ray._private import worker

    printing = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_data, **_how: None
    try:
        yield
    finally:
        worker.print_to_stdstream = printing


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Context in which these environment variables are set."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _private_ray(num_cpus: int, dashboard: bool) -> Iterator[Logs]:
    import ray

    folder = private_folder(f"smoe-{os.getpid()}-", _MOST_CHARACTERS)
    logs = Logs(folder / _RAY)
    try:
        with environment({"RAY_USAGE_STATS_ENABLED": "0"}), _private_token():
            try:
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=dashboard,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    _temp_dir=str(folder / _RAY),
                )
            except Exception as error:
                raise ClusterError(f"Ray cannot be started on this machine ({_first_line(error)})") from error
            try:
                yield logs
            finally:
                ray.shutdown()
    finally:
        if not logs.are_kept:
            shutil.rmtree(folder, ignore_errors=True)


_RAY = "r"
"""Ray's folder inside a private one: Ray opens its own to everybody (mode 777)."""

_MOST_CHARACTERS = 107 - len("/smoe-1234567-abcdefgh/r/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
"""Before what is below it in the path of a socket, which may have 107 (sun_path of unix(7))."""


@contextmanager
def _private_token() -> Iterator[None]:
    """Require a random token that is stored nowhere: Ray listens on all interfaces, whatever its settings."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled

    def forget() -> None:  # Ray reads these variables once per process
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()

    try:
        with environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}):
            forget()
            yield
    finally:
        forget()


def leave(code: int) -> NoReturn:
    """End this process at once, after flushing its output.

    Ray 2.60 leaves native threads in a process that used it (after `ray.put` also the event loop of its worker), and
    the destructors that run at a normal exit can crash while they run: a finished study would look killed.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader is gone, or it is closed
            stream.flush()
    os._exit(code)


def refuse_unreachable(address: str | None) -> None:
    """Raise ClusterError within seconds if no Ray answers at `address`, by default RAY_ADDRESS; Ray waits for minutes.

    Does nothing without an address, or where this process is connected already.
    """
    ray = sys.modules.get("ray")
    said = _said(address)
    if address:
        _refuse_other_protocols(address, said)
    address = address or os.environ.get("RAY_ADDRESS")
    if not address or address == "local" or (ray is not None and ray.is_initialized()):
        return
    _refuse_other_protocols(address, said)
    if address == "auto":
        address = _running_here(said)
        said = f"{address} ({said})"
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ClusterError(f"{said}: not the address of a Ray; write <host>:6379 or auto{_way_out(said)}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S) as connection:
            connection.settimeout(_ANSWER_S)
            if os.environ.get("RAY_USE_TLS", "0") == "0" and not _speaks_grpc(connection):
                raise ClusterError(f"{said}: what answers there is no Ray{_way_out(said)}")
    except UnicodeError:
        raise ClusterError(f"{said}: no name that a host can have{_way_out(said)}") from None
    except OSError as error:
        reason = "timed out" if isinstance(error, TimeoutError) else error.strerror or str(error)
        raise ClusterError(f"{said}: no Ray answers there ({reason}){_way_out(said)}") from None


_ANSWER_S = 3.0
"""Timeout to connect to a Ray and to be answered by it, seconds."""

_HTTP2_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client of HTTP/2, and so of gRPC, sends first: the preface and empty SETTINGS (RFC 9113, section 3.4)."""

_SETTINGS = 4


def _speaks_grpc(connection: socket.socket) -> bool:
    """Whether the server answers as one of HTTP/2 does: with a frame of SETTINGS."""
    connection.sendall(_HTTP2_HELLO)
    frame = b""
    while len(frame) < 4:
        piece = connection.recv(4 - len(frame))
        if not piece:
            return False
        frame += piece
    return frame[3] == _SETTINGS


def _running_here(said: str) -> str:
    """Address of the Ray that ``auto`` means."""
    from ray._private import services

    try:
        found = services.canonicalize_bootstrap_address("auto")
    except Exception as error:  # Ray raises ConnectionError, ValueError, ...
        raise ClusterError(f"{said}: no Ray answers there ({_first_line(error)}){_way_out(said)}") from None
    if found is None:
        raise ClusterError(f"{said}: no Ray runs on this machine{_way_out(said)}")
    return found


def _said(address: str | None) -> str:
    """The address as messages name it, with where it comes from."""
    from_environment = os.environ.get("RAY_ADDRESS") if address is None or address == "auto" else None
    return f"{from_environment} (RAY_ADDRESS)" if from_environment else str(address)


def _way_out(said: str) -> str:
    return "; unset RAY_ADDRESS to use this machine" if "RAY_ADDRESS" in said else ""


def _refuse_other_protocols(address: str, said: str) -> None:
    if address.startswith(("http://", "https://")):
        raise ClusterError(f"{said}: use `smoe-ray submit` for this address; run takes auto or <host>:6379")
    if "://" in address:
        raise ClusterError(f"{said}: not a Ray to run on; give auto or <host>:6379, or use `smoe-ray submit`")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
