"""The parametric loss surface: planted parameters, the published runs, and what the bootstrap weighs."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad

from smoe_ray.analysis.recommendation import study_runs
from smoe_ray.analysis.surface_fit import (
    SurfaceFit,
    _jacobian,
    _surface,
    bootstrap_weights,
    cells_of,
    check_runs,
    fit_surface,
    levels_of,
    noise_floor,
)
from smoe_ray.errors import ResultsError
from smoe_ray.published import read_file
from support.planted_results import PAPER_IMAGES
from support.planted_surface import AMOUNTS, TRUE, best_of, loss_of, planted_runs, published_with_steps

FRACTIONS = np.array([0.05, 0.1, 0.2, 0.4, 1.0])


def fit(runs: pd.DataFrame, replicates: int = 2, seed: int = 0) -> SurfaceFit:
    return fit_surface(check_runs(runs), replicates, seed)


def frame(*rows: tuple[float, int, float, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["amount", "experts", "loss", "run"])


# --- the form ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_the_jacobian_is_the_derivative_of_the_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    params_P = rng.uniform((5, 0.1, 0.1, 0.1, -0.5, -1, -1), (20, 3, 1.5, 2, 1, 3, 1))
    log_d, log_k = rng.uniform(-3, 0, 1), rng.uniform(0, 3, 1)
    error = check_grad(
        lambda params: _surface(params, log_d, log_k)[0], lambda params: _jacobian(params, log_d, log_k)[0], params_P
    )
    assert error < 1e-4


def test_a_surface_without_noise_is_found_exactly() -> None:
    found = fit(planted_runs(noise=0.0))
    np.testing.assert_allclose(found.form, TRUE, rtol=2e-3)
    assert found.reference == PAPER_IMAGES
    assert found.rmse < 1e-4
    assert found.r_squared == pytest.approx(1.0, abs=1e-6)
    assert found.noise == (pytest.approx(0.0, abs=1e-9), 80)
    np.testing.assert_allclose(found.best(AMOUNTS), [best_of(amount) for amount in AMOUNTS], rtol=1e-3)
    np.testing.assert_allclose(found.loss([[17_500.0], [1e6]], [3, 9]), loss_of([[17_500.0], [1e6]], [3, 9]), rtol=1e-3)
    np.testing.assert_allclose(found.curvature(PAPER_IMAGES), TRUE.c, rtol=1e-3)
    # Amounts left out are predicted as well as the rest.
    assert [held.amount for held in found.held_out] == list(AMOUNTS)
    assert max(held.rmse for held in found.held_out) < 0.01


def test_the_unit_of_amounts_and_the_order_of_runs_do_not_matter() -> None:
    runs = planted_runs(1)
    found = fit(runs, replicates=5)
    shuffled = runs.sample(frac=1, random_state=0).assign(amount=lambda each: each["amount"] / 7)
    other = fit(shuffled, replicates=5)
    np.testing.assert_allclose(other.form, found.form, rtol=1e-5)
    np.testing.assert_allclose(other.replicates_RP, found.replicates_RP, rtol=1e-3)
    assert other.reference == pytest.approx(found.reference / 7)


def test_the_seed_decides_the_bootstrap_and_nothing_else() -> None:
    runs = planted_runs(2)
    first, again, other = fit(runs, seed=1), fit(runs, seed=1), fit(runs, seed=2)
    assert (first.replicates_RP == again.replicates_RP).all()
    assert (first.replicates_RP != other.replicates_RP).all()
    np.testing.assert_allclose(first.form, other.form, rtol=1e-3)


def test_runs_that_went_astray_hardly_move_the_optimum() -> None:
    """A twelfth of the runs far above the surface, all at few experts: least squares would follow them."""
    runs = planted_runs(3, noise=0.1)
    astray = (runs["experts"] <= 3) & (runs["seed"] == 0) & (runs["amount"] > AMOUNTS[1])
    runs.loc[astray, "loss"] += 5
    np.testing.assert_allclose(fit(runs).best(AMOUNTS), [best_of(amount) for amount in AMOUNTS], rtol=0.15)


def test_equal_losses_are_a_flat_surface() -> None:
    found = fit(planted_runs().assign(loss=10.0))
    np.testing.assert_allclose(found.loss(AMOUNTS, 5), 10.0, atol=0.01)
    assert np.isnan(found.r_squared)


# --- noise, levels, cells ---------------------------------------------------------------------------------------------


def test_the_noise_floor_pools_the_cells_that_have_several_runs() -> None:
    runs = frame((100, 1, 3.0, "a"), (100, 1, 5.0, "b"), (100, 2, 9.0, "c"), (200, 1, 1.0, "d"), (200, 1, 1.0, "e"))
    assert noise_floor(runs) == (pytest.approx(1.0), 2)  # (1 + 1 + 0 + 0) / 2
    alone = noise_floor(runs.iloc[[0, 2]])
    assert np.isnan(alone.sd)
    assert alone.degrees == 0


def test_cells_hold_mean_spread_and_count() -> None:
    runs = frame((200, 2, 4.0, "c"), (100, 3, 3.0, "a"), (100, 3, 5.0, "b"))
    cells = cells_of(check_runs(runs))
    assert cells.amount_C.tolist() == [100, 200]
    assert cells.experts_C.tolist() == [3, 2]
    assert cells.mean_C.tolist() == [4.0, 4.0]
    np.testing.assert_allclose(cells.sd_C, [np.sqrt(2.0), np.nan])
    assert cells.n_C.tolist() == [2, 1]
    assert [curve.label for curve in cells.beside(100)] == ["100"]
    assert [curve.label for curve in cells.beside(150)] == ["100", "200"]
    assert [curve.x.tolist() for curve in cells.beside(1000)] == [[2]]


def test_amounts_that_nearly_agree_are_one_level() -> None:
    assert levels_of([1370, 1365, 2740, 2730, 1365, 10_000]).tolist() == [1370, 2740, 10_000]
    assert levels_of([100]).tolist() == [100]


# --- bootstrap --------------------------------------------------------------------------------------------------------


def test_the_bootstrap_has_the_variance_of_the_mean() -> None:
    """With n - 1 draws the weighted mean of a cell varies by s^2 / n: for two runs as for seven (Rao and Wu 1988)."""
    runs = check_runs(planted_runs(4, counts=(1, 2, 3, 4), repeats=2))
    runs = pd.concat([runs, check_runs(planted_runs(5, counts=(5, 6), repeats=7))], ignore_index=True)
    weight_RN = bootstrap_weights(runs, 20_000, np.random.default_rng(0))
    np.testing.assert_allclose(weight_RN.mean(axis=0), 1.0, atol=0.05)
    for _, cell in runs.groupby(["amount", "experts"]):
        at = cell.index.to_numpy()
        means_R = (weight_RN[:, at] * cell["loss"].to_numpy()).sum(axis=1) / len(at)
        np.testing.assert_allclose(weight_RN[:, at].sum(axis=1), len(at))
        np.testing.assert_allclose(means_R.var(), cell["loss"].var() / len(at), rtol=0.05)


def test_a_single_run_shares_its_stratum_with_its_neighbour_at_the_same_amount() -> None:
    runs = frame(
        *((100.0, 1, 1.0, "a"), (100.0, 2, 1.0, "b"), (100.0, 2, 1.0, "c"), (100.0, 5, 1.0, "d"), (100.0, 6, 1.0, "e")),
        *((100.0, 6, 1.0, "f"), (300.0, 1, 1.0, "g"), (900.0, 1, 1.0, "h"), (900.0, 4, 1.0, "i")),
    )
    weight_RN = bootstrap_weights(runs, 2000, np.random.default_rng(0))
    varies = weight_RN.std(axis=0) > 0
    assert varies.tolist() == [True] * 6 + [False] + [True] * 2  # g is the only run at 300: nothing to draw it against
    # a-d are joined one by one (each step has a single run), then e and f: two strata of fixed total weight.
    np.testing.assert_allclose(weight_RN[:, :4].sum(axis=1), 4)
    np.testing.assert_allclose(weight_RN[:, 4:6].sum(axis=1), 2)
    np.testing.assert_allclose(weight_RN[:, 7:].sum(axis=1), 2)


def test_rows_of_one_run_are_drawn_together() -> None:
    runs = frame(*((amount, 2, 1.0, name) for name in "abc" for amount in (25.0, 50.0, 100.0)))
    weight_RN = bootstrap_weights(check_runs(runs), 500, np.random.default_rng(0))
    names = check_runs(runs)["run"].to_numpy()
    for name in "abc":
        of_run = weight_RN[:, names == name]
        assert (of_run == of_run[:, :1]).all()
        assert of_run.std() > 0


# --- the published runs -----------------------------------------------------------------------------------------------


def test_published_surface_in_data() -> None:
    """SCIENCE.md 5, whose numbers come from the same runs."""
    (runs,) = study_runs(published_with_steps()).values()
    found = fit(runs, replicates=100)
    np.testing.assert_allclose(found.form, TRUE, rtol=0.01)
    np.testing.assert_allclose(found.best(FRACTIONS * PAPER_IMAGES), [3.3, 4.1, 5.1, 6.4, 8.5], atol=0.1)
    assert found.r_squared > 0.97
    full = found.held_out[-1]
    assert (full.amount, full.n) == (PAPER_IMAGES, 90)
    assert full.rmse == pytest.approx(0.397, abs=0.005)
    assert full.noise.sd == pytest.approx(0.32, abs=0.005)
    low, high = np.quantile(found.replicate_bests(FRACTIONS * PAPER_IMAGES), (0.025, 0.975), axis=0)
    assert (low < found.best(FRACTIONS * PAPER_IMAGES)).all()
    assert (found.best(FRACTIONS * PAPER_IMAGES) < high).all()
    assert (high / low < 1.4).all()


def test_published_cell_means_have_the_same_optimum() -> None:
    cells = pd.read_csv(io.BytesIO(read_file("loss_surface_cells.csv")))
    runs = pd.DataFrame(
        {
            "amount": cells["train_samples_total"],
            "experts": cells["active_experts"],
            "loss": cells["mean"],
            "run": range(len(cells)),
        }
    )
    np.testing.assert_allclose(fit(runs).best(FRACTIONS * PAPER_IMAGES), [3.3, 4.1, 5.1, 6.4, 8.5], atol=0.5)


def test_published_surface_in_steps() -> None:
    """SCIENCE.md 5 gives this form, R^2 .98, for s = steps / 54,700."""
    (runs,) = study_runs(published_with_steps(), effort="steps").values()
    found = fit(runs)
    assert found.reference == pytest.approx(54_700, rel=0.001)
    np.testing.assert_allclose(found.form, (14.22, 1.625, 0.531, 0.385, 0.281, 2.122, 0.308), atol=0.06)
    assert found.r_squared > 0.98


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runs: runs.drop(columns="loss"), "column 'loss' is absent"),
        (lambda runs: runs.iloc[:0], "no run"),
        (lambda runs: runs.assign(loss=np.nan), "is not finite"),
        (lambda runs: runs.assign(amount=np.inf), "is not finite"),
        (lambda runs: runs.assign(experts=0), "below 1"),
        (lambda runs: runs.assign(loss=0.0), "not positive"),
    ],
)
def test_runs_that_make_no_sense_are_refused(change, message: str) -> None:
    with pytest.raises(ResultsError, match=message) as error:
        check_runs(change(planted_runs()))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (planted_runs(amounts=AMOUNTS[:2]), "2 amounts, but the fit needs 3"),
        (planted_runs(counts=(1, 2, 3)), "3 expert counts, but the fit needs 4"),
        (planted_runs(amounts=AMOUNTS[:3], counts=(1, 2, 4, 8)).iloc[9:], "9 cells, but the fit needs 10"),
    ],
)
def test_too_few_cells_are_refused(runs: pd.DataFrame, message: str) -> None:
    with pytest.raises(ResultsError, match=message):
        fit(runs)


def test_three_amounts_leave_none_to_hold_out() -> None:
    assert fit(planted_runs(amounts=AMOUNTS[2:])).held_out == ()
