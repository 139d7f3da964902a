"""Deaths, survival, phase diagram and basins against answers worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoe_ray.analysis.arm_labels import coarse_arms
from smoe_ray.analysis.bimodality import bimodality_of, bimodality_tests
from smoe_ray.analysis.experts import QUANTILES, experts_in_use
from smoe_ray.analysis.phase_diagrams import phase_diagram
from smoe_ray.analysis.survival import collapse_rates, expert_deaths, expert_survival
from smoe_ray.errors import ResultsError
from support.planted_results import dying, many_arms, table, trial

NAN = float("nan")


def run(name: str, lives: dict[int, str], status: str = "finished", seed: int = 0, **config: object) -> list[dict]:
    """A trial from a picture of its experts: epoch -> a character per expert, ``x`` used and ``.`` not."""
    epochs = max(lives)
    usage = [
        [float(mark == "x") / max(lives[epoch].count("x"), 1) for mark in lives[epoch]] if epoch in lives else None
        for epoch in range(1, epochs + 1)
    ]
    configured = len(next(iter(lives.values())))
    return trial(name, [1.0] * epochs, usage=usage, configured=configured, status=status, seed=seed, **config)


# --- deaths -----------------------------------------------------------------------------------------------------------


def test_an_expert_dies_when_it_is_unused_for_good() -> None:
    deaths = expert_deaths(table(run("a", {1: "xxx.x", 2: "xx..x", 4: "x.xx.", 5: "x..x."}, seed=7)))
    assert deaths["expert"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(deaths["last_used"], [5, 2, 4, 5, 2])
    np.testing.assert_array_equal(deaths["died"], [NAN, 4, 5, NAN, 4])
    assert deaths["revivals"].tolist() == [0, 0, 1, 1, 0]
    assert deaths["state"].tolist() == ["alive", "dead", "dead", "alive", "dead"]
    assert set(deaths["first_epoch"]) == {1}
    assert set(deaths["last_epoch"]) == {5}
    assert (set(deaths["seed"]), set(deaths["trial_id"])) == ({7}, {"a"})


def test_an_expert_that_was_never_used_did_not_die_and_is_not_alive() -> None:
    deaths = expert_deaths(table(run("a", {2: "x.", 3: "x."})).sample(frac=1, random_state=0))
    np.testing.assert_array_equal(deaths["last_used"], [3, NAN])
    np.testing.assert_array_equal(deaths["died"], [NAN, NAN])
    assert deaths["state"].tolist() == ["alive", "never used"]


def test_deaths_of_all_but_failed_trials_in_the_order_of_arms() -> None:
    lives = {1: "xx", 2: "x."}
    results = table(
        run("c", lives, objective__name="likelihood"),
        run("b", lives, objective__name="blend", seed=1, status="pruned"),
        run("a", lives, objective__name="blend", seed=0),
        run("d", lives, objective__name="blend", seed=2, status="failed"),
    )
    deaths = expert_deaths(results)
    assert deaths["trial_id"].tolist() == ["a", "a", "b", "b", "c", "c"]
    assert deaths["arm"].tolist() == ["blend"] * 4 + ["likelihood"] * 2
    with pytest.raises(ResultsError, match=r"no trial has experts\.usage yet"):
        expert_deaths(table(trial("a", [1.0], status="running")))


# --- survival ---------------------------------------------------------------------------------------------------------


def test_survival_with_an_expert_censored_by_an_early_end() -> None:
    """By hand, after Kaplan and Meier: of 8 two die at 2 (6/8), three leave with their run, of 3 one dies at 4."""
    results = table(
        run("a", {1: "xxxx", 2: "xxx.", 3: "xxx.", 4: "xx.."}, seed=0),
        run("b", {1: "xxxx", 2: "xxx."}, seed=1, status="pruned"),
    )
    (arm,) = expert_survival(results).arms
    assert arm.epoch_T.tolist() == [0, 1, 2, 4]
    np.testing.assert_allclose(arm.share_T, [1, 1, 6 / 8, 6 / 8 * 2 / 3])
    np.testing.assert_allclose(arm.sd_T, [0, 0, 0, NAN])
    assert (arm.half_life, arm.experts) == (4, 8)
    assert arm.half_life_R.tolist() == [4, np.inf]


def test_half_lives_and_spread_over_runs() -> None:
    results = table(
        run("a", {1: "xxxx", 2: "x...", 3: "x..."}, seed=0),
        run("b", {1: "xxxx", 2: "xxxx", 3: "xx.."}, seed=1),
        run("c", {1: "xxxx", 2: "xxxx", 3: "xxxx"}, seed=2),
    )
    info = expert_survival(results)
    (arm,) = info.arms
    assert info.n_range == (3, 3)
    assert arm.half_life_R.tolist() == [2, 3, np.inf]
    np.testing.assert_allclose(arm.share_T, [1, 1, 9 / 12, 7 / 12])
    np.testing.assert_allclose(arm.sd_T, [0, 0, np.std([0.25, 1, 1], ddof=1), np.std([0.25, 0.5, 1], ddof=1)])
    np.testing.assert_allclose(arm.high, np.minimum(1, arm.share_T + arm.sd_T))
    assert arm.half_life == np.inf


def test_survival_starts_at_the_share_that_was_ever_used() -> None:
    (arm,) = expert_survival(table(run("a", {1: "xx...x", 2: "xx....", 3: "x...x."}))).arms
    assert arm.epoch_T.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(arm.share_T, [4 / 6, 4 / 6, 3 / 6, 2 / 6])
    assert (arm.experts, arm.alive, arm.dead, arm.never_used) == (6, 2, 2, 2)
    assert arm.half_life == 3  # two of the four that were ever used
    (one,) = expert_survival(table(run("b", {1: "x.........", 2: "x........."}))).arms
    assert one.share_T.tolist() == [0.1] * 3  # one of ten is in use from the start: not 100 %
    assert (one.half_life, one.dead, one.never_used) == (np.inf, 0, 9)


@given(configured=st.integers(1, 12), survivors=st.integers(1, 12), seeds=st.integers(1, 3))
@settings(max_examples=25)
def test_survival_falls_to_the_share_of_active_experts(configured: int, survivors: int, seeds: int) -> None:
    usages = [dying(configured, min(survivors, configured), epochs=6, seed=seed) for seed in range(seeds)]
    results = table(
        *(trial(str(s), [1.0] * 6, usage=usage, configured=configured, seed=s) for s, usage in enumerate(usages))
    )
    (arm,) = expert_survival(results).arms
    ever = [np.any(np.array(usage) > 0, axis=0) for usage in usages]
    assert arm.share_T[0] == pytest.approx(np.mean(ever))
    assert arm.never_used == np.sum(~np.array(ever))
    assert (np.diff(arm.share_T) <= 1e-12).all()
    assert arm.share_T[-1] == pytest.approx(np.mean([np.mean(np.array(usage[-1]) > 0) for usage in usages]))
    assert ((arm.share_T <= arm.share_T[0] / 2 + 1e-9).any()) == np.isfinite(arm.half_life)


def test_every_arm_has_its_survival() -> None:
    info = expert_survival(many_arms(4, 10))
    assert [arm.label for arm in info.arms][:2] == ["blend, λ_balance=100", "blend, λ_balance=200"]
    assert all(arm.experts == 30 for arm in info.arms)


# --- collapse rate ----------------------------------------------------------------------------------------------------


def test_collapse_rate_with_wilsons_interval() -> None:
    results = table(
        *(trial(f"b{s}", [1.0], active=4 if s < 3 else 5, seed=s, objective__name="blend") for s in range(10)),
        *(trial(f"l{s}", [1.0], active=10, seed=s, objective__name="likelihood") for s in range(10)),
        trial("r", [1.0], active=1, seed=10, objective__name="blend", status="running"),
    )
    blend, likelihood = collapse_rates(results)
    assert (blend.label, blend.collapsed, blend.n, blend.share) == ("blend", 3, 10, 0.3)
    # Wilson 1927, for 3 and 0 of 10.
    assert (blend.low, blend.high) == (pytest.approx(0.1078, abs=1e-4), pytest.approx(0.6032, abs=1e-4))
    assert (likelihood.low, likelihood.high) == (pytest.approx(0, abs=1e-9), pytest.approx(0.2775, abs=1e-4))
    assert collapse_rates(results, below=0.51)[0].collapsed == 10


# --- phase diagram ----------------------------------------------------------------------------------------------------


def blend(name: str, balance: float, entropy: float, active: int, **more: object) -> list[dict]:
    return trial(
        name,
        [1.0],
        active=active,
        objective__name="blend",
        objective__lambda_balance=balance,
        objective__lambda_entropy=entropy,
        **more,
    )


# --- experts in use over epochs ---------------------------------------------------------------------------------------


def test_quantiles_of_the_share_in_use_and_single_trials_beside_them() -> None:
    results = table(
        *(trial(f"t{active}", [9.0, 5.0], active=[4, active], configured=4, seed=active) for active in range(1, 5)),
        trial("short", [9.0], active=2, configured=8, status="running"),
        trial("bad", [9.0, 9.0], active=1, configured=100, status="failed"),
    )
    active, effective = experts_in_use(results, trials=("t3", "absent"))
    assert active.title == "active experts / E"
    assert active.epoch_T.tolist() == [1, 2]
    assert active.n_T.tolist() == [5, 4]
    half = QUANTILES.index(0.5)
    assert active.quantile_QT[:, 0].tolist()[0] == 0.25  # the trial that runs still, 2 of 8
    assert active.quantile_QT[half].tolist() == [1.0, 0.625]
    assert active.quantile_QT[[0, -1], 1].tolist() == [0.25, 1.0]
    np.testing.assert_allclose(effective.quantile_QT, 0.9 * active.quantile_QT)
    (shown,) = active.trials
    assert (shown.trial_id, shown.seed) == ("t3", 3)
    assert (shown.count_T.tolist(), shown.share_T.tolist()) == ([4.0, 3.0], [1.0, 0.75])


def test_before_the_first_evaluation_nothing_is_in_use() -> None:
    results = table(trial("a", [1.0])).assign(**{"experts.active": np.nan})
    with pytest.raises(ResultsError, match=r"no trial has experts\.active yet"):
        experts_in_use(results)


def test_collapse_and_survival_by_coarse_arms() -> None:
    results = table(
        *(
            trial(
                f"{objective}{rate}",
                [1.0, 1.0],
                active=[2, survivors],
                configured=4,
                usage=[[0.5, 0.5, 0, 0], [1.0, 0, 0, 0]] if survivors == 1 else [[0.25] * 4] * 2,
                objective__name=objective,
                training__learning_rate=float(rate),
            )
            for objective, survivors in (("blend", 1), ("likelihood", 4))
            for rate in (1, 2)
        )
    )
    label_of = coarse_arms(results, ("objective.name",))
    assert [(rate.label, rate.collapsed, rate.n) for rate in collapse_rates(results, label_of=label_of)] == [
        ("blend", 2, 2),
        ("likelihood", 0, 2),
    ]
    survival = expert_survival(results, label_of=label_of)
    assert [(arm.label, arm.share_T[-1], arm.experts) for arm in survival.arms] == [
        ("blend", 0.25, 8),
        ("likelihood", 1.0, 8),
    ]
    assert [test.label for test in bimodality_tests(results, label_of=label_of)] == ["blend", "likelihood"]


def test_experts_in_use_over_rho_with_the_theory_beside_them() -> None:
    info = phase_diagram(
        table(
            blend("a", 200.0, 400.0, 5, seed=0),
            blend("b", 400.0, 800.0, 7, seed=1),
            blend("c", 400.0, 400.0, 10),
            blend("d", 100.0, 400.0, 3, configured=20),
            blend("s", 100.0, 400.0, 3, routing="supervised"),
            blend("r", 100.0, 400.0, 3, status="running"),
        )
    )
    assert info.labels == ("E=10", "E=20")
    active, effective = info.panels
    ten, twenty = active.curves
    assert (ten.label, ten.x.tolist(), ten.n.tolist()) == ("E=10", [1.0, 2.0], [2, 1])
    np.testing.assert_allclose(ten.mean, [0.6, 1.0])
    np.testing.assert_allclose(ten.sd, [np.std([0.5, 0.7], ddof=1), NAN])
    assert (twenty.x.tolist(), twenty.mean.tolist()) == ([0.5], [0.15])
    np.testing.assert_allclose(effective.curves[0].mean, [0.54, 0.9])  # planted at 0.9 of the active ones
    assert active.margin == ()
    assert np.interp([0.0, 0.5, 1.0, 1 / 0.6, 2.0], info.theory_rho, info.theory_share) == pytest.approx(
        [0, 0.3, 0.6, 1, 1]
    )


def test_the_papers_text_weighs_the_balance_term_by_one_over_e() -> None:
    info = phase_diagram(
        table(
            blend("a", 200.0, 400.0, 5, objective__balance_form="released_code"),
            blend("b", 200.0, 400.0, 5, objective__balance_form="paper_text", configured=20),
        )
    )
    assert [curve.x.tolist() for curve in info.panels[0].curves] == [[1.0], [0.05]]


def test_without_an_entropy_term_there_is_no_rho() -> None:
    results = table(
        blend("a", 200.0, 400.0, 5),
        blend("b", 200.0, 0.0, 8),
        blend("z", 0.0, 400.0, 1),
        trial("c", [1.0], active=10, objective__name="likelihood", objective__lambda_balance=400.0),
        trial("d", [1.0], active=9, objective__name="likelihood", objective__lambda_balance=400.0, seed=1),
    )
    panel = phase_diagram(results).panels[0]
    assert [(curve.label, curve.x.tolist()) for curve in panel.curves] == [("blend", [0.0, 1.0])]
    assert [(curve.label, curve.x.tolist(), curve.mean.tolist()) for curve in panel.margin] == [
        ("blend", [0], [0.8]),
        ("likelihood", [1], [0.95]),
    ]
    apart = phase_diagram(results[results["config.objective.name"] == "likelihood"].dropna(axis=1, how="all"))
    assert apart.panels[0].curves == ()
    assert apart.theory_rho.size == 0


def test_whatever_else_differs_is_pooled() -> None:
    info = phase_diagram(
        table(*(blend(str(rate), 200.0, 400.0, 5, training__learning_rate=rate) for rate in (1e-3, 1e-4)))
    )
    assert [curve.n.tolist() for curve in info.panels[0].curves] == [[2]]


def test_a_phase_diagram_needs_its_weights() -> None:
    with pytest.raises(ResultsError, match=r"column 'config\.objective\.lambda_balance' is absent"):
        phase_diagram(table(trial("a", [1.0], objective__name="blend")))
    with pytest.raises(ResultsError, match="every finished trial is supervised"):
        phase_diagram(table(blend("a", 1.0, 1.0, 1, routing="supervised")))


# --- basins -----------------------------------------------------------------------------------------------------------


def test_two_basins_are_found_and_described() -> None:
    rng = np.random.default_rng(0)
    losses = np.r_[rng.normal(15.7, 0.1, 24), rng.normal(18.2, 0.1, 8)]
    (test,) = bimodality_of({"E=50": rng.permutation(losses)})
    assert (test.label, test.n, test.verdict) == ("E=50", 32, "two modes")
    assert test.means == (pytest.approx(15.7, abs=0.1), pytest.approx(18.2, abs=0.1))
    assert (test.upper_share, test.sd) == (pytest.approx(0.25), pytest.approx(0.1, abs=0.03))
    assert test.delta_bic > 10
    assert test.p == test.p_holm == 0.001


def test_the_fit_is_that_of_scikit_learn() -> None:
    from sklearn.mixture import GaussianMixture

    rng = np.random.default_rng(1)
    for shift in (3.0, 5.0):
        losses = np.r_[rng.normal(0, 1, 12), rng.normal(shift, 1, 8)][:, None]
        two = GaussianMixture(2, covariance_type="tied", n_init=5, random_state=0, tol=1e-9, max_iter=5000).fit(losses)
        one = GaussianMixture(1, covariance_type="tied").fit(losses)
        (test,) = bimodality_of({"a": losses[:, 0]})
        assert test.delta_bic == pytest.approx(one.bic(losses) - two.bic(losses), abs=0.01)
        assert test.means == pytest.approx(sorted(two.means_[:, 0]), abs=0.02)
        assert test.sd == pytest.approx(two.covariances_[0, 0] ** 0.5, abs=0.02)


def test_one_basin_is_rarely_taken_for_two() -> None:
    rng = np.random.default_rng(0)
    for n in (10, 20):
        found = [bimodality_of({"a": rng.normal(16, 0.3, n)})[0].verdict == "two modes" for _ in range(200)]
        assert np.mean(found) <= 0.08  # 0.05, and two standard errors of 200 repeats


def test_units_of_the_loss_do_not_matter() -> None:
    losses = np.random.default_rng(3).gamma(2.0, size=15)
    (first,), (second,) = bimodality_of({"a": losses}), bimodality_of({"a": 1e-3 * losses + 7})
    assert (first.p, first.verdict) == (second.p, second.verdict)
    assert second.delta_bic == pytest.approx(first.delta_bic, abs=1e-6)
    assert second.means == pytest.approx(1e-3 * np.array(first.means) + 7)


def test_many_arms_are_corrected_for() -> None:
    rng = np.random.default_rng(0)
    apart = np.concatenate([np.linspace(-1.2, 1.2, 6) + shift for shift in (0, 4.5)])
    alone = bimodality_of({"apart": apart})[0]
    assert (alone.verdict, alone.p_holm) == ("two modes", alone.p)
    family = {"apart": apart, **{str(arm): rng.normal(size=12) for arm in range(4)}, "few": np.zeros(3)}
    beside = bimodality_of(family)[0]
    assert beside.p == alone.p > 0.01
    assert (beside.verdict, beside.p_holm) == ("one mode suffices", pytest.approx(5 * beside.p))


def test_basins_of_a_study_or_why_it_cannot_tell() -> None:
    rng = np.random.default_rng(0)
    results = table(
        *(trial(f"a{s}", [90.0, 15.0 + 3 * (s % 2) + 0.1 * rng.normal()], seed=s, configured=50) for s in range(20)),
        *(trial(f"b{s}", [90.0, 15.0 + 3 * (s % 2)], seed=s, configured=20) for s in range(5)),
        *(trial(f"c{s}", [90.0, 15.0], seed=s, configured=10) for s in range(12)),
    )
    tests = bimodality_tests(results)
    assert [(test.label, test.verdict) for test in tests] == [
        ("E=10", "cannot tell (no spread between runs)"),
        ("E=20", "cannot tell (5 runs, 10 needed)"),
        ("E=50", "two modes"),
    ]
    assert np.isnan([tests[1].p, tests[1].delta_bic, *tests[1].means]).all()


def test_an_absent_column_is_named() -> None:
    results = pd.DataFrame({"trial_id": ["a"]})
    for analysis in (expert_deaths, expert_survival, collapse_rates, phase_diagram, bimodality_tests):
        with pytest.raises(ResultsError, match=r"column '.*' is absent"):
            analysis(results)
