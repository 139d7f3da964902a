"""Runs of the toy study that are disturbed: what they must come to, and looking at their processes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from run_toy import table, toy_grid

from smoe_ray.results import read_trials, read_weights

PROGRAM = Path(__file__).resolve().parent / "run_toy.py"
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


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
