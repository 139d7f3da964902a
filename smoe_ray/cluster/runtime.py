"""The Ray instance that a study runs on: an existing cluster, or a private one on this machine."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from smoe_ray.errors import ClusterError


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

    _refuse_other_protocols(address)
    address = address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        yield Logs()
    elif address:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
        except Exception as error:  # Ray raises ConnectionError, RuntimeError, AuthenticationError …
            raise ClusterError(f"{address}: no Ray answers there ({_first_line(error)})") from error
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

    # Ray's sockets are below this folder, and a socket's path is limited to about 100 characters.
    folder = Path(tempfile.mkdtemp(prefix=f"smoe-{os.getpid()}-", dir="/tmp" if Path("/tmp").is_dir() else None))  # noqa: S108
    logs = Logs(folder)
    try:
        with environment({"RAY_USAGE_STATS_ENABLED": "0"}), _private_token():
            try:
                ray.init(
                    address="local",
                    num_cpus=num_cpus,
                    include_dashboard=dashboard,
                    log_to_driver=False,
                    logging_level=logging.CRITICAL,
                    _temp_dir=str(folder),
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


def _refuse_other_protocols(address: str | None) -> None:
    if address is None:
        return
    if address.startswith(("http://", "https://")):
        raise ClusterError(f"{address}: use `smoe-ray submit` for this address; run takes auto or <host>:6379")
    if "://" in address:
        raise ClusterError(f"{address}: not a Ray to run on; give auto or <host>:6379, or use `smoe-ray submit`")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
