"""Trials on several workers of a real Ray here: the table of one worker, deaths survived, no endless wait."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import tune

from smoe_ray.cluster.distributed import train_distributed
from smoe_ray.data import Splits, load_splits, prepare
from smoe_ray.results import TrialRecord
from smoe_ray.spec import TrialSpec, trial_id, trial_with
from smoe_ray.study.trial_run import TrialTask, fit_on, train_trial
from support.processes import TESTS
from support.specs import THREE_CLASSES

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]  # Ray's own warnings are not ours to mend

TINY = THREE_CLASSES | {
    "model.encoder": "lite",
    "model.num_experts": 3,
    "training.batch_size": 16,
    "training.budget": "4 epochs",
}


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_AUTH_MODE", "disabled")
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_CHDIR_TO_TRIAL_DIR", "0")
    patch.setenv("PYTHONPATH", os.pathsep.join((str(Path(__file__).parent), TESTS)))  # workers import this module
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="d-", ignore_cleanup_errors=True) as folder:
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=True,
            log_to_driver=bool(os.environ.get("SHOW")),
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
        yield
        ray.shutdown()
    patch.undo()


def task_of(folder: Path, **changes: Any) -> TrialTask:
    trial = trial_with(TrialSpec(), TINY | {key.replace("__", "."): value for key, value in changes.items()})
    prepared = prepare(trial.data, folder / "cache", 1)
    return TrialTask("d", trial, trial_id(trial, prepared.fingerprint), str(folder), folder / "cache")


def load(task: TrialTask) -> Splits:
    return load_splits(task.trial.data, task.cache)


def alone(task: TrialTask, folder: Path) -> list[dict[str, Any]]:
    """The rows of one worker."""
    twin = TrialTask("d", task.trial, task.trial_id, str(folder), task.cache)
    record = train_trial(twin, lambda _: None, fit_on("cpu"))
    assert record is not None
    assert record.status == "finished"
    return twin.folder.read_rows()


def assert_same_table(rows: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> None:
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        for name in other:
            if other[name] is None:
                assert row[name] is None, name
            elif name not in ("cost.wall_s", "cost.images_per_s"):
                np.testing.assert_allclose(row[name], other[name], rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_trial_within_tune_gives_the_table_of_one_worker(tmp_path: Path) -> None:
    task = task_of(tmp_path / "out", resources__workers=2)

    def trainable(_config: dict[str, Any]) -> None:
        record = train_distributed(task, lambda rows: tune.report(dict(rows[-1])), load, "cpu")
        assert record is not None
        tune.report({"status": record.status, "done": True})

    results = tune.Tuner(
        tune.with_resources(trainable, {"memory": 1}),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    assert not results.errors
    frame = results[0].metrics_dataframe
    assert frame is not None
    rows = task.folder.read_rows()
    assert list(frame["test.reconstruction"].dropna()) == [row["test.reconstruction"] for row in rows]
    record = task.folder.read_record()
    assert isinstance(record, TrialRecord)
    assert (record.status, record.timings.restarts) == ("finished", 0)
    assert_same_table(rows, alone(task, tmp_path / "alone"))


def load_and_sign(task: TrialTask) -> Splits:
    """Data, and a note of who reads them."""
    rank = ray.train.get_context().get_world_rank()
    (Path(task.out) / f"pid-{rank}").write_text(str(os.getpid()))
    return load(task)


def test_a_killed_worker_costs_no_epoch(tmp_path: Path) -> None:
    task = task_of(tmp_path, resources__workers={"min": 1, "max": 2})
    heard: list[int] = []

    def on_epoch(rows: Sequence[dict[str, Any]]) -> None:
        heard.append(len(rows))
        if heard == [1, 2]:
            os.kill(int((tmp_path / "pid-1").read_text()), signal.SIGKILL)

    record = train_distributed(task, on_epoch, load_and_sign)
    assert record is not None
    assert (record.status, record.timings.restarts) == ("finished", 1)
    assert heard == [1, 2, 3, 4]
    assert_same_table(task.folder.read_rows(), alone(task, tmp_path / "alone"))


class Stopped(BaseException):
    """As Tune stops a function: by SystemExit from `tune.report`."""


def test_a_trial_that_is_stopped_is_left_as_it_is(tmp_path: Path) -> None:
    task = task_of(tmp_path, resources__workers=2)

    def on_epoch(rows: Sequence[dict[str, Any]]) -> None:
        if len(rows) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        train_distributed(task, on_epoch, load)
    before = task.folder.read_record()
    assert before is not None
    assert before.status == "running"
    assert len(task.folder.read_rows()) == 2
    assert ray.available_resources()["CPU"] == 2  # the workers have left


def test_a_cluster_without_room_is_no_endless_wait(tmp_path: Path) -> None:
    task = task_of(tmp_path, resources__workers=3)
    record = train_distributed(task, lambda _: None, load, deadline_s=5)
    assert record is not None
    assert (record.status, record.error_kind) == ("failed", "TrialError")
    assert record.error is not None
    assert record.error.startswith("the trial needs 3 workers with 1 CPU each, and for 5 s there has been no room")
    assert "1 node (1 x 2 CPUs)" in record.error
