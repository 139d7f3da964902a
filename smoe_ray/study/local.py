"""Trials on this machine: one after another in this process, or several at once in processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from smoe_ray.errors import SmoeRayError, StudyError, WorkerDiedError
from smoe_ray.results import Row, TrialRecord
from smoe_ray.spec import GridStudy
from smoe_ray.study.plan import plan_grid
from smoe_ray.study.run import Fit, OnEpoch, StudyRun, TrialTask, fit_on, record_failure, train_trial
from smoe_ray.study.search import Search
from smoe_ray.study.work import Listed, Queue, Work

Train = Callable[[TrialTask, OnEpoch], TrialRecord | None]


class LocalExecutor:
    """Trains on this machine.

    Args:
        jobs: trials at once. 1: in this process. More: in that many spawned processes, each with the CPU threads that
            its trial's `resources.cpus` says. A process that dies takes no other with it: its trial is taken up once
            more at its checkpoint, and recorded as failed when that process dies, too.
        device: ``auto``, ``cpu`` or ``cuda``.
        fit: trains in place of `training.fit` on `device`; must be picklable.
    """

    def __init__(self, jobs: int = 1, device: str = "auto", fit: Fit | None = None) -> None:
        if jobs < 1:
            raise ValueError(f"jobs is {jobs}; at least one is needed")
        self.jobs = jobs
        self._train: Train = partial(train_trial, fit=fit or fit_on(device))

    def grid(self, run: StudyRun) -> Generator[TrialRecord, None, None]:
        """Train the trials of `run.pending()`, yielding each as it ends."""
        return self._run(run, Listed(run.pending()))

    def search(self, run: StudyRun) -> Generator[TrialRecord, None, None]:
        """Train what the sampler proposes, yielding each trial as it ends."""
        return self._run(run, Search(run))

    def _run(self, run: StudyRun, work: Work) -> Generator[TrialRecord, None, None]:
        trials = plan_grid(run.study) if isinstance(run.study, GridStudy) else [run.study.base]
        if any(trial.resources.is_distributed for trial in trials):
            raise StudyError("resources.workers: data-parallel workers need the ray executor; or set it to 1")
        queue = Queue(run, work)
        jobs = min(self.jobs, run.study.max_concurrent_trials or self.jobs)
        return _here(queue, self._train) if jobs == 1 else _Pool(queue, self._train, jobs).run()


def usable_cpus() -> int:
    """CPUs that this process may use: fewer than the machine has, in a container or under taskset."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")  # "<microseconds> <period>", or "max <period>"
    if quota.is_file():
        share, _, period = quota.read_text().partition(" ")
        if share != "max":
            available = min(available, max(1, int(share) // int(period)))
    return available


def _here(queue: Queue, train: Train) -> Generator[TrialRecord, None, None]:
    while task := queue.next():
        queue.started(task)
        record = train(task, partial(queue.judge, task))
        if record is None:
            queue.left(task)
        else:
            yield queue.ended(record)


# --- worker processes -------------------------------------------------------------------------------------------------
#
# Each worker has a pipe of its own. The parent sends a TrialTask; the worker answers with ("epoch", rows), to which the
# parent replies why to stop, or None, and at last with ("ended", record or None) or ("error", exception). Before all
# that it says ("ready", None) once.


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection[Any, Any]
    task: TrialTask | None = None
    ready: bool = False

    def send(self, message: Any) -> None:
        with suppress(OSError):  # it died: its sentinel says so, too
            self.pipe.send(message)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class _Pool:
    """Up to `jobs` workers, started when there is something to do for them."""

    def __init__(self, queue: Queue, train: Train, jobs: int) -> None:
        self._queue = queue
        self._train = train
        self._jobs = jobs
        self._workers: list[_Worker] = []
        self._died_once: set[str] = set()

    def run(self) -> Generator[TrialRecord, None, None]:
        """Yield each trial as it ends; when this generator ends, however it does, no worker is left."""
        try:
            while busy := self._hand_out():
                for worker in _with_news(busy):
                    record = self._hear(worker)
                    if record is not None:
                        yield self._queue.ended(record)
        finally:
            for worker in self._workers:
                worker.kill()

    def _hand_out(self) -> list[_Worker]:
        """Give every idle worker a task, as far as there are any; the workers that have one."""
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
        process = context.Process(target=_serve, args=(theirs, self._train), daemon=True)
        # Ctrl-C reaches every process of a terminal's job, but is ours alone to answer: workers inherit the mask.
        # (The first start would start the resource tracker too, which lifts the mask.)
        resource_tracker.ensure_running()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
            self._workers.append(worker := _Worker(process, ours))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()  # so that the worker's death ends the pipe
        return worker

    def _hear(self, worker: _Worker) -> TrialRecord | None:
        """Answer one message of a worker, or its death; a record when a trial ended."""
        task = worker.task
        assert task is not None
        kind: str = "died"
        content: Any = None
        with suppress(EOFError, OSError):
            if worker.pipe.poll():
                kind, content = worker.pipe.recv()
        if kind == "died":
            return self._bury(worker, task)
        if kind == "ready":
            worker.ready = True
        elif kind == "epoch":
            worker.send(self._queue.judge(task, content))
        elif kind == "error":
            raise content
        else:
            worker.task = None
            if content is None:
                self._queue.left(task)
            record: TrialRecord | None = content
            return record
        return None

    def _bury(self, worker: _Worker, task: TrialTask) -> TrialRecord | None:
        worker.process.join(timeout=5)  # its pipe ends a moment before it does: hear its own exit code
        worker.kill()
        self._workers.remove(worker)
        code = worker.process.exitcode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if not worker.ready:
            raise WorkerDiedError(f"a worker process {how} before it could train anything; its own output says why")
        if task.trial_id not in self._died_once:
            self._died_once.add(task.trial_id)
            self._queue.again(task, f"its process {how}")
            return None
        hint = "out of memory? fewer jobs at once need less" if code == -signal.SIGKILL else "its own output says why"
        return record_failure(task, WorkerDiedError(f"the process that trained it {how}, for the second time; {hint}"))


def _with_news(workers: list[_Worker]) -> list[_Worker]:
    """Wait until a worker says something or dies; those that did."""
    # The end of the pipe alone would not do: a process that the worker started may hold it open.
    news = wait([handle for worker in workers for handle in (worker.pipe, worker.process.sentinel)])
    return [worker for worker in workers if worker.pipe in news or worker.process.sentinel in news]


def _serve(pipe: Connection[Any, Any], train: Train) -> None:
    """What a worker process does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def on_epoch(rows: Sequence[Row]) -> str | None:
        try:
            pipe.send(("epoch", rows))
            reason: str | None = pipe.recv()
            return reason
        except (EOFError, OSError):
            os._exit(1)  # the parent is gone; the trial is no failure and goes on another day

    with suppress(EOFError, OSError):
        pipe.send(("ready", None))
        while True:
            task = pipe.recv()
            try:
                answer: tuple[str, Any] = ("ended", train(task, on_epoch))
            except SmoeRayError as error:
                answer = ("error", error)
            pipe.send(answer)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
