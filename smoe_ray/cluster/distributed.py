"""One trial on several workers: Ray Train's TorchTrainer within a function of Tune.

The first worker runs `train_trial`, as the process of a one-worker trial does, and the others follow it
(`training.data_parallel`). A worker that dies ends its group; Ray Train starts another, of another size where the trial
is elastic, and it goes on at the trial's checkpoint in OUT.

Rows do not go by `ray.train.report` and Tune's callback for it: there is no way back for the reason to stop, and it is
a barrier for all workers. Instead the first worker *asks* over a line, and `on_epoch` answers in the process of Tune.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
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
from smoe_ray.study.run import OnEpoch, TrialTask, record_failure, train_trial

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

    from smoe_ray.training.collectives import Workers

_RESTARTS = 3
"""How often a group that lost a worker is started again."""
_POLL_S = 0.5
_LEAVE_S = 60.0
"""How long workers may take to leave when nobody waits for their trial any more."""


def train_distributed(
    task: TrialTask,
    on_epoch: OnEpoch,
    load: Callable[[TrialTask], Splits],
    device: str = "auto",
    deadline_s: float = 600.0,
) -> TrialRecord | None:
    """Train one trial on the workers that its `resources` say; needs no CPU in the calling process.

    Args:
        task: a trial with `resources.is_distributed`.
        on_epoch: called here, in this thread, after each epoch. What it raises ends the workers, which leave the trial
            as it is, to be taken up another time.
        load: reads the data in each worker; picklable, and small: data travel as an ObjectRef.
        device: ``cpu``; else the GPUs that `resources.gpus` reserves, or the CPU where it reserves none.
        deadline_s: how long to wait for room for the workers, at first or after a loss.

    Returns:
        As `train_trial`. The record is that of a failure where no workers could be had, or they died too often.

    Raises:
        ResultsError: files of the trial cannot be read or written; the trial stays as it was.
    """
    import ray
    from ray.train import TrainingFailedError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")  # the end of a group is heard of so much later
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    line: Any = ray.remote(_Line).options(num_cpus=0, scheduling_strategy=here).remote()
    with tempfile.TemporaryDirectory(prefix="smoe-train-", ignore_cleanup_errors=True) as folder:
        fitting = _in_background(_trainer(task, load, device, line, folder).fit)
        try:
            _attend(line, fitting, on_epoch, _Patience(task.trial.resources, deadline_s))
            outcome = fitting.result().return_value
        except TrialError as error:
            return record_failure(task, error)
        except TrainingFailedError as error:
            return record_failure(task, WorkerDiedError(_cause(error)))
        except BaseException:
            ray.kill(line)
            wait([fitting], _LEAVE_S)  # this process may get another trial: let the workers of this one leave first
            raise
        finally:
            ray.kill(line)  # whoever asks from now on leaves, and so does a group that finds room too late
    if isinstance(outcome, SmoeRayError):
        raise outcome
    return outcome  # type: ignore[no-any-return]


def _trainer(task: TrialTask, load: Callable[[TrialTask], Splits], device: str, line: Any, folder: str) -> TorchTrainer:
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = task.trial.resources
    on_gpu = resources.gpus > 0 and device != "cpu"
    workers = resources.workers
    train: Any = _work
    return TorchTrainer(
        train,
        train_loop_config={"task": task, "load": load, "line": line, "on_gpu": on_gpu},
        # NCCL wants a GPU a worker.
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
    """Call it in a thread that keeps no process alive."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return future


# --- the line between the first worker and the process of Tune --------------------------------------------------------


class _Line:
    """An actor: what the first worker says waits here until it is heard and answered."""

    def __init__(self) -> None:
        self._said: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()

    async def say(self, message: Any) -> Any:
        """Called by the worker; returns the answer."""
        answer = asyncio.get_running_loop().create_future()
        await self._said.put((message, answer))
        return await answer

    async def hear(self) -> Any:
        """The next message."""
        message, self._answer = await self._said.get()
        return message

    async def answer(self, answer: Any) -> None:
        """Answer the message that was heard last."""
        if not self._answer.done():  # who asked may be dead
            self._answer.set_result(answer)


