"""A study of plug-ins on three hosts (namespaces), none of which has them installed: sent, stopped, killed, resumed."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from smoe_ray.cluster.job_packages import stage_packages
from smoe_ray.results import TrialRecord, read_results, read_trials
from smoe_ray.spec import load_study
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.testing.toy_training import table
from support.hosts import Host, hosts_of_our_own
from support.plugin_packages import importable
from support.processes import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

WORKERS = ("worker-1", "worker-2")
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plugin"
EPOCHS = 300  # long enough for a trial to be running still when it is stopped and when it is killed
SMALL = f"--set training.budget='{EPOCHS} epochs' --set evaluation.every={EPOCHS}"
KILL_A_TRIAL = "! pkill -9 -f '^ray::Implicit' || echo killed"


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[dict[str, Host]]:
    """A head without CPUs, two workers of one each, and a laptop with the example package in its home."""
    with hosts_of_our_own(tmp_path, ("head", *WORKERS), visitor="laptop") as hosts:
        token = secrets.token_hex(32)
        for host in hosts.values():
            host.run(f"umask 077; mkdir -p ~/.ray; printf {token} > ~/.ray/auth_token; export RAY_AUTH_MODE=token")
        start = "ray start --object-store-memory=100000000"
        hosts["head"].run(f"{start} --head --port=6379 --num-cpus=0 --dashboard-host=0.0.0.0")
        for name in WORKERS:
            hosts[name].run(f"{start} --address=head:6379 --num-cpus=1")
        shutil.copytree(EXAMPLE, hosts["laptop"].home / "plugin")
        hosts["laptop"].run("export RAY_API_SERVER_ADDRESS=http://head:8265")
        yield hosts


def test_a_study_of_plug_ins_is_sent_stopped_killed_and_resumed(hosts: dict[str, Host], tmp_path: Path) -> None:
    laptop, out = hosts["laptop"], tmp_path / "mnt" / "results"
    submit = f"smoe-ray submit plugin/study.yaml {SMALL} --out /mnt/results --with plugin"

    said = laptop.run(f"{submit.replace(' --with plugin', '')} --wait 2>&1", fails=True)
    assert "base.data.source: 'rings' is none of synthetic" in said  # nothing here knows the short name

    def records() -> list[TrialRecord]:
        try:
            return read_trials(out, "rings")
        except Exception:  # nothing there yet
            return []

    def epochs() -> int:
        return len(read_results(out, "rings")) if records() else 0

    job = laptop.run(f"{submit} 2> said").strip()
    wait_until(lambda: epochs() >= 3, "the first epochs", seconds=300, pause=1)
    laptop.run(f"smoe-ray stop {job}")
    assert {record.status for record in records()} == {"running"}
    before = epochs()

    again = laptop.run(f"{submit} 2> said").strip()
    assert again == f"{job}-2"
    wait_until(lambda: epochs() >= before + 3, "more epochs", seconds=300, pause=1)
    assert any("killed" in hosts[name].run(KILL_A_TRIAL) for name in WORKERS)
    wait_until(lambda: [one.status for one in records()] == ["finished"] * 2, "the end", seconds=400, pause=1)
    assert {record.host for record in records()} <= set(WORKERS)
    assert max(record.timings.restarts for record in records()) >= 1

    (tmp_path / "installed").mkdir()
    stage_packages([EXAMPLE], tmp_path / "installed")
    with importable(tmp_path / "installed", "smoe_ray_example"):
        study = load_study(EXAMPLE / "study.yaml", [f"training.budget={EPOCHS} epochs", f"evaluation.every={EPOCHS}"])
        run_study(study, tmp_path / "here", LocalExecutor(device="cpu"))
        pd.testing.assert_frame_equal(table(out, study), table(tmp_path / "here", study))
