from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from smoe_ray.results import read_results, read_trials
from smoe_ray.spec import CollapseSpec
from smoe_ray.study import LocalExecutor, run_study
from smoe_ray.study.stopping import collapse_reason
from smoe_ray.testing.toy_training import Toy, toy_grid


def rows(*fractions: float | None, effective: float | None = 5.0) -> list[dict[str, Any]]:
    """One evaluated epoch per share of active experts; None: not evaluated."""
    return [
        {
            "epoch": epoch,
            "experts.active_fraction": fraction,
            "experts.effective": None if fraction is None else effective,
        }
        for epoch, fraction in enumerate(fractions, start=1)
    ]


HALF = CollapseSpec(min_active_fraction=0.5, grace_epochs=2)


@pytest.mark.parametrize(
    ("spec", "epochs", "expected"),
    [
        (None, rows(0.1, 0.1, 0.1), None),
        (HALF, [], None),
        (HALF, rows(0.1, 0.1), None),  # within the grace period
        (HALF, rows(0.1, 0.1, 0.1), "experts collapsed: experts.active_fraction 0.1 < 0.5 at epoch 3"),
        (HALF, rows(1.0, 1.0, 0.5), None),  # at the limit, not below
        (HALF, rows(0.1, 0.1, None), None),  # not evaluated
        (HALF, rows(0.1, 0.1, 0.6), None),  # revived
        (
            CollapseSpec(min_effective=5.5, grace_epochs=0),
            rows(1.0),
            "experts collapsed: experts.effective 5 < 5.5 at epoch 1",
        ),
        (CollapseSpec(min_effective=4.5, min_active_fraction=0.5, grace_epochs=0), rows(0.9), None),
        (
            CollapseSpec(min_effective=4.5, min_active_fraction=0.5, grace_epochs=0),
            rows(0.2),
            "experts collapsed: experts.active_fraction 0.2 < 0.5 at epoch 1",
        ),
    ],
)
def test_a_trial_is_stopped_when_its_experts_are_gone(
    spec: CollapseSpec | None, epochs: list[dict[str, Any]], expected: str | None
) -> None:
    assert collapse_reason(spec, epochs) == expected


@pytest.mark.parametrize("jobs", [0, 2])
def test_a_stopped_trial_is_pruned_with_its_reason_and_is_not_run_again(out: Path, log: Path, jobs: int) -> None:
    study = toy_grid(seeds=[0, 1], collapse={"min_effective": 100, "grace_epochs": 1})
    for _ in range(2):
        run_study(study, out, LocalExecutor(jobs, fit=Toy(log=log)))
    trials = read_trials(out, "toy")
    assert [trial.status for trial in trials] == ["pruned", "pruned"]
    assert all(str(trial.reason).startswith("experts collapsed: experts.effective") for trial in trials)
    assert all("< 100 at epoch 2" in str(trial.reason) for trial in trials)
    assert read_results(out, "toy").groupby("trial_id")["epoch"].max().tolist() == [2, 2]
    assert len(log.read_text().splitlines()) == 4
