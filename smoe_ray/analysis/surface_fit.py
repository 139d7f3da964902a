"""The parametric loss surface L(K, d): form, robust fit, bootstrap, noise floor and held-out error.

With d = amount / reference (training images or optimizer steps) and K experts:
L = floor + a d^-b + c d^-g (ln K - k0 - k1 ln d)^2, so the best count is K*(d) = exp(k0 + k1 ln d).
(The form is this project's own: the best of nine on held-out cells of the published runs of arXiv:2509.10025.)

N rows (one run at one amount), C cells (amount, experts), R bootstrap replicates, P = 7 parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from smoe_ray.analysis.curves import Curve, FloatArray, IntArray
from smoe_ray.errors import ResultsError

LEAST_LEVELS = 3
"""Fewest amounts with which floor, a and b are identifiable."""
LEAST_COUNTS = 4
"""Fewest expert counts that leave a degree of freedom to a parabola in ln K."""
LEAST_CELLS = 10
"""Fewest cells with which seven parameters do not overfit the noise."""

_SOFT_L1_SCALE = 0.3
"""Residual (error per image) above which the loss of the fit grows linearly, so that outliers have less weight.
About the spread of converged runs at the largest amount of the published data."""
_STARTS = 4
_SAME_LEVEL = 1.2


class Form(NamedTuple):
    """Parameters of the surface. Losses are errors per image; exponents and logarithms are dimensionless."""

    floor: float
    a: float
    b: float
    c: float
    g: float
    k0: float
    k1: float


class Cells(NamedTuple):
    """Runs by (amount, experts), sorted; arrays have shape (C,)."""

    amount_C: FloatArray
    experts_C: IntArray
    mean_C: FloatArray
    sd_C: FloatArray
    """Sample standard deviation (ddof = 1) over the cell's runs; NaN where n = 1."""
    n_C: IntArray

    def beside(self, amount: float) -> tuple[Curve, ...]:
        """Loss against experts at the studied amounts next to `amount`; the labels are these amounts."""
        below, above = self.amount_C[self.amount_C <= amount], self.amount_C[self.amount_C >= amount]
        found = {float(each) for each in (*below[-1:], *above[:1])}
        return tuple(self._at(each) for each in sorted(found))

    def _at(self, amount: float) -> Curve:
        at = self.amount_C == amount
        return Curve(f"{amount:,.0f}", self.experts_C[at], self.mean_C[at], self.sd_C[at], self.n_C[at])


class NoiseFloor(NamedTuple):
    """Spread between runs of the same cell, which no function of (amount, experts) can explain."""

    sd: float
    """Pooled over cells, error per image; NaN if no cell has two runs."""
    degrees: int
    """Degrees of freedom: rows minus cells."""


class HeldOut(NamedTuple):
    """Error of a fit without one amount, on the runs at that amount."""

    amount: float
    """Largest amount of the held-out level."""
    rmse: float
    noise: NoiseFloor
    """Of the same runs: the RMSE of a perfect fit."""
    n: int


class SurfaceFit(NamedTuple):
    """A fitted surface with its bootstrap."""

    form: Form
    reference: float
    """Amount at which d = 1: the largest in the study."""
    replicates_RP: FloatArray
    rmse: float
    """Root mean squared residual of the rows, error per image."""
    r_squared: float
    """Fraction of the variance between cell means that the surface explains; NaN if all are equal."""
    noise: NoiseFloor
    held_out: tuple[HeldOut, ...]
    """Empty if too few amounts remain without one."""

    def loss(self, amount: npt.ArrayLike, experts: npt.ArrayLike) -> FloatArray:
        """Fitted loss; the arguments broadcast."""
        return _surface(np.asarray(self.form), self._log_d(amount), np.log(experts))

    def best(self, amount: npt.ArrayLike) -> FloatArray:
        """K*, neither rounded nor clipped; the shape of `amount`."""
        return np.exp(self.form.k0 + self.form.k1 * self._log_d(amount))

    def curvature(self, amount: npt.ArrayLike) -> FloatArray:
        """Excess loss per squared distance from K* in ln K; the shape of `amount`."""
        return self.form.c * np.exp(-self.form.g * self._log_d(amount))

    def replicate_losses(self, amount: float, experts: npt.ArrayLike) -> FloatArray:
        """Loss under every bootstrap replicate, shape (R, len(experts))."""
        return _surface(self.replicates_RP.T[:, :, None], self._log_d(amount), np.log(experts))

    def replicate_bests(self, amount: npt.ArrayLike) -> FloatArray:
        """K* under every bootstrap replicate, not rounded, shape (R, len(amount))."""
        *_, k0_R, k1_R = self.replicates_RP.T
        bests: FloatArray = np.exp(k0_R[:, None] + k1_R[:, None] * self._log_d(amount))
        return bests

    def _log_d(self, amount: npt.ArrayLike) -> FloatArray:
        return np.log(np.asarray(amount, np.float64) / self.reference)


