"""The best number of experts according to a fitted loss surface: at one amount, and as a function of the amount.

C cells (amount, experts), K candidate expert counts, L studied amounts, G points of a curve over amounts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.gaussian_process import GaussianProcessEstimate, gaussian_process_estimates
from smoe_ray.analysis.surface_fit import SurfaceFit, cells_of, fit_surface, levels_of

TIED_WITHIN = 0.1
"""Expert counts whose fitted loss is within this of the best (error per image) are tied."""

_INTERVAL = (0.025, 0.975)
_MOST_COUNTS = 200
_CURVE_POINTS = 100


class Forecast(NamedTuple):
    """Loss against experts at the requested amount. Arrays have shape (K,), losses are errors per image."""

    count_K: IntArray
    """Candidate counts: from the smallest to the largest in the study."""
    loss_K: FloatArray
    low_K: FloatArray
    high_K: FloatArray
    """Ends of the 95 % bootstrap interval of `loss_K`."""
    tied_K: npt.NDArray[np.bool_]
    chance_K: FloatArray
    """Fraction of bootstrap replicates in which this count is the best."""
    best: int
    interval: tuple[int, int]
    """95 % bootstrap interval of K*, rounded outwards and clipped to the studied counts."""
    gaussian_process: GaussianProcessEstimate

    @property
    def tied(self) -> tuple[int, int]:
        """Smallest and largest count whose loss is within `TIED_WITHIN` of the best."""
        tied = self.count_K[self.tied_K]
        return int(tied[0]), int(tied[-1])

    @property
    def agrees(self) -> bool:
        """Whether the best count of each method lies in the interval of the other."""
        (low, high), (process_low, process_high) = self.interval, self.gaussian_process.interval
        return low <= self.gaussian_process.best <= high and process_low <= self.best <= process_high


class BestCurve(NamedTuple):
    """The best count against the amount, clipped to the studied counts. Arrays have shape (G,)."""

    amount_G: FloatArray
    best_G: FloatArray
    low_G: FloatArray
    high_G: FloatArray
    """Ends of the 95 % bootstrap interval."""
    tied_low_G: FloatArray
    tied_high_G: FloatArray
    """Smallest and largest count within `TIED_WITHIN` of the best."""


class FittedSurface(NamedTuple):
    """A surface fitted to the runs of one arm, with its forecasts and residuals."""

    fit: SurfaceFit
    forecast: Forecast
    curve: BestCurve
    level_L: FloatArray
    """The studied amounts."""
    gaussian_process_L: tuple[GaussianProcessEstimate, ...]
    """Estimates of the Gaussian process at each of them."""
    level_C: IntArray
    """Index into `level_L` of each cell's amount."""
    fitted_C: FloatArray
    residual_C: FloatArray
    """Cell mean minus fit."""


def fit_and_forecast(
    runs: pd.DataFrame, amount: float, replicates: int = 400, seed: int = 0, fit: SurfaceFit | None = None
) -> FittedSurface:
    """Fit the surface and the Gaussian process to `runs` and find the best count at `amount` with both.

    Args:
        runs: columns amount, experts, loss, run, as `check_runs` returns them.
        amount: training images or steps, as in `runs`.
        replicates: number of bootstrap replicates.
        seed: of starts, bootstrap and posterior draws.
        fit: result of `fit_surface` for the same runs, replicates and seed, if known (independent of `amount`).

    Raises:
        ResultsError: fewer amounts, expert counts or cells than the surface needs.
    """
    cells = cells_of(runs)
    fit = fit or fit_surface(runs, replicates, seed)
    level_L = levels_of(cells.amount_C)
    spaced = np.geomspace(cells.experts_C.min(), cells.experts_C.max(), _MOST_COUNTS)
    count_K = np.unique(np.round(spaced).astype(np.int64))
    *gaussian_process_L, gaussian_process = gaussian_process_estimates(cells, [*level_L, amount], count_K, seed)
    fitted_C = fit.loss(cells.amount_C, cells.experts_C)
    return FittedSurface(
        fit,
        _forecast(fit, amount, count_K, gaussian_process),
        _best_curve(fit, amount, count_K, level_L),
        level_L,
        tuple(gaussian_process_L),
        np.searchsorted(level_L, cells.amount_C),
        fitted_C,
        cells.mean_C - fitted_C,
    )


def _forecast(fit: SurfaceFit, amount: float, count_K: IntArray, gaussian_process: GaussianProcessEstimate) -> Forecast:
    loss_K = fit.loss(amount, count_K)
    low_K, high_K = np.quantile(fit.replicate_losses(amount, count_K), _INTERVAL, axis=0)
    best_R = fit.replicate_bests([amount])[:, 0]
    # The parabola is symmetric in ln K, so the best integer is the one nearest to the vertex in ln K.
    nearest_R = np.abs(np.log(count_K) - np.log(best_R)[:, None]).argmin(axis=1)
    low, high = np.clip(np.quantile(best_R, _INTERVAL), count_K[0], count_K[-1])
    return Forecast(
        count_K,
        loss_K,
        low_K,
        high_K,
        loss_K - loss_K.min() < TIED_WITHIN,
        np.bincount(nearest_R, minlength=len(count_K)) / len(best_R),
        int(count_K[loss_K.argmin()]),
        (int(np.floor(low)), int(np.ceil(high))),
        gaussian_process,
    )


def _best_curve(fit: SurfaceFit, amount: float, count_K: IntArray, level_L: FloatArray) -> BestCurve:
    amount_G = np.geomspace(min(level_L[0], amount), max(level_L[-1], amount), _CURVE_POINTS)
    # In logarithms, in which the tied range of a flat surface stays finite.
    least, most = np.log(count_K[[0, -1]])
    vertex_G = np.log(fit.best(amount_G))
    best_G = np.clip(vertex_G, least, most)
    # Tied with the best of the studied counts, which is not necessarily the vertex of the parabola.
    with np.errstate(divide="ignore"):
        reach_G = np.sqrt((best_G - vertex_G) ** 2 + TIED_WITHIN / fit.curvature(amount_G))
    interval_2G = np.quantile(np.log(fit.replicate_bests(amount_G)), _INTERVAL, axis=0)
    curves = (best_G, *interval_2G, vertex_G - reach_G, vertex_G + reach_G)
    return BestCurve(amount_G, *(np.exp(np.clip(curve_G, least, most)) for curve_G in curves))
