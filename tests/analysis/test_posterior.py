"""Posterior collapse: found where it is, told in the table, the report and the dashboard, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from smoe_ray.analysis import arm_summary, collapsed_posteriors, posterior_warning
from smoe_ray.report.tables import arms
from support.planted_results import table, trial

STUDY = """
name: tiny
question: Does the posterior collapse?
base:
  data: {source: synthetic, classes: [eye, pencil], train_per_class: 60, test_per_class: 20}
  model: {num_experts: 2, encoder: lite}
  training: {budget: 500 steps, batch_size: 4, beta: BETA}
"""


def measured(
    active: float, kl: float, configured: int = 32, name: str = "a", seed: int = 0, **differing: object
) -> list[dict[str, object]]:
    columns = {"latent.configured": configured, "latent.active": active, "latent.kl": kl, "test.kl": kl * configured}
    return [row | columns | differing for row in trial(name, [5.0, 4.0], seed=seed, images=25_000)]  # 500 steps


@pytest.mark.parametrize(
    ("active", "configured", "kl", "is_collapsed"),
    [
        (0, 32, 0.0, True),
        (3, 32, 0.2, True),
        (4, 32, 0.2, False),
        (32, 32, 0.5, False),
        (32, 32, 0.009, True),
        (0, 2, 0.3, True),
        (1, 2, 0.3, False),
        (np.nan, 32, np.nan, False),
    ],
)
def test_few_active_dimensions_or_no_kl_are_a_collapse(
    active: float, configured: int, kl: float, is_collapsed: bool
) -> None:
    found = table(measured(active, kl, configured))
    assert len(collapsed_posteriors(found)) == is_collapsed
    assert (posterior_warning(found) is not None) == is_collapsed


@pytest.mark.parametrize(
    ("differing", "is_judged"),
    [
        ({"cost.steps": 500}, True),
        ({"cost.steps": 499}, False),
        ({"status": "running"}, False),
        ({"status": "pruned"}, True),
        ({"status": "failed"}, True),
    ],
)
def test_trials_that_still_run_or_are_hardly_trained_are_not_judged(
    differing: dict[str, object], is_judged: bool
) -> None:
    assert (posterior_warning(table(measured(0, 0.0, **differing))) is not None) == is_judged


def test_the_last_epoch_counts() -> None:
    rows = measured(0, 0.0)
    rows[-1] |= {"latent.active": 30, "latent.kl": 1.0}
    assert posterior_warning(table(rows)) is None


def test_results_of_earlier_versions_say_nothing() -> None:
    before = table(trial("a", [5.0, 4.0]))
    assert posterior_warning(before) is None
    assert arm_summary(before)["latents"].isna().all()
    assert not {"kl", "latents", "kl_sd", "latents_sd"} & set(arms(before).columns)


def test_a_warning_names_trials_and_counts_the_rest() -> None:
    runs = [measured(1, 0.001, name=f"t{seed}", seed=seed) for seed in range(5)]
    warning = posterior_warning(table(*runs, measured(30, 1.0, name="good", seed=9)))
    assert warning is not None
    assert warning.startswith("posterior collapse in 5 of 6 trials: at most 1 of 32 latent dimensions are active, ")
    assert "lower training.beta" in warning
    assert "(t0)" in warning
    assert "(t3)" not in warning
    assert warning.endswith(" and 2 more")


def test_arms_have_mean_kl_and_active_latents() -> None:
    summary = arm_summary(table(measured(4, 0.5, name="a"), measured(8, 1.5, name="b", seed=1))).iloc[0]
    assert (summary["kl"], summary["latents"]) == (32.0, 6.0)
    assert summary["latents_sd"] == pytest.approx(np.std([4, 8], ddof=1))


@pytest.mark.parametrize(("beta", "is_collapsed"), [("100.0", True), ("1e-5", False)])
def test_a_real_trial_under_a_strong_prior_is_told_everywhere(
    smoe_ray, tmp_path: Path, out: Path, beta: str, is_collapsed: bool
) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(STUDY.replace("BETA", beta))
    run = smoe_ray("run", study, "--out", out, "--executor", "local", "--jobs", 0, "--device", "cpu")
    printed = smoe_ray("table", out, "tiny")
    assert run[0] == printed[0] == 0
    for _, shown, error in (run, printed):
        assert "active latents" in shown
        assert "test KL" in shown
        assert ("warning: posterior collapse in 1 of 1 trials" in error) == is_collapsed
    assert smoe_ray("report", out, "tiny", "--to", tmp_path / "report")[0] == 0
    page = (tmp_path / "report" / "index.html").read_text()
    assert ("Warning: posterior collapse" in page) == is_collapsed
    kept = pd.read_csv(tmp_path / "report" / "tables" / "arms.csv")
    assert kept["kl"].notna().all()
    assert (kept["latents"] < 4).all() == is_collapsed