def check_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The validated runs as floats and integers, in canonical order.

    Args:
        runs: columns amount (training images or steps), experts, loss, run (rows of one run share its name).

    Raises:
        ResultsError: a column is absent, there is no row, a value is not finite, an amount or a count is below 1, or a
            loss is not positive.
    """
    for column in ("amount", "experts", "loss", "run"):
        if column not in runs.columns:
            raise ResultsError(f"loss surface: column '{column}' is absent; pass amount, experts, loss and run")
    if runs.empty:
        raise ResultsError("loss surface: no run; pass at least one")
    numbers = runs[["amount", "experts", "loss"]].to_numpy(np.float64)
    if not np.isfinite(numbers).all():
        raise ResultsError("loss surface: an amount, expert count or loss is not finite; remove those runs")
    if (numbers[:, :2] < 1).any() or (numbers[:, 2] <= 0).any():
        raise ResultsError(
            "loss surface: an amount or expert count is below 1, or a loss is not positive; check the columns"
        )
    runs = runs.astype({"amount": np.float64, "experts": np.int64, "loss": np.float64})
    return runs.sort_values(["amount", "experts", "run"], kind="stable", ignore_index=True)


def cells_of(runs: pd.DataFrame) -> Cells:
    """Mean, spread and count of the runs in each cell."""
    cells = runs.groupby(["amount", "experts"], sort=True)["loss"].agg(["mean", "std", "count"])
    return Cells(
        cells.index.get_level_values(0).to_numpy(np.float64),
        cells.index.get_level_values(1).to_numpy(np.int64),
        cells["mean"].to_numpy(np.float64),
        cells["std"].to_numpy(np.float64),
        cells["count"].to_numpy(np.int64),
    )


def noise_floor(runs: pd.DataFrame) -> NoiseFloor:
    """Pooled standard deviation of the runs of a cell: sqrt of the within-cell sum of squares over (N - C)."""
    loss_of = runs.groupby(["amount", "experts"])["loss"]
    degrees = len(runs) - loss_of.ngroups
    within = float(((runs["loss"] - loss_of.transform("mean")) ** 2).sum())
    return NoiseFloor(float(np.sqrt(within / degrees)) if degrees else float("nan"), degrees)


def levels_of(amounts: npt.ArrayLike) -> FloatArray:
    """Distinct amounts, ascending: neighbours less than 20 % apart are merged into their largest.

    Runs on different data have nearly, but not exactly, the same numbers of steps.
    """
    amount_A = np.unique(np.asarray(amounts, np.float64))
    ends = np.append(amount_A[1:] / amount_A[:-1] > _SAME_LEVEL, True)
    levels: FloatArray = amount_A[ends]
    return levels


def fit_surface(runs: pd.DataFrame, replicates: int = 400, seed: int = 0) -> SurfaceFit:
    """Fit the form to runs by soft-L1 least squares (scale 0.3) from several starts, and bootstrap it.

    The bootstrap resamples whole runs within cells, n - 1 of n with weights n / (n - 1): resampling n of n would scale
    the variance by (n - 1) / n, i.e. halve it for cells of two runs (Rao and Wu 1988, J. Am. Stat. Assoc. 83:231).
    A cell of one run is merged with the neighbouring expert count at the same amount.

    Args:
        runs: columns amount, experts, loss, run, as `check_runs` returns them.
        replicates: R, number of bootstrap replicates.
        seed: of starts and bootstrap; the same seed gives the same numbers.

    Raises:
        ResultsError: fewer amounts, expert counts or cells than the surface needs.
    """
    cells = cells_of(runs)
    for what, found, least in (
        ("amounts", len(levels_of(runs["amount"])), LEAST_LEVELS),
        ("expert counts", len(np.unique(cells.experts_C)), LEAST_COUNTS),
        ("cells", len(cells.n_C), LEAST_CELLS),
    ):
        if found < least:
            raise ResultsError(f"loss surface: {found} {what}, but the fit needs {least}; add cells to the study")
    rng = np.random.default_rng(seed)
    reference = float(runs["amount"].max())
    problem = _problem(runs, reference)
    params_P = _fit_from_starts(problem, rng)
    weight_RN = bootstrap_weights(runs, replicates, rng)
    replicates_RP = np.stack([_minimise(problem, weight_N, params_P)[0] for weight_N in weight_RN])
    residual_N = _surface(params_P, problem.log_d_N, problem.log_k_N) - problem.loss_N
    fitted_C = _surface(params_P, np.log(cells.amount_C / reference), np.log(cells.experts_C))
    variance = float(cells.mean_C.var())
    return SurfaceFit(
        Form(*params_P.tolist()),
        reference,
        replicates_RP,
        float(np.sqrt(np.mean(residual_N**2))),
        1.0 - float(np.mean((fitted_C - cells.mean_C) ** 2)) / variance if variance else float("nan"),
        noise_floor(runs),
        _leave_one_level_out(runs, reference, rng),
    )


class _Problem(NamedTuple):
    log_d_N: FloatArray
    log_k_N: FloatArray
    loss_N: FloatArray
    lower: Form
    upper: Form
    """Bounds that keep the form meaningful."""


def _problem(runs: pd.DataFrame, reference: float) -> _Problem:
    log_k_N, loss_N = np.log(runs["experts"].to_numpy(np.float64)), runs["loss"].to_numpy(np.float64)
    least, most = float(loss_N.min()), float(loss_N.max())
    # The loss decreases with the amount and is convex in ln K. Its optimum may lie outside the studied counts, but not
    # so far that the parabola degenerates to a line.
    k0_low, k0_high = float(log_k_N.min() - np.log(10)), float(log_k_N.max() + np.log(10))
    return _Problem(
        np.log(runs["amount"].to_numpy(np.float64) / reference),
        log_k_N,
        loss_N,
        Form(floor=0, a=0, b=0.01, c=0, g=-1, k0=k0_low, k1=-2),
        Form(floor=least, a=most, b=3, c=most, g=2, k0=k0_high, k1=2),
    )


def _surface(params_P: FloatArray, log_d: FloatArray, log_k: FloatArray) -> FloatArray:
    floor, a, b, c, g, k0, k1 = params_P
    surface: FloatArray = floor + a * np.exp(-b * log_d) + c * np.exp(-g * log_d) * (log_k - k0 - k1 * log_d) ** 2
    return surface


def _jacobian(params_P: FloatArray, log_d_N: FloatArray, log_k_N: FloatArray) -> FloatArray:
    _, a, b, c, g, k0, k1 = params_P
    gain_N, bend_N = np.exp(-b * log_d_N), np.exp(-g * log_d_N)
    off_N = log_k_N - k0 - k1 * log_d_N
    columns = (
        np.ones_like(log_d_N),
        gain_N,
        -a * gain_N * log_d_N,
        bend_N * off_N**2,
        -c * bend_N * off_N**2 * log_d_N,
        -2 * c * bend_N * off_N,
        -2 * c * bend_N * off_N * log_d_N,
    )
    return np.stack(columns, axis=1)


def _soft_l1(weight_N: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """Weighted soft-L1, 2 (sqrt(1 + z) - 1), with its two derivatives in z = (residual / scale)^2."""

    def rho(z_N: FloatArray) -> FloatArray:
        root_N = np.sqrt(1 + z_N)
        return np.stack([2 * (root_N - 1), 1 / root_N, -0.5 / root_N**3]) * weight_N

    return rho


def _minimise(problem: _Problem, weight_N: FloatArray, start_P: FloatArray) -> tuple[FloatArray, float]:
    """Parameters and cost of the local minimum reached from `start_P`."""
    from scipy.optimize import least_squares

    log_d_N, log_k_N, loss_N, lower, upper = problem
    found = least_squares(
        lambda params_P: _surface(params_P, log_d_N, log_k_N) - loss_N,
        np.clip(start_P, lower, upper),
        lambda params_P: _jacobian(params_P, log_d_N, log_k_N),
        bounds=(lower, upper),
        x_scale="jac",
        loss=_soft_l1(weight_N),
        f_scale=_SOFT_L1_SCALE,
    )
    params_P: FloatArray = found.x
    return params_P, float(found.cost)


def _fit_from_starts(problem: _Problem, rng: np.random.Generator) -> FloatArray:
    least, most = float(problem.loss_N.min()), float(problem.loss_N.max())
    spread, log_k_N = most - least, problem.log_k_N
    low = Form(0.6 * least, 0.05 * spread, 0.2, 0.02 * spread, 0.0, float(log_k_N.min()), -0.2)
    high = Form(least, 0.5 * spread, 1.0, 0.3 * spread, 0.6, float(log_k_N.max()), 0.6)
    weight_N = np.ones_like(problem.loss_N)
    minima = [_minimise(problem, weight_N, rng.uniform(low, high)) for _ in range(_STARTS)]
    return min(minima, key=lambda minimum: minimum[1])[0]


def bootstrap_weights(runs: pd.DataFrame, replicates: int, rng: np.random.Generator) -> FloatArray:
    """Weight of each row in each replicate, shape (R, N); see `fit_surface`. Rows of one run have equal weights."""
    code_N, names = pd.factorize(runs["run"])
    weight_RU = np.ones((replicates, len(names)))
    for stratum in _strata(runs.assign(run=code_N)):
        n = len(stratum)
        if n > 1:
            weight_RU[:, stratum] = rng.multinomial(n - 1, np.full(n, 1 / n), replicates) * (n / (n - 1))
    weight_RN: FloatArray = weight_RU[:, code_N]
    return weight_RN


def _strata(runs: pd.DataFrame) -> list[list[int]]:
    """Runs by their final cell; cells of one run are merged with a neighbour at the same amount."""
    strata = []
    ends = runs.sort_values("amount", kind="stable").groupby("run").tail(1)
    for _, at_amount in ends.groupby("amount", sort=True):
        joined: list[list[int]] = []
        for _, cell in at_amount.groupby("experts", sort=True):
            if joined and 1 in (len(cell), len(joined[-1])):
                joined[-1] += cell["run"].tolist()
            else:
                joined.append(cell["run"].tolist())
        strata += joined
    return strata


def _leave_one_level_out(runs: pd.DataFrame, reference: float, rng: np.random.Generator) -> tuple[HeldOut, ...]:
    levels = levels_of(runs["amount"])
    if len(levels) <= LEAST_LEVELS:
        return ()
    level_N = np.searchsorted(levels, runs["amount"].to_numpy())
    held_out = []
    for number, level in enumerate(levels):
        inside = level_N == number
        params_P = _fit_from_starts(_problem(runs[~inside], reference), rng)
        unseen = _problem(runs[inside], reference)
        residual = _surface(params_P, unseen.log_d_N, unseen.log_k_N) - unseen.loss_N
        rmse = float(np.sqrt(np.mean(residual**2)))
        held_out.append(HeldOut(float(level), rmse, noise_floor(runs[inside]), int(inside.sum())))
    return tuple(held_out)
