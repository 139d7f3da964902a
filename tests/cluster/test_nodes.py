"""Several nodes (on this machine, each a raylet): one is lost in mid-study, and none may be left."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from smoe_ray.cluster.ray_executor import RayExecutor
from smoe_ray.cluster.runtime import environment
from smoe_ray.errors import StudyError
from smoe_ray.results import read_trials
from smoe_ray.study import run_study
from smoe_ray.study.events import EpochDone, Notice
from smoe_ray.testing.toy_training import Toy, epochs_computed
from support.processes import seeing_tests
from support.toy_runs import STUDY, assert_same

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    folder = tempfile.mkdtemp(prefix="smoe-", dir="/tmp")
    with environment(seeing_tests() | {"RAY_AUTH_MODE": "disabled", "RAY_health_check_failure_threshold": "2"}):
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "temp_dir": folder},
        )
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


def test_a_node_lost_in_mid_study_costs_nothing_but_time(
    cluster: Cluster, out: Path, log: Path, undisturbed: Path
) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    events: list[Any] = []

    def lose_a_node(event: Any) -> None:
        events.append(event)
        under_way = {each.trial_id for each in events if isinstance(each, EpochDone) and len(each.rows) == 2}
        if len(under_way) == 2 and len(nodes) == 2:
            cluster.remove_node(nodes.pop(), allow_graceful=False)

    toy = Toy(log=log, pause=1.0)
    records = run_study(STUDY, out, RayExecutor(cluster.address, fit=toy), on_event=lose_a_node)
    assert [record.status for record in records] == ["finished"] * 4
    assert len(nodes) == 1
    assert_same(out, undisturbed)
    [notice] = [event.text for event in events if isinstance(event, Notice)]
    assert "its node was lost; it is resumed" in notice
    assert Counter(record.timings.restarts for record in records) == {0: 3, 1: 1}
    assert all(times == 1 for (_, epoch), times in Counter(epochs_computed(log)).items() if epoch == 1)


def test_a_study_without_a_node_left_ends_resumable(cluster: Cluster, out: Path, log: Path, undisturbed: Path) -> None:
    nodes = [cluster.add_node(num_cpus=1)]

    def lose_the_node(event: Any) -> None:
        if isinstance(event, EpochDone) and len(event.rows) == 2 and nodes:
            cluster.remove_node(nodes.pop(), allow_graceful=False)

    toy = Toy(log=log, pause=2.0)  # a busy machine takes its time to end the node's processes
    with pytest.raises(StudyError, match=r"nothing could host its trials; the cluster has 1 node \(1 x 0 CPUs\)"):
        run_study(STUDY, out, RayExecutor(cluster.address, fit=toy, deadline_s=5), on_event=lose_the_node)
    assert [record.status for record in read_trials(out, "toy")] == ["running"]
    cluster.add_node(num_cpus=1)
    run_study(STUDY, out, RayExecutor(cluster.address, fit=Toy(log=log)))
    assert_same(out, undisturbed)
    assert Counter(epochs_computed(log))[(0, 1)] == 1
