"""One trial, from claiming it to recording how it ended.

`train_trial` is the one function that drives `fit`, on every executor: it claims the trial, resumes it from its
checkpoint, writes its files after every epoch, and records how it ended.
"""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from smoe_ray import plugins
from smoe_ray.data import Splits, load_splits
from smoe_ray.errors import DamagedError, DataError, DivergedError, PluginError, TrialError, out_of_memory
from smoe_ray.results import Arrays, DataFacts, Row, Store, Timings, TrialFolder, TrialRecord, Versions
from smoe_ray.results.record import Imported, Status, now
from smoe_ray.spec import CollapseSpec, TrialSpec, plugin_identities, trial_id
from smoe_ray.study.stopping import collapse_reason

if TYPE_CHECKING:
    from smoe_ray.training.loop import Epoch

Fit = Callable[[TrialSpec, Splits, Arrays | None], "Iterator[Epoch]"]
"""(trial, data, checkpoint to start from) -> one `Epoch` after another."""

OnEpoch = Callable[[Sequence[Row]], str | None]
"""Called after each epoch with all rows of the trial so far, the newest last; a reason stops (prunes) the trial."""

Load = Callable[["TrialTask"], Splits]
"""Loads the data that a trial trains on."""

_LOCK_TIMEOUT_S = 5.0  # a dead process's lock is free at once, unless a process that it started outlives it


@dataclass(frozen=True)
class TrialTask:
    """All that a process needs to train one trial; small and picklable."""

    study: str
    trial: TrialSpec
    trial_id: str
    out: str
    cache: Path
    collapse: CollapseSpec | None = None
    retry_failed: bool = False
    wait: bool = False
    """If another process holds the trial's lock: wait for it (true), or give up at once (false)."""
    plugins: Mapping[str, str] = field(default_factory=dict)
    """Version and source of each plug-in of the trial, by name, where the study was planned."""
    equivalence_margin: float | None = None
    """That of the study."""
    imported: Imported | None = None
    """Where the weights come from, if they are not trained."""

    @property
    def folder(self) -> TrialFolder:
        """Where the trial's files are."""
        return TrialFolder(Store(self.out), self.study, self.trial_id)

    def is_settled(self, record: TrialRecord) -> bool:
        """See `is_settled`."""
        return is_settled(record, self.retry_failed)

    def check_plugins(self) -> None:
        """Raise PluginError unless the plug-ins of this process are those that the study was planned with."""
        for name, identity in plugin_identities(self.trial).items():
            if identity != self.plugins.get(name):
                raise PluginError(
                    f"plug-in {name}: {socket.gethostname()} has another version of it ({identity}) than the study was "
                    f"planned with ({self.plugins.get(name)}); install the same on all nodes and run the study again"
                )


def is_settled(record: TrialRecord, retry_failed: bool) -> bool:
    """Whether a trial with this record needs no (more) training.

    A trial that diverged would diverge again, so it is settled unless `retry_failed`; other failures (a killed worker,
    a full disk) are retried.
    """
    if record.status == "failed":
        return record.error_kind == DivergedError.__name__ and not retry_failed
    return record.status in ("finished", "pruned")


def fit_on(device: str) -> Fit:
    """`training.fit` on a device (``auto``, ``cpu``, ``cuda``), with as many CPU threads as the trial's spec says."""
    return partial(_fit, device)


def _fit(device: str, trial: TrialSpec, data: Splits, checkpoint: Arrays | None) -> Iterator[Epoch]:
    import torch

    from smoe_ray.training.loop import Runtime, fit

    # The number of threads changes the order of summation, hence the last digits: the spec sets it, not the machine.
    before = torch.get_num_threads()
    torch.set_num_threads(trial.resources.cpus)
    try:
        yield from fit(trial, data, Runtime(device=device, checkpoint=checkpoint))
    finally:
        torch.set_num_threads(before)


def load_prepared(task: TrialTask) -> Splits:
    """Load a trial's data from the cache of prepared sources. Raises DataError."""
    return load_splits(task.trial.data, task.cache)


