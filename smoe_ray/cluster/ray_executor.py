"""Trials on Ray: Tune schedules them, restarts them when a process or node dies, and reuses actors.

The state of a study is in OUT, from which a later run resumes. Tune's own snapshots are neither needed nor kept.
"""

from __future__ import annotations

import logging
import queue
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from smoe_ray.cluster import resources
from smoe_ray.cluster.runtime import Connection, connected, environment, refuse_unreachable
from smoe_ray.errors import ClusterError, SmoeRayError, StudyError
from smoe_ray.inspect.preview import peak_memory
from smoe_ray.results import Store, TrialRecord
from smoe_ray.results.study_file import seal_study
from smoe_ray.spec import GridStudy, ResourcesSpec, SearchStudy, dump_study
from smoe_ray.study.driver import StudyRun
from smoe_ray.study.events import Event, Notice, OnEvent, TrialEnded
from smoe_ray.study.local import usable_cpus
from smoe_ray.study.storage_retries import STORAGE_TIMEOUT_S
from smoe_ray.study.trial_queue import TrialQueue
from smoe_ray.study.trial_run import Fit

if TYPE_CHECKING:
    from smoe_ray.cluster.tune_bridge import TuneBridge

_MAX_FAILURES = 2  # of a trial's actor, after which its trial has failed
_NODES_AGE_S = 5.0  # how long a list of the cluster's nodes is used
_POLL_S = 1.0  # between two checks whether anything runs

_TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",  # only the old output can be silenced
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in a study are relative to the driver's working directory
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # concurrency is limited by the bridge
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}

Item = TypeVar("Item")
Result = TypeVar("Result")


