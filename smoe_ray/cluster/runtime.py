"""The Ray that a study runs on: one that is there, or one of our own on this machine that ends with the study."""

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
    """Where a Ray of our own leaves what its processes say: gone with it, unless they are kept."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self.are_kept = False

    def keep(self) -> str:
        """Keep them, and say where they are."""
        self.are_kept = True
        return f"logs in {self._folder}/session_latest/logs" if self._folder else "Ray's logs on its node"


@contextmanager
def connected(address: str | None, num_cpus: int, dashboard: bool = False) -> Iterator[Logs]:
    """A Ray to work with, inside.

    In a process that has one already, that one. Else the one at `address` (``auto``, ``<host>:6379``), by default at
    RAY_ADDRESS, which Ray sets for its jobs. Else a new one with `num_cpus` CPUs on this machine, which answers this
    process alone and is gone afterwards.

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
            with _hushed():
                yield Logs()
        finally:
            ray.shutdown()
    else:
        with _own(num_cpus, dashboard) as logs, _hushed():
            yield logs


@contextmanager
def _hushed() -> Iterator[None]:
    """Ray prints on its driver's output what befell a process or a node; the user hears it from us, in one line."""
    from ray._private import worker

    printing = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_data, **_how: None
    try:
        yield
    finally:
        worker.print_to_stdstream = printing


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Environment variables that hold inside."""
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
def _own(num_cpus: int, dashboard: bool) -> Iterator[Logs]:
    import ray

    # Ray's sockets lie below, and a socket's path holds some 100 characters only.
    folder = Path(tempfile.mkdtemp(prefix=f"smoe-{os.getpid()}-", dir="/tmp" if Path("/tmp").is_dir() else None))  # noqa: S108
    logs = Logs(folder)
    try:
        with environment({"RAY_USAGE_STATS_ENABLED": "0"}), _token_of_our_own():
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
def _token_of_our_own() -> Iterator[None]:
    """Ray listens on all interfaces, whatever it is told: who has not this token, which is in no file, is refused."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled

    def forget() -> None:  # Ray keeps for a whole process what it read of these variables
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()

    try:
        with environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}):
            forget()
            yield
    finally:
        forget()


def leave(code: int) -> NoReturn:
    """End this process at once; what it printed is out.

    Ray 2.60 leaves native threads in a process that used it (after `ray.put` the event loop of its worker, too), and
    the destructors that run at an ordinary exit can crash under them: a study that is done would look killed.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader has gone, or it is closed
            stream.flush()
    os._exit(code)


def _refuse_other_protocols(address: str | None) -> None:
    if address is None:
        return
    if address.startswith(("http://", "https://")):
        raise ClusterError(f"{address}: studies get there by `smoe-ray submit`; run takes auto or <host>:6379")
    if "://" in address:
        raise ClusterError(f"{address}: not a Ray to run on; give auto or <host>:6379, or use `smoe-ray submit`")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
