"""Run a study: prepare its data, skip what is settled, let an executor train the rest.

`run_study` is what a user calls. `train_trial` is the one function that drives `fit`, on whatever executor: it claims
the trial, takes it up at its checkpoint, writes after every epoch, and records how it ended.
"""

from __future__ import annotations

import json
import socket
import time
import traceback
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from smoe_ray import plugins
from smoe_ray.data import Source, Splits, load_splits, prepare
from smoe_ray.data.files import Map, cache_folder
from smoe_ray.errors import DataError, DivergedError, PluginError, StorageError, TrialError
from smoe_ray.results import Arrays, DataFacts, Packer, Row, Store, Timings, TrialFolder, TrialRecord, Versions
from smoe_ray.results.record import Status, now
from smoe_ray.spec import (
    CollapseSpec,
    DataSpec,
    GridStudy,
    SearchStudy,
    TrialSpec,
    dump_study,
    plugin_identities,
    trial_id,
)
from smoe_ray.study.events import DataProgress, Event, Notice, OnEvent, StudyStarted, ignore
from smoe_ray.study.plan import check_plugins, plan_grid
from smoe_ray.study.stopping import collapse_reason

if TYPE_CHECKING:
    from smoe_ray.training.fit import Epoch

Fit = Callable[[TrialSpec, Splits, Arrays | None], "Iterator[Epoch]"]
"""(trial, data, checkpoint to start from) -> one `Epoch` after another."""

OnEpoch = Callable[[Sequence[Row]], str | None]
"""Called after each epoch with all rows of the trial so far, the newest last; a reason stops (prunes) the trial."""

Load = Callable[["TrialTask"], Splits]
"""The data that a trial trains on."""


_THREADS = 16  # they wait for a file system or an object store, not for the CPU
_PATIENCE_S = 5.0  # a dead process's lock is free at once, unless a process that it started outlives it


# --- what executors implement -----------------------------------------------------------------------------------------


class Executor(Protocol):
    """Trains the trials of a study somewhere; yields each as it ends, whatever way it ended."""

    def grid(self, run: StudyRun) -> Generator[TrialRecord, None, None]:
        """Train the trials of `run.pending()`."""

    def search(self, run: StudyRun) -> Generator[TrialRecord, None, None]:
        """Train what the sampler proposes until `num_trials` are finished or pruned (`study.search.Search`)."""


@dataclass(frozen=True)
class TrialTask:
    """All that any process needs in order to train one trial; small and picklable."""

    study: str
    trial: TrialSpec
    trial_id: str
    out: str
    cache: Path
    collapse: CollapseSpec | None = None
    retry_failed: bool = False
    wait: bool = False
    """If another process holds the trial: wait for it (true) or leave it (false)."""
    plugins: Mapping[str, str] = field(default_factory=dict)
    """Version and source of each plug-in of the trial, by name, where the study was planned."""

    @property
    def folder(self) -> TrialFolder:
        """Where the trial's files are."""
        return TrialFolder(Store(self.out), self.study, self.trial_id)

    def is_settled(self, record: TrialRecord) -> bool:
        """See `is_settled`."""
        return is_settled(record, self.retry_failed)


def is_settled(record: TrialRecord, retry_failed: bool) -> bool:
    """Whether `record` is an answer, or the trial must be trained (on).

    A trial that diverged would diverge again, so it is settled unless `retry_failed`; other failures (a killed worker,
    a full disk) are tried again.
    """
    if record.status == "failed":
        return record.error_kind == DivergedError.__name__ and not retry_failed
    return record.status in ("finished", "pruned")


