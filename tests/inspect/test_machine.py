"""What memory this machine has, control groups included, and what is said of trials that need more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smoe_ray.errors import StudyError
from smoe_ray.inspect import machine
from smoe_ray.inspect.machine import MachineMemory, fitting_jobs, machine_memory, note_on_memory, refuse_beyond

GB = 10**9
MEMINFO = "MemTotal: 16000000 kB\nMemFree: 1000000 kB\nMemAvailable: 8000000 kB\n"
STUDY = """
name: hungry
question: Does it fit?
base:
  data: {source: synthetic, classes: [eye, cat], train_per_class: 20, test_per_class: 10}
  model: {num_experts: 2, encoder: lite}
  training: {budget: 1 epochs}
seeds: [0]
"""


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A system without control groups: files can be added."""
    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    write(tmp_path / "proc/meminfo", MEMINFO)
    write(tmp_path / "proc/self/cgroup", "0::/\n")
    return tmp_path


def write(file: Path, text: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}")


def test_a_machine_without_limits(system: Path) -> None:
    write(system / "cgroup/memory.max", "max")
    assert machine_memory() == MachineMemory(16_384_000_000, 8_192_000_000)


def test_a_container_has_its_limit_less_what_it_uses(system: Path) -> None:
    write(system / "cgroup/memory.max", 4 * GB)
    write(system / "cgroup/memory.current", 3 * GB)
    write(system / "cgroup/memory.stat", f"anon {GB}\ninactive_file {2 * GB}\n")  # which may be dropped
    assert machine_memory() == MachineMemory(4 * GB, 3 * GB)


def test_the_tightest_of_nested_groups_counts(system: Path) -> None:
    write(system / "proc/self/cgroup", "0::/user.slice/job.scope\n")
    for group, limit in (("user.slice", 2 * GB), ("user.slice/job.scope", 3 * GB)):
        write(system / "cgroup" / group / "memory.max", limit)
        write(system / "cgroup" / group / "memory.current", GB)
        write(system / "cgroup" / group / "memory.stat", "")
    assert machine_memory() == MachineMemory(2 * GB, GB)


def test_control_groups_of_version_1(system: Path) -> None:
    write(system / "proc/self/cgroup", "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n")
    group = system / "cgroup/memory/docker/abc"
    write(group / "memory.limit_in_bytes", GB)
    write(group / "memory.usage_in_bytes", GB // 4)
    write(group / "memory.stat", "total_inactive_file 0\n")
    write(system / "cgroup/memory/memory.limit_in_bytes", 2**63 - 4096)  # version 1 for "none"
    write(system / "cgroup/memory/memory.usage_in_bytes", GB)
    write(system / "cgroup/memory/memory.stat", "total_inactive_file 0\n")
    assert machine_memory() == MachineMemory(GB, GB - GB // 4)


def test_this_machine_has_memory() -> None:
    here = machine_memory()
    assert here is not None
    assert 0 < here.available <= here.total


def test_what_is_said_and_what_is_refused() -> None:
    memory = MachineMemory(8 * GB, 4 * GB)
    assert note_on_memory(2 * GB, memory, jobs=2) is None
    assert fitting_jobs(2 * GB, memory.available) == 2
    note = note_on_memory(GB, memory, jobs=9)
    assert note is not None
    assert "9 processes of up to 1.0 GB needed, 4.0 GB available on this machine; lower --jobs to 4, or" in note
    assert "lower training.batch_size or model.num_experts" in (note_on_memory(5 * GB, memory) or "")
    refuse_beyond(9 * GB, memory.total, "this machine")  # the estimate may be a quarter too high
    with pytest.raises(
        StudyError, match=r"a trial needs about 11\.0 GB of memory, and this machine has 8\.0 GB: lower"
    ):
        refuse_beyond(11 * GB, memory.total, "this machine")


def test_check_warns_and_run_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smoe_ray: Any) -> None:
    study = tmp_path / "hungry.yaml"
    study.write_text(STUDY)
    code, printed, _ = smoe_ray("check", study)
    assert code == 0
    assert "memory           about 0.5 GB per trial at its peak" in printed
    assert "note" not in printed

    monkeypatch.setattr(machine, "machine_memory", lambda: MachineMemory(GB, GB // 10))
    code, printed, _ = smoe_ray("check", study)
    assert code == 0
    assert "a trial may run out of memory: about 0.5 GB needed, 0.1 GB available" in " ".join(printed.split())

    monkeypatch.setattr(machine, "machine_memory", lambda: MachineMemory(GB // 10, GB // 10))
    run = ("run", study, "--out", tmp_path / "out", "--executor", "local", "--device", "cpu")
    code, _, error = smoe_ray(*run)
    assert (code, error.count("\n")) == (1, 1)
    assert "a trial needs about 0.5 GB of memory, and this machine has 0.1 GB: lower training.batch_size" in error
    assert not (tmp_path / "out").exists()
