"""Run a study: prepare its data, skip what is settled, let an executor train the rest."""

from __future__ import annotations

import json
from collections.abc import Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from smoe_ray.data import Source, prepare
from smoe_ray.data.files import Map, cache_folder, content_hashes
from smoe_ray.errors import DamagedError, DataError, StudyError, TrialError
from smoe_ray.model.cost import model_cost
from smoe_ray.planning import StudyPlan
from smoe_ray.results import Packer, Store, TrialFolder, TrialRecord
from smoe_ray.results.integrity import DigestOf, damage
from smoe_ray.results.record import FileDigest
from smoe_ray.results.study_file import seal_study, study_text
from smoe_ray.results.trial import trial_names
from smoe_ray.spec import DataSpec, GridStudy, SearchStudy, TrialSpec, dump_study, plugin_identities, trial_id
from smoe_ray.study.events import DataProgress, Event, Notice, OnEvent, StudyStarted, ignore
from smoe_ray.study.trial_run import TrialTask, is_settled, remove_stale_checkpoint, set_aside

_THREADS = 16  # they wait for a file system or an object store, not for the CPU


class Executor(Protocol):
    """Trains the trials of a study somewhere."""

    def run(self, run: StudyRun) -> Generator[TrialRecord, None, None]:
        """Train what a `TrialQueue` of `run` hands out; yield each trial as it ends, in whatever way it ends."""


@dataclass(frozen=True)
class StudyRun:
    """A study under way, as executors see it. Stays in the process that called `run_study`."""

    plan: StudyPlan
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

    @property
    def study(self) -> GridStudy | SearchStudy:
        """The spec of the study."""
        return self.plan.study

    def emit(self, event: Event) -> None:
        """Pass an event to the user's callback."""
        self.on_event(event)

    def source(self, data: DataSpec) -> Source:
        """The prepared source behind `data`; prepared on first use, once for all fractions. Raises DataError."""
        key = data.model_dump(mode="json") | {"fraction": None, "imbalance": None}
        name = json.dumps(key, sort_keys=True)
        if name not in self._sources:
            self._sources[name] = prepare(data, self.cache, self.data_jobs, self._on_data_progress, self.mirror)
            for note in self._sources[name].notes:
                self.emit(Notice(f"data: {note}"))
        return self._sources[name]

    def _on_data_progress(self, what: str, done: int, total: int) -> None:
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
            equivalence_margin=self.study.equivalence_margin,
        )

    def pending(self) -> list[TrialTask]:
        """The tasks of a grid that are not settled, in the order of the grid; emits `StudyStarted`."""
        assert isinstance(self.study, GridStudy)
        tasks = {task.trial_id: task for task in map(self.task, self.plan.known_trials)}
        for record in started_trials(self, only=tasks):
            if is_settled(record, self.retry_failed):
                self.settled[record.trial_id] = record
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(lambda name: remove_stale_checkpoint(tasks[name]), self.settled))
        self.emit(StudyStarted(self.study.name, len(tasks), len(self.settled)))
        return [task for task in tasks.values() if task.trial_id not in self.settled]


def run_study(
    study: GridStudy | SearchStudy | StudyPlan,
    out: str | Path,
    executor: Executor,
    *,
    cache: str | Path | None = None,
    data_jobs: int | Map = 1,
    retry_failed: bool = False,
    on_event: OnEvent = ignore,
) -> list[TrialRecord]:
    """Train the trials of a study that are still missing; to resume a study, run it again.

    The numbers of a trial depend on its spec and data alone, not on the executor, the number of concurrent trials,
    their order, or how often they were killed and resumed. So a grid always gives the same table, except for
    `results.TIMING_COLUMNS`, host and timings. A *search* proposes from the trials that have finished so far, so
    *which* trials it runs depends on the order in which they finish, unless one runs at a time, without interruption.

    Several processes may run the same study on one local OUT: a trial is claimed by a file lock, which the kernel
    releases when its holder dies. Behind a URI there are no locks; two processes may then train the same trial twice,
    which costs time but no result, since both write the same complete files.

    Args:
        study: from `load_study`, or its plan where the caller has made one already.
        out: folder or URI of the results; created if absent.
        executor: `LocalExecutor(jobs=2)`, or `RayExecutor()` for a cluster.
        cache: folder for prepared data; by default ``OUT/.cache/data``, or, where OUT is a URI, the user's cache with
            a copy below OUT, for runs on other machines.
        data_jobs: processes that prepare data; or ``executor.map`` of a `RayExecutor`, to prepare them on its cluster.
        retry_failed: train diverged trials again, too. (Trials that failed otherwise are always retried.)
        on_event: called in this process with each event (`study.events`), e.g. for a progress bar.

    Returns:
        The record of every trial: first those settled before, then the others in the order in which they ended.
        Failed trials are included (`status`, `error`); they do not raise.

    Raises:
        StudyError, DataError, PluginError: the study cannot be planned.
        ResultsError: OUT cannot be read or written.
        KeyboardInterrupt: after Ctrl-C, once all workers have ended; a `Notice` has said how to resume.
    """
    plan = StudyPlan.of(study)
    store = Store(out)
    store.refuse_file("--out needs a folder")
    mirror = store.path(".cache/data") if store.folder is None else None
    run = StudyRun(plan, store.out, prepared_cache(store, cache), retry_failed, on_event, data_jobs, mirror=mirror)
    ended: dict[str, TrialRecord] = {}
    packer = Packer(store, run.study.name)
    plan.check_plugins()
    try:
        _prepare(run)
        _write_study(run, store)
        with closing(executor.run(run)) as trials:
            for record in trials:
                ended[record.trial_id] = record
                packer.ended(len(run.settled) + len(ended))
        packer.write()
    except KeyboardInterrupt:
        run.emit(Notice("Interrupted. Nothing that was trained is lost: run the same command again to resume."))
        raise
    return list((run.settled | ended).values())


