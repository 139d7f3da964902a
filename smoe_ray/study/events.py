"""What a study tells while it runs: plain values, handed to one callback in the process that runs the study."""

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
    """Planning is over: `total` trials in all, of which `settled` need no training."""

    name: str
    total: int
    settled: int


class TrialStarted(NamedTuple):
    """A trial was handed to a process."""

    trial_id: str
    trial: TrialSpec


class TrialLeft(NamedTuple):
    """Another process holds this trial; it is looked at again at the end."""

    trial_id: str


class EpochDone(NamedTuple):
    """An epoch ended. `rows` holds all epochs of the trial, also those from before a restart; the newest is last."""

    trial_id: str
    rows: Sequence[Row]


class TrialEnded(NamedTuple):
    """A trial is finished, failed or pruned."""

    record: TrialRecord


class Notice(NamedTuple):
    """One line that the user should see."""

    text: str


Event = DataProgress | StudyStarted | TrialStarted | TrialLeft | EpochDone | TrialEnded | Notice
OnEvent = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """For those who want to hear nothing."""