@dataclass(frozen=True)
class StudyRun:
    """A study under way, as executors see it. Lives in the process that called `run_study`."""

    study: GridStudy | SearchStudy
    out: str
    cache: Path
    retry_failed: bool = False
    on_event: OnEvent = ignore
    data_jobs: int | Map = 1
    settled: dict[str, TrialRecord] = field(default_factory=dict)
    """Trials of this study that needed no training, by id."""
    mirror: str | None = None
    """URI for a copy of prepared data, where `cache` is for this machine alone."""
    _sources: dict[str, Source] = field(default_factory=dict)

    def emit(self, event: Event) -> None:
        """Tell the user's callback."""
        self.on_event(event)

    def source(self, data: DataSpec) -> Source:
        """The prepared source behind `data`; prepared on first use, once for all fractions. Raises DataError."""
        key = data.model_dump(mode="json") | {"fraction": None, "imbalance": None}
        name = json.dumps(key, sort_keys=True)
        if name not in self._sources:
            self._sources[name] = prepare(data, self.cache, self.data_jobs, self._tell, self.mirror)
        return self._sources[name]

    def _tell(self, what: str, done: int, total: int) -> None:
        self.emit(DataProgress(what, done, total))

    def task(self, trial: TrialSpec) -> TrialTask:
        """The task that trains `trial`. Raises DataError."""
        return TrialTask(
            self.study.name,
            trial,
            trial_id(trial, self.source(trial.data).fingerprint),
            self.out,
            self.cache,
            self.study.collapse,
            self.retry_failed,
            plugins=plugin_identities(trial),
        )

    def pending(self) -> list[TrialTask]:
        """The tasks of a grid that are not settled, in the order of the grid; announces `StudyStarted`."""
        assert isinstance(self.study, GridStudy)
        tasks = {task.trial_id: task for task in map(self.task, plan_grid(self.study))}
        for record in started_trials(self.out, self.study.name, only=tasks):
            if is_settled(record, self.retry_failed):
                self.settled[record.trial_id] = record
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(lambda name: _tidy(tasks[name]), self.settled))
        self.emit(StudyStarted(self.study.name, len(tasks), len(self.settled)))
        return [task for task in tasks.values() if task.trial_id not in self.settled]


# --- running a study --------------------------------------------------------------------------------------------------


def run_study(
    study: GridStudy | SearchStudy,
    out: str | Path,
    executor: Executor,
    *,
    cache: str | Path | None = None,
    data_jobs: int | Map = 1,
    retry_failed: bool = False,
    on_event: OnEvent = ignore,
) -> list[TrialRecord]:
    """Run what is missing of a study; running it again is how it is resumed.

    The numbers of a trial depend on its spec and data alone: not on the executor, on how many trials run at once, in
    which order, or how often they were killed and taken up again. So a grid's table is always the same, but for
    `results.TIMING_COLUMNS`, host and timings. A *search* proposes from what has finished so far, so *which* trials it
    runs depends on the order in which they finish, unless one runs at a time and undisturbed.

    Several processes may run the same study on one local OUT: a trial is claimed by a file lock, which the kernel
    frees when its holder dies. Behind a URI there are no locks; two processes may then train the same trial twice,
    which costs time but no result, since both write the same whole files.

    Args:
        study: from `load_study`.
        out: folder or URI of the results; made if absent.
        executor: `LocalExecutor(jobs=2)`, or one with a cluster behind it.
        cache: folder for prepared data; by default ``OUT/.cache/data``, or, where OUT is a URI, the user's cache with
            a copy below OUT, for runs on other machines.
        data_jobs: processes that may prepare data; or ``executor.map`` of a `RayExecutor`, whose cluster then does.
        retry_failed: train diverged trials again, too. (Trials that failed otherwise are always tried again.)
        on_event: called in this process with what happens (`study.events`), for a progress bar.

    Returns:
        Every trial of the study: those settled before, then the others in the order in which they ended. Failed
        trials are among them (`status`, `error`); they do not raise.

    Raises:
        StudyError, DataError, PluginError: the study cannot be planned.
        ResultsError: OUT cannot be read or written.
        KeyboardInterrupt: after Ctrl-C, when all workers have ended; a `Notice` has said how to go on.
    """
    store = Store(out)
    mirror = store.path(".cache/data") if store.folder is None else None
    run = StudyRun(study, store.out, _cache_folder(store, cache), retry_failed, on_event, data_jobs, mirror=mirror)
    ended: dict[str, TrialRecord] = {}
    packer = Packer(store, study.name)
    check_plugins(study)
    try:
        for trial in plan_grid(study) if isinstance(study, GridStudy) else [study.base]:
            run.source(trial.data)
        _write_study(run, store)
        with closing(executor.grid(run) if isinstance(study, GridStudy) else executor.search(run)) as trials:
            for record in trials:
                ended[record.trial_id] = record
                packer.ended(len(run.settled) + len(ended))
        packer.write()
    except KeyboardInterrupt:
        run.emit(Notice("Interrupted. Nothing that was trained is lost: run the same command again to go on."))
        raise
    return list((run.settled | ended).values())


