"""The trainable of Ray Tune: trains one trial after another in a reused actor."""

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
from smoe_ray.study.trial_run import Fit, TrialTask, fit_on, train_trial

if TYPE_CHECKING:
    from ray import ObjectRef
    from tenacity import RetryCallState

MAX_BACKOFF_S = 30.0
"""Longest wait between two attempts to reach unavailable storage, seconds."""


def train_in_tune(config: dict[str, Any], fit: Fit | None, storage_timeout_s: float, deadline_s: float) -> None:
    """Train the trial of `config` in Tune.

    Reports to the driver, as Tune's metrics:
        after each epoch: the columns of its row; the first report of an attempt also has ``earlier``, the rows before.
        ``notice``: a line for the user.
        at the end, with ``done``: ``record`` (JSON); or ``deferred``, if another process holds the trial; or
        ``storage_error``, if storage was unavailable for `storage_timeout_s`.

    Args:
        config: ``task``, and ``source``: an ObjectRef of its prepared data.
        fit: trains in place of `training.fit`.
        storage_timeout_s: retry timeout for unavailable storage, seconds.
        deadline_s: how long a data-parallel trial waits for resources for its workers, seconds.
    """
    from ray import tune

    # How long Tune waits for this function to return before it reuses the actor for the next trial.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = "3600"
    task: TrialTask = config["task"]
    retries = _StorageRetries(storage_timeout_s)
    train = partial(_train_once, task, config["source"], fit or device_fit(task.trial), retries, deadline_s)
    end: dict[str, Any]
    try:
        record = retries.retrying(_train, task, train)
        end = {"deferred": True} if record is None else {"record": record.model_dump_json()}
    except ResultsError as error:
        end = {"storage_error": str(error)}
    tune.report(end | {"done": True})


def device_fit(trial: TrialSpec) -> Fit:
    """`training.fit` on the device that Ray reserved for the trial."""
    return fit_on("cuda" if trial.resources.gpus else "cpu")


def _train(task: TrialTask, once: Callable[[], TrialRecord | None]) -> TrialRecord | None:
    _check_shared_out(task)
    try:
        record = once()
        if record is not None and record.error_kind == "OutOfMemoryError":  # raised by torch, on a shared GPU
            _empty_gpu()
            _report_notice(f"trial {task.trial_id}: {record.error}; it is resumed")
            record = once()
        return record
    finally:
        _empty_gpu()  # the actor is reused: free its cached memory for other processes


def _train_once(
    task: TrialTask, source: ObjectRef[Source], fit: Fit, retries: _StorageRetries, deadline_s: float
) -> TrialRecord | None:
    from ray import tune

    earlier: dict[str, Any] = {}

    def on_epoch(rows: Sequence[Row]) -> None:
        retries.reset()
        first = {} if earlier else {"earlier": list(rows[:-1])}
        earlier.update(first)
        tune.report({**rows[-1], **first})  # if the driver stops the trial, this raises SystemExit

    if task.trial.resources.is_distributed:
        from smoe_ray.cluster.distributed import train_distributed

        return train_distributed(task, on_epoch, partial(_load_from_store, source), deadline_s=deadline_s)
    return train_trial(task, on_epoch, fit, partial(_load_from_store, source))


def _load_from_store(source: ObjectRef[Source], task: TrialTask) -> Splits:
    """A trial's data from Ray's object store; not copied if the trial uses all of them."""
    import ray

    return split(ray.get(source), task.trial.data)


class _StorageRetries:
    """Retries while storage is unavailable, up to a timeout that starts anew after each stored epoch."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self.retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(StorageError),
            wait=tenacity.wait_exponential(multiplier=0.5, max=MAX_BACKOFF_S),
            stop=self._timed_out,
            before_sleep=self._notify,
            reraise=True,
        )

    def reset(self) -> None:
        """Storage is available."""
        self._since = None

    def _timed_out(self, _state: RetryCallState) -> bool:
        return self._since is not None and time.monotonic() - self._since > self._seconds

    def _notify(self, state: RetryCallState) -> None:
        if self._since is None and state.outcome is not None:
            self._since = time.monotonic()
            _report_notice(f"{state.outcome.exception()}; trying again")


def _report_notice(text: str) -> None:
    from ray import tune

    tune.report({"notice": " ".join(text.split())})


def _check_shared_out(task: TrialTask) -> None:
    """Raise ResultsError if this node, which may have joined late, does not share the local folder OUT."""
    store = task.folder.store
    if store.folder is not None and store.read(f"{task.study}/study.yaml") is None:
        raise ResultsError(
            f"{task.out}: node {os.uname().nodename} does not see the results that are there; {SHARED_OUT_HINT}"
        )


SHARED_OUT_HINT = "give a folder that all nodes share, or a URI such as s3://bucket/results"


def _empty_gpu() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gc.collect()
        torch.cuda.empty_cache()
