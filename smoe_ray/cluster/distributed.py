"""One trial on several data-parallel workers: Ray Train's TorchTrainer inside a Tune trainable.

Rank 0 runs `train_trial`, as the process of a one-worker trial does, and the other ranks follow it
(`training.data_parallel`). If a worker dies, its group ends; Ray Train starts another, possibly of another size if the
trial is elastic, which resumes from the trial's checkpoint in OUT.

Rows are not sent by `ray.train.report` with Tune's callback for it: that is a barrier for all workers, and offers no
way to return the reason to stop. Instead, rank 0 sends them as requests through an actor, the mailbox, and `on_epoch`
answers them in the process of the trainable.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from smoe_ray.cluster.resources import cluster_nodes, describe
from smoe_ray.data import Splits
from smoe_ray.errors import SmoeRayError, TrialError, WorkerDiedError
from smoe_ray.results import Row, TrialRecord
from smoe_ray.spec import ResourcesSpec
from smoe_ray.study.trial_run import OnEpoch, TrialTask, record_failure, train_trial
from smoe_ray.temporary import temporary_folder

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

    from smoe_ray.training.collectives import Workers

_RESTARTS = 3
"""How often a group that lost a worker is restarted."""
_POLL_S = 0.5
_SHUTDOWN_S = 60.0
"""How long workers may take to exit once their trial is abandoned."""


def train_distributed(
    task: TrialTask,
    on_epoch: OnEpoch,
    load: Callable[[TrialTask], Splits],
    device: str = "auto",
    deadline_s: float = 600.0,
) -> TrialRecord | None:
    """Train one trial on the workers that its `resources` request; needs no CPU in the calling process.

    Args:
        task: a trial with `resources.is_distributed`.
        on_epoch: called in the calling thread after each epoch. If it raises, the workers exit, and the trial can be
            resumed later.
        load: loads the data in each worker; picklable and small, so it should hold data as an ObjectRef.
        device: ``cpu``; otherwise the GPUs that `resources.gpus` reserves, or the CPU if it reserves none.
        deadline_s: how long to wait for resources for the workers, at the start or after a loss, seconds.

    Returns:
        As `train_trial`. A failure is recorded if no workers could be started, or they died too often.

    Raises:
        ResultsError: files of the trial cannot be read or written; the trial can be resumed.
    """
    import ray
    from ray.train import TrainingFailedError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")  # delay until the end of a group is noticed
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox: Any = ray.remote(_Mailbox).options(num_cpus=0, scheduling_strategy=here).remote()
    with temporary_folder("smoe-train-") as folder:
        fitting = _in_background(_trainer(task, load, device, mailbox, folder).fit)
        try:
            _serve(mailbox, fitting, on_epoch, _StartDeadline(task.trial.resources, deadline_s))
            outcome = fitting.result().return_value
        except TrialError as error:
            return record_failure(task, error)
        except TrainingFailedError as error:
            return record_failure(task, WorkerDiedError(_cause(error)))
        except BaseException:
            ray.kill(mailbox)
            wait([fitting], _SHUTDOWN_S)  # this actor may get another trial: let the workers of this one exit first
            raise
        finally:
            ray.kill(mailbox)  # whichever worker sends a request from now on exits
    if isinstance(outcome, SmoeRayError):
        raise outcome
    return outcome  # type: ignore[no-any-return]


def _trainer(
    task: TrialTask, load: Callable[[TrialTask], Splits], device: str, mailbox: Any, folder: str
) -> TorchTrainer:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = task.trial.resources
    on_gpu = resources.gpus > 0 and device != "cpu"
    workers = resources.workers
    train: Any = _run_worker
    return TorchTrainer(
        train,
        train_loop_config={"task": task, "load": load, "mailbox": mailbox, "on_gpu": on_gpu},
        # NCCL needs one GPU per worker.
        torch_config=TorchConfig(backend="nccl" if on_gpu and resources.gpus >= 1 else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers if isinstance(workers, int) else (workers.min, workers.max),  # type: ignore[arg-type]
            use_gpu=resources.gpus > 0,
            resources_per_worker={"CPU": resources.cpus, "GPU": resources.gpus},
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # the types of ray.train are those of its first version
            name=f"{task.study}-{task.trial_id}",
            storage_path=folder,
            failure_config=FailureConfig(max_failures=_RESTARTS),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _in_background(function: Callable[[], Any]) -> Future[Any]:
    """Call `function` in a daemon thread."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


# --- requests from rank 0 to the process of the trainable -------------------------------------------------------------


class _Mailbox:
    """An actor that holds requests of rank 0 until they are received and answered."""

    def __init__(self) -> None:
        self._requests: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()

    async def request(self, message: Any) -> Any:
        """Called by rank 0; returns the answer."""
        answer = asyncio.get_running_loop().create_future()
        await self._requests.put((message, answer))
        return await answer

    async def receive(self) -> Any:
        """The next request."""
        message, self._answer = await self._requests.get()
        return message

    async def answer(self, answer: Any) -> None:
        """Answer the request that was received last."""
        if not self._answer.done():  # its sender may have died
            self._answer.set_result(answer)


