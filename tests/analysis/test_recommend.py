"""Recommended expert counts: planted optima, the published runs, and every way in which a study cannot tell."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from smoe_ray.analysis.expert_conclusion import MissingRuns
from smoe_ray.analysis.expert_forecast import TIED_WITHIN
from smoe_ray.analysis.recommendation import Recommendation, recommend, recommend_from_runs, study_runs
from smoe_ray.analysis.surface_fit import check_runs, fit_surface
from smoe_ray.errors import ResultsError
from support.planted_results import PAPER_IMAGES, table, trial
from support.planted_surface import (
    AMOUNTS,
    COUNTS,
    TRUE,
    best_of,
    loss_of,
    planted_runs,
    planted_study,
    published_with_steps,
)

FULL, MIDDLE = AMOUNTS[-1], AMOUNTS[2]


def ask(runs: pd.DataFrame, amount: float = FULL) -> Recommendation:
    return recommend_from_runs(runs, amount, replicates=60)


# --- planted optima ---------------------------------------------------------------------------------------------------


def recovered(amount: float, repeats: int, replicates: int) -> int:
    """In how many noisy studies an answer is given whose interval holds the planted optimum."""
    hits = 0
    for repeat in range(repeats):
        # Half of the studies with runs that got stuck, as in the published data.
        runs = planted_runs(1000 + repeat, stuck=0.1 * (repeat % 2), noise=0.3 - 0.1 * (repeat % 2))
        found = recommend_from_runs(runs, amount, replicates=replicates)
        assert found.surface is not None
        low, high = found.surface.forecast.interval
        hits += found.conclusion.kind == "answer" and low <= best_of(amount) <= high
    return hits


def test_planted_optima_lie_in_the_stated_interval() -> None:
    assert recovered(FULL, repeats=8, replicates=80) >= 7


@pytest.mark.slow
@pytest.mark.parametrize("amount", [MIDDLE, FULL])
def test_planted_optima_lie_in_the_stated_interval_in_ninety_of_a_hundred_studies(amount: float) -> None:
    assert recovered(amount, repeats=100, replicates=100) >= 90


def test_without_noise_the_answer_is_exact() -> None:
    found = ask(planted_runs(noise=0.0))
    assert found.conclusion.kind == "answer"
    assert found.surface is not None
    forecast = found.surface.forecast
    above = loss_of(FULL, forecast.count_K) - loss_of(FULL, 9)
    assert forecast.count_K.tolist() == list(range(1, 21))
    assert forecast.best == 9
    assert forecast.interval == (8, 9)  # 8.55, rounded outwards
    assert forecast.tied == (6, 14)
    assert forecast.tied_K.tolist() == (above < TIED_WITHIN).tolist()
    np.testing.assert_allclose(forecast.loss_K, loss_of(FULL, forecast.count_K), rtol=1e-4)
    np.testing.assert_allclose(forecast.chance_K[forecast.count_K == 9], 1.0)
    assert forecast.agrees
    assert found.sentence == (
        "at 350,000 training images: 9 active experts (95 % 8 to 9; 6 to 14 are tied within 0.1), by a fit to 120 runs;"
        f" a Gaussian process agrees: {forecast.gaussian_process.best} ({forecast.gaussian_process.interval[0]} to "
        f"{forecast.gaussian_process.interval[1]})."
    )


def test_a_fit_of_the_same_runs_serves_every_amount() -> None:
    runs = planted_runs()
    fit = fit_surface(check_runs(runs), replicates=60)
    for amount in (FULL, MIDDLE):
        kept, fresh = recommend_from_runs(runs, amount, replicates=60, fit=fit), ask(runs, amount)
        assert kept.sentence == fresh.sentence
        pd.testing.assert_frame_equal(kept.table, fresh.table)
    assert kept.surface is not None
    assert kept.surface.fit is fit


@pytest.mark.parametrize(
    ("best", "interval", "stance"),
    [
        (8, (3, 20), "agrees: 8 (3 to 20)"),
        (12, (8, 20), "disagrees: 12 (8 to 20)"),  # it lies outside the interval of the fit
        (8, (4, 8), "disagrees: 8 (4 to 8)"),  # the best of the fit, 9, lies outside its interval
    ],
)
def test_two_methods_agree_when_each_allows_the_best_of_the_other(
    best: int, interval: tuple[int, int], stance: str
) -> None:
    found = ask(planted_runs(noise=0.0))
    assert found.surface is not None
    forecast = found.surface.forecast
    second = forecast.gaussian_process._replace(best=best, interval=interval)
    surface = found.surface._replace(forecast=forecast._replace(gaussian_process=second))
    assert found._replace(surface=surface).sentence.endswith(f"a Gaussian process {stance}.")


def test_the_curve_follows_the_optimum_and_its_band_is_the_tied_set() -> None:
    surface = ask(planted_runs(noise=0.0)).surface
    assert surface is not None
    curve = surface.curve
    np.testing.assert_allclose(curve.best_G, [best_of(amount) for amount in curve.amount_G], rtol=1e-3)
    for edge_G in (curve.tied_low_G, curve.tied_high_G):
        inside = (edge_G > 1) & (edge_G < 20)
        assert inside.sum() > 90
        above_G = loss_of(curve.amount_G, edge_G) - loss_of(curve.amount_G, curve.best_G)
        np.testing.assert_allclose(above_G[inside], TIED_WITHIN, rtol=0.01)


def test_where_the_curve_is_cut_the_tied_set_is_that_of_the_cut() -> None:
    surface = ask(planted_runs(noise=0.0, form=TRUE._replace(k0=4.0))).surface
    assert surface is not None
    curve = surface.curve
    assert curve.best_G[-1] == pytest.approx(20)
    above = loss_of(FULL, curve.tied_low_G[-1], TRUE._replace(k0=4.0)) - loss_of(FULL, 20, TRUE._replace(k0=4.0))
    assert above == pytest.approx(TIED_WITHIN, rel=0.01)


def test_one_expert_may_be_the_best_and_is_no_edge() -> None:
    found = ask(planted_runs(noise=0.1, form=TRUE._replace(k0=-0.3, k1=0.0)))
    assert found.conclusion.kind == "answer"
    assert "1 active expert (95 % 1 to 1; no other is tied within 0.1)" in found.sentence


# --- the published runs -----------------------------------------------------------------------------------------------


def test_published_recommendation_at_all_data() -> None:
    found = recommend(published_with_steps(), samples=PAPER_IMAGES)
    (arm,) = found.arms
    assert arm.surface is not None
    forecast = arm.surface.forecast
    assert forecast.best in (8, 9)
    assert forecast.tied[0] <= 7
    assert 9 <= forecast.tied[1] < 20
    assert forecast.interval[0] <= 8.5 <= forecast.interval[1]
    assert forecast.agrees
    assert found.sentence.startswith("At 350,000 training images: 9 active experts (95 % 7 to 10; 6 to 14 are tied")
    assert "fit to 473 runs; a Gaussian process agrees: " in found.sentence
    # The Gaussian process has its optimum within one or two experts of SCIENCE.md 5 at each amount.
    bests = [estimate.best for estimate in arm.surface.gaussian_process_L]
    np.testing.assert_allclose(bests, [3.3, 4.1, 5.1, 6.4, 8.5], atol=1)
    row_of = arm.table.set_index("experts")
    assert {7, 9} <= set(row_of.index[row_of["tied"]])
    assert row_of["runs"][7] == 2
    assert row_of["above_best"].min() == 0
    assert (row_of["low"] < row_of["loss"]).all()
    assert (row_of["loss"] < row_of["high"]).all()
    assert arm.evidence[0].startswith("fit: R² 0.976 of 112 cell means; RMSE 0.66, noise floor 0.63 (361 degrees")
    assert arm.evidence[-1] == "held out 350,000 training images: RMSE 0.40, noise floor 0.32 (n = 90)"


def test_published_recommendation_in_steps() -> None:
    """54,700 steps are 20 epochs of all data, so the optimum is the same."""
    found = recommend(published_with_steps(), steps=54_700, replicates=60)
    assert re.match(r"At 54,700 optimizer steps: 8 active experts \(95 % 7 to (9|10); 6 to 13 are tied", found.sentence)


def test_beyond_the_studied_amounts_the_answer_says_so() -> None:
    results = published_with_steps()
    near = recommend(results, samples=1_000_000, replicates=60)
    assert "At 1,000,000 training images (extrapolated: the study has 17,500 to 350,000): 12 active" in near.sentence
    (far,) = recommend(results, samples=2_000_000, replicates=20).arms
    assert far.conclusion.kind == "cannot tell"
    assert "more than a factor of 4 beyond its 17,500 to 350,000" in far.sentence
    assert far.conclusion.missing is not None
    assert far.conclusion.missing.amounts == (2_000_000,)


# --- cannot tell ------------------------------------------------------------------------------------------------------


def test_a_flat_surface_has_no_best() -> None:
    flat = TRUE._replace(c=0.0)
    quiet, loud, equal = (
        ask(runs)
        for runs in (planted_runs(form=flat, noise=0.02), planted_runs(form=flat), planted_runs().assign(loss=9.0))
    )
    for found in (quiet, loud, equal):
        assert found.conclusion.kind == "cannot tell"
        assert found.headline == "cannot tell"
        assert "are all tied within 0.1" in found.sentence or "interval is too wide" in found.sentence
    assert (
        "1 to 20 are all tied within 0.1; add 3 runs each of 40 and 80 configured experts at 350,000" in quiet.sentence
    )


@pytest.mark.parametrize(
    ("k0", "counts", "end"),
    [
        (
            np.log(60),
            COUNTS,
            "best are 20 active experts (95 % 20 to 20), the largest studied count; "
            "add 3 runs each of 30 and 40 configured",
        ),
        (
            np.log(2),
            (4, 6, 8, 12, 16),
            "best are 4 active experts (95 % 4 to 4), the smallest studied count; "
            "add 3 runs each of 1 and 2 configured",
        ),
    ],
)
def test_an_optimum_at_the_end_of_the_counts_is_called_so(k0: float, counts: tuple[int, ...], end: str) -> None:
    found = ask(planted_runs(form=TRUE._replace(k0=k0, k1=0.0), counts=counts, noise=0.1))
    assert found.conclusion.kind == "edge"
    assert "shows no optimum: " + end in found.sentence
    assert found.headline.startswith("no optimum seen, best studied: ")


def test_without_repeats_noise_is_unknown() -> None:
    alone = ask(planted_runs(repeats=1).drop(columns="seed"))
    assert "too few of its cells have two runs or more, so the noise is unknown; add 2 runs each of" in alone.sentence
    assert alone.conclusion.missing == MissingRuns((1, 2, 5, 7, 15, 20), tuple(map(round, AMOUNTS)), 2)
    assert "noise floor unknown" in alone.evidence[0]
    # Equal cells of one seed are repeats to the eye, but not of the seed.
    one_seed = ask(planted_runs().assign(seed=0))
    assert "all its runs have the same seed" in one_seed.sentence


def test_a_wide_interval_answers_nothing() -> None:
    found = ask(planted_runs(3, counts=(1, 2, 4, 8, 16), amounts=AMOUNTS[2:], repeats=2, noise=1.5))
    assert found.conclusion.kind == "cannot tell"
    assert "its interval is too wide, " in found.sentence
    assert found.conclusion.missing is not None
    assert found.conclusion.missing.amounts == (350_000,)


def test_a_form_that_misses_the_runs_answers_nothing() -> None:
    """A loss that zigzags over the counts, far above the noise."""
    runs = planted_runs(noise=0.02)
    runs["loss"] += np.where(np.isin(runs["experts"], COUNTS[::2]), 0.8, -0.8)
    found = ask(runs)
    assert found.conclusion.kind == "cannot tell"
    assert "the fitted form has an RMSE of 0.8" in found.sentence


def test_a_small_misfit_is_forgiven_where_it_is_below_the_tie() -> None:
    runs = planted_runs(noise=0.001)
    runs["loss"] += np.where(np.isin(runs["experts"], COUNTS[::2]), 0.02, -0.02)
    assert ask(runs).conclusion.kind == "answer"


def test_advice_is_in_configured_experts_and_nothing_is_shown_of_a_fit_that_cannot_tell() -> None:
    """Each run has two experts more than stay active: nobody can order active ones."""
    runs = planted_runs(noise=0.0)
    found = ask(runs.assign(configured=runs["experts"] + 2))
    assert found.to_configure == (12, 12)  # the best, 9, was not run; 10 is next to it
    assert found.sentence.endswith(
        "; its runs with about as many active have 12 configured experts, which is what to set."
    )
    tied = planted_runs(noise=0.5, form=TRUE._replace(c=0.0))
    unsure = ask(tied.assign(configured=tied["experts"] + 2))
    assert unsure.conclusion.kind == "cannot tell"
    assert unsure.surface is not None
    assert unsure.answer is None
    assert unsure.table.empty
    assert re.search(r"add 3 runs each of .* configured experts at", unsure.sentence)
    assert "active" not in unsure.sentence.partition("; add ")[2]
    assert unsure.conclusion.missing is not None
    assert min(unsure.conclusion.missing.experts) >= 3


@pytest.mark.parametrize(
    ("runs", "reason", "missing"),
    [
        (
            planted_runs(counts=(5,)),
            "a fit needs 4 counts of active experts (it has 1)",
            MissingRuns((1, 2, 4, 8, 16, 32), tuple(map(round, AMOUNTS)), 3),
        ),
        (
            planted_runs(amounts=(1000.0, 300.0), counts=(1, 2, 4, 8)),
            "a fit needs 3 amounts of training (it has 2)",
            MissingRuns((1, 2, 4, 8), (350_000,), 3),
        ),
        (
            planted_runs(amounts=(FULL,), counts=(1, 3)),
            "a fit needs 4 counts of active experts (it has 2) and 3 amounts of training (it has 1)",
            MissingRuns((1, 2, 3, 4, 8, 16), (87_500, 175_000, 350_000), 3),
        ),
        (
            planted_runs(amounts=AMOUNTS[:3], counts=(1, 2, 4, 8)).iloc[9:],
            "a fit needs 10 cells (it has 9)",
            MissingRuns((1, 2, 4, 8), (17_500, 35_000, 70_000), 3),
        ),
    ],
)
def test_too_few_cells_say_which_to_add(runs: pd.DataFrame, reason: str, missing: MissingRuns) -> None:
    found = ask(runs)
    assert found.surface is None
    assert found.conclusion == ("cannot tell", reason, missing)
    assert found.table.empty
    assert found.evidence == ()
    assert "cannot tell the best number of active experts: " + reason + "; add 3 runs each of " in found.sentence


def test_what_is_added_makes_the_study_answer() -> None:
    """Following the advice step by step leads from one cell to an answer."""
    runs = planted_runs(amounts=(FULL,), counts=(3,), repeats=1, noise=0.1)
    for step in range(6):
        found = ask(runs)
        if found.conclusion.missing is None:
            break
        experts, amounts, repeats = found.conclusion.missing
        added = planted_runs(step + 1, amounts=amounts, counts=experts, repeats=repeats, noise=0.1)
        runs = pd.concat([runs, added.assign(run=f"{step}-" + added["run"])])
    assert found.conclusion.kind == "answer"
    assert found.surface is not None
    low, high = found.surface.forecast.interval
    assert low <= best_of(FULL) <= high


# --- from a study -----------------------------------------------------------------------------------------------------


def test_each_arm_has_its_recommendation() -> None:
    results = pd.concat(
        [
            planted_study(planted_runs(0, noise=0.1), "b", objective__name="blend"),
            planted_study(planted_runs(1, noise=0.1, form=TRUE._replace(k0=1.0)), "l", objective__name="likelihood"),
            planted_study(planted_runs(2), "s", objective__name=None, routing="supervised"),
        ],
        ignore_index=True,
    )
    found = recommend(results, replicates=60)
    assert [arm.label for arm in found.arms] == ["blend", "likelihood"]
    assert found.arms[0].amount == FULL  # the most that the study has
    blend, likelihood = found.sentence.splitlines()
    assert blend.startswith("blend: at 350,000 training images: 9 active experts")
    assert likelihood.startswith("likelihood: at 350,000 training images: 3 active experts")
    assert found.gating == "hard"
    assert found.n_range == found.measured_n_range == (3, 3)
    assert found.fitted() == found


def test_configured_experts_may_be_counted() -> None:
    results = planted_study(planted_runs(noise=0.1))
    (arm,) = recommend(results, experts="configured", replicates=60).arms
    assert "17 configured experts" in arm.sentence
    assert arm.cells.experts_C.max() == 40


def test_data_paths_and_budgets_make_no_arm_of_steps() -> None:
    budgets = [
        trial(f"{images}-{budget}", [5.0, 4.0], images=images, data__fraction=images / 800, training__budget=budget)
        for images in (400, 800)
        for budget in ("20 epochs", "500 steps")
    ]
    assert list(study_runs(table(*budgets), effort="steps")) == ["all trials"]
    assert list(study_runs(table(*budgets))) == ["20 epochs", "500 steps"]


def test_in_steps_a_run_counts_at_its_end_its_half_and_its_quarter() -> None:
    results = table(
        trial("a", [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0], active=[8, 7, 6, 5, 4, 3, 2, 1], images=400),
        trial("b", [9.0, np.nan, np.nan, np.nan, np.nan, 4.0], images=400),
        trial("c", [9.0, 8.0], images=400, status="running"),
    )
    (runs,) = study_runs(results, effort="steps").values()
    of_a, of_b = (runs[runs["run"] == name] for name in "ab")
    assert of_a[["amount", "experts", "loss"]].values.tolist() == [[8, 7, 8.0], [16, 5, 6.0], [32, 1, 2.0]]
    assert of_b["amount"].tolist() == [4, 24]
    assert "c" not in set(runs["run"])
    (ends,) = study_runs(results).values()
    assert sorted(ends[["amount", "experts", "loss"]].values.tolist()) == [[400, 1, 2.0], [400, 5, 4.0]]


def test_an_annealed_objective_counts_at_its_end_alone() -> None:
    def of(name: str, start: float, end: float) -> list:
        variances = {"objective__variance_start": start, "objective__variance_end": end}
        return trial(name, [4.0, 3.0, 2.0, 1.0], images=400, **variances)

    runs_of = study_runs(table(of("annealed", 8.0, 1.0), of("fixed", 2.0, 2.0), of("blend", np.nan, np.nan)), "steps")
    assert {run: len(rows) for runs in runs_of.values() for run, rows in runs.groupby("run")} == {
        "annealed": 1,
        "fixed": 3,
        "blend": 3,
    }


def test_a_single_amount_of_data_can_answer_in_steps() -> None:
    rows = []
    for run in planted_runs(amounts=(FULL,), noise=0.0, repeats=2).itertuples():
        losses = loss_of(FULL * np.arange(1, 9) / 8, run.experts)
        rows.append(trial(run.run, losses.tolist(), active=run.experts, seed=run.seed, images=int(FULL)))
    results = table(*rows)
    assert "3 amounts of training (it has 1)" in recommend(results).sentence
    assert recommend(results, steps=28_000, replicates=20).sentence.startswith("At 28,000 optimizer steps: 9 active")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"samples": 10, "steps": 10}, "are mutually exclusive"),
        ({"samples": 0}, "0 training images; pass a finite amount of at least 1"),
        ({"steps": -3}, "-3 optimizer steps; pass a finite amount of at least 1"),
        ({"samples": float("nan")}, "nan training images"),
        ({"samples": float("inf")}, "inf training images"),
    ],
)
def test_amounts_that_make_no_sense_are_refused(asked: dict[str, float], message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        recommend(table(trial("a", [1.0])), **asked)


def test_studies_without_a_run_to_learn_from_are_refused() -> None:
    with pytest.raises(ResultsError, match=r"no finished trial \(1 running\)"):
        recommend(table(trial("a", [1.0], status="running")))
    with pytest.raises(ResultsError, match="every finished trial is supervised"):
        recommend(table(trial("a", [1.0], routing="supervised")))
    with pytest.raises(ResultsError, match=r"column 'cost\.steps' is absent"):
        recommend(table(trial("a", [1.0])).drop(columns="cost.steps"), steps=5)


def test_without_any_fit_there_is_none_to_show() -> None:
    with pytest.raises(ResultsError, match="loss surface: At 1,000 training images the study cannot tell"):
        recommend(table(trial("a", [1.0]))).fitted()


def test_the_library_is_light_until_something_is_fitted() -> None:
    program = "import sys, smoe_ray.analysis.recommendation; print({'torch', 'scipy', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
