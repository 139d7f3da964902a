"""Two gloo workers on loopback against one worker: same numbers, no image twice, and nobody is left waiting."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from smoe_ray.data import Splits
from smoe_ray.errors import ResultsError
from smoe_ray.results import TrialRecord
from smoe_ray.spec import TrialSpec, trial_id
from smoe_ray.study.trial_run import TrialTask, fit_on, train_trial
from smoe_ray.training import Runtime, fit
from smoe_ray.training.collectives import GroupBroken, WorkerGroup, Workers
from smoe_ray.training.data_parallel import follow, leading
from smoe_ray.training.evaluate import Evaluation, evaluate
from smoe_ray.training.images import DeviceImages
from support.specs import tiny

Row = dict[str, Any]
Arrays = Mapping[str, np.ndarray]

TRAIN_TERMS = ("loss", "reconstruction", "kl", "balance", "entropy", "cross_entropy")
TEST_TERMS = ("reconstruction", "reconstruction_soft", "kl")


# --- shards -----------------------------------------------------------------------------------------------------------


class One(Workers):
    """One of several workers, as far as it can be seen without the others."""

    def __init__(self, rank: int, count: int) -> None:
        self.rank, self.count = rank, count


@given(st.integers(1, 300), st.integers(1, 20))
def test_shards_part_a_batch(batch: int, count: int) -> None:
    shards = [One(rank, count).shard(batch) for rank in range(count)]
    counted = [list(range(batch))[shard.rows] for shard in shards if shard.counted]
    assert [image for part in counted for image in part] == list(range(batch))
    assert [len(part) for part in counted] == [shard.counted for shard in shards if shard.counted]
    sizes = [shard.counted for shard in shards]
    assert max(sizes) - min(sizes) <= 1
    assert sum(shard.share for shard in shards) == pytest.approx(1)
    assert all(len(range(batch)[shard.rows]) >= 1 for shard in shards)  # nobody computes on nothing


@pytest.mark.parametrize(("count", "batch_size"), [(2, 16), (3, 16), (2, 7), (4, 10), (5, 3)])
def test_workers_share_the_shuffled_pass_of_one_without_overlap(count: int, batch_size: int, splits: Splits) -> None:
    images = DeviceImages(splits.train, torch.device("cpu"))
    steps = -(-50 // batch_size)

    def a_pass(workers: Workers) -> list[Any]:
        return list(images.batches(batch_size, steps, torch.Generator().manual_seed(0), workers))

    parts = [a_pass(One(rank, count)) for rank in range(count)]
    for whole, shards in zip(a_pass(Workers()), zip(*parts, strict=True), strict=True):
        counting = [batch for batch in shards if batch.shard.counted]
        assert torch.equal(torch.cat([batch.image_BHW for batch in counting]), whole.image_BHW)
        assert torch.equal(torch.cat([batch.label_B for batch in counting]), whole.label_B)
        assert {batch.shard.batch for batch in shards} == {len(whole.label_B)}


# --- two processes ----------------------------------------------------------------------------------------------------


class Pair:
    """Two processes that are the workers of a gloo group on loopback."""

    def __init__(self, store: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.processes = [
            ProcessPoolExecutor(1, context, initializer=_join, initargs=(rank, store)) for rank in range(2)
        ]

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What ``function(WorkerGroup, *arguments)`` returns in each."""
        return [future.result(timeout=120) for future in self.start(function, *arguments)]

    def start(self, function: Callable[..., Any], *arguments: Any) -> list[Future[Any]]:
        return [process.submit(_call, function, arguments) for process in self.processes]

    def close(self) -> None:
        for process in self.processes:
            process.shutdown(cancel_futures=True)


def _join(rank: int, store: Path) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return function(WorkerGroup(), *arguments)
    except GroupBroken as broken:  # a BaseException would end the pool
        raise RuntimeError(f"broken: {broken}") from broken


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("pair") / "store")
    yield pair
    pair.close()


def train(workers: Workers, trial: TrialSpec, data: Splits, checkpoint: Arrays | None = None) -> tuple[Any, ...]:
    """Rows, checkpoint after the last epoch and final weights."""
    rows, last = [], None
    for last in fit(trial, data, Runtime("cpu", checkpoint, workers)):
        rows.append(last.row)
    assert last is not None
    return rows, last.checkpoint(), last.weights()


def assert_close(rows: Sequence[Row], expected: Sequence[Row], names: Sequence[str]) -> None:
    assert len(rows) == len(expected)
    for row, other in zip(rows, expected, strict=True):
        assert {name: row[name] for name in names} == pytest.approx({name: other[name] for name in names}, rel=1e-5)


def distance(first: Arrays, second: Arrays) -> float:
    assert first.keys() == second.keys()
    return max(float(np.abs(first[name] - second[name]).max()) for name in first)


