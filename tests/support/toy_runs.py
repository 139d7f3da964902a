"""Runs of the toy study that are disturbed: what they must come to, and looking at their processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from smoe_ray.results import read_trials, read_weights
from smoe_ray.testing.toy_training import table, toy_grid
from support.processes import seeing_tests

STUDY = toy_grid()


def assert_same(out: Path, undisturbed: Path) -> None:
    """The same table and weights, and nothing left over."""
    pd.testing.assert_frame_equal(table(out, STUDY), table(undisturbed, STUDY), check_exact=True)
    for record in read_trials(out, "toy"):
        mine, theirs = (read_weights(place, "toy", record.trial_id) for place in (out, undisturbed))
        assert np.array_equal(mine["weight"], theirs["weight"])
        assert not (out / "toy/trials" / record.trial_id / "checkpoint").exists()
    assert not list(out.rglob("*.tmp"))


def workers(log: Path) -> set[int]:
    """Processes that trained."""
    return {int(line.split()[2]) for line in log.read_text().splitlines()}


def start(out: Path, executor: int | str, training: str = "toy", **fields: Any) -> subprocess.Popen[str]:
    """Run the toy study in a process of its own: `support.run_toy` tells the arguments.

    It hears SIGHUP even where the tests run under nohup.
    """
    command = [sys.executable, "-m", "support.run_toy", str(out), str(executor), training, json.dumps(fields)]
    ours = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        return subprocess.Popen(
            command,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=os.environ | seeing_tests(),
        )
    finally:
        signal.signal(signal.SIGHUP, ours)
