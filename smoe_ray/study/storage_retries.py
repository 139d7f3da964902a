"""Waiting for storage that does not answer, or refuses, and may come back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import tenacity

from smoe_ray.errors import StorageError

if TYPE_CHECKING:
    from tenacity import RetryCallState

P = ParamSpec("P")
Result = TypeVar("Result")

STORAGE_TIMEOUT_S = 600.0
"""How long storage may be unavailable before a study ends, seconds."""

MAX_BACKOFF_S = 30.0
"""Longest wait between two attempts to reach unavailable storage, seconds."""


class StorageRetries:
    """Retries while storage is unavailable, up to a timeout that starts anew after each stored epoch.

    Args:
        seconds: the timeout.
        notify: told once per outage, in a sentence, what is waited for.
    """

    def __init__(self, seconds: float, notify: Callable[[str], None]) -> None:
        self._seconds = seconds
        self._notify = notify
        self._since: float | None = None
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(StorageError),
            wait=tenacity.wait_exponential(multiplier=0.5, max=MAX_BACKOFF_S),
            stop=self._timed_out,
            before_sleep=self._outage,
            reraise=True,
        )

    def call(self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """What the function returns, once storage is available. Raises StorageError after the timeout."""
        result = self._retrying(function, *args, **kwargs)
        self.reset()
        return result

    def reset(self) -> None:
        """Storage is available."""
        self._since = None

    def _timed_out(self, _state: RetryCallState) -> bool:
        return self._since is not None and time.monotonic() - self._since > self._seconds

    def _outage(self, state: RetryCallState) -> None:
        if self._since is None and state.outcome is not None:
            self._since = time.monotonic()
            self._notify(" ".join(f"{state.outcome.exception()}; trying again".split()))
