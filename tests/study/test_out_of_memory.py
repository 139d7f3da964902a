"""Memory that ends is one line that says what to lower, and the study goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from smoe_ray.results import TrialFolder, read_trials
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.testing.toy_training import Toy, toy_grid
from support.processes import seeing_tests

LOWER = "out of memory: lower training.batch_size or model.num_experts, or train fewer trials at once (--jobs)"

PROGRAM = """
import resource, sys
from pathlib import Path

import torch  # before the limit, as its libraries need address space of their own

from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.testing.toy_training import toy_grid

small = toy_grid(seeds=[0], **{"training.budget": "1 epochs", "axes": {"model.num_experts": [2]}})
run_study(small, sys.argv[1] + "-first", LocalExecutor(device="cpu"))  # which loads what is left
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 300_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
both = toy_grid(seeds=[0], **{"training.budget": "1 epochs", "axes": {"model.num_experts": [1024, 2]}})
run_study(both, sys.argv[1], LocalExecutor(device="cpu"))
"""


def test_a_trial_beyond_the_limit_of_its_process_fails_alone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "out")]
    done = subprocess.run(command, env=os.environ | seeing_tests() | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    records = {record.spec.model.num_experts: record for record in read_trials(tmp_path / "out", "toy")}
    assert (records[2].status, records[1024].status) == ("finished", "failed")
    assert str(records[1024].error).startswith(LOWER)
    assert "DefaultCPUAllocator: can't allocate memory" in (records[1024].traceback or "")


def test_memory_of_a_gpu_and_of_python_end_in_the_same_words(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fit_on_a_full_gpu(*_: Any) -> Iterator[Any]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        yield

    [record] = run_study(toy_grid(seeds=[0]), out, LocalExecutor(fit=fit_on_a_full_gpu))
    assert str(record.error).startswith(LOWER)

    def no_room(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(TrialFolder, "write_checkpoint", no_room)
    [record] = run_study(toy_grid(seeds=[0]), out, LocalExecutor(fit=Toy()))
    assert (record.status, record.error_kind) == ("failed", "MemoryError")
    assert str(record.error).startswith(LOWER)


def test_memory_that_ends_in_the_command_itself_is_one_line(smoe_ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from smoe_ray import spec

    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ...")):

        def no_room(*_: Any, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(spec, "load_study", no_room)
        code, _, said = smoe_ray("check", "study.yaml")
        assert (code, said.count("\n")) == (1, 1)
        assert said.startswith(f"smoe-ray: {LOWER}")
