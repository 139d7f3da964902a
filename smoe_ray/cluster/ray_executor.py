"""Trials on Ray: Tune places them, moves them when a process or node dies, and reuses processes; OUT is the record.

A study that is run again goes on from what OUT holds. Tune's own snapshots are neither needed nor kept.
"""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from smoe_ray.cluster import resources
from smoe_ray.cluster.runtime import Logs, connected, environment
from smoe_ray.errors import ClusterError, StudyError
from smoe_ray.results import Store, TrialRecord
from smoe_ray.spec import GridStudy, ResourcesSpec, SearchStudy, dump_study
from smoe_ray.study.events import Event, Notice, OnEvent, TrialEnded, ignore
from smoe_ray.study.local import usable_cpus
from smoe_ray.study.plan import corners, plan_grid
from smoe_ray.study.run import Fit, StudyRun
from smoe_ray.study.search import Search
from smoe_ray.study.work import Listed, Queue, Work

if TYPE_CHECKING:
    from smoe_ray.cluster.desk import Desk

_MAX_FAILURES = 2  # deaths of a trial's process that are forgiven
_NODES_AGE_S = 5.0  # after which the cluster is asked again what it has
_LOOK_S = 1.0  # between looks at whether anything runs

_TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the old one can be silent
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in a study are relative to where it was started
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # how many there are is for the desk to say
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}

Item = TypeVar("Item")
Result = TypeVar("Result")


class RayExecutor:
    """Trains on a Ray cluster, or on a Ray of its own on this machine.

    In a ``with`` block Ray stays up from its first use to the end of the block; otherwise it is there for one study.

    Args:
        address: ``auto`` or ``<host>:6379`` of a cluster. By default RAY_ADDRESS, which Ray sets for its jobs, and
            without that a Ray of its own.
        jobs: most trials at once; by default as many as there is room for.
        fit: trains in place of `training.fit` on what `resources` of the trial says; must be picklable.
        deadline_s: a study that nothing can host for so long ends, resumable.
        patience_s: so long a storage that does not answer is asked again.
    """

    def __init__(
        self,
        address: str | None = None,
        jobs: int | None = None,
        *,
        fit: Fit | None = None,
        deadline_s: float = 600.0,
        patience_s: float = 600.0,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"jobs is {jobs}; at least one is needed")
        self.address = address
        self.jobs = jobs
        self.deadline_s = deadline_s
        self.patience_s = patience_s
        self._fit = fit
        self._uses = 0
        self._ray = ExitStack()
        self._logs: Logs | None = None
        """None: no Ray yet."""
        self._has_dashboard = False

    def __enter__(self) -> Self:
        self._uses += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uses -= 1
        if self._uses == 0:
            self._close()

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """`function` of each item, in order, as Ray tasks. For `run_study(data_jobs=...)`."""
        with self:
            self._open()
            yield from _map(function, items)

    def grid(self, run: StudyRun) -> Generator[TrialRecord, None, None]:
        """Train the trials of `run.pending()`, yielding each as it ends."""
        events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        return self._run(run, events, Listed(run.pending()))

    def search(self, run: StudyRun) -> Generator[TrialRecord, None, None]:
        """Train what the sampler proposes, yielding each trial as it ends."""
        events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        # Proposals are made in Tune's thread: what they tell goes the way of all events, and data that they need first
        # must not wait for CPUs that trials have.
        return self._run(run, events, Search(replace(run, on_event=events.put, data_jobs=1)))

    def _run(
        self, run: StudyRun, events: queue.SimpleQueue[Event | None], work: Work
    ) -> Generator[TrialRecord, None, None]:
        there = replace(run, on_event=events.put, data_jobs=1)
        tasks = Queue(there, work)
        first = tasks.next()
        if first is None:
            events.put(None)
            yield from _until_none(run, events)
            return
        with self:
            asked = _asked(run.study)
            logs = self._open(dashboard=any(each.is_distributed for each in asked))
            nodes = resources.cluster_nodes()
            resources.refuse_infeasible(asked, nodes)
            _refuse_unshared(run)
            if any(node["GPU"] for node in nodes) and not any(each.gpus for each in asked):
                run.emit(
                    Notice("Trials run on CPUs, though there are GPUs: resources.gpus of the study asks for none.")
                )

            from smoe_ray.cluster.desk import Desk
            from smoe_ray.cluster.metrics import LiveMetrics

            desk = Desk(there, tasks, first, _Limit(run.study, self.jobs, asked), logs, self.patience_s)
            thread = threading.Thread(target=self._tune, args=(desk, events), name="tune")
            thread.start()
            try:
                look = _Deadline(run.study, desk, self.deadline_s)
                yield from _until_none(run, events, LiveMetrics(run.study, len(run.settled)), look)
            finally:
                desk.abandon()
                thread.join()
            if desk.problem is not None:
                raise desk.problem

    def _tune(self, desk: Desk, events: queue.SimpleQueue[Event | None]) -> None:
        """Run Tune to the end of the study. What goes wrong is left at the desk."""
        try:
            _fit_tuner(desk, fit=self._fit, patience_s=self.patience_s, deadline_s=self.deadline_s)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            desk.problem = desk.problem or ClusterError(f"Ray Tune gave up: {reason}; run the study again to go on")
            desk.problem.__cause__ = desk.problem.__cause__ or error
        finally:
            events.put(None)

    def _open(self, dashboard: bool = False) -> Logs:
        if dashboard and not self._has_dashboard:
            self._close()
        if self._logs is None:
            self._logs = self._ray.enter_context(connected(self.address, usable_cpus(), dashboard))
            self._has_dashboard = dashboard
        return self._logs

    def _close(self) -> None:
        self._ray.close()
        self._logs = None