class RayExecutor:
    """Trains on a Ray cluster, or on a private Ray on this machine.

    In a ``with`` block Ray stays up from its first use to the end of the block; otherwise for one study.

    Args:
        address: ``auto`` or ``<host>:6379`` of a cluster. By default RAY_ADDRESS, which Ray sets for its jobs, and
            without that a private Ray.
        jobs: maximum number of concurrent trials; by default as many as the cluster has resources for.
        fit: trains in place of `training.fit` on the trial's `resources`; must be picklable.
        deadline_s: a study for whose trials there have been no resources for this long ends with an error; resumable.
        storage_timeout_s: retry timeout for unavailable storage, seconds.
    """

    def __init__(
        self,
        address: str | None = None,
        jobs: int | None = None,
        *,
        fit: Fit | None = None,
        deadline_s: float = 600.0,
        storage_timeout_s: float = STORAGE_TIMEOUT_S,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"jobs is {jobs}; at least one is needed")
        self.address = address
        self.jobs = jobs
        self.deadline_s = deadline_s
        self.storage_timeout_s = storage_timeout_s
        self._fit = fit
        self._uses = 0
        self._ray = ExitStack()
        self._connection: Connection | None = None
        """None: Ray is not running yet."""
        self._has_dashboard = False

    def __enter__(self) -> Self:
        if self._uses == 0:
            refuse_unreachable(self.address)  # before the study writes anything
        self._uses += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uses -= 1
        if self._uses == 0:
            self._close()

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield `function(item)` for each item, in order, computed in Ray tasks: of data, and of probes.

        Raises:
            ClusterError: Ray ends, or a task's process dies again and again.
        """
        with self:
            yield from _map(function, items, self._open(), self.jobs)

    def run(self, run: StudyRun) -> Generator[TrialRecord, None, None]:
        """Train the trials of a study, yielding each as it ends.

        Raises:
            StudyError: the cluster cannot host a trial, or has had no resources for `deadline_s`.
            ClusterError: Ray cannot be reached or started, ends, Tune fails, or the nodes do not share a local OUT.
            ResultsError: OUT cannot be read or written, or has been unavailable for `storage_timeout_s`.
        """
        # The queue is used in Tune's thread: its events are passed to this one, and data that a search needs while it
        # runs are prepared in that thread, since Ray tasks would wait for CPUs that the trials occupy.
        events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        in_tune = replace(run, on_event=events.put, data_jobs=1)
        tasks = TrialQueue(in_tune)
        first = tasks.next()
        while not events.empty():
            run.emit(cast(Event, events.get()))
        if first is None:
            return
        with self:
            requests = run.plan.resources
            connection = self._open(dashboard=any(request.is_distributed for request in requests))
            nodes = resources.cluster_nodes()
            resources.refuse_infeasible(requests, nodes)
            _refuse_unshared(run)
            if any(node["GPU"] for node in nodes) and not any(request.gpus for request in requests):
                run.emit(
                    Notice("Trials run on CPUs, though there are GPUs: resources.gpus of the study asks for none.")
                )

            peaks = None if any(request.gpus for request in requests) else peak_memory(run.plan)
            if peaks and (note := resources.note_on_memory(peaks[1], requests, nodes, self.jobs)):
                run.emit(Notice(note))

            from smoe_ray.cluster.metrics import LiveMetrics
            from smoe_ray.cluster.tune_bridge import TuneBridge

            limit = _ConcurrencyLimit(run.study, self.jobs, requests)
            bridge = TuneBridge(in_tune, tasks, first, limit, connection, self.storage_timeout_s)
            thread = threading.Thread(target=self._tune, args=(bridge, events), name="tune", daemon=True)
            thread.start()
            try:
                checks = connection.refuse_lost, _IdleDeadline(run.study, bridge, self.deadline_s)
                yield from _relay(run, events, LiveMetrics(run.plan, len(run.settled)), checks)
            finally:
                bridge.stopping.set()
                if not connection.is_lost:  # else both would wait for it
                    bridge.abandon()
                    thread.join()
            if bridge.problem is not None:
                raise bridge.problem

    def _tune(self, bridge: TuneBridge, events: queue.SimpleQueue[Event | None]) -> None:
        """Run Tune to the end of the study. An error is kept in `bridge.problem`."""
        try:
            _fit_tuner(bridge, fit=self._fit, storage_timeout_s=self.storage_timeout_s, deadline_s=self.deadline_s)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            bridge.problem = bridge.problem or ClusterError(f"Ray Tune failed: {reason}; run the study again to resume")
            bridge.problem.__cause__ = bridge.problem.__cause__ or error
        finally:
            events.put(None)

    def _open(self, dashboard: bool = False) -> Connection:
        if dashboard and not self._has_dashboard:
            self._close()
        if self._connection is None:
            self._connection = self._ray.enter_context(connected(self.address, usable_cpus(), dashboard))
            self._has_dashboard = dashboard
        return self._connection

    def _close(self) -> None:
        self._ray.close()
        self._connection = None


def _relay(
    run: StudyRun, events: queue.SimpleQueue[Event | None], metrics: OnEvent, checks: Sequence[Callable[[], None]]
) -> Iterator[TrialRecord]:
    """Pass events to the user and to `metrics` until None arrives; yield the trials that end; check now and then."""
    checked = time.monotonic()
    while True:
        event: Event | None = None
        with suppress(queue.Empty):
            event = events.get(timeout=_POLL_S)
            if event is None:
                return
        if time.monotonic() - checked >= _POLL_S:
            for check in checks:
                check()
            checked = time.monotonic()
        if event is None:
            continue
        run.emit(event)
        metrics(event)
        if isinstance(event, TrialEnded):
            yield event.record


def _fit_tuner(bridge: TuneBridge, **parameters: Any) -> None:
    from ray import tune

    from smoe_ray.cluster.trial import train_in_tune
    from smoe_ray.cluster.tune_bridge import BridgeCallback, BridgeScheduler, BridgeSearcher, BridgeStopper

    trainable = tune.with_resources(
        tune.with_parameters(train_in_tune, **parameters),
        lambda config: resources.placement(config["task"].trial.resources),
    )
    with environment(_TUNE), _quiet(), tempfile.TemporaryDirectory(prefix="tune-", dir=bridge.scratch) as folder:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=BridgeSearcher(bridge),
                scheduler=BridgeScheduler(bridge),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=lambda trial: trial.config["task"].trial_id,
                trial_dirname_creator=lambda trial: f"{trial.config['task'].trial_id}-{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name=f"smoe-ray-{uuid.uuid4().hex[:12]}",
                storage_path=folder,
                stop=BridgeStopper(bridge),
                callbacks=[BridgeCallback(bridge)],
                failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
                verbose=0,
            ),
        ).fit()


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray's messages belong in its log files; what matters to the user is an event."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


class _ConcurrencyLimit:
    """How many trials Tune may have now: as many as fit on the cluster, but at least one, which waits for resources."""

    def __init__(self, study: GridStudy | SearchStudy, jobs: int | None, requests: Sequence[ResourcesSpec]) -> None:
        self._most = min((limit for limit in (jobs, study.max_concurrent_trials) if limit), default=None)
        self._requests = requests
        self._capacity = 1
        self._updated = -_NODES_AGE_S

    def __call__(self) -> int:
        now = time.monotonic()
        if now - self._updated >= _NODES_AGE_S:  # nodes come and go
            nodes = resources.cluster_nodes()
            self._capacity = max(1, *(resources.capacity(request, nodes) for request in self._requests))
            self._updated = now
        return min(self._capacity, self._most or self._capacity)


class _IdleDeadline:
    """Raises StudyError when no trial has run for `seconds`, because the cluster lacks the resources."""

    def __init__(self, study: GridStudy | SearchStudy, bridge: TuneBridge, seconds: float) -> None:
        self._study = study
        self._bridge = bridge
        self._seconds = seconds
        self._idle_since: float | None = None

    def __call__(self) -> None:
        now = time.monotonic()
        if not self._bridge.is_idle:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since > self._seconds:
            raise StudyError(
                f"study {self._study.name}: for {self._seconds:.0f} s nothing could host its trials; the cluster has "
                f"{resources.describe(resources.cluster_nodes())}; what was trained is kept: mend the cluster and run "
                "the study again"
            )


def _map(
    function: Callable[[Item], Result], items: Sequence[Item], connection: Connection, jobs: int | None
) -> Iterator[Result]:
    """In Ray tasks of one CPU each, at most as many at a time as the cluster has CPUs, or `jobs`."""
    import ray

    task = ray.remote(num_cpus=1)(function)
    ahead = max(1, int(sum(node["CPU"] for node in resources.cluster_nodes())))
    ahead = min(ahead, jobs or ahead)
    running = [task.remote(item) for item in items[:ahead]]
    for position in range(len(items)):
        while not ray.wait(running[:1], timeout=_POLL_S)[0]:
            connection.refuse_lost()
        try:
            result = ray.get(running.pop(0))
        except SmoeRayError:  # of the function itself: Ray raises it as both
            raise
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ClusterError(f"a task ended early: {reason[0]}; run the same command again to go on") from error
        yield result
        if position + ahead < len(items):
            running.append(task.remote(items[position + ahead]))


def _refuse_unshared(run: StudyRun) -> None:
    """Raise ClusterError unless a local OUT is the same folder on all nodes, i.e. each sees the study's file there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from smoe_ray.cluster.trial import SHARED_OUT_HINT

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
        raise ClusterError(
            f"{run.out}: not the same folder on all nodes ({', '.join(blind)} has another); {SHARED_OUT_HINT}"
        )


def _sees(out: str, study: str, text: str) -> bool:
    return Store(out).read(f"{study}/study.yaml") == seal_study(text.encode())