TRAIN = [f"train.{name}" for name in TRAIN_TERMS]
TEST = [f"test.{name}" for name in TEST_TERMS]
MODIFIED = {
    "gate_temperature": {},
    "warm_up": {"terms": "entropy"},
    "kmeans_gate": {},
    "revival": {"every": 3, "below": 0.9, "noise": 0.5},
    "orthogonal": {},
    "similarity": {},
    "coupling": {},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"objective__name": "blend"},
        {"objective__name": "blend", "objective__gating": "hard", "training__batch_size": 7},
        {"objective__name": "switch", "model__gate": "attentive", "model__decoder": "cp"},
        {"objective__name": "expected", "objective__likelihood": "bernoulli", "training__batch_size": 13},
        {"objective__name": "likelihood"},
        {"objective__name": "likelihood", "training__batch_size": 49},  # the last batch has one image: for one worker
        {"routing": "supervised"},
        {"objective__name": "sinkhorn", "training__batch_size": 13},
        {"objective__name": "likelihood", "objective__error_scale": 30.0, "training__batch_size": 13},
        {"objective__name": "v_moe", "training__batch_size": 7},
        {"objective__name": "blend", "modifiers": MODIFIED, "model__gate_hidden": (), "training__batch_size": 13},
        # With two experts, alike as they begin, the gate's gradient would be rounding, which Adam makes a full step.
        {"objective__name": "loss_free", "objective__top_k": 1, "training__batch_size": 7},
        {"objective__name": "expert_choice", "training__batch_size": 13},
        {"objective__name": "relu", "training__batch_size": 13},
        {"objective__name": "smear", "training__batch_size": 13},
        {"objective__name": "blend", "training__budget": "7 steps", "evaluation__latent": "sample"},
    ],
    ids=str,
)
def test_two_workers_train_the_model_of_one(changes: dict[str, Any], pair: Pair, splits: Splits) -> None:
    check_two_workers_against_one(tiny(**changes), pair, splits)


@pytest.mark.parametrize("objective", ["blend", "likelihood"])
def test_two_workers_train_the_model_of_one_on_colour(objective: str, pair: Pair, colour_splits: Splits) -> None:
    check_two_workers_against_one(tiny(objective__name=objective), pair, colour_splits)


def check_two_workers_against_one(trial: TrialSpec, pair: Pair, splits: Splits) -> None:
    rows, checkpoint, weights = train(Workers(), trial, splits)
    first, second = pair.run(train, trial, splits)
    for its_rows, its_checkpoint, its_weights in (first, second):
        assert_close(its_rows, rows, [*TRAIN, "cost.images", "cost.steps", "cost.flops"])
        assert distance(its_weights, weights) < 1e-5
        assert its_checkpoint.keys() == checkpoint.keys()
        assert all(np.array_equal(its_checkpoint[name], checkpoint[name]) for name in checkpoint if "generator" in name)
    assert_close(first[0], rows, [*TEST, "experts.active", "experts.effective"])
    assert second[0][-1]["test.reconstruction"] is None  # the first alone measures
    assert distance(first[2], second[2]) == 0


@pytest.mark.parametrize("objective", ["blend", "likelihood"])
def test_a_checkpoint_of_one_worker_continues_on_two_and_back(objective: str, pair: Pair, splits: Splits) -> None:
    trial = tiny(objective__name=objective, training__budget="4 epochs")
    epochs = list(through(fit(trial, splits, Runtime("cpu"))))
    rows = [row for row, _ in epochs]
    first, second = pair.run(train_one_epoch, trial, splits, epochs[0][1])
    assert_close([first[0]], rows[1:2], [*TRAIN, *TEST])
    assert distance(first[1], second[1]) == 0
    assert first[1].keys() == epochs[1][1].keys()
    back = list(through(fit(trial, splits, Runtime("cpu", first[1]))))
    assert [row["epoch"] for row, _ in back] == [3, 4]
    assert_close([row for row, _ in back], rows[2:], [*TRAIN, *TEST])


def through(epochs: Iterator[Any]) -> Iterator[tuple[Row, Arrays]]:
    return ((epoch.row, epoch.checkpoint()) for epoch in epochs)


def train_one_epoch(workers: Workers, trial: TrialSpec, data: Splits, checkpoint: Arrays) -> tuple[Row, Arrays]:
    return next(through(fit(trial, data, Runtime("cpu", checkpoint, workers))))


# --- leading and following --------------------------------------------------------------------------------------------


def task_of(trial: TrialSpec, folder: Path, data: Splits) -> TrialTask:
    return TrialTask("pair", trial, trial_id(trial, data.fingerprint), str(folder), folder / "cache")


def train_task(
    workers: WorkerGroup,
    task: TrialTask,
    data: Splits,
    on_epoch: Callable[[Any], str | None],
    measure: Callable[..., Evaluation] = evaluate,
) -> TrialRecord | str | None:
    """What the workers of a group do with a trial; `measure` stands in for `evaluate`."""
    if workers.rank > 0:
        follow(workers, task.trial, data, "cpu")
        return "left"
    with pytest.MonkeyPatch.context() as patch, leading(workers, "cpu") as lead:
        patch.setattr(sys.modules["smoe_ray.training.loop"], "evaluate", measure)
        return train_trial(task, on_epoch, lead, lambda _: data)


