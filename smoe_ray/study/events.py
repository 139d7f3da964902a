"""Events of a running study: plain values, passed to one callback in the process that runs the study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from smoe_ray.results import Row, TrialRecord
from smoe_ray.spec import TrialSpec


class DataProgress(NamedTuple):
    """Data are being prepared: `done` of `total` pieces of `what`."""

    what: str
    done: int
    total: int


class StudyStarted(NamedTuple):
    """The study is planned: `total` trials, of which `settled` need no training."""

    name: str
    total: int
    settled: int


class TrialStarted(NamedTuple):
    """A process has started to train a trial, or to resume it."""

    trial_id: str
    trial: TrialSpec


class TrialDeferred(NamedTuple):
    """Another process trains this trial; it is tried again at the end of the study."""

    trial_id: str


class EpochDone(NamedTuple):
    """An epoch ended. `rows` has all epochs of the trial, also those from before a restart, the newest last."""

    trial_id: str
    rows: Sequence[Row]


class TrialEnded(NamedTuple):
    """A trial has finished, failed or been pruned."""

    record: TrialRecord


class Notice(NamedTuple):
    """A message of one line for the user."""

    text: str


Event = DataProgress | StudyStarted | TrialStarted | TrialDeferred | EpochDone | TrialEnded | Notice
OnEvent = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Does nothing: the default callback."""