def _until_none(
    run: StudyRun,
    events: queue.SimpleQueue[Event | None],
    listen: OnEvent = ignore,
    look: Callable[[], None] = lambda: None,
) -> Iterator[TrialRecord]:
    """Tell the user and `listen` what happens, and yield the trials that end; `look` now and then."""
    while True:
        try:
            event = events.get(timeout=_LOOK_S)
        except queue.Empty:
            look()
            continue
        if event is None:
            return
        run.emit(event)
        listen(event)
        if isinstance(event, TrialEnded):
            yield event.record


def _fit_tuner(desk: Desk, **parameters: Any) -> None:
    from ray import tune

    from smoe_ray.cluster.desk import DeskCallback, DeskScheduler, DeskSearcher, DeskStopper
    from smoe_ray.cluster.trial import train_in_tune

    trainable = tune.with_resources(
        tune.with_parameters(train_in_tune, **parameters),
        lambda config: resources.placement(config["task"].trial.resources),
    )
    with environment(_TUNE), _quiet(), tempfile.TemporaryDirectory(prefix=f"smoe-{os.getpid()}-tune-") as folder:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=DeskSearcher(desk),
                scheduler=DeskScheduler(desk),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["task"].trial_id,
                trial_dirname_creator=lambda trial: f"{trial.config['task'].trial_id}-{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=f"smoe-ray-{uuid.uuid4().hex[:12]}",
                storage_path=folder,
                stop=DeskStopper(desk),
                callbacks=[DeskCallback(desk)],
                failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
                verbose=0,
            ),
        ).fit()


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray's own remarks are for its log files; what matters to the user is an event."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _asked(study: GridStudy | SearchStudy) -> list[ResourcesSpec]:
    """The kinds of resources that a study's trials ask for."""
    if isinstance(study, GridStudy):
        trials = plan_grid(study)
    else:
        varied = any(path.startswith("resources") for path in study.space)
        trials = [study.base, *(corners(study) if varied else ())]
    return list(dict.fromkeys(trial.resources for trial in trials))


class _Limit:
    """How many trials Tune may have at this moment: as many as there is room for, and one at least to wait for room."""

    def __init__(self, study: GridStudy | SearchStudy, jobs: int | None, asked: Iterable[ResourcesSpec]) -> None:
        self._most = min((limit for limit in (jobs, study.max_concurrent_trials) if limit), default=None)
        self._asked = list(asked)
        self._room = 1
        self._looked = -_NODES_AGE_S

    def __call__(self) -> int:
        now = time.monotonic()
        if now - self._looked >= _NODES_AGE_S:  # nodes come and go
            nodes = resources.cluster_nodes()
            self._room = max(1, *(resources.room(each, nodes) for each in self._asked))
            self._looked = now
        return min(self._room, self._most or self._room)


class _Deadline:
    """Ends a study that nothing can host any more."""

    def __init__(self, study: GridStudy | SearchStudy, desk: Desk, seconds: float) -> None:
        self._study = study
        self._desk = desk
        self._seconds = seconds
        self._idle_since: float | None = None

    def __call__(self) -> None:
        now = time.monotonic()
        if not self._desk.is_idle:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since > self._seconds:
            raise StudyError(
                f"study {self._study.name}: for {self._seconds:.0f} s nothing could host its trials; the cluster has "
                f"{resources.describe(resources.cluster_nodes())}; what was trained is kept: mend the cluster and run "
                "the study again"
            )


def _map(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """As Ray tasks of one CPU each, no more under way than the cluster has CPUs."""
    import ray

    task = ray.remote(num_cpus=1)(function)
    ahead = max(1, int(sum(node["CPU"] for node in resources.cluster_nodes())))
    under_way = [task.remote(item) for item in items[:ahead]]
    for position in range(len(items)):
        yield ray.get(under_way.pop(0))
        if position + ahead < len(items):
            under_way.append(task.remote(items[position + ahead]))


def _refuse_unshared(run: StudyRun) -> None:
    """A local OUT must be the same folder on all nodes: each is asked whether it sees the study there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from smoe_ray.cluster.trial import SHARE

    if Store(run.out).folder is None:
        return
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in resources.alive_nodes() if node["NodeID"] != here]
    sees = ray.remote(num_cpus=0)(_sees)
    answers = {
        node["NodeManagerHostname"]: sees.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(run.out, run.study.name, dump_study(run.study))
        for node in others
    }
    blind = [name for name, answer in answers.items() if not ray.get(answer)]
    if blind:
        raise ClusterError(f"{run.out}: not the same folder on all nodes ({', '.join(blind)} has another); {SHARE}")


def _sees(out: str, study: str, text: str) -> bool:
    return Store(out).read(f"{study}/study.yaml") == text.encode()
