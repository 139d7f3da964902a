"""Trackers of experiments that follow a running study (``run --log-to``); whatever they do, the study goes on.

Each has a thread of its own: one that fails is left alone from then on, and one that does not answer keeps no trial
waiting. Either costs one notice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Self

from smoe_ray.export.tracker import config_of, measured
from smoe_ray.study.events import (
    EpochDone,
    Event,
    Notice,
    OnEvent,
    TrialDeferred,
    TrialEnded,
    TrialStarted,
    ignore,
)

if TYPE_CHECKING:
    from smoe_ray.export import Tracker
    from smoe_ray.results import Row, TrialRecord
    from smoe_ray.spec import TrialSpec

_MOST_WAIT_S, _MOST_WAIT_INTERRUPTED_S = 30.0, 5.0
"""For trackers to take the rest, when the study has ended, and when it was stopped."""


class LiveLog:
    """Passes the events of `run_study` on to trackers, and to another callback: use it as `on_event` in its ``with``.

    Args:
        makers: a name for notices, and what makes the tracker, called in the tracker's thread.
        then: gets every event, and a notice for each tracker that fails.
        wait_s: longest wait at the end for what a tracker has not taken yet, seconds.
    """

    def __init__(
        self, makers: Iterable[tuple[str, Callable[[], Tracker]]], then: OnEvent = ignore, wait_s: float = _MOST_WAIT_S
    ) -> None:
        self._followers = [_Follower(name, make) for name, make in makers]
        self._then, self._wait_s = then, wait_s

    def __enter__(self) -> Self:
        for follower in self._followers:
            follower.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for follower in self._followers:
            follower.tell(None)
        wait_s = self._wait_s if error is None else min(self._wait_s, _MOST_WAIT_INTERRUPTED_S)
        deadline = time.monotonic() + wait_s
        for follower in self._followers:
            follower.join(max(0.0, deadline - time.monotonic()))
            if follower.is_alive():
                follower.problem = f"has not taken everything after {wait_s:.0f} s"
        self._give_notice("it is incomplete; 'smoe-ray export' writes everything")

    def __call__(self, event: Event) -> None:
        """Pass on one event."""
        for follower in self._followers:
            follower.tell(event)
        self._then(event)
        self._give_notice("the study goes on without it, and 'smoe-ray export' can write everything later")

    def _give_notice(self, advice: str) -> None:
        for follower in self._followers:
            if follower.problem is not None:
                self._then(Notice(f"{follower.name}: {follower.problem}; {advice}"))
        self._followers = [follower for follower in self._followers if follower.problem is None]


class _Follower(threading.Thread):
    """One tracker."""

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        super().__init__(name=name, daemon=True)  # a tracker that hangs does not keep the process alive
        self.problem: str | None = None
        """Why it has stopped, in one line."""
        self._make = make
        self._calls: SimpleQueue[tuple[float, Event] | None] = SimpleQueue()
        self._passed_on: dict[str, int] = {}
        """Epochs by trial: each event has the rows of all."""

    def tell(self, event: Event | None) -> None:
        """Queue an event for the tracker; None: the study has ended."""
        if isinstance(event, EpochDone):
            known = self._passed_on.get(event.trial_id, 0)
            self._passed_on[event.trial_id] = len(event.rows)
            event = EpochDone(event.trial_id, event.rows[known:])
        self._calls.put(None if event is None else (time.time(), event))

    def run(self) -> None:
        """Body of the thread."""
        try:
            trials = _Trials(self._make())
            while (call := self._calls.get()) is not None:
                trials.on_event(*call)
            trials.close(time.time())
        except (Exception, SystemExit) as error:
            self.problem = " ".join(str(error).split()) or type(error).__name__


class _Trials:
    """The trials of a tracker, each started when its first epoch has ended: not if another process trains it."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._spec: dict[str, TrialSpec] = {}
        self._logged: dict[str, int] = {}
        """Last epoch that the tracker has of each trial that it was told of and that has not ended."""

    def on_event(self, moment_s: float, event: Event) -> None:
        if isinstance(event, TrialStarted):
            self._spec[event.trial_id] = event.trial
        elif isinstance(event, EpochDone):
            self._log(event.trial_id, event.rows, moment_s)
        elif isinstance(event, TrialDeferred):
            self._spec.pop(event.trial_id, None)
        elif isinstance(event, TrialEnded):
            self._end(event.record, moment_s)

    def close(self, moment_s: float) -> None:
        for trial_id in self._logged:
            self._tracker.end(trial_id, "interrupted", None, moment_s)
        self._tracker.close()

    def _log(self, trial_id: str, rows: Sequence[Row], moment_s: float) -> None:
        self._start(trial_id, self._spec[trial_id], moment_s)
        epochs = [measured(row, moment_s) for row in rows if row["epoch"] > self._logged[trial_id]]
        if epochs:
            self._tracker.log(trial_id, epochs)
            self._logged[trial_id] = epochs[-1].epoch

    def _end(self, record: TrialRecord, moment_s: float) -> None:
        self._spec.pop(record.trial_id, None)
        if record.trial_id not in self._logged and record.status != "failed":
            return  # another process trained it
        assert record.status != "running"
        self._start(record.trial_id, record.spec, moment_s)
        self._tracker.end(record.trial_id, record.status, record.reason or record.error, moment_s)
        del self._logged[record.trial_id]

    def _start(self, trial_id: str, spec: TrialSpec, moment_s: float) -> None:
        if trial_id not in self._logged:
            self._logged[trial_id] = self._tracker.start(trial_id, config_of(spec), moment_s)
