"""The Ray instance that a study runs on: an existing cluster, or a private one on this machine."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from smoe_ray.cluster.scratch import Scratch, scratch
from smoe_ray.errors import ClusterError


class Connection:
    """This process's connection to Ray.

    Args:
        scratch: temporary folder of this run.
        is_private: Ray runs for this process alone, below `scratch`.
    """

    def __init__(self, scratch: Scratch, is_private: bool) -> None:
        from ray._private import worker

        self.scratch = scratch
        self.is_private = is_private
        self._node = worker._global_node
        self._patience_s = 0.0 if is_private else _HEAD_AWAY_S
        self._head_away_since: float | None = None

    def keep_logs(self) -> str:
        """Keep the log files of a private Ray, which are deleted when it ends; return where they are, in words."""
        if not self.is_private:
            return "Ray's logs on its node"
        self.scratch.keep()
        return f"logs in {_ray_folder(self.scratch)}/session_latest/logs"

    def refuse_lost(self, patience_s: float | None = None) -> None:
        """Raise ClusterError if Ray has ended, of which Ray itself would tell nothing for a minute.

        A connection that is refused is the sign. A process of Ray's that is merely busy accepts it: the kernel does.

        Args:
            patience_s: how long the head may be away, seconds. Default: not at all if Ray is private; another one may
                be restarted.
        """
        if self._node is None:
            return
        if not _accepts(self._node.raylet_socket_name):
            raise ClusterError(f"Ray on this machine has ended (its raylet is gone); {_GOES_ON}")
        head = self._node.gcs_address
        if _accepts(head):
            self._head_away_since = None
            return
        now = time.monotonic()
        self._head_away_since = self._head_away_since or now
        if now - self._head_away_since >= (self._patience_s if patience_s is None else patience_s):
            raise ClusterError(f"Ray's head at {head} has ended (its GCS is gone); {_GOES_ON}")

    @property
    def is_lost(self) -> bool:
        """Whether Ray, or its head, is not there at this moment."""
        try:
            self.refuse_lost(patience_s=0)
        except ClusterError:
            return True
        return False


_HEAD_AWAY_S = 10.0
"""How long the head of a cluster may refuse connections before its study ends, seconds."""

_GOES_ON = "what was trained is kept: run the same command again to go on"


def _accepts(address: str) -> bool:
    """Whether a server accepts connections at ``host:port``, or at the path of a socket."""
    try:
        if address.startswith("/"):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_ANSWER_S)
                connection.connect(address)
        else:
            host, _, port = address.rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S):
                pass
    except OSError:
        return False
    return True


@contextmanager
def connected(address: str | None, num_cpus: int, dashboard: bool = False) -> Iterator[Connection]:
    """Context in which this process is connected to Ray.

    If the process is connected already, that connection is used. Otherwise it connects to `address` (``auto``,
    ``<host>:6379``), by default RAY_ADDRESS, which Ray sets for its jobs. Without an address, a private Ray with
    `num_cpus` CPUs is started on this machine; it accepts only this process and ends with the context, or with this
    process, however that ends.

    Raises:
        ClusterError: no Ray answers at the address, or none can be started.
    """
    import ray

    refuse_unreachable(address)
    said = _said(address)
    address = address or os.environ.get("RAY_ADDRESS")
    with scratch() as folder:
        if ray.is_initialized():
            connection = Connection(folder, is_private=False)
            connection.refuse_lost(patience_s=0)
            yield connection
        elif address:
            try:
                with _our_signals():
                    ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
            except Exception as error:  # Ray raises ConnectionError, RuntimeError, AuthenticationError …
                raise ClusterError(f"{said}: no Ray answers there ({_first_line(error)}){_way_out(said)}") from error
            connection = Connection(folder, is_private=False)
            try:
                with _silenced():
                    yield connection
            finally:
                _disconnect(connection)
        else:
            with _private_ray(folder, num_cpus, dashboard) as connection, _silenced():
                yield connection


def _disconnect(connection: Connection) -> None:
    import ray

    if not connection.is_lost:  # else Ray would wait for what is gone, then print its log and end this process
        ray.shutdown()


@contextmanager
def _our_signals() -> Iterator[None]:
    """Around `ray.init`, which replaces a handler of SIGTERM by its own, and that by one that prints a stack of C++.

    SIGHUP, which a closed terminal sends to all, is kept from the processes of a private Ray: this one ends them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        if callable(handler):
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


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
def _private_ray(folder: Scratch, num_cpus: int, dashboard: bool) -> Iterator[Connection]:
    import ray

    with environment({"RAY_USAGE_STATS_ENABLED": "0"}), _private_token():
        try:
            with _our_signals():
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=dashboard,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    _temp_dir=str(_ray_folder(folder)),
                )
        except Exception as error:
            raise ClusterError(
                f"Ray cannot be started on this machine ({_first_line(error)}); if it is busy, try again later, or "
                "train without Ray: --executor local"
            ) from error
        connection = Connection(folder, is_private=True)
        try:
            folder.end_with_us(_processes())
            yield connection
        finally:
            _disconnect(connection)


def _ray_folder(folder: Scratch) -> Path:
    """Ray opens its folder to all users: it is inside one that is closed to them."""
    return folder.folder / "r"


def _processes() -> Iterator[int]:
    """Ids of the processes of a private Ray; those that train end with them."""
    import psutil  # type: ignore[import-untyped]  # one of Ray's
    from ray._private import worker

    node: Any = worker._global_node
    for started in chain.from_iterable(node.all_processes.values()):
        yield started.process.pid
        with suppress(psutil.Error):  # the agents: they would look for their raylet for a minute
            yield from (child.pid for child in psutil.Process(started.process.pid).children())


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
