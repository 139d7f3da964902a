"""A study of plug-ins by the command line: killed and resumed, after an edit of its source, and without its package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from smoe_ray.errors import ResultsError
from smoe_ray.results import TIMING_COLUMNS, read_results, read_trials
from support.processes import wait_until
from support.ray_cluster import BIN, clean_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plugin"
STUDY = EXAMPLE / "study.yaml"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder into which the example is installed."""
    site = tmp_path / "site"
    shutil.copytree(EXAMPLE, tmp_path / "plugin")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", site, tmp_path / "plugin"], check=True, capture_output=True)
    return site


def start(site: Path, out: Path, executor: str, *more: str) -> subprocess.Popen[str]:
    device = ("--device", "cpu") if executor == "local" else ()
    return subprocess.Popen(
        [BIN / "smoe-ray", "run", STUDY, "--out", out, "--executor", executor, "--jobs", "2", *device, *more],
        env=clean_environment(PYTHONPATH=str(site)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(site: Path, out: Path, executor: str = "local", *more: str) -> tuple[int, str]:
    process = start(site, out, executor, *more)
    said, error = process.communicate(timeout=400)
    return process.returncode, error or said


def rows(out: Path) -> int:
    try:
        return len(read_results(out, "rings"))
    except ResultsError:
        return 0


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_killed_run_is_resumed_to_the_same_numbers(site: Path, tmp_path: Path, executor: str) -> None:
    longer = ("--set", "training.budget=40 epochs", "--set", "evaluation.every=40")
    with start(site, tmp_path / "killed", executor, *longer) as process:
        wait_until(lambda: rows(tmp_path / "killed") >= 4, "the first epochs", seconds=300, pause=0.2)
        process.kill()
    assert rows(tmp_path / "killed") < 80
    assert run(site, tmp_path / "killed", executor, *longer)[0] == 0
    assert max(record.timings.restarts for record in read_trials(tmp_path / "killed", "rings")) >= 1
    assert run(site, tmp_path / "whole", "local", *longer)[0] == 0
    killed, whole = (
        read_results(tmp_path / place, "rings").drop(columns=list(TIMING_COLUMNS)) for place in ("killed", "whole")
    )
    pd.testing.assert_frame_equal(killed, whole)


def test_an_edit_makes_new_trials_and_an_absent_package_is_one_line(site: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(site, out)[0] == 0
    before = {record.trial_id for record in read_trials(out, "rings")}
    assert run(site, out)[0] == 0
    assert {record.trial_id for record in read_trials(out, "rings")} == before

    source = site / "smoe_ray_example" / "objective.py"
    source.write_text(source.read_text().replace("logit_BE / self", "logit_BE / 2 / self"))
    assert run(site, out)[0] == 0
    after = {record.trial_id for record in read_trials(out, "rings")}
    assert before < after
    assert len(after) == 4

    source.write_text(source.read_text().replace("error_BE = ", "error_BE = 1 / 0 * "))
    code, said = run(site, out)
    assert code == 1
    last = said.splitlines()[-1]
    assert "2 of 2 trials failed" in last
    assert f"plug-in smoe_ray_example.objective:Tempered failed at {source}:27: ZeroDivisionError" in last

    shutil.rmtree(site)
    code, said = run(site, out)
    assert (code, said.count("\n")) == (1, 1)
    assert "base.data.source: 'rings' is none of synthetic, quickdraw, images, combined" in said
    full = [
        word
        for path, name in (
            ("data.source", "source:Rings"),
            ("model.encoder", "encoder:Perceptron"),
            ("objective.name", "objective:Tempered"),
        )
        for word in ("--set", f"{path}=smoe_ray_example.{name}")
    ]
    code, said = run(site, out, "local", *full, "--allow-plugins", "smoe_ray_example")
    assert (code, said.count("\n")) == (1, 1)
    assert "package 'smoe_ray_example' is not installed here; install it" in said