def fails_at_two(*arguments: Any, epoch: int, **options: Any) -> Evaluation:
    if epoch == 2:
        raise RuntimeError("the ruler broke")
    return evaluate(*arguments, epoch=epoch, **options)


def diverges_at_two(*arguments: Any, epoch: int, **options: Any) -> Evaluation:
    measured = evaluate(*arguments, epoch=epoch, **options)
    return measured._replace(kl=float("nan")) if epoch == 2 else measured


def go_on(_rows: Sequence[Row]) -> None:
    return None


def stop_at_two(rows: Sequence[Row]) -> str | None:
    return "enough" if len(rows) == 2 else None


def storage_fails_at_two(rows: Sequence[Row]) -> str | None:
    if len(rows) == 2:
        raise ResultsError("the disk is full")
    return None


def test_a_trial_on_two_workers_leaves_the_files_of_one(pair: Pair, splits: Splits, out: Path) -> None:
    task = task_of(tiny(), out, splits)
    record, left = pair.run(train_task, task, splits, go_on)
    assert (record.status, left) == ("finished", "left")
    alone = task_of(tiny(), out / "alone", splits)
    train_trial(alone, go_on, fit_on("cpu"), lambda _: splits)
    assert_close(task.folder.read_rows(), alone.folder.read_rows(), [*TRAIN, *TEST])
    assert distance(read_weights(task), read_weights(alone)) < 1e-5
    again, left = pair.run(train_task, task, splits, go_on)  # settled: nothing to train, and nobody waits
    assert (again, left) == (record, "left")


def read_weights(task: TrialTask) -> Arrays:
    return load_file(Path(task.out) / task.folder.name / "model.safetensors")


def test_followers_leave_a_pruned_trial(pair: Pair, splits: Splits, out: Path) -> None:
    record, left = pair.run(train_task, task_of(tiny(), out, splits), splits, stop_at_two)
    assert (record.status, record.reason, left) == ("pruned", "enough", "left")


def test_followers_leave_a_trial_that_diverges_in_training(pair: Pair, splits: Splits, out: Path) -> None:
    trial = tiny(training__learning_rate=1e30)
    record, left = pair.run(train_task, task_of(trial, out, splits), splits, go_on)
    assert (record.error_kind, left) == ("DivergedError", "left")
    assert "epoch 1" in record.error


def test_followers_leave_a_trial_that_diverges_on_the_test_set(pair: Pair, splits: Splits, out: Path) -> None:
    record, left = pair.run(train_task, task_of(tiny(), out, splits), splits, go_on, diverges_at_two)
    assert (record.error_kind, left) == ("DivergedError", "left")
    assert "epoch 2" in record.error


def test_followers_leave_when_an_evaluation_fails_and_the_trial_can_go_on(
    pair: Pair, splits: Splits, out: Path
) -> None:
    task = task_of(tiny(), out, splits)
    record, left = pair.run(train_task, task, splits, go_on, fails_at_two)
    assert (record.status, record.error, left) == ("failed", "the ruler broke", "left")
    assert len(task.folder.read_rows()) == 1
    record, left = pair.run(train_task, task, splits, go_on)
    assert (record.status, left) == ("finished", "left")
    assert [row["epoch"] for row in task.folder.read_rows()] == [1, 2, 3]


def test_followers_leave_when_the_results_cannot_be_written(pair: Pair, splits: Splits, out: Path) -> None:
    leader, follower = pair.start(train_task, task_of(tiny(), out, splits), splits, storage_fails_at_two)
    with pytest.raises(ResultsError, match="the disk is full"):
        leader.result(timeout=120)
    assert follower.result(timeout=120) == "left"


def test_a_killed_worker_breaks_the_group_but_not_the_trial(pair: Pair, splits: Splits, out: Path) -> None:
    # The last test of this file: nobody can use the pair any more.
    task = task_of(tiny(), out, splits)
    leader, follower = pair.start(train_and_die, task, splits)
    with pytest.raises(BrokenProcessPool):
        follower.result(timeout=120)
    with pytest.raises(RuntimeError, match="broken: worker 0 of 2: "):
        leader.result(timeout=120)
    record = task.folder.read_record()
    assert record is not None
    assert record.status == "running"  # as if the leader itself had been killed: whoever comes next goes on
    assert len(task.folder.read_rows()) == 1
    assert task.folder.read_checkpoint() is not None


def train_and_die(workers: WorkerGroup, task: TrialTask, data: Splits) -> Any:
    """The follower is killed in epoch 2."""
    if workers.rank == 0:
        return train_task(workers, task, data, go_on)
    epochs = fit(task.trial, data, Runtime("cpu", workers.receive().checkpoint, workers))
    next(epochs)
    workers.receive()
    os.kill(os.getpid(), signal.SIGKILL)
    return None