def train_trial(task: TrialTask, on_epoch: OnEpoch, fit: Fit, load: Load = load_prepared) -> TrialRecord | None:
    """Train one trial to its end, from its checkpoint if it has one.

    An exception in training or data is recorded: the trial has failed, and keeps its rows and (unless it diverged) its
    checkpoint. A trial whose record is damaged is set aside, and one whose checkpoint is damaged begins again; the
    record's `notes` say so.

    Returns:
        The trial's final record, or its record if it was settled already; None if another process holds its lock and
        `task.wait` is false.

    Raises:
        ResultsError: its files cannot be read or written; the trial can be resumed.
    """
    folder = task.folder
    with folder.claim(-1 if task.wait else 0) as claimed:
        if not claimed:
            return None
        notes: list[str] = []
        try:
            record = folder.read_record()
        except DamagedError as error:
            record = None
            notes.append(_set_aside(folder, error))
        if record is not None and task.is_settled(record):
            return record
        folder.remove_leftovers()
        return _train(task, folder, _TimedRecord(_begin(task, record, notes)), on_epoch, fit, load)


def set_aside(folder: TrialFolder, error: DamagedError) -> str | None:
    """Rename the folder of a damaged trial; returns what was done, in one line.

    None, and nothing done, if another process holds the trial's lock.
    """
    with folder.claim(0) as claimed:
        return _set_aside(folder, error) if claimed else None


def _set_aside(folder: TrialFolder, error: DamagedError) -> str:
    return f"{error.problem}; the damaged trial is kept as {folder.set_aside()}, and trained anew"


def record_failure(task: TrialTask, error: TrialError) -> TrialRecord:
    """Record that a trial failed because its process died.

    While another process holds the trial's lock, its record is not written: another run may be training it.

    Raises:
        ResultsError: its files cannot be read or written.
    """
    folder = task.folder
    with folder.claim(_LOCK_TIMEOUT_S) as claimed:
        record = _readable_record(folder) or _begin(task, None)
        if not task.is_settled(record):
            record = _TimedRecord(record).ended("failed", error)
            if claimed:
                folder.write_record(record)
        return record


def record_pruned(task: TrialTask, reason: str) -> TrialRecord:
    """Record that a trial was stopped early, on behalf of the process that trains it, which writes nothing more.

    That process may still hold the trial's lock, so this does not acquire it.

    Raises:
        ResultsError: its files cannot be read or written.
    """
    folder = task.folder
    record = _readable_record(folder) or _begin(task, None)
    record = _TimedRecord(record).ended("pruned", reason=reason)
    record = record.model_copy(update={"files": folder.digests()})
    folder.write_record(record)
    folder.remove_checkpoint()
    return record


def _readable_record(folder: TrialFolder) -> TrialRecord | None:
    """The record; None if there is none, or a damaged one, which is about to be replaced."""
    try:
        return folder.read_record()
    except DamagedError:
        return None


def remove_stale_checkpoint(task: TrialTask) -> None:
    """Delete the checkpoint of a settled trial: a kill right after the final record was written leaves it behind."""
    folder = task.folder
    if "checkpoint" not in folder.store.folders(folder.name):
        return
    with folder.claim(0) as claimed:  # another run may be retrying the trial
        record = folder.read_record() if claimed else None
        if record is not None and task.is_settled(record):
            folder.remove_checkpoint()


class _TimedRecord:
    """A trial's record that counts the seconds since its training started or was resumed."""

    def __init__(self, record: TrialRecord) -> None:
        self.record = record
        self._seconds = record.timings.seconds
        self._start = time.monotonic()

    def note(self, line: str) -> None:
        self.record = self.record.model_copy(update={"notes": (*self.record.notes, line)})

    def running(self, **update: Any) -> TrialRecord:
        timings = {"seconds": round(self._seconds + time.monotonic() - self._start, 3)}
        self.record = self.record.model_copy(
            update={"timings": self.record.timings.model_copy(update=timings), **update}
        )
        return self.record

    def ended(self, status: Status, error: Exception | None = None, reason: str | None = None) -> TrialRecord:
        record = self.running(status=status, reason=reason)
        timings = record.timings.model_copy(update={"finished_at": now()})
        problem = {} if error is None else _describe(error)
        return record.model_copy(update={"timings": timings, **problem})


def _begin(task: TrialTask, before: TrialRecord | None, notes: Sequence[str] = ()) -> TrialRecord:
    timings = Timings(started_at=now())
    if before is not None:
        again = {"restarts": before.timings.restarts + 1, "finished_at": None}
        timings = before.timings.model_copy(update=again)
    return TrialRecord(
        study=task.study,
        trial_id=task.trial_id,
        status="running",
        spec=task.trial,
        host=socket.gethostname(),
        versions=Versions.here().model_copy(update={"plugins": dict(task.plugins)}),
        timings=timings,
        notes=(*(before.notes if before else ()), *notes),
        equivalence_margin=task.equivalence_margin,
        imported=task.imported,
    )


