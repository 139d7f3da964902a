"""Trials on this machine: in worker processes, or one after another in this process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from smoe_ray.errors import SmoeRayError, StudyError, WorkerDiedError
from smoe_ray.results import Row, TrialRecord
from smoe_ray.study.driver import StudyRun
from smoe_ray.study.stop_signals import ASKED_TO_STOP
from smoe_ray.study.storage_retries import STORAGE_TIMEOUT_S, StorageRetries
from smoe_ray.study.trial_queue import TrialQueue
from smoe_ray.study.trial_run import Fit, OnEpoch, TrialTask, fit_on, record_failure, train_trial

Train = Callable[[TrialTask, OnEpoch], TrialRecord | None]

Item = TypeVar("Item")
Result = TypeVar("Result")


class LocalExecutor:
    """Trains on this machine.

    Args:
        jobs: concurrent trials, in that many spawned processes, each with as many CPU threads as its trial's
            `resources.cpus`. If a process dies, its trial is resumed once from its checkpoint; if that process dies
            too, the trial is recorded as failed. Other trials are not affected. 0: one after another in this process,
            which starts at once, takes a `fit` that cannot be pickled, and dies with a trial that the kernel kills.
        device: ``auto``, ``cpu`` or ``cuda``.
        fit: trains in place of `training.fit` on `device`; must be picklable unless `jobs` is 0.
        storage_timeout_s: retry timeout for unavailable storage, seconds.
    """

    def __init__(
        self,
        jobs: int = 0,
        device: str = "auto",
        fit: Fit | None = None,
        *,
        storage_timeout_s: float = STORAGE_TIMEOUT_S,
    ) -> None:
        if jobs < 0:
            raise ValueError(f"jobs is {jobs}; give the number of processes, or 0 to train in this one")
        self.jobs = jobs
        self.storage_timeout_s = storage_timeout_s
        self._train: Train = partial(train_trial, fit=fit or fit_on(device))

    def run(self, run: StudyRun) -> Generator[TrialRecord, None, None]:
        """Train the trials of a study, yielding each as it ends.

        Raises:
            StudyError: a trial needs several workers.
            ResultsError: OUT cannot be read or written, or has been unavailable for `storage_timeout_s`.
        """
        if any(resources.is_distributed for resources in run.plan.resources):
            raise StudyError("resources.workers: data-parallel workers need the ray executor; or set it to 1")
        queue = TrialQueue(run)
        if self.jobs == 0:
            return _in_process(queue, self._train, self.storage_timeout_s)
        jobs = min(self.jobs, run.study.max_concurrent_trials or self.jobs)
        return _Pool(queue, self._train, jobs, self.storage_timeout_s).run()

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        """Yield `function(item)` for each item, in order: in `jobs` processes, or in this one if that is less than two.

        Raises:
            WorkerDiedError: one of these died.
        """
        if self.jobs < 2:
            yield from map(function, items)
            return
        others = set(multiprocessing.active_children())
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(self.jobs, len(items) or 1), context, initializer=_serve_parent) as pool:
            try:
                yield from pool.map(function, items)
            except BrokenProcessPool:
                raise WorkerDiedError(
                    "a worker process died (out of memory? lower --jobs); run the same command again to go on"
                ) from None
            except BaseException:  # Ctrl-C, too: nobody waits for what is under way
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in set(multiprocessing.active_children()) - others:
                    worker.kill()
                raise


def usable_cpus() -> int:
    """CPUs that this process may use: in a container or under taskset, fewer than the machine has."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")  # "<microseconds> <period>", or "max <period>"
    if quota.is_file():
        share, _, period = quota.read_text().partition(" ")
        if share != "max":
            available = min(available, max(1, int(share) // int(period)))
    return available


def _in_process(queue: TrialQueue, train: Train, storage_timeout_s: float) -> Generator[TrialRecord, None, None]:
    retries = StorageRetries(storage_timeout_s, queue.notify)
    while task := queue.next():
        queue.started(task)
        record = _train_patiently(retries, train, task, partial(queue.on_epoch, task))
        if record is None:
            queue.defer(task)
        else:
            yield retries.call(queue.ended, record)


def _train_patiently(retries: StorageRetries, train: Train, task: TrialTask, on_epoch: OnEpoch) -> TrialRecord | None:
    """Train a trial; after an outage of the storage it goes on from its checkpoint."""

    def stored(rows: Sequence[Row]) -> str | None:
        retries.reset()
        return on_epoch(rows)

    return retries.call(train, task, stored)


# --- worker processes -------------------------------------------------------------------------------------------------
#
# Each worker has its own pipe. It sends ("ready", None) once. Then, for each TrialTask that the parent sends, it sends
# ("epoch", rows) per epoch, to which the parent replies with a reason to stop or None, ("notice", a line for the user)
# now and then, and finally ("ended", record or None) or ("error", exception).


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection[Any, Any]
    task: TrialTask | None = None
    ready: bool = False

    def send(self, message: Any) -> None:
        with suppress(OSError):  # it died, which its sentinel reports, too
            self.pipe.send(message)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class _Pool:
    """Up to `jobs` worker processes, started when there is a task for them."""

    def __init__(self, queue: TrialQueue, train: Train, jobs: int, storage_timeout_s: float) -> None:
        self._queue = queue
        self._serve = partial(_serve, train=train, storage_timeout_s=storage_timeout_s)
        self._retries = StorageRetries(storage_timeout_s, queue.notify)
        self._jobs = jobs
        self._workers: list[_Worker] = []
        self._died_once: set[str] = set()

    def run(self) -> Generator[TrialRecord, None, None]:
        """Yield each trial as it ends. All workers are killed when this generator ends, whatever ends it."""
        try:
            while busy := self._assign():
                for worker in _wait_for_message(busy):
                    record = self._receive(worker)
                    if record is not None:
                        yield self._retries.call(self._queue.ended, record)
        finally:
            for worker in self._workers:
                worker.kill()

    def _assign(self) -> list[_Worker]:
        """Give idle workers a task while there are any; return the workers that have one."""
        busy = [worker for worker in self._workers if worker.task is not None]
        while len(busy) < self._jobs and (task := self._queue.next()):
            idle = [worker for worker in self._workers if worker.task is None]
            worker = idle[0] if idle else self._start()
            worker.task = task
            worker.send(task)
            self._queue.started(task)
            busy.append(worker)
        return busy

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=self._serve, args=(theirs,), daemon=True)
        # Ctrl-C and a closed terminal signal every process of the terminal's job, but only the parent handles that:
        # workers inherit the mask. (The first start would also start the resource tracker, which unblocks signals.)
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *ASKED_TO_STOP})
        try:
            process.start()
            self._workers.append(worker := _Worker(process, ours))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()  # so that the worker's death ends the pipe
        return worker

    def _receive(self, worker: _Worker) -> TrialRecord | None:
        """Handle one message of a worker, or its death; return a record when a trial ended."""
        task = worker.task
        assert task is not None
        kind: str = "died"
        content: Any = None
        with suppress(EOFError, OSError):
            if worker.pipe.poll():
                kind, content = worker.pipe.recv()
        if kind == "died":
            return self._on_death(worker, task)
        if kind == "ready":
            worker.ready = True
        elif kind == "epoch":
            worker.send(self._queue.on_epoch(task, content))
        elif kind == "notice":
            self._queue.notify(content)
        elif kind == "error":
            raise content
        else:
            worker.task = None
            if content is None:
                self._queue.defer(task)
            record: TrialRecord | None = content
            return record
        return None

    def _on_death(self, worker: _Worker, task: TrialTask) -> TrialRecord | None:
        worker.process.join(timeout=5)  # its pipe closes a moment before it exits: wait for its exit code
        worker.kill()
        self._workers.remove(worker)
        code = worker.process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if not worker.ready:
            raise WorkerDiedError(f"a worker process {how} before it could train anything; its own output says why")
        if task.trial_id not in self._died_once:
            self._died_once.add(task.trial_id)
            self._queue.requeue(task, f"its process {how}")
            return None
        memory = "out of memory? lower --jobs, training.batch_size or model.num_experts"
        hint = memory if code == -signal.SIGKILL else "its own output says why"
        return record_failure(task, WorkerDiedError(f"the process that trained it {how}, for the second time; {hint}"))


