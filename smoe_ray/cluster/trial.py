"""What runs on a node of the cluster: one trial after another in a reused process (an actor of Tune)."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import tenacity

from smoe_ray.data import Source, Splits, split
from smoe_ray.errors import ResultsError, StorageError
from smoe_ray.results import Row, TrialRecord
from smoe_ray.spec import TrialSpec
from smoe_ray.study.run import Fit, TrialTask, fit_on, train_trial

if TYPE_CHECKING:
    from ray import ObjectRef
    from tenacity import RetryCallState

LONGEST_WAIT_S = 30.0
"""Between two attempts to reach the storage."""


def train_in_tune(config: dict[str, Any], fit: Fit | None, patience_s: float, deadline_s: float) -> None:
    """Train the trial of `config` in Tune, the trainable of a study.

    Reports to the driver, as Tune's metrics:
        an epoch: the columns of its row; the first of an attempt brings ``earlier``, the rows before it.
        ``notice``: a line for the user.
        the end, with ``done``: ``record`` (JSON); or ``left``, because another process holds the trial; or
        ``unstored``, the error of a storage that did not answer for `patience_s`.

    Args:
        config: ``task``, and ``source``: a reference to its data, in the object store.
        fit: trains in place of `training.fit`.
        patience_s: how long to wait for a storage that does not answer.
        deadline_s: how long a data-parallel trial waits for room for its workers.
    """
    from ray import tune

    # Tune waits so long for this function to leave, before it gives the process the next trial.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "3600"
    task: TrialTask = config["task"]
    patience = _Patience(patience_s)
    train = partial(_train_once, task, config["source"], fit or device_fit(task.trial), patience, deadline_s)
    end: dict[str, Any]
    try:
        record = patience.retrying(_train, task, train)
        end = {"left": True} if record is None else {"record": record.model_dump_json()}
    except ResultsError as error:
        end = {"unstored": str(error)}
    tune.report(end | {"done": True})


def device_fit(trial: TrialSpec) -> Fit:
    """`training.fit` on what Ray reserved for the trial."""
    return fit_on("cuda" if trial.resources.gpus else "cpu")


def _train(task: TrialTask, once: Callable[[], TrialRecord | None]) -> TrialRecord | None:
    _refuse_another_place(task)
    try:
        record = once()
        if record is not None and record.error_kind == "OutOfMemoryError":  # of torch, on a GPU that others share
            _empty_gpu()
            _say(f"trial {task.trial_id}: {record.error}; it is taken up once more")
            record = once()
        return record
    finally:
        _empty_gpu()  # the process lives on, and what it caches no other can have


def _train_once(
    task: TrialTask, source: ObjectRef[Source], fit: Fit, patience: _Patience, deadline_s: float
) -> TrialRecord | None:
    from ray import tune

    earlier: dict[str, Any] = {}

    def on_epoch(rows: Sequence[Row]) -> None:
        patience.restore()
        first = {} if earlier else {"earlier": list(rows[:-1])}
        earlier.update(first)
        tune.report({**rows[-1], **first})  # a trial that the driver stops ends in here, by SystemExit

    if task.trial.resources.is_distributed:
        from smoe_ray.cluster.distributed import train_distributed

        return train_distributed(task, on_epoch, partial(_load_from_store, source), deadline_s=deadline_s)
    return train_trial(task, on_epoch, fit, partial(_load_from_store, source))


def _load_from_store(source: ObjectRef[Source], task: TrialTask) -> Splits:
    """A trial's data from Ray's object store, without a copy (where the trial sees all of them)."""
    import ray

    return split(ray.get(source), task.trial.data)


class _Patience:
    """With a storage that does not answer: so many seconds, counted anew after each epoch that was stored."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self.retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(StorageError),
            wait=tenacity.wait_exponential(multiplier=0.5, max=LONGEST_WAIT_S),
            stop=self._is_over,
            before_sleep=self._tell,
            reraise=True,
        )

    def restore(self) -> None:
        """The storage answers."""
        self._since = None

    def _is_over(self, _state: RetryCallState) -> bool:
        return self._since is not None and time.monotonic() - self._since > self._seconds

    def _tell(self, state: RetryCallState) -> None:
        if self._since is None and state.outcome is not None:
            self._since = time.monotonic()
            _say(f"{state.outcome.exception()}; trying again")


def _say(text: str) -> None:
    from ray import tune

    tune.report({"notice": " ".join(text.split())})


def _refuse_another_place(task: TrialTask) -> None:
    """A node that joined late may have a folder of its own where the others share one."""
    store = task.folder.store
    if store.folder is not None and store.read(f"{task.study}/study.yaml") is None:
        raise ResultsError(f"{task.out}: node {os.uname().nodename} does not see the results that are there; {SHARE}")


SHARE = "give a folder that all nodes share, or a URI such as s3://bucket/results"


def _empty_gpu() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
