"""One row a trial: its last epoch, its arm, and the gap between hard and soft."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from smoe_ray.analysis.summary import trial_summary
from smoe_ray.errors import ResultsError
from support.planted_results import table, trial


def test_the_last_row_of_each_trial_sorted_by_arm_and_seed() -> None:
    results = table(
        trial("c", [9.0, 7.0], seed=1, objective__name="likelihood"),
        trial("b", [9.0, 8.0, 6.0], seed=0, objective__name="likelihood"),
        trial("a", [5.0, 4.0], seed=0, objective__name="blend", status="running"),
    )
    summary = trial_summary(results.sample(frac=1, random_state=0))
    assert list(summary["trial_id"]) == ["a", "b", "c"]
    assert list(summary["arm"]) == ["blend", "likelihood", "likelihood"]
    assert list(summary["epoch"]) == [2, 3, 2]
    assert list(summary["test.reconstruction"]) == [4.0, 6.0, 7.0]
    assert list(summary["gap"]) == [1.0, 1.0, 1.0]
    assert list(summary.columns[:2]) == ["arm", "seed"]


def test_a_trial_without_an_epoch_keeps_its_row() -> None:
    results = table(trial("a", [3.0]), trial("b", [math.nan], status="failed"))
    results.loc[results.trial_id == "b", "epoch"] = math.nan
    summary = trial_summary(results)
    assert sorted(summary["trial_id"]) == ["a", "b"]
    assert summary.set_index("trial_id").loc["b", "status"] == "failed"


def test_a_table_of_something_else_is_refused() -> None:
    with pytest.raises(ResultsError, match="column 'trial_id'"):
        trial_summary(pd.DataFrame({"x": [1]}))
