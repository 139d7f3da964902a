"""Ray's client of its Jobs API, restricted to one address and one token, with errors of one line."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import ray
import requests
import urllib3
from ray._private.authentication.http_token_authentication import format_authentication_http_error
from ray.job_submission import JobDetails, JobSubmissionClient

from smoe_ray.bounded_answers import bounded_session
from smoe_ray.bounded_read import read_bounded
from smoe_ray.errors import ClusterError

TIMEOUTS_S = (10.0, 60.0)
"""Timeouts to connect to the head and to read its answer, seconds; Ray's own client has none."""

_MOST_BYTES_OF_TOKEN = 65_536

_ADDRESS = re.compile(r"https?://[^\s/@]+/?")
_OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")

for _name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env"):
    logging.getLogger(_name).setLevel(logging.WARNING)  # the user need not know what is uploaded


class JobClient(JobSubmissionClient):
    """Talks to the head of a cluster.

    Args:
        address: ``http://<head>:8265``; overrides RAY_ADDRESS and RAY_API_SERVER_ADDRESS, which Ray would prefer.

    Raises:
        ClusterError: from every method: no such address, no Ray there, another version of it, a missing or wrong
            token, or a request that the head refuses.
    """

    def __init__(self, address: str) -> None:
        if not _ADDRESS.fullmatch(address):  # others would make Ray import a module or start a Ray client
            raise ClusterError(f"{address}: not the address of a cluster; it is written http://<head>:8265")
        with _without(_OVERRIDES):
            super().__init__(address, headers=_token_header())
        # aiohttp: verify certificates. Ray leaves None here, which aiohttp has deprecated.
        self._ssl_context = True  # type: ignore[assignment]

    def tail(self, job_id: str) -> Iterator[str]:
        """Pieces of a job's log, from its beginning, as they come; ends with the job."""
        received: queue.SimpleQueue[str | Exception | None] = queue.SimpleQueue()
        cancel: list[Callable[[], object]] = []

        async def listen() -> None:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            cancel.append(lambda: loop.call_soon_threadsafe(task.cancel))
            try:
                async for piece in self.tail_job_logs(job_id):
                    received.put(piece)
            except Exception as error:
                received.put(error)

        def run() -> None:
            try:
                with suppress(asyncio.CancelledError):
                    asyncio.run(listen())
            finally:
                received.put(None)

        # In its own thread, since a thread that already runs an event loop (a notebook) cannot start a second one.
        thread = threading.Thread(target=run, name="job-logs", daemon=True)
        thread.start()
        try:
            while piece := received.get():
                if isinstance(piece, aiohttp.ClientError | RuntimeError):
                    raise self._unreachable(piece) from piece
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            for end in cancel:
                with suppress(RuntimeError):  # it has ended by itself
                    end()
            thread.join(timeout=5)

    def list_jobs(self) -> list[JobDetails]:
        """The jobs of the cluster."""
        with understood(self._address):
            return list(super().list_jobs())

    def get_job_info(self, job_id: str) -> JobDetails:
        """One job."""
        with understood(self._address):
            return super().get_job_info(job_id)

    def get_job_logs(self, job_id: str) -> str:
        """A job's log so far."""
        with understood(self._address):
            return str(super().get_job_logs(job_id))

    # All requests of Ray's client go through the following three methods.

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        json_data = options.pop("json_data", None)  # otherwise as Ray's own method, whose session has no limits
        try:
            with bounded_session() as session:
                response = session.request(
                    method,
                    self._address + endpoint,
                    cookies=self._cookies,
                    json=json_data,
                    headers=self._headers,
                    verify=self._verify,
                    timeout=TIMEOUTS_S,
                    **options,
                )
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            UnicodeError,
        ) as error:  # also impossible hosts
            raise self._unreachable(error) from error
        response.encoding = response.encoding or "utf-8"  # else it is guessed, from all of the answer
        if format_authentication_http_error(response.status_code, response.text):
            raise ClusterError(f"{self._address}: {_token_problem(self._headers)}")
        return response

    def _check_connection_and_version(self, *_requirement: Any, **_message: Any) -> None:
        response = self._do_request("GET", "/api/version")
        try:
            theirs = str(response.json()["ray_version"])
        except (ValueError, TypeError, KeyError):
            raise ClusterError(
                f"{self._address}: something answers there, but it is no Ray head (HTTP {response.status_code}); "
                "the address is that of Ray's dashboard, port 8265 by default"
            ) from None
        self._server_ray_version = theirs
        if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
            raise ClusterError(
                f"{self._address}: Ray {theirs} runs there, and {ray.__version__} is installed here; "
                f"install ray=={theirs} here or ray=={ray.__version__} there"
            )

    def _raise_error(self, response: requests.Response) -> NoReturn:
        lines = [line for line in response.text.splitlines() if line.strip()] or [response.reason]
        raise ClusterError(f"{self._address}: refused (HTTP {response.status_code}): {lines[-1].strip()[:500]}")

    def _unreachable(self, error: Exception) -> UnreachableError:
        reason = "it takes too long" if isinstance(error, requests.Timeout) else _root(error)
        return UnreachableError(
            f"{self._address}: does not answer ({reason}); does the cluster run, and is this the address of its head?"
        )


@contextmanager
def understood(address: str) -> Iterator[None]:
    """What an answer of another shape than Ray's makes of code that reads it becomes a ClusterError."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ClusterError(
            f"{address}: its answer is not that of a Ray head ({type(error).__name__}); does Ray run at this address?"
        ) from error


class UnreachableError(ClusterError):
    """Nothing answers at the address; a later attempt may succeed."""


def _root(error: BaseException) -> str:
    """The innermost cause in a few words: requests and urllib3 wrap it in exceptions of their own."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _token_header() -> dict[str, str]:
    """The token from where Ray looks for it: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, in token mode also ~/.ray/auth_token.

    A given token is sent even if RAY_AUTH_MODE is not set (Ray's own client would not send it).
    """
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode == "disabled":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN")
    if not token:
        path = os.environ.get("RAY_AUTH_TOKEN_PATH") or (Path.home() / ".ray/auth_token" if mode == "token" else None)
        if path is None:
            return {}
        try:
            token = read_bounded(Path(path), _MOST_BYTES_OF_TOKEN).decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a text"
            raise ClusterError(
                f"{path}: the token cannot be read ({reason}); set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            ) from None
    token = token.strip()
    if not re.fullmatch(r"[!-~]+", token):
        raise ClusterError("the token (RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH) is empty or no single printable word")
    return {"Authorization": f"Bearer {token}"}


def _token_problem(headers: dict[str, str]) -> str:
    if "Authorization" in headers:
        return "the token is not that of this cluster; see RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    return "the cluster wants a token; set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file that holds it"