def refuse_failures(records: Sequence[TrialRecord], *, strict: bool = True) -> str | None:
    """Raise TrialError with the first failure if any trial failed, so that the exit code of a command shows it.

    Args:
        records: of all trials of a study.
        strict: False: failures that a retry would repeat (the loss diverged) are results, and do not raise.

    Returns:
        One line with the number of trials that diverged; None if there are none.
    """
    failed = [record for record in records if record.status == "failed"]
    diverged = [record for record in failed if is_settled(record, retry_failed=False)]
    refused = failed if strict else [record for record in failed if record not in diverged]
    if refused:
        raise TrialError(
            f"{len(failed)} of {len(records)} trials failed, the first ({refused[0].trial_id}) with: {refused[0].error}"
        )
    if not diverged:
        return None
    return (
        f"{len(diverged)} of {len(records)} trials diverged, the first ({diverged[0].trial_id}) with: "
        f"{diverged[0].error}; this is final, a retry would repeat it"
    )


def _prepare(run: StudyRun) -> None:
    """Prepare the data of the known trials. Raises StudyError where a model of the study cannot take the images."""
    trials = [(trial.model, trial.data) for trial in run.plan.known_trials]
    trials += [(trial.model, run.study.base.data) for trial in run.plan.corners]
    for model, image_shape in dict.fromkeys((model, run.source(data).train.image_shape) for model, data in trials):
        model_cost(model, image_shape)


def prepared_cache(store: Store, cache: str | Path | None) -> Path:
    """Where a run keeps prepared data: `cache` itself, or the default of `run_study`."""
    if cache is not None:
        return Path(cache)
    if store.folder is not None:
        return store.folder / ".cache" / "data"
    return cache_folder() / "data"


def _write_study(run: StudyRun, store: Store) -> None:
    name = f"{run.study.name}/study.yaml"
    text = dump_study(run.study)
    sealed = seal_study(text.encode())
    try:
        content = store.read(name)
        before = None if content is None else study_text(content, store.path(name))
    except (DamagedError, StudyError) as error:
        run.emit(Notice(f"{error}; it is written again."))
        content = before = None
    if before is not None and before != text:
        run.emit(
            Notice(
                f"{store.path(name)} described another version of this study and is replaced; "
                "trials of both stay in the table."
            )
        )
    if content != sealed:  # one of an earlier version has no checksum, and other nodes look for the whole file
        store.write(name, sealed)


def started_trials(run: StudyRun, only: Collection[str] | None = None) -> list[TrialRecord]:
    """Records of all trials of the study that were ever started, or of those whose ids are in `only`.

    A damaged trial is set aside, with a notice. Its record, where it can be read, says then that the trial is running:
    it remains to be trained.
    """
    store = Store(run.out)
    folders = [
        TrialFolder(store, run.study.name, name)
        for name in trial_names(store, run.study.name)
        if only is None or name in only
    ]
    with ThreadPoolExecutor(_THREADS) as threads:
        read = dict(zip(folders, threads.map(_record_or_damage, folders), strict=True))
        ended = {
            folder: record
            for folder, record in read.items()
            if isinstance(record, TrialRecord) and is_settled(record, retry_failed=False)
        }
        digest_of = _digest_of(store, run) if ended else None
        if digest_of is not None:
            first_damage = threads.map(lambda folder: next(damage(folder, ended[folder], digest_of), None), ended)
            problems = dict(zip(ended, first_damage, strict=True))
        else:
            problems = {}
    problems |= {folder: error for folder, error in read.items() if isinstance(error, DamagedError)}
    records = {folder: record for folder, record in read.items() if isinstance(record, TrialRecord)}
    for folder, error in problems.items():
        done = set_aside(folder, error) if error is not None else None
        if done is not None:  # else another process trains it
            run.emit(Notice(done))
            if folder in records:
                records[folder] = records[folder].model_copy(update={"status": "running", "files": {}})
    return list(records.values())


def _record_or_damage(folder: TrialFolder) -> TrialRecord | DamagedError | None:
    try:
        return folder.read_record()
    except DamagedError as error:
        return error


def _digest_of(store: Store, run: StudyRun) -> DigestOf:
    """What the files of trials are: in a local OUT from their content, read once per machine as long as nothing writes
    to them; behind a URI, where reading is slow and the storage has checksums of its own, by their sizes alone.
    """
    hashes = run.cache / "hashes"
    listed = store.files(f"{run.study.name}/trials")

    def digest(folder: TrialFolder, record: TrialRecord, file: str) -> FileDigest | None:
        version = listed.get(f"{folder.name}/{file}")
        recorded = record.files.get(file)
        if version is None or recorded is None or version.size != recorded.size:
            return version and FileDigest(size=version.size, sha256="")
        if store.folder is None:
            return recorded
        path = store.folder / folder.name / file
        try:
            [remembered] = content_hashes([path], hashes)
        except (OSError, DataError):  # another process has set the trial aside, or writes to it
            return folder.digest(file)
        # What is remembered may itself be what is damaged.
        return recorded if remembered == recorded.sha256 else folder.digest(file)

    return digest