class _Started(NamedTuple):
    """A group is there; the first worker says so before it touches the trial."""

    worker: Any  # its actor


def _attend(line: Any, fitting: Future[Any], on_epoch: OnEpoch, patience: _Patience) -> None:
    """Answer the first worker until Ray Train is done. Raises TrialError when the patience is over."""
    import ray

    heard = line.hear.remote()
    while not fitting.done():
        if not ray.wait([heard], timeout=_POLL_S)[0]:
            patience.check()
            continue
        message = ray.get(heard)
        reason = None
        if isinstance(message, _Started):
            patience.started(message.worker)
        else:
            reason = on_epoch(message)
        ray.get(line.answer.remote(reason))
        heard = line.hear.remote()


class _Patience:
    """How long there has been no group of workers."""

    def __init__(self, resources: ResourcesSpec, deadline_s: float) -> None:
        self._resources, self._deadline_s = resources, deadline_s
        self._worker: Any = None
        self._since = time.monotonic()

    def started(self, worker: Any) -> None:
        self._worker = worker

    def check(self) -> None:
        """Raise TrialError if it has been too long."""
        if self._worker is not None and _is_alive(self._worker):
            self._since = time.monotonic()
        elif time.monotonic() - self._since > self._deadline_s:
            raise TrialError(
                f"the trial needs {_asked(self._resources)}, and for {self._deadline_s:g} s there has been no room for "
                f"them; the cluster has {describe(cluster_nodes())}: set resources.workers lower, or add nodes"
            )


def _is_alive(actor: Any) -> bool:
    import ray
    from ray.exceptions import GetTimeoutError, RayActorError

    try:
        ray.get(actor.__ray_ready__.remote(), timeout=10)
    except RayActorError:
        return False
    except GetTimeoutError:  # busy, or its node is lost, which Ray will find out
        return True
    return True


def _asked(resources: ResourcesSpec) -> str:
    workers, gpus = resources.workers, resources.gpus
    number = f"{workers}" if isinstance(workers, int) else f"{workers.min} to {workers.max}"
    each = f"{resources.cpus} CPU{'s' * (resources.cpus != 1)}" + f" and {gpus:g} GPU{'s' * (gpus != 1)}" * (gpus > 0)
    return f"{number} workers with {each} each"


def _cause(error: Exception) -> str:
    """Why Ray Train gave up, in one line: its controller's words, or those of each worker that failed."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    if not failures:
        return f"the workers could not be started: {' '.join(str(error).split())}"
    causes = []
    for rank, failure in sorted(failures.items()):
        root = getattr(failure, "_base_exc", failure)  # Ray wraps what a worker raised with its traceback
        lines = str(root).strip().splitlines() or [""]
        causes.append(f"worker {rank}: {type(root).__name__}: {lines[0]}")
    return f"its workers failed {_RESTARTS + 1} times; at last {'; '.join(causes)}"


# --- in a worker ------------------------------------------------------------------------------------------------------


class _Forsaken(BaseException):
    """Nobody waits for this trial any more. No Exception: `train_trial` must not record it as a failure."""


def _work(config: dict[str, Any]) -> TrialRecord | SmoeRayError | None:
    """What each worker does; the first returns how the trial ended, or an error that no restart would mend."""
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
            follow(WorkerGroup(), task.trial, config["load"](task), device)
            return None
        return _lead(ALONE if context.get_world_size() == 1 else WorkerGroup(), config, device)
    except GroupBroken as broken:
        raise WorkerDiedError(str(broken)) from broken


def _lead(workers: Workers, config: dict[str, Any], device: str) -> TrialRecord | SmoeRayError | None:
    import ray

    from smoe_ray.training.data_parallel import leading

    ask = partial(_ask, config["line"])
    try:
        with leading(workers, device) as fit:
            ask(_Started(ray.get_runtime_context().current_actor))
            return train_trial(config["task"], ask, fit, config["load"])
    except _Forsaken:
        return None
    except SmoeRayError as error:
        return error


def _ask(line: Any, message: _Started | Sequence[Row]) -> str | None:
    import ray
    from ray.exceptions import RayActorError

    try:
        answer: str | None = ray.get(line.say.remote(message))
    except RayActorError:
        raise _Forsaken from None
    return answer
