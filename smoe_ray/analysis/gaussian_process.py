"""A Gaussian process over (ln amount, ln experts): the best expert count without assuming a parametric form.

C cells, K candidate expert counts, S draws from the posterior.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.surface_fit import Cells

_DRAWS = 1000
_LENGTH_BOUNDS = (
    0.5,
    20.0,
)  # of ln amount and ln experts: from a factor of 1.6 (shorter ones fit noise) to nearly linear
_NOISE_BOUNDS = (1e-8, 1.0)


class GaussianProcessEstimate(NamedTuple):
    """The best expert count at one amount according to the Gaussian process."""

    best: int
    """Count with the lowest expected loss."""
    interval: tuple[int, int]
    """95 % interval of the minimum over posterior draws."""
    loss_K: FloatArray
    """Posterior mean of the loss at the candidate counts, error per image."""


def gaussian_process_estimates(
    cells: Cells, amounts: npt.ArrayLike, count_K: IntArray, seed: int = 0
) -> tuple[GaussianProcessEstimate, ...]:
    """Fit ln(cell mean) by a Gaussian process and find the best of `count_K` at each amount.

    Matern 5/2 kernel with one length scale per axis; length scales, amplitude and noise level maximise the marginal
    likelihood (Rasmussen and Williams 2006, ch. 5). The logarithm makes the noise roughly homoscedastic.

    Args:
        cells: at least a handful; their means are weighted equally, whatever their n.
        amounts: training images or steps, as in `cells`.
        count_K: candidate expert counts, ascending.
        seed: of the posterior draws.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
    from threadpoolctl import threadpool_limits

    kernel = ConstantKernel(4.0, (0.1, 1e4)) * Matern((3.0, 3.0), _LENGTH_BOUNDS, nu=2.5)
    process = GaussianProcessRegressor(kernel + WhiteKernel(0.05, _NOISE_BOUNDS))
    log_C = np.log(cells.mean_C)
    centre, scale = log_C.mean(), log_C.std() or 1.0
    # The matrices are small: several threads would mostly wait for each other.
    with threadpool_limits(1), warnings.catch_warnings():
        # A length scale or noise level at its bound (linear, noise-free) is a valid fit.
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(np.log(np.column_stack([cells.amount_C, cells.experts_C])), (log_C - centre) / scale)

    rng = np.random.default_rng(seed)
    estimates = []
    for amount in np.asarray(amounts, np.float64):
        mean_K, covariance_KK = process.predict(
            np.log(np.column_stack([np.full(len(count_K), amount), count_K])), return_cov=True
        )
        # We want the minimum of the expected loss, not of new noisy runs: remove the observation noise.
        covariance_KK = covariance_KK - process.kernel_.k2.noise_level * np.eye(len(count_K))
        drawn_SK = rng.multivariate_normal(mean_K, covariance_KK, _DRAWS, check_valid="ignore", method="eigh")
        low, high = np.quantile(count_K[drawn_SK.argmin(axis=1)], (0.025, 0.975), method="inverted_cdf")
        estimates.append(
            GaussianProcessEstimate(
                int(count_K[mean_K.argmin()]), (int(low), int(high)), np.exp(centre + scale * mean_K)
            )
        )
    return tuple(estimates)
