"""Comparison of arms: textbook answers, error rates in simulated studies, and words that agree with the numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from smoe_ray.analysis import comparison
from smoe_ray.analysis.comparison import CellOutcomes, Difference, compare_arms, compare_cells, holm
from smoe_ray.errors import ResultsError
from support.planted_results import published, table, trial

STUDIES = 2000


def cell(arm: object, reference: object, paired: bool = False) -> CellOutcomes:
    return CellOutcomes("c", "new", "old", np.asarray(arm, float), np.asarray(reference, float), paired)


def compare(arm: object, reference: object, paired: bool = False) -> Difference:
    return compare_cells([cell(arm, reference, paired)])[0]


def study(losses: dict[str, dict[int, list[float]]], **config: object) -> pd.DataFrame:
    """Objective -> expert count -> final loss by seed (0, 1, ...)."""
    return table(
        *(
            trial(
                f"{name}-{experts}-{seed}", [90.0, loss], seed=seed, configured=experts, objective__name=name, **config
            )
            for name, by_count in losses.items()
            for experts, seeds in by_count.items()
            for seed, loss in enumerate(seeds)
        )
    )


# --- textbook answers -------------------------------------------------------------------------------------------------


def test_pairs_give_the_paired_t_test() -> None:
    arm, reference = [14.0, 15.5, 13.2, 16.1, 14.9], [16.0, 16.4, 15.9, 17.0, 16.2]
    result = compare(arm, reference, paired=True)
    textbook = stats.ttest_rel(arm, reference)
    interval = textbook.confidence_interval(0.95)
    assert result.p == pytest.approx(textbook.pvalue)
    assert (result.low, result.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert (result.estimate, result.n_arm, result.interval, result.level) == (pytest.approx(-1.56), 5, "t", 0.95)
    assert (result.p_holm, result.verdict) == (result.p, "lower")
    pairs = np.subtract(arm, reference)
    # The exact factor for 4 degrees of freedom: Gamma(2) / (sqrt(2) Gamma(1.5)).
    assert result.effect == pytest.approx(pairs.mean() / pairs.std(ddof=1) * 0.7978845608)


@pytest.mark.parametrize("margin", [0.05, 0.3, 1.0])
def test_equivalence_of_pairs_is_that_of_statsmodels(margin: float) -> None:
    from statsmodels.stats.weightstats import ttost_paired

    arm, reference = np.array([14.0, 15.5, 13.2, 16.1, 14.9]), np.array([14.1, 15.3, 13.3, 16.0, 15.1])
    [found] = compare_cells([cell(arm, reference, paired=True)], margin=margin)
    p = ttost_paired(arm, reference, -margin, margin)[0]
    assert found.p_equivalent == pytest.approx(p)
    assert found.verdict == (f"equivalent (within ±{margin:g})" if p <= 0.05 else "not distinguishable")


def test_what_is_different_is_not_called_equivalent_and_without_a_margin_nothing_is() -> None:
    base = np.array([14.0, 15.5, 13.2, 16.1, 14.9])
    shifted = base + 0.1 + np.array([0.01, -0.01, 0.0, 0.01, -0.01])
    [found] = compare_cells([cell(shifted, base, paired=True)], margin=1.0)
    assert found.verdict == "higher"
    assert found.p_equivalent is not None
    assert found.p_equivalent < 0.001
    [untested] = compare_cells([cell(shifted[:2], base[:2])], margin=1.0)
    assert (untested.verdict, untested.p_equivalent) == ("cannot tell (n = 2)", None)
    [plain] = compare_cells([cell(base, base + np.array([0.1, -0.1, 0.1, -0.1, 0.0]), paired=True)])
    assert (plain.verdict, plain.p_equivalent) == ("not distinguishable", None)


def test_no_more_than_one_in_twenty_families_at_the_margin_is_called_equivalent() -> None:
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(400):
        cells = [cell(rng.normal(1.0, 1, 5), rng.normal(0, 1, 5)) for _ in range(3)]  # the truth: just not equivalent
        wrong += any(one.verdict.startswith("equivalent") for one in compare_cells(cells, margin=1.0))
    assert wrong / 400 <= 0.05


def test_without_pairs_welchs_statistic_meets_the_conservative_degrees_of_freedom() -> None:
    arm, reference = [14.0, 15.5, 13.2, 16.1], [16.0, 19.4, 15.9, 18.0, 17.1, 16.6]
    result = compare(arm, reference)
    welch = stats.ttest_ind(arm, reference, equal_var=False)
    assert result.p == pytest.approx(2 * stats.t.sf(-welch.statistic, df=3))
    assert result.p > welch.pvalue
    half = stats.t.ppf(0.975, 3) * result.estimate / welch.statistic
    assert (result.low, result.high) == (pytest.approx(result.estimate - half), pytest.approx(result.estimate + half))
    pooled = np.sqrt((3 * np.var(arm, ddof=1) + 5 * np.var(reference, ddof=1)) / 8)
    # Hedges' usual approximation of the factor is good to 0.1 % here.
    assert result.effect == pytest.approx(result.estimate / pooled * (1 - 3 / (4 * 8 - 1)), rel=2e-3)


def test_the_effect_size_is_unbiased_in_small_samples() -> None:
    rng = np.random.default_rng(0)
    arm, reference = rng.normal(1.0, 1.0, (STUDIES, 4)), rng.normal(0.0, 1.0, (STUDIES, 5))
    effects = [result.effect for result in compare_cells([cell(*runs) for runs in zip(arm, reference, strict=True)])]
    assert np.mean(effects) == pytest.approx(1.0, abs=3 * np.std(effects) / STUDIES**0.5)


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=12), st.floats(0.01, 0.2))
@settings(max_examples=10)  # statsmodels collects garbage at every call
def test_holm_is_that_of_statsmodels(values: list[float], alpha: float) -> None:
    from statsmodels.stats.multitest import multipletests

    p = np.array(values, float)
    corrected, step = holm(p, alpha)
    family = np.isfinite(p)
    assert np.isnan(corrected[~family]).all()
    assert np.isnan(step[~family]).all()
    if family.any():
        rejected, expected = multipletests(p[family], alpha, method="holm")[:2]
        np.testing.assert_allclose(corrected[family], expected)
        assert ((corrected[family] <= alpha) == rejected).all()


# --- intervals, p values and words agree ------------------------------------------------------------------------------

runs = st.integers(2, 24).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-40, 40).map(lambda x: x / 8), min_size=n, max_size=n),
        st.lists(st.integers(-40, 40).map(lambda x: x / 8), min_size=n, max_size=n),
        st.integers(-3, 3),
        st.booleans(),
    )
)


@given(st.lists(runs, min_size=1, max_size=4))
@settings(max_examples=60)
def test_interval_p_value_and_verdict_never_contradict_each_other(drawn: list[tuple]) -> None:
    cells = [cell(np.add(arm, shift), reference, paired) for arm, reference, shift, paired in drawn]
    differences = compare_cells(cells)
    for difference in differences:
        excludes_zero = difference.low > 0 or difference.high < 0
        assert difference.distinguishable == excludes_zero == (difference.p_holm <= 0.05)
        # What was not tested is never called indistinct: that is the outcome of a test.
        untested = difference.interval == "none"
        assert difference.verdict.startswith("cannot tell (") == untested
        assert (difference.verdict == "not distinguishable") == (not untested and not excludes_zero)
        if excludes_zero:
            assert difference.verdict == ("lower" if difference.estimate < 0 else "higher")
        if difference.interval != "none":
            assert difference.low < difference.estimate < difference.high
            assert difference.level >= 0.95
            assert difference.p <= difference.p_holm <= 1
    turned = compare_cells([one._replace(arm_N=one.reference_M, reference_M=one.arm_N) for one in cells])
    if "bootstrap" not in {difference.interval for difference in (*differences, *turned)}:  # it draws the arms in turn
        for there, back in zip(differences, turned, strict=True):
            assert (back.low, back.high, back.p_holm) == pytest.approx(
                (-there.high, -there.low, there.p_holm), nan_ok=True
            )


@pytest.mark.parametrize("paired", [True, False])
def test_too_few_runs_are_never_a_winner(paired: bool) -> None:
    (result,) = compare_cells([cell([1.0, 1.1], [99.0, 99.1], paired)])
    assert result.verdict == "cannot tell (n = 2)"
    assert result.estimate == pytest.approx(-98)
    assert result.interval == "none"
    assert np.isnan([result.low, result.high, result.p, result.p_holm, result.effect]).all()


def test_cells_with_too_few_runs_do_not_count_in_the_correction() -> None:
    tested = cell([1.0, 1.2, 1.3, 1.1], [3.0, 3.3, 3.1, 2.9], paired=True)
    (alone,) = compare_cells([tested])
    (beside, _, _) = compare_cells([tested, cell([1.0], [2.0]), cell([1.0, 2.0], [4.0])])
    assert beside == alone


def test_runs_without_spread_say_nothing() -> None:
    """Ten of ten experts in all runs against nine of ten in all runs may well be three coins on the same side."""
    assert compare([10, 10, 10], [9, 9, 9]).verdict == "cannot tell (no spread between runs)"
    assert compare([3.1, 4.2, 5.3], [2.1, 3.2, 4.3], paired=True).verdict.endswith("(no spread between pairs)")
    assert compare([10, 10, 10], [9, 9, 8]).interval == "t"


def test_the_interval_widens_with_the_number_of_cells() -> None:
    rng = np.random.default_rng(0)
    cells = [cell(rng.normal(-9 if n == 0 else 0, 1, 5), rng.normal(0, 1, 5), paired=True) for n in range(10)]
    found, *others = compare_cells(cells)
    assert (found.verdict, found.level, found.p_holm) == ("lower", 0.995, pytest.approx(10 * found.p))
    # Holm stops at the second of ten: nine are left.
    assert [difference.level for difference in others] == pytest.approx([1 - 0.05 / 9] * 9)
    assert {difference.verdict for difference in others} == {"not distinguishable"}


# --- bootstrap --------------------------------------------------------------------------------------------------------


def test_the_bootstrap_takes_over_at_twenty_runs_and_says_so() -> None:
    rng = np.random.default_rng(0)
    arm, reference = np.exp(rng.normal(0.5, 0.8, 20)), np.exp(rng.normal(0, 0.8, 20))
    result = compare(arm, reference)
    assert result.interval == "bootstrap"
    assert compare(arm[1:], reference).interval == "t"
    assert result == compare(arm, reference), "the same runs give the same numbers"
    alone = compare_cells([cell(reference, arm, paired=True), cell(arm, reference)])[1]
    assert alone.p == result.p, "whatever stands beside them"
    # The studentised interval is near that of t, and in the units of the losses.
    half = stats.t.ppf(0.975, 38) * np.sqrt((arm.var(ddof=1) + reference.var(ddof=1)) / 20)
    assert (result.high - result.low) / 2 == pytest.approx(half, rel=0.25)


def test_the_bootstrap_draws_pairs_as_pairs() -> None:
    """What a seed adds to both of its runs changes nothing."""
    rng = np.random.default_rng(0)
    arm, reference, of_seed = rng.normal(0.4, 1, 20), rng.normal(0, 1, 20), rng.normal(0, 9, 20)
    alone, with_seed = compare(arm, reference, True), compare(arm + of_seed, reference + of_seed, True)
    assert alone.interval == with_seed.interval == "bootstrap"
    assert (with_seed.p, with_seed.low, with_seed.high) == pytest.approx((alone.p, alone.low, alone.high))


def test_where_resampling_cannot_tell_t_does() -> None:
    counts = np.r_[np.full(19, 10.0), 9.0]
    assert compare(counts, np.r_[np.full(19, 8.0), 7.0]).interval == "t", "resamples without spread"
    rng = np.random.default_rng(0)
    many = [cell(rng.normal(size=20), rng.normal(size=20), paired=True) for _ in range(3)]
    assert {d.interval for d in compare_cells(many, alpha=2e-4)} == {"t"}, "p values below 1 in 10,000"
    few = [cell([1.0], [2.0])] * 9
    assert {d.interval for d in compare_cells([*many, *few], alpha=4e-4)} == {"bootstrap", "none"}


# --- error rates ------------------------------------------------------------------------------------------------------


def verdicts(rng: np.random.Generator, shape: tuple[int, int], runs: tuple, shift: float = 0.0) -> np.ndarray:
    """Whether each (study, cell) was found distinguishable. `runs`: pairs, or runs per arm and a ratio of spreads."""
    studies, cells = shape
    n, m, ratio, paired = runs if len(runs) == 4 else (*runs, runs[0], 1.0, True)
    arm = rng.normal(shift, ratio, (studies, cells, n))
    reference = rng.normal(0, 1, (studies, cells, m))
    if paired:  # what a seed makes of both arms
        common = rng.normal(0, 2, (studies, cells, n))
        arm, reference = arm + common, reference + common
    return np.array(
        [
            [d.distinguishable for d in compare_cells([cell(*runs, paired) for runs in zip(a, r, strict=True)])]
            for a, r in zip(arm, reference, strict=True)
        ]
    )


@pytest.mark.parametrize(
    "runs", [(3,), (5,), (10,), (3, 3, 1.0, False), (5, 5, 1.0, False), (3, 10, 4.0, False), (10, 3, 1.0, False)]
)
def test_false_positives_in_single_cells(runs: tuple) -> None:
    assert verdicts(np.random.default_rng(0), (STUDIES, 1), runs).mean() <= 0.06


@pytest.mark.parametrize("runs", [(20,), (20, 30, 2.0, False)])
def test_false_positives_of_the_bootstrap(runs: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_RESAMPLES", 399)
    found = verdicts(np.random.default_rng(0), (STUDIES // 2, 1), runs)
    assert 0.03 < found.mean() <= 0.06


@pytest.mark.parametrize(("runs", "cells"), [((5,), 20), ((3, 10, 4.0, False), 10)])
def test_false_positives_in_a_family_of_cells(runs: tuple, cells: int) -> None:
    found = verdicts(np.random.default_rng(0), (1000, cells), runs)
    assert found.any(axis=1).mean() <= 0.06


def test_the_family_holds_where_a_cell_has_a_real_effect() -> None:
    """Nineteen cells without an effect beside one with it: no more false words than alpha."""
    rng = np.random.default_rng(0)
    false = []
    for _ in range(200):
        cells = [cell(rng.normal(-20 if n == 0 else 0, 1, 5), rng.normal(0, 1, 5), True) for n in range(20)]
        found, *others = compare_cells(cells)
        assert found.verdict == "lower"
        false.append(any(d.distinguishable for d in others))
    assert np.mean(false) <= 0.06


@pytest.mark.parametrize(("runs", "power"), [((5,), 0.8), ((10,), 0.99), ((5, 5, 1.0, False), 0.8)])
def test_a_real_effect_is_found(runs: tuple, power: float) -> None:
    """Three standard deviations of a run: the difference between 1 and 5 experts is ten."""
    found = verdicts(np.random.default_rng(0), (300, 1), runs, shift=-3.0)
    assert found.mean() >= power


# --- from the results table -------------------------------------------------------------------------------------------


def test_arms_are_compared_cell_by_cell_at_their_last_epoch() -> None:
    losses = {
        "blend": {2: [20.0, 21.0, 22.5], 10: [18.0, 18.3, 18.9]},
        "likelihood": {2: [20.1, 20.8, 22.7], 10: [15.0, 15.1, 16.2]},
    }
    info = compare_arms(study(losses).sample(frac=1, random_state=0))
    assert (info.reference, info.arms, info.metric, info.gating) == (
        "blend",
        ("likelihood",),
        "test.reconstruction",
        "hard",
    )
    expected = compare_cells(
        [
            CellOutcomes(
                f"E={n}", "likelihood", "blend", *(np.array(losses[name][n]) for name in ("likelihood", "blend")), True
            )
            for n in (2, 10)
        ]
    )
    assert info.differences == expected
    two, ten = info.differences
    assert (two.verdict, ten.verdict) == ("not distinguishable", "lower")
    assert info.x_limits[0] < min(two.low, ten.low)
    assert info.x_limits[1] > max(two.high, ten.high)


def test_seeds_pair_where_three_are_in_both_arms_and_the_rest_is_left_out() -> None:
    results = table(
        *(trial(f"b{s}", [10.0 + s], seed=s, objective__name="blend") for s in (0, 1, 2, 3, 4)),
        *(trial(f"l{s}", [9.0 + 1.1 * s], seed=s, objective__name="likelihood") for s in (4, 2, 3, 7)),
    )
    (pairs,) = compare_arms(results).differences
    assert (pairs.paired, pairs.n_arm, pairs.n_reference, pairs.left_out) == (True, 3, 3, 3)
    assert pairs.estimate == pytest.approx(np.mean([9.0 + 1.1 * s - (10.0 + s) for s in (2, 3, 4)]))

    (two_shared,) = compare_arms(results[~results["trial_id"].isin(["l2"])]).differences
    assert (two_shared.paired, two_shared.n_arm, two_shared.n_reference, two_shared.left_out) == (False, 3, 5, 0)

    repeated = results.assign(seed=results["seed"].where(results["trial_id"] != "b1", 2))
    assert not compare_arms(repeated).differences[0].paired, "a seed that stands twice pairs with nobody"


def test_any_metric_and_runs_without_it() -> None:
    results = study({"blend": {10: [20.0, 21.0, 22.0, 23.0]}, "likelihood": {10: [20.0, 21.0, 22.0, 23.0]}})
    likelihood = results["config.objective.name"] == "likelihood"
    results["experts.effective"] = np.where(likelihood, 9.0, 4.0) + results["seed"] * np.where(likelihood, 0.1, 0.3)
    results.loc[results["trial_id"] == "blend-10-3", "experts.effective"] = np.nan
    info = compare_arms(results, metric="experts.effective")
    (result,) = info.differences
    assert (info.metric, result.verdict, result.n_arm, result.left_out) == ("experts.effective", "higher", 3, 2)
    with pytest.raises(ResultsError, match=r"column 'experts\.eff' is absent"):
        compare_arms(results, metric="experts.eff")


def test_supervised_is_one_baseline_against_every_expert_count() -> None:
    wiggle = np.array([0.1, -0.1, -0.2, 0.2])
    results = pd.concat(
        [
            study({"blend": {n: list(20 - n + wiggle) for n in (1, 5, 10)}}, routing="unsupervised"),
            table(
                *(
                    trial(f"s{s}", [loss], seed=s, configured=5, routing="supervised")
                    for s, loss in enumerate([15.2, 14.9, 15.1, 14.8])
                )
            ),
        ]
    )
    info = compare_arms(results)
    assert (info.reference, info.arms, info.one_sided) == ("supervised", ("unsupervised",), ())
    assert [(d.label, d.verdict) for d in info.differences] == [
        ("E=1", "higher"),
        ("E=5", "not distinguishable"),
        ("E=10", "lower"),
    ]
    mirrored = compare_arms(results, arm="supervised", reference="unsupervised")
    assert [d.label for d in mirrored.differences] == ["E=1", "E=5", "E=10"]
    for there, back in zip(info.differences, mirrored.differences, strict=True):
        assert (back.estimate, back.low, back.high, back.p) == pytest.approx(
            (-there.estimate, -there.high, -there.low, there.p)
        )


def test_more_than_one_path_makes_cells() -> None:
    results = table(
        *(
            trial(f"{name}-{n}-{f}-{s}", [20.0 + s], seed=s, configured=n, data__fraction=f, objective__name=name)
            for name in ("blend", "expected", "likelihood")
            for n in (2, 5)
            for f in (0.05, 1.0)
            for s in range(3)
            if (name, n, f) != ("expected", 5, 1.0)
        )
    )
    info = compare_arms(results)
    assert info.arms == ("expected", "likelihood")
    assert [d.label for d in info.differences if d.arm == "likelihood"] == [
        "E=2, 5 % data",
        "E=2, 100 % data",
        "E=5, 5 % data",
        "E=5, 100 % data",
    ]
    assert info.one_sided == ("blend: E=5, 100 % data",)
    assert len(info.differences) == 7
    # The same trials, compared along E.
    along = compare_arms(results[results["config.objective.name"] == "blend"], cells=("data.fraction",))
    assert (along.reference, along.arms) == ("E=2", ("E=5",))
    assert [d.label for d in along.differences] == ["5 % data", "100 % data"]


def test_unfinished_trials_are_left_out_and_counted() -> None:
    results = pd.concat(
        [
            study({"blend": {10: [20.0, 21.0, 22.5]}, "likelihood": {10: [15.0, 15.5, 16.2]}}),
            table(
                trial("x", [1.0], seed=3, objective__name="likelihood", status="running"),
                trial("y", [1.0], seed=4, objective__name="likelihood", status="failed"),
            ),
        ]
    )
    info = compare_arms(results)
    assert info.unfinished == 2
    assert info.differences[0].n_arm == 3


def test_what_cannot_be_compared_is_one_line() -> None:
    results = study({"blend": {10: [1.0]}, "likelihood": {10: [1.0]}})
    with pytest.raises(
        ResultsError, match=r"no arm 'likelyhood'; the arms are 'blend', 'likelihood'; did you mean 'lik"
    ):
        compare_arms(results, arm="likelyhood")
    with pytest.raises(ResultsError, match="'blend' against itself"):
        compare_arms(results, arm="blend", reference="blend")
    with pytest.raises(ResultsError, match=r"^all finished trials belong to one arm \('blend'\).*; add a second arm"):
        compare_arms(study({"blend": {10: [1.0, 2.0]}}))
    with pytest.raises(
        ResultsError, match=r"'blend' has no cell in common with 'likelihood' \(blend: E=2, likelihood: E=10\)"
    ):
        compare_arms(study({"blend": {2: [1.0]}, "likelihood": {10: [1.0]}}))
    with pytest.raises(ResultsError, match="no finished trial"):
        compare_arms(results.assign(status="running"))


def test_published_runs() -> None:
    """SCIENCE.md 2: five experts beat the supervised baseline (15.96 against 16.56); seven have two runs."""
    runs = published()
    full = runs[runs["config.data.fraction"] == 1.0]
    supervised = full["config.routing"] == "supervised"
    full = full.assign(seed=full["seed"] + 1000 * supervised)  # a number of a run, no seed that both arms share

    def against_supervised(active: int) -> Difference:
        chosen = full[(full["experts.active"] == active) | supervised]
        (difference,) = compare_arms(chosen).differences
        return difference

    five, seven = against_supervised(5), against_supervised(7)
    assert (five.n_arm, five.n_reference, five.verdict) == (7, 5, "lower")
    assert five.estimate == pytest.approx(15.96 - 16.56, abs=0.01)
    assert (seven.n_arm, seven.verdict) == (2, "cannot tell (n = 2 and 5)")
    assert seven.estimate == pytest.approx(15.69 - 16.56, abs=0.01)
