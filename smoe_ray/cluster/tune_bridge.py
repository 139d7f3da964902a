"""Connects Ray Tune to a study's queue of trials, on the driver.

Tune asks a searcher for new trials, a scheduler whether a trial continues, a stopper whether the study does, and
reports process starts and failures to a callback. All four delegate to one `TuneBridge`, in the thread that runs Tune.
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

from smoe_ray.cluster.runtime import Connection
from smoe_ray.data import Source
from smoe_ray.data.dataset import Dataset
from smoe_ray.errors import StorageError, WorkerDiedError
from smoe_ray.results import Row, TrialRecord
from smoe_ray.spec import DataSpec
from smoe_ray.study.driver import StudyRun
from smoe_ray.study.events import Notice
from smoe_ray.study.progress import fraction_done
from smoe_ray.study.storage_retries import MAX_BACKOFF_S
from smoe_ray.study.trial_queue import TrialQueue
from smoe_ray.study.trial_run import TrialTask, record_failure, record_pruned

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

Suggestion = dict[str, Any] | str | None
"""The config of a trial; or ``FINISHED``: no more trials will come; or None: there is none at the moment."""


@dataclass
class _TuneTrial:
    """A trial that was handed to Tune and has not ended."""

    task: TrialTask
    rows: Sequence[Row] = ()
    actor: Any = None
    """The actor that trains it; None while it waits for resources."""


class TuneBridge:
    """A study's trials on Tune, keyed by Tune's trial ids.

    Args:
        run: the study.
        queue: its tasks.
        first: the first task, already taken from the queue.
        limit: returns how many concurrent trials Tune may have at this moment.
        connection: to Ray.
        storage_timeout_s: retry timeout for unavailable storage, seconds.
    """

    def __init__(
        self,
        run: StudyRun,
        queue: TrialQueue,
        first: TrialTask,
        limit: Callable[[], int],
        connection: Connection,
        storage_timeout_s: float,
    ) -> None:
        self._run = run
        self._queue = queue
        self._first: TrialTask | None = first
        self._limit = limit
        self._connection = connection
        self._sources = _Sources(run)
        self._trials: dict[str, _TuneTrial] = {}
        self.stopping = threading.Event()
        self.problem: Exception | None = None
        """The error that ends the study early, if any."""
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(StorageError),
            wait=tenacity.wait_exponential(multiplier=0.5, max=MAX_BACKOFF_S),
            stop=tenacity.stop_after_delay(storage_timeout_s) | tenacity.stop_when_event_set(self.stopping),
            sleep=tenacity.sleep_using_event(self.stopping),
            before_sleep=self._notify_retry,
            reraise=True,
        )

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()  # Tune pickles searcher and callbacks into snapshots, which are never restored

    @property
    def scratch(self) -> Path:
        """Folder for temporary files of this run."""
        return self._connection.scratch.folder

    @property
    def is_idle(self) -> bool:
        """Whether no actor trains a trial."""
        return all(trial.actor is None for trial in list(self._trials.values()))

    def abandon(self) -> None:
        """End the study now. State is on disk, so actors are killed without a graceful shutdown."""
        self.stopping.set()
        for trial in list(self._trials.values()):
            if trial.actor is not None:
                with suppress(Exception):  # the actor, or all of Ray, is dead already
                    ray.kill(trial.actor)

    def suggest(self, tune_id: str) -> Suggestion:
        """The next trial, within the concurrency limit."""
        with self._capture_errors():
            if self.stopping.is_set():
                return Searcher.FINISHED
            if len(self._trials) >= self._limit():
                return None
            task, self._first = self._first or self._retrying(self._queue.next), None
            if task is None:
                return None if self._trials else Searcher.FINISHED
            self._trials[tune_id] = _TuneTrial(task)
            return {"task": task, "source": self._sources.ref(task.trial.data)}
        return Searcher.FINISHED

    def started(self, tune_id: str, actor: Any) -> None:
        """An actor starts to train a trial."""
        with self._capture_errors():
            trial = self._trials[tune_id]
            trial.actor = actor
            self._queue.started(trial.task)

    def reported(self, tune_id: str, result: dict[str, Any]) -> bool:
        """A running trial reported a result (see `trial.train_in_tune`). Returns whether to stop it."""
        with self._capture_errors():
            if "notice" in result:
                self._run.emit(Notice(result["notice"]))
                return False
            trial = self._trials[tune_id]
            row = {name: value for name, value in result.items() if "." in name or name == "epoch"}
            trial.rows = [*result.get("earlier", trial.rows), row]
            reason = self._queue.on_epoch(trial.task, trial.rows)
            if reason and fraction_done(trial.task.trial, trial.rows) < 1:
                # On STOP the trainable exits silently; the driver writes the record.
                self._end(tune_id, self._retrying(record_pruned, trial.task, reason))
                return True
        return False

    def ended(self, tune_id: str, result: dict[str, Any]) -> None:
        """Tune has completed a trial."""
        trial = self._trials.get(tune_id)
        if trial is None:  # pruned
            return
        with self._capture_errors():
            if "record" in result:
                self._end(tune_id, TrialRecord.model_validate_json(result["record"]))
            elif "deferred" in result:
                del self._trials[tune_id]
                self._queue.defer(trial.task)
            elif "storage_error" in result:
                raise StorageError(result["storage_error"])

    def retried(self, tune_id: str, error: str) -> None:
        """The actor of a trial died, and Tune starts the trial again on another."""
        if self.stopping.is_set():
            return
        with self._capture_errors():
            self._connection.refuse_lost(patience_s=0)  # else it did not die, but Ray did
        if self.stopping.is_set():
            return
        trial = self._trials[tune_id]
        trial.actor = None
        cause = _cause_of_death(error) or _last_line(error)
        self._run.emit(Notice(f"trial {trial.task.trial_id}: {cause}; it is resumed"))

    def failed(self, tune_id: str, error: str) -> None:
        """Tune gives up a trial whose actors died too often."""
        if self.stopping.is_set():
            return
        with self._capture_errors():
            self._connection.refuse_lost(patience_s=0)
            cause = _cause_of_death(error)
            if cause is None:  # a trial's own errors are in its record: this one concerns all trials
                raise WorkerDiedError(f"a worker process failed before it could train anything: {_last_line(error)}")
            problem = WorkerDiedError(f"{cause}, for the third time; {self._connection.keep_logs()} may say why")
            self._end(tune_id, self._retrying(record_failure, self._trials[tune_id].task, problem))

    def _end(self, tune_id: str, record: TrialRecord) -> None:
        self._retrying(self._queue.ended, record)
        del self._trials[tune_id]

    @contextmanager
    def _capture_errors(self) -> Iterator[None]:
        """Keep an exception in `problem` and end the study; Tune would wrap it in exceptions of its own."""
        try:
            yield
        except Exception as error:
            self.problem = self.problem or error
            self.stopping.set()

    def _notify_retry(self, state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            self._run.emit(Notice(f"{state.outcome.exception()}; trying again"))


class BridgeSearcher(Searcher):
    """Gives Tune the trials of the queue."""

    def __init__(self, bridge: TuneBridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> Suggestion:  # type: ignore[override]  # Tune's forgets FINISHED
        """The config of Tune's next trial."""
        return self._bridge.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has completed."""
        if not error:
            self._bridge.ended(trial_id, result or {})

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: the state of the study is in OUT."""

    def restore(self, checkpoint_path: str) -> None:
        """Never called: Tune's snapshots are not restored."""


