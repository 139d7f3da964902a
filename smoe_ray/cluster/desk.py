"""The driver's side of a study on Tune: hands out tasks, hears of epochs, settles trials.

Tune asks a searcher for new trials, a scheduler whether a trial goes on, a stopper whether the study does, and tells a
callback what becomes of processes. All of them pass on to one `Desk`, in the thread that runs Tune.
"""

# ruff: noqa: ARG002  (the signatures are Tune's)
from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
import tenacity
from ray.tune import Callback, Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from smoe_ray.cluster.runtime import Logs
from smoe_ray.cluster.trial import LONGEST_WAIT_S
from smoe_ray.data import Source
from smoe_ray.data.dataset import Dataset
from smoe_ray.errors import StorageError, WorkerDiedError
from smoe_ray.results import Row, TrialRecord
from smoe_ray.spec import DataSpec
from smoe_ray.study.events import Notice
from smoe_ray.study.progress import fraction_done
from smoe_ray.study.run import StudyRun, TrialTask, record_failure, record_pruned
from smoe_ray.study.work import Queue

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

Suggestion = dict[str, Any] | str | None
"""The config of a trial; or ``FINISHED``: there will be no more; or None: there is none now."""


@dataclass
class _Held:
    """A trial that Tune has."""

    task: TrialTask
    rows: Sequence[Row] = ()
    actor: Any = None
    """The process that trains it; None while it waits for one."""