def _wait_for_message(workers: list[_Worker]) -> list[_Worker]:
    """Wait until a worker sends a message or dies; return those that did."""
    # The end of the pipe alone is not enough: a process that the worker started may hold it open.
    ready = wait([handle for worker in workers for handle in (worker.pipe, worker.process.sentinel)])
    return [worker for worker in workers if worker.pipe in ready or worker.process.sentinel in ready]


def _serve(pipe: Connection[Any, Any], train: Train, storage_timeout_s: float) -> None:
    """Main loop of a worker process."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    retries = StorageRetries(storage_timeout_s, lambda text: pipe.send(("notice", text)))

    def on_epoch(rows: Sequence[Row]) -> str | None:
        try:
            pipe.send(("epoch", rows))
            reason: str | None = pipe.recv()
            return reason
        except (EOFError, OSError):
            os._exit(1)  # the parent is gone: the trial has not failed, and can be resumed

    with suppress(EOFError, OSError):
        pipe.send(("ready", None))
        while True:
            task = pipe.recv()
            try:
                answer: tuple[str, Any] = ("ended", _train_patiently(retries, train, task, on_epoch))
            except SmoeRayError as error:
                answer = ("error", error)
            pipe.send(answer)


def _serve_parent() -> None:
    """In a worker of a pool: signals of the terminal are the parent's to handle, and its end is the worker's."""
    for each in (signal.SIGINT, *ASKED_TO_STOP):
        signal.signal(each, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
