"""Signals that ask a run to stop: all of them do what Ctrl-C does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ASKED_TO_STOP = (signal.SIGTERM, signal.SIGHUP)
"""Sent by a scheduler, a shutdown or `kill`; and by a terminal that is closed."""


@contextmanager
def stopping_like_ctrl_c() -> Iterator[None]:
    """Context in which SIGTERM and SIGHUP raise KeyboardInterrupt, once; more of them do not disturb the tidying up.

    One that is ignored stays so (nohup). Does nothing outside the main thread, which alone may handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: Any) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    found = {each: signal.getsignal(each) for each in ASKED_TO_STOP}
    before = {each: handler for each, handler in found.items() if handler is not signal.SIG_IGN}
    for each in before:
        signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