class _Started(NamedTuple):
    """First request of a new group of workers, sent before rank 0 touches the trial."""

    worker: Any  # the actor of rank 0


def _serve(mailbox: Any, fitting: Future[Any], on_epoch: OnEpoch, deadline: _StartDeadline) -> None:
    """Answer requests of rank 0 until Ray Train is done. Raises TrialError when the deadline is over."""
    import ray

    received = mailbox.receive.remote()
    while not fitting.done():
        if not ray.wait([received], timeout=_POLL_S)[0]:
            deadline.check()
            continue
        message = ray.get(received)
        reason = None
        if isinstance(message, _Started):
            deadline.started(message.worker)
        else:
            reason = on_epoch(message)
        ray.get(mailbox.answer.remote(reason))
        received = mailbox.receive.remote()


class _StartDeadline:
    """Limits how long a trial may be without a running group of workers."""

    def __init__(self, resources: ResourcesSpec, deadline_s: float) -> None:
        self._resources, self._deadline_s = resources, deadline_s
        self._worker: Any = None
        self._since = time.monotonic()

    def started(self, worker: Any) -> None:
        self._worker = worker

    def check(self) -> None:
        """Raise TrialError if there has been none for too long."""
        if self._worker is not None and _is_alive(self._worker):
            self._since = time.monotonic()
        elif time.monotonic() - self._since > self._deadline_s:
            raise TrialError(
                f"the trial needs {_describe_request(self._resources)}, and for {self._deadline_s:g} s there has been "
                f"no room for them; the cluster has {describe(cluster_nodes())}: set resources.workers lower, or add "
                "nodes"
            )


def _is_alive(actor: Any) -> bool:
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError

    try:
        ray.get(actor.__ray_ready__.remote(), timeout=10)
    except RayActorError:
        return False
    except GetTimeoutError:  # busy, or its node is lost, which Ray will notice
        return True
    return True


def _describe_request(resources: ResourcesSpec) -> str:
    workers, gpus = resources.workers, resources.gpus
    number = f"{workers}" if isinstance(workers, int) else f"{workers.min} to {workers.max}"
    each = f"{resources.cpus} CPU{'s' * (resources.cpus != 1)}" + f" and {gpus:g} GPU{'s' * (gpus != 1)}" * (gpus > 0)
    return f"{number} workers with {each} each"


def _cause(error: Exception) -> str:
    """Why Ray Train gave up, in one line: the error of its controller, or of each worker that failed."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    if not failures:
        return f"the workers could not be started: {' '.join(str(error).split())}"
    causes = []
    for rank, failure in sorted(failures.items()):
        root = getattr(failure, "_base_exc", failure)  # Ray wraps a worker's exception together with its traceback
        lines = str(root).strip().splitlines() or [""]
        causes.append(f"worker {rank}: {type(root).__name__}: {lines[0]}")
    return f"its workers failed {_RESTARTS + 1} times; at last {'; '.join(causes)}"


# --- in a worker ------------------------------------------------------------------------------------------------------


class _Abandoned(BaseException):
    """The trainable no longer waits for this trial. Not an Exception, which `train_trial` would record as a failure."""


def _run_worker(config: dict[str, Any]) -> TrialRecord | SmoeRayError | None:
    """Main function of each worker. Rank 0 returns how the trial ended, or an error that a restart would not fix."""
    import ray
    import torch
    from ray.train.torch import get_device

    from smoe_ray.training.collectives import ALONE, GroupBroken, WorkerGroup
    from smoe_ray.training.data_parallel import follow

    task: TrialTask = config["task"]
    torch.set_num_threads(task.trial.resources.cpus)
    device = str(get_device()) if config["on_gpu"] else "cpu"
    context = ray.train.get_context()
    try:
        if context.get_world_rank() > 0:
            task.check_plugins()
            follow(WorkerGroup(), task.trial, config["load"](task), device)
            return None
        return _lead(ALONE if context.get_world_size() == 1 else WorkerGroup(), config, device)
    except GroupBroken as broken:
        raise WorkerDiedError(str(broken)) from broken


def _lead(workers: Workers, config: dict[str, Any], device: str) -> TrialRecord | SmoeRayError | None:
    import ray

    from smoe_ray.training.data_parallel import leading

    request = partial(_request, config["mailbox"])
    try:
        with leading(workers, device) as fit:
            request(_Started(ray.get_runtime_context().current_actor))
            return train_trial(config["task"], request, fit, config["load"])
    except _Abandoned:
        return None
    except SmoeRayError as error:
        return error


def _request(mailbox: Any, message: _Started | Sequence[Row]) -> str | None:
    import ray
    from ray.exceptions import RayActorError

    try:
        answer: str | None = ray.get(mailbox.request.remote(message))
    except RayActorError:
        raise _Abandoned from None
    return answer
