"""`make gpu` without a GPU: the same program, small; and what it needs installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_architecture import BARE, python, refused_packages

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "gpu.py"
CHECKS = ("bank of experts", "objectives", "hard evaluation", "resume", "bfloat16", "two trials at once")


def gpu(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
def test_every_known_answer_holds_on_a_cpu_and_a_table_is_written(tmp_path: Path) -> None:
    done = gpu("--device", "cpu", "--to", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    table = (tmp_path / "gpu-cpu.md").read_text()
    for name in CHECKS:
        assert f"| {name} | yes |" in table
    assert "350 training and 50 test images" in table
    assert "| 2 | " in table  # experts, of the training step


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so_in_one_line() -> None:
    done = gpu()
    assert done.returncode == 1
    assert done.stderr == "no CUDA device here; `--device cpu` runs the same program, small\n"


def test_a_bare_machine_is_enough() -> None:
    refused = refused_packages({"torch", "numpy", "pydantic", "pyarrow"})
    program = f"sys.path.insert(0, {str(PROGRAM.parent)!r})\nimport gpu\nprint(sorted(gpu.CHECKS))"
    assert python(BARE.format(refused=refused) + program).strip() == str(sorted(CHECKS))