def refuse_failures(records: Sequence[TrialRecord]) -> None:
    """For a command that is to fail when trials did. Raises TrialError, which tells of the first."""
    failed = [record for record in records if record.status == "failed"]
    if failed:
        raise TrialError(
            f"{len(failed)} of {len(records)} trials failed, the first ({failed[0].trial_id}) with: {failed[0].error}"
        )


def _cache_folder(store: Store, cache: str | Path | None) -> Path:
    if cache is not None:
        return Path(cache)
    if store.folder is not None:
        return store.folder / ".cache" / "data"
    return cache_folder() / "data"


def _write_study(run: StudyRun, store: Store) -> None:
    name = f"{run.study.name}/study.yaml"
    text = dump_study(run.study).encode()
    before = store.read(name)
    if before is not None and before != text:
        run.emit(
            Notice(
                f"{store.path(name)} described another version of this study and is replaced; "
                "trials of both stay in the table."
            )
        )
    if before != text:
        store.write(name, text)


def started_trials(out: str, study: str, only: Collection[str] | None = None) -> list[TrialRecord]:
    """Records of the study's trials that were ever started, or of those with ids in `only`."""
    store = Store(out)
    ids = [name for name in store.folders(f"{study}/trials") if only is None or name in only]
    with ThreadPoolExecutor(_THREADS) as threads:
        records = list(threads.map(lambda name: TrialFolder(store, study, name).read_record(), ids))
    return [record for record in records if record is not None]


# --- training one trial -----------------------------------------------------------------------------------------------


def fit_on(device: str) -> Fit:
    """`training.fit` on a device (``auto``, ``cpu``, ``cuda``), with the CPU threads that the trial's spec says."""
    return partial(_fit, device)


def _fit(device: str, trial: TrialSpec, data: Splits, checkpoint: Arrays | None) -> Iterator[Epoch]:
    import torch

    from smoe_ray.training.fit import Runtime, fit

    # How a sum is split over threads changes its last digits: the spec, not the machine, must say how many.
    before = torch.get_num_threads()
    torch.set_num_threads(trial.resources.cpus)
    try:
        yield from fit(trial, data, Runtime(device=device, checkpoint=checkpoint))
    finally:
        torch.set_num_threads(before)


def load_prepared(task: TrialTask) -> Splits:
    """A trial's data from the cache of prepared sources. Raises DataError."""
    return load_splits(task.trial.data, task.cache)


def train_trial(task: TrialTask, on_epoch: OnEpoch, fit: Fit, load: Load = load_prepared) -> TrialRecord | None:
    """Train one trial to its end, from its checkpoint if it has one.

    A trial whose training or data raise is recorded as failed, and keeps its rows and (unless it diverged) its
    checkpoint.

    Returns:
        How the trial ended, or its record if it was settled already; None if another process holds it and
        `task.wait` is false.

    Raises:
        ResultsError: its files cannot be read or written; the trial stays as it was.
    """
    folder = task.folder
    with _claim(folder, -1 if task.wait else 0) as claimed:
        if not claimed:
            return None
        record = folder.read_record()
        if record is not None and task.is_settled(record):
            return record
        folder.remove_leftovers()
        return _train(task, folder, _Clock(_begin(task, record)), on_epoch, fit, load)


def record_failure(task: TrialTask, error: TrialError) -> TrialRecord:
    """Record that a trial failed in a process that can no longer say so itself.

    While another process holds the trial, its file stays as it is: another run may be at it, and will write it.

    Raises:
        ResultsError: its files cannot be read or written.
    """
    folder = task.folder
    with _claim(folder, _PATIENCE_S) as claimed:
        record = folder.read_record() or _begin(task, None)
        if not task.is_settled(record):
            record = _Clock(record).ended("failed", error)
            if claimed:
                folder.write_record(record)
        return record


def record_pruned(task: TrialTask, reason: str) -> TrialRecord:
    """Record that a trial was stopped early, for the process that trains it and has written its last file.

    That process may hold the trial still, so nobody else does: the lock is not asked for.

    Raises:
        ResultsError: its files cannot be read or written.
    """
    folder = task.folder
    record = folder.read_record() or _begin(task, None)
    record = _Clock(record).ended("pruned", reason=reason)
    folder.write_record(record)
    folder.remove_checkpoint()
    return record


