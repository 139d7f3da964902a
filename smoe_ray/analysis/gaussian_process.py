"""A Gaussian process over (ln amount, ln experts): where is the best expert count if no form is assumed?

C cells, K expert counts asked about, S draws from the posterior.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.surface_fit import Cells

_DRAWS = 1000
_LENGTH_BOUNDS = (0.5, 20.0)  # in ln amount and ln experts: from a factor of 1.6, below which lies noise, to a plane
_NOISE_BOUNDS = (1e-8, 1.0)


class GaussianProcessEstimate(NamedTuple):
    """The best count at one amount, after the Gaussian process."""

    best: int
    """Count of the least expected loss."""
    interval: tuple[int, int]
    """95 % of the posterior's draws have their minimum there."""
    loss_K: FloatArray
    """Squared error per image, at the counts asked about."""


def gaussian_process_estimates(
    cells: Cells, amounts: npt.ArrayLike, count_K: IntArray, seed: int = 0
) -> tuple[GaussianProcessEstimate, ...]:
    """Fit ln(cell mean) by a Gaussian process and ask it for the best of `count_K` at each amount.

    Matern 5/2 kernel with a length scale per axis, amplitude and noise level learned by marginal likelihood
    (Rasmussen and Williams 2006, ch. 5). The logarithm makes the noise about equal from little data to much.

    Args:
        cells: at least a handful; their means count alike, whatever their n.
        amounts: training images or steps, as in `cells`.
        count_K: expert counts to choose among, ascending.
        seed: of the draws.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
    from threadpoolctl import threadpool_limits

    kernel = ConstantKernel(4.0, (0.1, 1e4)) * Matern((3.0, 3.0), _LENGTH_BOUNDS, nu=2.5)
    process = GaussianProcessRegressor(kernel + WhiteKernel(0.05, _NOISE_BOUNDS))
    log_C = np.log(cells.mean_C)
    centre, scale = log_C.mean(), log_C.std() or 1.0
    # The matrices are small: more threads spend their time waiting for each other.
    with threadpool_limits(1), warnings.catch_warnings():
        # A length scale or noise at its bound says "a plane" or "no noise": fine answers both.
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(np.log(np.column_stack([cells.amount_C, cells.experts_C])), (log_C - centre) / scale)

    rng = np.random.default_rng(seed)
    estimates = []
    for amount in np.asarray(amounts, np.float64):
        mean_K, covariance_KK = process.predict(
            np.log(np.column_stack([np.full(len(count_K), amount), count_K])), return_cov=True
        )
        # The minimum of the mean loss is asked for, not that of the next runs: without their noise.
        covariance_KK = covariance_KK - process.kernel_.k2.noise_level * np.eye(len(count_K))
        drawn_SK = rng.multivariate_normal(mean_K, covariance_KK, _DRAWS, check_valid="ignore", method="eigh")
        low, high = np.quantile(count_K[drawn_SK.argmin(axis=1)], (0.025, 0.975), method="inverted_cdf")
        estimates.append(
            GaussianProcessEstimate(
                int(count_K[mean_K.argmin()]), (int(low), int(high)), np.exp(centre + scale * mean_K)
            )
        )
    return tuple(estimates)
