"""The trainable of Ray Tune: trains one trial after another in a reused actor."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from smoe_ray.data import Source, Splits, split
from smoe_ray.errors import ResultsError
from smoe_ray.results import Row, TrialRecord
from smoe_ray.spec import TrialSpec
from smoe_ray.study.storage_retries import StorageRetries
from smoe_ray.study.trial_run import Fit, TrialTask, fit_on, train_trial

if TYPE_CHECKING:
    from ray import ObjectRef


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
    retries = StorageRetries(storage_timeout_s, _report_notice)
    train = partial(_train_once, task, config["source"], fit or device_fit(task.trial), retries, deadline_s)
    end: dict[str, Any]
    try:
        record = retries.call(_train, task, train)
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
    task: TrialTask, source: ObjectRef[Source], fit: Fit, retries: StorageRetries, deadline_s: float
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
