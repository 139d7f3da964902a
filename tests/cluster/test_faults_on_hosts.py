"""Faults on three hosts (namespaces) with a token: each trial ends up finished, once, and with its numbers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from smoe_ray.results import TrialRecord, read_results, read_trials
from smoe_ray.spec import GridStudy, parse_study
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.testing.toy_training import table
from support.hosts import Host, hosts_of_our_own
from support.processes import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

WORKERS = ("worker-1", "worker-2")
START_WORKER = "ray start --address=head:6379 --num-cpus=1 --object-store-memory=100000000"
STUDY = """
name: survivor
question: Does a fault cost more than time?
base:
  data: {source: synthetic, classes: [eye, pencil], train_per_class: 100, test_per_class: 10}
  model: {num_experts: 2, encoder: lite}
  training: {budget: 25 epochs, batch_size: 16}
seeds: [0, 1, 2, 3]
"""


@dataclass
class Cluster:
    """A head, two workers of one CPU each, and a laptop from which studies are submitted."""

    hosts: dict[str, Host]
    shared: Path

    def on(self, name: str, command: str, fails: bool = False) -> str:
        return self.hosts[name].run(command, fails=fails)

    def submit(self, out: str) -> str:
        return self.on("laptop", f"smoe-ray submit study.yaml --out /mnt/{out} 2> said").strip()

    def state(self, job: str) -> str:
        said = self.on("laptop", f"smoe-ray jobs | grep ^{job}")
        return said.split()[1]

    def wait(self, job: str) -> str:
        """Wait for the end of a job; its state then."""
        wait_until(lambda: self.state(job) not in ("pending", "running"), seconds=400, pause=2)
        return self.state(job)

    def logs(self, job: str) -> str:
        return self.on("laptop", f"smoe-ray logs {job}")

    def records(self, out: str) -> list[TrialRecord]:
        try:
            return read_trials(self.shared / out, "survivor")
        except Exception:  # nothing there yet
            return []

    def is_half_way(self, out: str) -> bool:
        """One trial at least is finished, and both workers train another."""
        records = self.records(out)
        under_way = [
            record for record in records if record.status == "running" and epochs(self.shared / out, record) > 2
        ]
        return any(record.status == "finished" for record in records) and len({r.host for r in under_way}) == 2


def epochs(out: Path, record: TrialRecord) -> int:
    results = read_results(out, "survivor")
    return int(results[results.trial_id == record.trial_id].epoch.notna().sum())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The table of the study, run at once."""
    out = tmp_path_factory.mktemp("undisturbed")
    study = grid()
    run_study(study, out, LocalExecutor())
    return table(out, study)


def grid() -> GridStudy:
    study = parse_study(STUDY)
    assert isinstance(study, GridStudy)
    return study


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("hosts")
    with hosts_of_our_own(folder, ("head", *WORKERS), visitor="laptop") as hosts:
        token = secrets.token_hex(32)
        for host in hosts.values():
            host.run(f"umask 077; mkdir -p ~/.ray; printf {token} > ~/.ray/auth_token; export RAY_AUTH_MODE=token")
        hosts["head"].run(
            "ray start --head --port=6379 --num-cpus=0 --dashboard-host=0.0.0.0 --object-store-memory=100000000"
        )
        for name in WORKERS:
            hosts[name].run(START_WORKER)
        (hosts["laptop"].home / "study.yaml").write_text(STUDY)
        hosts["laptop"].run("export RAY_API_SERVER_ADDRESS=http://head:8265")
        yield Cluster(hosts, folder / "mnt")


def kill_a_trial(cluster: Cluster, _job: str) -> None:
    cluster.on("worker-2", "pkill -9 -f '^ray::Implicit'")


def lose_a_node(cluster: Cluster, _job: str) -> None:
    cluster.on("worker-2", "kill -9 -1")  # every process of the host but this shell


def kill_the_driver(cluster: Cluster, _job: str) -> None:
    cluster.on("head", "pkill -9 -f 'python -m [s]moe_ray.cluster.job_entry'")


def stop_the_job(cluster: Cluster, job: str) -> None:
    cluster.on("laptop", f"smoe-ray stop {job}")


def block_the_storage(cluster: Cluster, job: str) -> None:
    for name in WORKERS:  # read-only beside it, where nothing is open for writing and makes that fail, then over it
        cluster.on(
            name,
            "mkdir -p blocked && mount --bind /mnt blocked && mount -o remount,bind,ro blocked"
            " && mount --bind blocked /mnt && umount blocked",
        )
    wait_until(lambda: "trying again" in cluster.logs(job), seconds=400, pause=2)
    for name in WORKERS:
        cluster.on(name, "umount --lazy /mnt")


@pytest.mark.parametrize(
    ("fault", "state", "said"),
    [
        (kill_a_trial, "succeeded", "its process was killed; it is resumed"),
        (block_the_storage, "succeeded", "cannot be"),
        (kill_the_driver, "failed", ""),
        (stop_the_job, "stopped", "Nothing that was trained is lost"),
        (lose_a_node, "succeeded", "its node was lost; it is resumed"),
    ],
)
def test_a_fault_costs_nothing_but_time(
    cluster: Cluster, undisturbed: Any, fault: Callable[[Cluster, str], None], state: str, said: str
) -> None:
    out = fault.__name__.replace("_", "-")
    job = cluster.submit(out)
    wait_until(lambda: cluster.is_half_way(out), seconds=400, pause=0.3)
    before = {record.trial_id: record for record in cluster.records(out) if record.status == "finished"}
    fault(cluster, job)
    assert cluster.wait(job) == state
    assert said in " ".join(cluster.logs(job).split())
    if state != "succeeded":
        # What was finished when the driver was told or died can be more than before, but never less.
        before |= {record.trial_id: record for record in cluster.records(out) if record.status == "finished"}
        assert len(before) < 4
        again = cluster.submit(out)
        assert again != job
        assert cluster.wait(again) == "succeeded"
    records = {record.trial_id: record for record in cluster.records(out)}
    assert [record.status for record in records.values()] == ["finished"] * 4
    assert {trial_id: records[trial_id] for trial_id in before} == before
    assert sum(record.timings.restarts for record in records.values()) in (0, 1, 2)
    assert {record.host for record in records.values()} <= set(WORKERS)
    pd.testing.assert_frame_equal(table(cluster.shared / out, grid()), undisturbed, check_exact=True)
    if fault is lose_a_node:
        cluster.on("worker-2", START_WORKER)


def test_a_wrong_token_gets_nothing(cluster: Cluster) -> None:
    jobs = cluster.on("laptop", "smoe-ray jobs")
    for command in ("jobs", "submit study.yaml --out /mnt/stolen", "stop survivor-00000000"):
        for token, problem in (("0" * 64, "token"), ("", "token")):
            given = f"RAY_AUTH_TOKEN={token}" if token else "RAY_AUTH_TOKEN_PATH=/nowhere"
            said = cluster.on("laptop", f"{given} smoe-ray {command}", fails=True)
            assert said.startswith("smoe-ray: ")
            assert said.count("\n") == 1
            assert problem in said
            assert not re.search(r"survivor-(?!00000000)", said)
    assert cluster.on("laptop", "smoe-ray jobs") == jobs
    assert not (cluster.shared / "stolen").exists()