def _tidy(task: TrialTask) -> None:
    """Delete the checkpoint of a settled trial, which a kill just after the commit leaves behind."""
    folder = task.folder
    if "checkpoint" not in folder.store.folders(folder.name):
        return
    with _claim(folder, 0) as claimed:  # another run may have taken it up meanwhile, to retry it
        record = folder.read_record() if claimed else None
        if record is not None and task.is_settled(record):
            folder.remove_checkpoint()


class _Clock:
    """A trial's record, with the seconds that have passed since it was taken up."""

    def __init__(self, record: TrialRecord) -> None:
        self.record = record
        self._seconds = record.timings.seconds
        self._start = time.monotonic()

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


def _begin(task: TrialTask, before: TrialRecord | None) -> TrialRecord:
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
    )


def _describe(error: Exception) -> dict[str, str]:
    return {
        "error": plugins.explain(error) or " ".join(str(error).split()) or type(error).__name__,
        "error_kind": type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
    }


class _Failure(Exception):  # noqa: N818  (never shown to anyone)
    """Carries what went wrong in the training of a trial past the code that stores it."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Step(NamedTuple):
    epoch: int
    row: Row
    checkpoint: Arrays | None
    weights: Arrays | None
    embeddings: Arrays | None


def _train(task: TrialTask, folder: TrialFolder, clock: _Clock, on_epoch: OnEpoch, fit: Fit, load: Load) -> TrialRecord:
    rows = folder.read_rows()
    # Rows are written before the checkpoint: without them there is none to trust.
    checkpoint = folder.read_checkpoint() if rows else None
    try:
        splits = _load(task, load)
        folder.write_record(clock.running(data=_facts(splits)))
        for step in _steps(task.trial, splits, checkpoint, fit):
            rows = [*rows[: step.epoch - 1], step.row]  # rows beyond the checkpoint are computed again, to the same
            folder.write_epochs(rows)
            if step.checkpoint is not None:
                folder.write_checkpoint(step.checkpoint)
            if step.weights is not None:
                folder.write_weights(step.weights)
            if step.embeddings is not None:
                folder.write_embeddings(step.embeddings)
            if step.checkpoint is not None:  # after the last epoch the record that follows says it all
                folder.write_record(clock.running())
            reason = on_epoch(rows) or collapse_reason(task.collapse, rows)
            if reason and step.checkpoint is not None:
                record = clock.ended("pruned", reason=reason)
                break
        else:
            record = clock.ended("finished")
    except _Failure as failure:
        record = clock.ended("failed", failure.error)
    folder.write_record(record)
    if is_settled(record, retry_failed=False):  # what diverged, if only once more, is not taken up at its checkpoint
        folder.remove_checkpoint()
    return record


def _load(task: TrialTask, load: Load) -> Splits:
    with _blamed_on_the_trial():
        for name, identity in plugin_identities(task.trial).items():
            if identity != task.plugins.get(name):
                raise PluginError(
                    f"plug-in {name}: {socket.gethostname()} has another version of it ({identity}) than the study was "
                    f"planned with ({task.plugins.get(name)}); install the same on all nodes and run the study again"
                )
        splits = load(task)
        if trial_id(task.trial, splits.fingerprint) != task.trial_id:
            raise DataError("the data are not those that the study was planned with; run the study again")
        return splits


def _facts(splits: Splits) -> DataFacts:
    return DataFacts(
        fingerprint=splits.fingerprint,
        train_images=len(splits.train),
        test_images=len(splits.test),
        class_names=splits.class_names,
        style_names=splits.style_names,
        parameter_names=splits.parameter_names,
    )


def _steps(trial: TrialSpec, splits: Splits, checkpoint: Arrays | None, fit: Fit) -> Iterator[_Step]:
    """The epochs of a fit with the arrays to keep of each: a checkpoint, or at the last epoch the final files."""
    last = False
    with _blamed_on_the_trial():
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
def _blamed_on_the_trial() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _Failure(error) from error


@contextmanager
def _claim(folder: TrialFolder, patience_s: float) -> Iterator[bool]:
    """Hold the trial's lock; yields false when another process has it and keeps it for `patience_s` (-1: forever).

    Behind a URI there is no lock.
    """
    import filelock

    root = folder.store.folder
    if root is None:
        yield True
        return
    path = root / folder.lock_name
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=patience_s)
    except filelock.Timeout:
        yield False
        return
    except OSError as error:
        raise StorageError(f"{path}: cannot be locked: {error.strerror or error}") from error
    try:
        yield True
    finally:
        lock.release()
