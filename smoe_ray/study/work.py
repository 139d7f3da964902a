"""Where an executor's tasks come from, in which order they are handed out, and what the user hears of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from smoe_ray.results import Row, TrialRecord
from smoe_ray.study.events import EpochDone, Notice, TrialEnded, TrialLeft, TrialStarted
from smoe_ray.study.run import StudyRun, TrialTask


class Work(Protocol):
    """Where tasks come from, and who hears of their epochs."""

    def next(self) -> TrialTask | None:
        """The next task; None while there is none, and when all is done."""

    def judge(self, trial_id: str, rows: Sequence[Row], /) -> str | None:
        """Hear of a trial's epochs; a reason stops (prunes) it."""

    def ended(self, record: TrialRecord) -> None:
        """Hear how a trial ended."""


class Listed:
    """The tasks of a grid: known beforehand, and none is stopped early."""

    def __init__(self, tasks: Sequence[TrialTask]) -> None:
        self._tasks = deque(tasks)

    def next(self) -> TrialTask | None:
        """The next of the list."""
        return self._tasks.popleft() if self._tasks else None

    def judge(self, _trial_id: str, _rows: Sequence[Row], /) -> str | None:
        """Never stops a trial."""
        return None

    def ended(self, record: TrialRecord) -> None:
        """Nothing depends on it."""


class Queue:
    """Tasks in the order in which to hand them out, and what the user hears of them."""

    def __init__(self, run: StudyRun, work: Work) -> None:
        self._run = run
        self._work = work
        self._again: deque[TrialTask] = deque()
        self._left: deque[TrialTask] = deque()

    def next(self) -> TrialTask | None:
        """First what a dead process left, then new ones, last what another process held when it was tried."""
        task = self._again.popleft() if self._again else self._work.next()
        return self._left.popleft() if task is None and self._left else task

    def started(self, task: TrialTask) -> None:
        """A process has it."""
        self._run.emit(TrialStarted(task.trial_id, task.trial))

    def judge(self, task: TrialTask, rows: Sequence[Row]) -> str | None:
        """An epoch ended; a reason stops the trial."""
        self._run.emit(EpochDone(task.trial_id, rows))
        return self._work.judge(task.trial_id, rows)

    def ended(self, record: TrialRecord) -> TrialRecord:
        """A trial ended, in whatever way."""
        self._work.ended(record)
        self._run.emit(TrialEnded(record))
        return record

    def left(self, task: TrialTask) -> None:
        """Another process trains it: at the end, wait for what becomes of it."""
        self._left.append(replace(task, wait=True))
        self._run.emit(TrialLeft(task.trial_id))

    def again(self, task: TrialTask, why: str) -> None:
        """Its process died: hand it out once more."""
        self._again.append(task)
        self._run.emit(Notice(f"trial {task.trial_id}: {why}; it is taken up once more"))
