"""The Gaussian process: it finds planted optima without knowing the form, and says how far it may be wrong."""

from __future__ import annotations

import numpy as np
import pytest

from smoe_ray.analysis.gaussian_process import gaussian_process_estimates
from smoe_ray.analysis.surface_fit import cells_of, check_runs
from support.planted_surface import AMOUNTS, COUNTS, best_of, loss_of, planted_runs

COUNT_K = np.arange(1, 21)


def test_without_noise_the_optimum_is_found_at_every_amount() -> None:
    counts = tuple(range(1, 21))
    estimates = gaussian_process_estimates(
        cells_of(check_runs(planted_runs(noise=0.0, counts=counts, repeats=1))), AMOUNTS, COUNT_K
    )
    for amount, estimate in zip(AMOUNTS, estimates, strict=True):
        assert estimate.best == pytest.approx(best_of(amount), abs=1)
        assert estimate.interval[0] <= estimate.best <= estimate.interval[1]
        np.testing.assert_allclose(estimate.loss_K, loss_of(amount, COUNT_K), rtol=0.005)


def test_any_shape_will_do() -> None:
    """A loss with a kink, which no parabola follows."""
    runs = planted_runs(noise=0.0, counts=tuple(range(1, 21)), repeats=1)
    runs["loss"] = 10 + np.abs(np.log(runs["experts"] / 4))
    (estimate,) = gaussian_process_estimates(cells_of(check_runs(runs)), [AMOUNTS[2]], COUNT_K)
    assert estimate.best == 4
    assert estimate.interval[0] >= 3
    assert estimate.interval[1] <= 5


def test_more_noise_widens_the_interval_and_it_holds_the_optimum() -> None:
    widths = []
    for noise in (0.05, 0.5):
        held, width = 0, 0.0
        for seed in range(10):
            cells = cells_of(check_runs(planted_runs(seed, noise=noise)))
            (estimate,) = gaussian_process_estimates(cells, [AMOUNTS[-1]], COUNT_K)
            low, high = estimate.interval
            held += low <= best_of(AMOUNTS[-1]) <= high
            width += high - low
        assert held >= 9
        widths.append(width)
    assert widths[0] < widths[1]


def test_the_interval_is_of_the_mean_loss_not_of_single_runs() -> None:
    """The minimum of twenty noisy runs lies anywhere; that of their mean, learned from a hundred, does not."""
    cells = cells_of(check_runs(planted_runs(counts=tuple(range(1, 21)), repeats=1)))
    for estimate in gaussian_process_estimates(cells, AMOUNTS[:4], COUNT_K):
        low, high = estimate.interval
        assert high <= 3 * low


def test_a_flat_surface_leaves_every_count_possible() -> None:
    widths = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        runs = planted_runs()
        runs["loss"] = 10 + 0.1 * rng.standard_normal(len(runs))
        (estimate,) = gaussian_process_estimates(cells_of(check_runs(runs)), [AMOUNTS[-1]], COUNT_K)
        widths.append(estimate.interval[1] - estimate.interval[0])
    assert sum(width >= 15 for width in widths) >= 9


def test_equal_losses_are_no_error() -> None:
    (estimate,) = gaussian_process_estimates(
        cells_of(check_runs(planted_runs().assign(loss=8.0))), [AMOUNTS[0]], COUNT_K
    )
    np.testing.assert_allclose(estimate.loss_K, 8.0)


def test_the_seed_decides_the_draws() -> None:
    cells = cells_of(check_runs(planted_runs(counts=COUNTS[:5], noise=1.0)))
    first, again = (gaussian_process_estimates(cells, AMOUNTS, COUNT_K, seed=4) for _ in range(2))
    assert [estimate[:2] for estimate in first] == [estimate[:2] for estimate in again]