def _describe(error: Exception) -> dict[str, str]:
    return {
        "error": out_of_memory(error) or plugins.explain(error) or " ".join(str(error).split()) or type(error).__name__,
        "error_kind": type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
    }


class _TrialFailure(Exception):  # noqa: N818  (internal: never shown)
    """Wraps an exception of training or data, so that it is not taken for one of the code that writes the files."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Step(NamedTuple):
    epoch: int
    row: Row
    checkpoint: Arrays | None
    weights: Arrays | None
    embeddings: Arrays | None


def _train(
    task: TrialTask, folder: TrialFolder, timed: _TimedRecord, on_epoch: OnEpoch, fit: Fit, load: Load
) -> TrialRecord:
    checkpoint, rows = _resume(folder, timed)
    try:
        splits = _load(task, load)
        folder.write_record(timed.running(data=_facts(splits)))
        for step in _steps(task.trial, splits, checkpoint, fit):
            rows = [*rows[: step.epoch - 1], step.row]  # rows after the checkpoint are recomputed
            folder.write_epochs(rows)
            if step.checkpoint is not None:
                folder.write_checkpoint(step.checkpoint, rows)
            if step.weights is not None:
                folder.write_weights(step.weights)
            if step.embeddings is not None:
                folder.write_embeddings(step.embeddings)
            if step.checkpoint is not None:  # after the last epoch the final record follows
                folder.write_record(timed.running())
            reason = on_epoch(rows) or collapse_reason(task.collapse, rows)
            if reason and step.checkpoint is not None:
                record = timed.ended("pruned", reason=reason)
                break
        else:
            record = timed.ended("finished")
    except _TrialFailure as failure:
        record = timed.ended("failed", failure.error)
    except MemoryError as error:  # of what makes the content of its files
        record = timed.ended("failed", error)
    record = record.model_copy(update={"files": dict(folder.written)})
    folder.write_record(record)
    if is_settled(record, retry_failed=False):  # a diverged trial is never resumed from its checkpoint
        folder.remove_checkpoint()
    return record


def _resume(folder: TrialFolder, timed: _TimedRecord) -> tuple[Arrays | None, list[Row]]:
    """The checkpoint's state and rows, which `epochs.parquet` then has, too; (None, []) to start from the beginning."""
    try:
        checkpoint = folder.read_checkpoint()
    except DamagedError as error:
        timed.note(f"{error.problem}; it is trained from the start")
        folder.remove_checkpoint()
        return None, []
    if checkpoint is None:
        return None, []
    folder.write_epochs(checkpoint.rows)
    return checkpoint.state, checkpoint.rows


def _load(task: TrialTask, load: Load) -> Splits:
    with _as_trial_failure():
        task.check_plugins()
        splits = load(task)
        if trial_id(task.trial, splits.fingerprint) != task.trial_id:
            raise DataError("the data are not those that the study was planned with; run the study again")
        return splits


def _facts(splits: Splits) -> DataFacts:
    return DataFacts(
        fingerprint=splits.fingerprint,
        train_images=len(splits.train),
        test_images=len(splits.test),
        image_shape=splits.train.image_shape,
        class_names=splits.class_names,
        style_names=splits.style_names,
        parameter_names=splits.parameter_names,
    )


def _steps(trial: TrialSpec, splits: Splits, checkpoint: Arrays | None, fit: Fit) -> Iterator[_Step]:
    """Each epoch of a fit with the arrays to store: a checkpoint, or after the last epoch the final files."""
    last = False
    with _as_trial_failure():
        for epoch in fit(trial, splits, checkpoint):
            last = epoch.last
            yield _Step(
                epoch.epoch,
                epoch.row,
                checkpoint=None if last else epoch.checkpoint(),
                weights=epoch.weights() if last else None,
                embeddings=epoch.embeddings() if last and trial.evaluation.save_embeddings else None,
            )
        if not last:
            raise TrialError("training ended before its last epoch")


@contextmanager
def _as_trial_failure() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _TrialFailure(error) from error