class BridgeScheduler(FIFOScheduler):
    """Stops the trials that the queue stops."""

    def __init__(self, bridge: TuneBridge) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """A trial reported an epoch, or a notice."""
        return str(TrialScheduler.STOP if self._bridge.reported(trial.trial_id, result) else TrialScheduler.CONTINUE)


class BridgeCallback(Callback):
    """Reports when actors start, die and are replaced."""

    def __init__(self, bridge: TuneBridge) -> None:
        self._bridge = bridge

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """An actor starts to train a trial."""
        self._bridge.started(trial.trial_id, trial.temporary_state.ray_actor)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """An actor died, and another will resume its trial."""
        self._bridge.retried(trial.trial_id, _last_error(trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """An actor died, and Tune retries its trial no more."""
        self._bridge.failed(trial.trial_id, _last_error(trial))


class BridgeStopper(Stopper):
    """Ends the experiment when the bridge says so."""

    def __init__(self, bridge: TuneBridge) -> None:
        self._bridge = bridge

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never stops a single trial."""
        return False

    def stop_all(self) -> bool:
        """Called after every event."""
        return self._bridge.stopping.is_set()


class _Sources:
    """Prepared data in Ray's object store: put there once, and read by all trials of a node without a copy."""

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
    """The arrays as plain ndarrays: of memory maps, Ray would pickle a copy."""
    arrays = {name: value for name, value in vars(dataset).items() if value is not None}
    return replace(dataset, **{name: value.view(np.ndarray) for name, value in arrays.items()})


def _last_error(trial: Trial) -> str:
    """Tune's error text of a trial's last failure."""
    try:
        return Path(trial.error_file).read_text(encoding="utf-8").rpartition("Failure #")[2]
    except (OSError, TypeError):  # it failed before it had a folder
        return ""


def _cause_of_death(error: str) -> str | None:
    """How a trial's process died, in a few words; None if it did not die but raised an exception."""
    if "its node has died" in error or "is unavailable" in error:
        return "its node was lost"
    if "running low on memory" in error:
        return "its node ran out of memory and its process was killed"
    return "its process was killed" if "died" in error else None


def _last_line(error: str) -> str:
    return (error.strip().splitlines() or ["no reason given"])[-1].strip()
