"""HTTP answers with limits in bytes and seconds, enforced while they arrive, for every client that is built on urllib3.

A timeout of a client is that of one read: a server that sends a byte a second never meets it. Here the clock of a whole
answer, headers included, runs from the request, and each byte that arrives buys a little more time.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import Any, NamedTuple

import requests
import requests.adapters
import urllib3


class Limits(NamedTuple):
    """What an answer may take."""

    most_bytes: int
    """Status line, headers and body."""
    seconds: float
    """Until it is complete ..."""
    bytes_per_second: float
    """... and one more for each so many bytes that have arrived."""


ANSWER = Limits(most_bytes=2**25, seconds=60, bytes_per_second=100_000)
"""Answers of an API, which are held in memory."""
FILE = Limits(most_bytes=2**34, seconds=60, bytes_per_second=1_000)
"""Downloaded files, which are written piece by piece."""


class RefusedAnswerError(OSError):
    """An answer is larger than it may be, or compressed though nobody asked for that; `strerror` says which."""

    def __init__(self, problem: str) -> None:
        super().__init__(None, problem)


def _too_large(limits: Limits) -> RefusedAnswerError:
    return RefusedAnswerError(f"its answer is larger than {limits.most_bytes:,} bytes")


def refusal(error: BaseException | None) -> str | None:
    """Why the answer was refused that made a client raise `error`; None if it failed for another reason."""
    while error is not None and not isinstance(error, RefusedAnswerError):
        error = error.__context__ or error.__cause__
    return error.strerror if error is not None else None


class _BoundedStream(io.RawIOBase):
    """What arrives on a socket, as long as it keeps within the limits."""

    def __init__(self, stream: io.RawIOBase, sock: Any, limits: Limits) -> None:
        self._stream, self._sock, self._limits = stream, sock, limits
        self._timeout_s = sock.gettimeout()
        self._start, self._received = time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        allowed_s = self._limits.seconds + self._received / self._limits.bytes_per_second
        left_s = self._start + allowed_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError(f"only {self._received:,} bytes arrived in {allowed_s:.0f} s")
        self._sock.settimeout(left_s if self._timeout_s is None else min(left_s, self._timeout_s))
        number = self._stream.readinto(buffer)
        self._received += number or 0
        if self._received > self._limits.most_bytes:
            raise _too_large(self._limits)
        return number

    def close(self) -> None:
        self._stream.close()
        super().close()


def _bounded_response(limits: Limits) -> type[http.client.HTTPResponse]:
    class BoundedResponse(http.client.HTTPResponse):
        def __init__(self, sock: Any, *arguments: Any, **options: Any) -> None:
            super().__init__(sock, *arguments, **options)
            self.fp: Any = io.BufferedReader(_BoundedStream(self.fp.detach(), sock, limits))

        def begin(self) -> None:
            super().begin()
            self._refuse_larger(self.length or 0)
            encoding = self.headers.get("Content-Encoding", "identity")
            if encoding.lower() != "identity":  # its size unpacked would be known too late
                raise RefusedAnswerError("its answer is compressed, which was not asked for")

        def _safe_read(self, amt: int) -> bytes:  # a whole body, or a chunk: memory for it would be asked for at once
            self._refuse_larger(amt)
            return super()._safe_read(amt)  # type: ignore[misc, no-any-return]

        def _refuse_larger(self, size: int) -> None:
            if size > limits.most_bytes:
                raise _too_large(limits)

    return BoundedResponse


def bound(manager: urllib3.PoolManager, limits: Limits = ANSWER) -> None:
    """Make all connections of a `PoolManager`, which has none yet, keep to `limits`.

    Requests then fail with `urllib3.exceptions.HTTPError`, as they do for a broken connection or a timeout.
    """
    response = _bounded_response(limits)

    def bounded(pool: Any) -> Any:
        connection = type(pool.ConnectionCls.__name__, (pool.ConnectionCls,), {"response_class": response})
        return type(pool.__name__, (pool,), {"ConnectionCls": connection})

    pools = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: bounded(pool) for scheme, pool in pools.items()}


class _BoundedAdapter(requests.adapters.HTTPAdapter):
    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        bound(self.poolmanager, self._limits)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        if proxy not in self.proxy_manager:
            bound(super().proxy_manager_for(proxy, **options), self._limits)
        return super().proxy_manager_for(proxy, **options)


def bounded_session(limits: Limits = ANSWER) -> requests.Session:
    """A `requests.Session` whose answers keep to `limits`. It raises `requests.RequestException`."""
    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"
    session.max_redirects = 3
    for scheme in ("http://", "https://"):
        session.mount(scheme, _BoundedAdapter(limits))
    return session
