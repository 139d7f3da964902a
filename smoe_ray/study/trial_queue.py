"""The queue of trials that an executor works through, and the source that fills it: a grid or a search."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from smoe_ray.results import Row, TrialRecord
from smoe_ray.spec import SearchStudy
from smoe_ray.study.driver import StudyRun
from smoe_ray.study.events import EpochDone, Notice, TrialDeferred, TrialEnded, TrialStarted
from smoe_ray.study.search import SearchSource
from smoe_ray.study.trial_run import TrialTask


class TrialSource(Protocol):
    """Proposes the tasks of a study, and is told how they go."""

    def next(self) -> TrialTask | None:
        """The next task; None while there is none, and when the study is done."""

    def on_epoch(self, trial_id: str, rows: Sequence[Row], /) -> str | None:
        """An epoch of a trial ended; a reason stops (prunes) the trial. `rows`: all epochs so far, the newest last."""

    def ended(self, record: TrialRecord) -> None:
        """A trial ended. Called again if it raised StorageError."""


class GridSource:
    """The tasks of a grid: known from the start, and none is stopped early."""

    def __init__(self, tasks: Sequence[TrialTask]) -> None:
        self._tasks = deque(tasks)

    def next(self) -> TrialTask | None:
        """The next task of the list."""
        return self._tasks.popleft() if self._tasks else None

    def on_epoch(self, _trial_id: str, _rows: Sequence[Row], /) -> str | None:
        """Never stops a trial."""
        return None

    def ended(self, record: TrialRecord) -> None:
        """Nothing to do."""


class TrialQueue:
    """Hands out a study's tasks in order and emits the events of its trials.

    An executor calls `next` and `started` for each task, `on_epoch` after each epoch, and then one of `ended`, `defer`
    (another process holds the trial) and `requeue` (its process died). All calls from one thread.

    Args:
        run: as this executor sees it. A search may prepare data in `next`, and then emits events there, too.
    """

    def __init__(self, run: StudyRun) -> None:
        self._run = run
        self._source: TrialSource = (
            SearchSource(run) if isinstance(run.study, SearchStudy) else GridSource(run.pending())
        )
        self._requeued: deque[TrialTask] = deque()
        self._deferred: deque[TrialTask] = deque()

    def next(self) -> TrialTask | None:
        """The next task: first those requeued, then new ones, last those deferred. None while there is none."""
        task = self._requeued.popleft() if self._requeued else self._source.next()
        return self._deferred.popleft() if task is None and self._deferred else task

    def started(self, task: TrialTask) -> None:
        """A process has taken the task."""
        self._run.emit(TrialStarted(task.trial_id, task.trial))

    def on_epoch(self, task: TrialTask, rows: Sequence[Row]) -> str | None:
        """An epoch ended; a reason stops (prunes) the trial."""
        self._run.emit(EpochDone(task.trial_id, rows))
        return self._source.on_epoch(task.trial_id, rows)

    def ended(self, record: TrialRecord) -> TrialRecord:
        """A trial ended, in whatever way."""
        self._source.ended(record)
        for note in record.notes:
            self.notify(f"trial {record.trial_id}: {note}")
        self._run.emit(TrialEnded(record))
        return record

    def notify(self, text: str) -> None:
        """Tell the user something."""
        self._run.emit(Notice(text))

    def defer(self, task: TrialTask) -> None:
        """Another process trains the trial: hand it out again at the end, to wait for that process."""
        self._deferred.append(replace(task, wait=True))
        self._run.emit(TrialDeferred(task.trial_id))

    def requeue(self, task: TrialTask, why: str) -> None:
        """The trial's process died: hand it out once more."""
        self._requeued.append(task)
        self.notify(f"trial {task.trial_id}: {why}; it is resumed")