class Desk:
    """A study's trials on Tune, by Tune's ids of them.

    Args:
        run: the study.
        queue: its tasks.
        first: the first of them.
        limit: how many trials Tune may have at this moment.
        logs: of Ray.
        patience_s: how long to wait for a storage that does not answer.
    """

    def __init__(
        self, run: StudyRun, queue: Queue, first: TrialTask, limit: Callable[[], int], logs: Logs, patience_s: float
    ) -> None:
        self._run = run
        self._queue = queue
        self._first: TrialTask | None = first
        self._limit = limit
        self._logs = logs
        self._sources = _Sources(run)
        self._held: dict[str, _Held] = {}
        self.stopping = threading.Event()
        self.problem: Exception | None = None
        """Why the study ends early, if it does."""
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(StorageError),
            wait=tenacity.wait_exponential(multiplier=0.5, max=LONGEST_WAIT_S),
            stop=tenacity.stop_after_delay(patience_s) | tenacity.stop_when_event_set(self.stopping),
            sleep=tenacity.sleep_using_event(self.stopping),
            before_sleep=self._tell_of_storage,
            reraise=True,
        )

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()  # Tune pickles what it holds into snapshots; ours are never restored

    @property
    def is_idle(self) -> bool:
        """Whether no process trains a trial."""
        return all(held.actor is None for held in list(self._held.values()))

    def abandon(self) -> None:
        """End the study now. Everything is resumable: a kill is as good as a goodbye, and faster."""
        self.stopping.set()
        for held in list(self._held.values()):
            if held.actor is not None:
                with suppress(Exception):  # it is dead already, or all of Ray is
                    ray.kill(held.actor)

    def suggest(self, tune_id: str) -> Suggestion:
        """The next trial."""
        with self._answerable():
            if self.stopping.is_set():
                return Searcher.FINISHED
            if len(self._held) >= self._limit():
                return None
            task, self._first = self._first or self._retrying(self._queue.next), None
            if task is None:
                return None if self._held else Searcher.FINISHED
            self._held[tune_id] = _Held(task)
            return {"task": task, "source": self._sources.ref(task.trial.data)}
        return Searcher.FINISHED

    def started(self, tune_id: str, actor: Any) -> None:
        """A process has a trial."""
        with self._answerable():
            held = self._held[tune_id]
            held.actor = actor
            self._queue.started(held.task)

    def reported(self, tune_id: str, result: dict[str, Any]) -> bool:
        """A trial reported (`trial.train_in_tune`), and has not ended; true: stop it."""
        with self._answerable():
            if "notice" in result:
                self._run.emit(Notice(result["notice"]))
                return False
            held = self._held[tune_id]
            row = {name: value for name, value in result.items() if "." in name or name == "epoch"}
            held.rows = [*result.get("earlier", held.rows), row]
            reason = self._queue.judge(held.task, held.rows)
            if reason and fraction_done(held.task.trial, held.rows) < 1:
                # It waits for our answer, and when that is no it leaves without another word: the record is ours.
                self._end(tune_id, self._retrying(record_pruned, held.task, reason))
                return True
        return False

    def ended(self, tune_id: str, result: dict[str, Any]) -> None:
        """A trial is over for Tune."""
        held = self._held.get(tune_id)
        if held is None:  # pruned
            return
        with self._answerable():
            if "record" in result:
                self._end(tune_id, TrialRecord.model_validate_json(result["record"]))
            elif "left" in result:
                del self._held[tune_id]
                self._queue.left(held.task)
            elif "unstored" in result:
                raise StorageError(result["unstored"])

    def retried(self, tune_id: str, error: str) -> None:
        """The process of a trial died, and Tune gives the trial to another."""
        if self.stopping.is_set():
            return
        held = self._held[tune_id]
        held.actor = None
        self._run.emit(Notice(f"trial {held.task.trial_id}: {_how(error) or _last_line(error)}; it is taken up again"))

    def failed(self, tune_id: str, error: str) -> None:
        """Tune gives up a trial whose processes died again and again."""
        if self.stopping.is_set():
            return
        with self._answerable():
            how = _how(error)
            if how is None:  # what is wrong with a trial is in its record: this is wrong with all of them
                raise WorkerDiedError(f"a worker process failed before it could train anything: {_last_line(error)}")
            problem = WorkerDiedError(f"{how}, for the third time; {self._logs.keep()} may say why")
            self._end(tune_id, self._retrying(record_failure, self._held[tune_id].task, problem))

    def _end(self, tune_id: str, record: TrialRecord) -> None:
        self._retrying(self._queue.ended, record)
        del self._held[tune_id]

    @contextmanager
    def _answerable(self) -> Iterator[None]:
        """What goes wrong in here is what ends the study; Tune would wrap it in errors of its own."""
        try:
            yield
        except Exception as error:
            self.problem = self.problem or error
            self.stopping.set()

    def _tell_of_storage(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            self._run.emit(Notice(f"{state.outcome.exception()}; trying again"))


class DeskSearcher(Searcher):
    """Where Tune's trials come from."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def suggest(self, trial_id: str) -> Suggestion:  # type: ignore[override]  # Tune's forgets FINISHED
        """The config of Tune's next trial."""
        return self._desk.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tune has no more to do with a trial."""
        if not error:
            self._desk.ended(trial_id, result or {})

    def save(self, checkpoint_path: str) -> None:
        """Nothing: OUT is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Never."""


class DeskScheduler(FIFOScheduler):
    """Whether a trial goes on."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._desk = desk

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Hear of an epoch."""
        return str(TrialScheduler.STOP if self._desk.reported(trial.trial_id, result) else TrialScheduler.CONTINUE)


class DeskCallback(Callback):
    """What becomes of the processes."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A process has a trial."""
        self._desk.started(trial.trial_id, trial.temporary_state.ray_actor)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A process died, and another will have its trial."""
        self._desk.retried(trial.trial_id, _last_error(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A process died, once too often."""
        self._desk.failed(trial.trial_id, _last_error(trial))


class DeskStopper(Stopper):
    """Whether the study goes on."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stops a single trial."""
        return False

    def stop_all(self) -> bool:
        """Asked after every event."""
        return self._desk.stopping.is_set()


class _Sources:
    """Prepared data in Ray's object store: put there once, read from there by every trial of a node without a copy."""

    def __init__(self, run: StudyRun) -> None:
        self._run = run
        self._refs: dict[str, ray.ObjectRef[Source]] = {}

    def ref(self, data: DataSpec) -> ray.ObjectRef[Source]:
        source = self._run.source(data)
        if source.fingerprint not in self._refs:
            self._refs[source.fingerprint] = ray.put(
                replace(source, train=_plain(source.train), test=_plain(source.test))
            )
        return self._refs[source.fingerprint]


def _plain(dataset: Dataset) -> Dataset:
    """The arrays without the class of memory maps, which Ray would copy into its pickles."""
    arrays = {name: value for name, value in vars(dataset).items() if value is not None}
    return replace(dataset, **{name: value.view(np.ndarray) for name, value in arrays.items()})


def _last_error(trial: Trial) -> str:
    """What Tune noted about the last failure of a trial."""
    try:
        return Path(trial.error_file).read_text(encoding="utf-8").rpartition("Failure #")[2]
    except (OSError, TypeError):  # it failed before it had a folder
        return ""


def _how(error: str) -> str | None:
    """How a trial's process died, in a few words; None when it did not, but raised an exception."""
    if "its node has died" in error or "is unavailable" in error:
        return "its node was lost"
    if "running low on memory" in error:
        return "its node ran out of memory and its process was killed"
    return "its process was killed" if "died" in error else None


def _last_line(error: str) -> str:
    return (error.strip().splitlines() or ["no reason given"])[-1].strip()
