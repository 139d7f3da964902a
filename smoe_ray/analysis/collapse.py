"""Collapse: when experts die, how many live at which ratio of the two penalties, and whether runs end in two basins.

T evaluated epochs, E experts configured, R runs, N losses, B samples, S starts of a fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from smoe_ray.analysis.arms import arms, coarse_arms
from smoe_ray.analysis.comparison import holm
from smoe_ray.analysis.curves import Curve, FloatArray, IntArray, n_range, summarise
from smoe_ray.analysis.experts import NUM_EXPERTS, is_collapsed, unsupervised_outcomes
from smoe_ray.analysis.trials import last_evaluated, not_failed, require
from smoe_ray.errors import ResultsError

# --- death and survival -----------------------------------------------------------------------------------------------


def expert_deaths(results: pd.DataFrame, label_of: pd.Series[str] | None = None) -> pd.DataFrame:
    """When each expert died, one row an expert.

    An expert is *alive* at an evaluated epoch when it is the argmax of at least one test image there. Experts can
    revive, so only the last stretch counts: it *died* at the first evaluated epoch from which on it takes no image up
    to the end of the run (of what there is of it, in trials that run still or were pruned).

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        label_of: label per trial instead of its arm, as `arms` or `coarse_arms` give them.

    Returns:
        Columns arm, trial_id, seed, expert; ``last_used``: last evaluated epoch at which it was alive, NaN where it
        never was; ``died``: the evaluated epoch after that, NaN where it is alive at the end; ``revivals``: how often
        it was unused and then used again; ``first_epoch``, ``last_epoch``: evaluated epochs between which it was
        watched; ``alive_first``: whether it was alive at the first of them.

    Raises:
        ResultsError: no trial but failed ones has an epoch with `experts.usage`.
    """
    require(results, ("experts.usage", "seed"))
    rows = not_failed(results)
    label_of = arms(rows) if label_of is None else label_of
    rows = rows[rows["experts.usage"].notna()].sort_values("epoch", kind="stable")
    if rows.empty:
        raise ResultsError("death of experts: no trial has experts.usage yet; wait for its first evaluation")
    by_trial = rows.groupby("trial_id")
    watched = by_trial.agg(
        seed=("seed", "first"), first_epoch=("epoch", "first"), last_epoch=("epoch", "last"), epochs=("epoch", list)
    )
    found = [_deaths_of(*trial) for trial in zip(watched["epochs"], by_trial["experts.usage"].agg(list), strict=True)]
    # One frame of them all: a frame a trial takes seconds where there are thousands.
    deaths = pd.DataFrame({name: np.concatenate([trial[name] for trial in found]) for name in found[0]})
    described = watched.drop(columns="epochs").reset_index()
    described = described.loc[described.index.repeat([len(trial["expert"]) for trial in found])].reset_index(drop=True)
    deaths = pd.concat([described, deaths], axis=1).astype({"first_epoch": np.float64, "last_epoch": np.float64})
    deaths["arm"] = pd.Categorical(deaths["trial_id"].map(label_of), label_of.cat.categories, ordered=True)
    order = ["arm", "seed", "trial_id", "expert"]  # an arm of 2 experts before one of 16: as in `label_of`
    deaths = deaths[[*order, "last_used", "died", "revivals", "first_epoch", "last_epoch", "alive_first"]]
    return deaths.sort_values(order, kind="stable", ignore_index=True)


def _deaths_of(epochs: Sequence[float], usage: Sequence[npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
    epoch_T = np.asarray(epochs, np.float64)
    alive_TE = np.stack(usage) > 0
    # Evaluations up to the last one at which the expert was alive: 0 where it never was, T where it is at the end.
    survived_E = len(epoch_T) - alive_TE[::-1].argmax(axis=0)
    survived_E = np.where(alive_TE.any(axis=0), survived_E, 0)
    return {
        "expert": np.arange(alive_TE.shape[1]),
        "last_used": np.append(np.nan, epoch_T)[survived_E],
        "died": np.append(epoch_T, np.nan)[survived_E],
        "revivals": (~alive_TE[:-1] & alive_TE[1:]).sum(axis=0),
        "alive_first": alive_TE[0],
    }


class Survival(NamedTuple):
    """Experts of one arm over training."""

    label: str
    epoch_T: FloatArray
    """First and last evaluated epochs of the runs and those at which an expert died, ascending; 0 in front where all
    configured experts count."""
    share_T: FloatArray
    """Kaplan-Meier estimate of the share of experts that are in use at the epoch or later, the arm's runs pooled."""
    sd_T: FloatArray
    """Sample standard deviation (ddof = 1) of that share over the runs that came so far; NaN where n = 1."""
    half_life: float
    """First of the epochs at which `share_T` is one half or less; inf where it never is."""
    half_life_R: FloatArray
    """The same for each run by itself, ascending."""
    experts: int
    """Experts at the start, in all runs."""

    @property
    def low(self) -> FloatArray:
        """share - sd, 0 at least."""
        return np.maximum(self.share_T - self.sd_T, 0)

    @property
    def high(self) -> FloatArray:
        """share + sd, 1 at most."""
        return np.minimum(self.share_T + self.sd_T, 1)


class ExpertSurvival(NamedTuple):
    """Share of experts alive against epoch, a curve per arm."""

    of: Literal["configured", "alive"]
    """Whose share: all configured experts, or those alive at the first evaluated epoch."""
    arms: tuple[Survival, ...]
    n_range: tuple[int, int]
    """Least and most runs behind a curve."""


def expert_survival(
    results: pd.DataFrame,
    of: Literal["configured", "alive"] = "configured",
    label_of: pd.Series[str] | None = None,
) -> ExpertSurvival:
    """Survival of experts: Kaplan and Meier 1958, an expert that is alive at the end of its run being censored there.

    Death as in `expert_deaths`. The experts of one run share its images, so they are no independent observations:
    spread is over runs.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        of: *configured*: all E experts, alive at epoch 0 by definition; *alive*: those alive at the first evaluated
            epoch.
        label_of: label per trial instead of its arm, as `arms` or `coarse_arms` give them.

    Raises:
        ResultsError: no trial but failed ones has an epoch with `experts.usage`.
    """
    experts = expert_deaths(results, label_of)
    if of == "alive":
        experts = experts[experts["alive_first"]]
    curves = tuple(_survival(str(arm), of_arm, of) for arm, of_arm in experts.groupby("arm", observed=True))
    return ExpertSurvival(of, curves, n_range(np.array([len(curve.half_life_R)]) for curve in curves))


def _survival(label: str, experts: pd.DataFrame, of: str) -> Survival:
    from statsmodels.duration.survfunc import SurvfuncRight

    watched = experts[["first_epoch", "last_epoch", "died"]].to_numpy()
    start = [0.0] if of == "configured" else []
    epoch_T = np.unique(np.concatenate([start, watched[np.isfinite(watched)]]))
    pooled = SurvfuncRight(experts["died"].fillna(experts["last_epoch"]), experts["died"].notna())
    deaths_before_T = np.searchsorted(pooled.surv_times, epoch_T, side="right")
    share_T = np.append(1.0, pooled.surv_prob)[deaths_before_T]
    shares_RT = np.stack([_share_alive(run, epoch_T) for _, run in experts.groupby("trial_id")])
    runs_T = np.isfinite(shares_RT).sum(axis=0)
    sd_T = np.full(len(epoch_T), np.nan)
    sd_T[runs_T > 1] = np.nanstd(shares_RT[:, runs_T > 1], axis=0, ddof=1)
    return Survival(
        label,
        epoch_T,
        share_T,
        sd_T,
        _half_life(epoch_T, share_T),
        np.sort([_half_life(epoch_T, share) for share in shares_RT]),
        len(experts),
    )


def _share_alive(experts: pd.DataFrame, epoch_T: FloatArray) -> FloatArray:
    """Share of one run's experts that are not dead at each epoch; NaN after the run's last."""
    died_E = experts["died"].fillna(np.inf).to_numpy(np.float64)
    share_T = (died_E[:, None] > epoch_T).mean(axis=0)
    return np.where(epoch_T <= experts["last_epoch"].iloc[0], share_T, np.nan)


def _half_life(epoch_T: FloatArray, share_T: FloatArray) -> float:
    halved = share_T <= 0.5 + 1e-9  # a product of fractions may miss one half by a rounding
    return float(epoch_T[halved.argmax()]) if halved.any() else np.inf


class CollapseRate(NamedTuple):
    """How often the trials of an arm collapse."""

    label: str
    collapsed: int
    n: int
    share: float
    low: float
    """Of Wilson's 95 % interval."""
    high: float


def collapse_rates(
    results: pd.DataFrame, below: float = 0.5, label_of: pd.Series[str] | None = None
) -> tuple[CollapseRate, ...]:
    """Share of finished unsupervised trials whose active fraction (active / configured experts) is under `below`.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        below: threshold, exclusive.
        label_of: label per trial instead of its arm, as `arms` or `coarse_arms` give them.

    Returns:
        One per arm, in the order of arms.

    Raises:
        ResultsError: no finished trial, or supervised ones alone.
    """
    from statsmodels.stats.proportion import proportion_confint

    require(results, ("experts.active", "experts.configured"))
    outcomes = unsupervised_outcomes(results, "collapse rate")
    label_of = arms(outcomes) if label_of is None else label_of
    collapsed = is_collapsed(outcomes, below)
    rates = []
    for arm, runs in collapsed.groupby(outcomes["trial_id"].map(label_of), observed=True):
        count, n = int(runs.sum()), len(runs)
        low, high = proportion_confint(count, n, alpha=0.05, method="wilson")
        rates.append(CollapseRate(str(arm), count, n, count / n, float(low), float(high)))
    return tuple(rates)


# --- experts in use over epochs ---------------------------------------------------------------------------------------

_MEASURES = {"active experts / E": "experts.active", "effective experts / E": "experts.effective"}


class TrialInUse(NamedTuple):
    """How many experts one trial uses. Arrays have shape (T,)."""

    label: str
    trial_id: str
    seed: int
    epoch_T: IntArray
    count_T: FloatArray
    share_T: FloatArray
    """Of the configured experts."""


class InUse(NamedTuple):
    """One measure of how many experts are in use, as a share of E, over all trials."""

    title: str
    epoch_T: IntArray
    quantile_QT: FloatArray
    """Over the trials that were evaluated at the epoch; rows follow `QUANTILES`."""
    n_T: IntArray
    """How many these are."""
    trials: tuple[TrialInUse, ...]
    """Those that were asked for, in the order asked."""


QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def experts_in_use(results: pd.DataFrame, trials: Sequence[str] = ()) -> tuple[InUse, ...]:
    """Active and effective experts / E against epoch: quantiles over trials, and single trials beside them.

    Trials that run still or were pruned count as far as they came; failed ones do not.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        trials: ids of those returned one by one; such as are not in the table are left out.

    Raises:
        ResultsError: no trial but failed ones has an evaluated epoch, or a column is absent.
    """
    require(results, ("experts.configured", "seed", *_MEASURES.values()))
    rows = not_failed(results)
    label_of = arms(rows)
    rows = rows[rows["experts.active"].notna()].sort_values("epoch", kind="stable")
    if rows.empty:
        raise ResultsError("experts in use: no trial has experts.active yet; wait for its first evaluation")
    chosen = {trial: rows[rows["trial_id"] == trial] for trial in trials}
    measured = []
    for title, column in _MEASURES.items():
        share = rows[column] / rows["experts.configured"]
        by_epoch = share.groupby(rows["epoch"], sort=True)
        quantiles = by_epoch.quantile(np.array(QUANTILES)).unstack()
        lines = (_in_use(of, str(label_of[trial]), column) for trial, of in chosen.items() if len(of))
        measured.append(
            InUse(
                title,
                quantiles.index.to_numpy(np.int64),
                quantiles.to_numpy(np.float64).T,
                np.asarray(by_epoch.count(), np.int64),
                tuple(lines),
            )
        )
    return tuple(measured)


def _in_use(rows: pd.DataFrame, label: str, column: str) -> TrialInUse:
    first = rows.iloc[0]
    return TrialInUse(
        label,
        str(first["trial_id"]),
        int(first["seed"]),
        rows["epoch"].to_numpy(np.int64),
        rows[column].to_numpy(np.float64),
        (rows[column] / rows["experts.configured"]).to_numpy(np.float64),
    )


# --- phase diagram ----------------------------------------------------------------------------------------------------

THEORY_SLOPE = 0.60
"""Active share of the experts per unit of rho, until all are active: a fit to simulations of the gate alone, in which
a dormant expert of probability eps revives only if eps > exp(-rho E / K)."""

_OBJECTIVE, _BALANCE, _ENTROPY = (f"config.objective.{name}" for name in ("name", "lambda_balance", "lambda_entropy"))
_BALANCE_FORM = "config.objective.balance_form"


class PhasePanel(NamedTuple):
    """One measure of how many experts are in use, as a share of E."""

    title: str
    curves: tuple[Curve, ...]
    """Over rho, one per objective and E. A label is one of the diagram's."""
    margin: tuple[Curve, ...]
    """Runs without an entropy term, so without a rho: one point per objective and E, at x = 0, 1, ..."""


class PhaseDiagram(NamedTuple):
    """Share of the experts in use against rho = 2 lambda_balance / lambda_entropy."""

    labels: tuple[str, ...]
    """Objectives and E, in the order of colours."""
    panels: tuple[PhasePanel, ...]
    theory_rho: FloatArray
    theory_share: FloatArray
    """min(1, 0.60 rho), a prediction for the first panel's active experts and no measurement: a straight line between
    the values of `theory_rho`, whose last is the limit of the axis. Empty where no run has a rho."""
    n_range: tuple[int, int]


def phase_diagram(results: pd.DataFrame) -> PhaseDiagram:
    """Experts in use at the end of finished unsupervised trials against rho, pooled over all but objective, E and rho.

    rho weighs the penalty that spreads the load against the one that sharpens the gate. Only `blend` has both; runs
    without an entropy term (other objectives, lambda_entropy 0) stand apart. With ``balance_form: paper_text`` the
    balance term is 1/E of the released code's, so lambda_balance counts 1/E.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).

    Raises:
        ResultsError: no finished trial, supervised ones alone, or a column is absent.
    """
    require(results, ("experts.active", "experts.effective", "experts.configured", _OBJECTIVE))
    outcomes = unsupervised_outcomes(results, "phase diagram")
    outcomes = outcomes.assign(rho=_rho(outcomes))
    label_of = coarse_arms(outcomes, ("objective.name", NUM_EXPERTS))
    outcomes["label"] = outcomes["trial_id"].map(label_of)
    panels = tuple(_phase_panel(outcomes, title, column) for title, column in _MEASURES.items())
    drawn = [curve for panel in panels for curve in (*panel.curves, *panel.margin)]
    full = 1 / THEORY_SLOPE
    rho = np.array([0, full, 1.3 * max(full, outcomes["rho"].max())]) if panels[0].curves else np.empty(0)
    return PhaseDiagram(
        tuple(label_of.cat.categories),
        panels,
        rho,
        np.minimum(1, THEORY_SLOPE * rho),
        n_range(curve.n for curve in drawn),
    )


def _rho(outcomes: pd.DataFrame) -> pd.Series[float]:
    """2 lambda_balance / lambda_entropy; NaN where there is no entropy term."""
    if not (outcomes[_OBJECTIVE] == "blend").any():
        return pd.Series(np.nan, outcomes.index)
    require(outcomes, (_BALANCE, _ENTROPY))
    balance = outcomes[_BALANCE].astype(float)
    if _BALANCE_FORM in outcomes:
        balance = balance.mask(outcomes[_BALANCE_FORM] == "paper_text", balance / outcomes["experts.configured"])
    return 2 * balance / outcomes[_ENTROPY].astype(float).where(outcomes[_ENTROPY] > 0)


def _phase_panel(outcomes: pd.DataFrame, title: str, column: str) -> PhasePanel:
    shares = outcomes.assign(share=outcomes[column] / outcomes["experts.configured"])
    has_rho = shares["rho"].notna()
    curves = [
        summarise(runs, str(label), "rho", "share") for label, runs in shares[has_rho].groupby("label", observed=True)
    ]
    apart = shares[~has_rho].groupby("label", observed=True)
    margin = [
        summarise(runs.assign(place=place), str(label), "place", "share") for place, (label, runs) in enumerate(apart)
    ]
    return PhasePanel(title, tuple(curves), tuple(margin))


# --- basins -----------------------------------------------------------------------------------------------------------

LEAST_LOSSES = 10
"""Runs below which no basin test is made: at ten, basins six standard deviations apart are found 8 times in 10, and
such as lie four apart 3 times."""

_RESAMPLES = 999
_EM_STEPS = 100
_LEAST_VARIANCE = 1e-6
_SPLITS = (0.1, 0.3, 0.5, 0.7, 0.9)


class BasinTest(NamedTuple):
    """Whether the losses of one arm are better described by two normal distributions of equal variance than by one."""

    label: str
    n: int
    means: tuple[float, float]
    """Of the two components, ascending; NaN where nothing was tested, as all that follows."""
    upper_share: float
    """Weight of the upper component."""
    sd: float
    """Of either component."""
    delta_bic: float
    """BIC of one component minus BIC of two: positive where two describe the losses better."""
    p: float
    """Of the likelihood ratio, from its distribution in normal samples of the same size."""
    p_holm: float
    """Corrected for the number of arms tested."""
    verdict: str
    """``two basins``, ``one basin suffices`` or ``cannot tell (...)``."""


def basin_tests(
    results: pd.DataFrame, alpha: float = 0.05, label_of: pd.Series[str] | None = None
) -> tuple[BasinTest, ...]:
    """Test the final test losses of every arm (so of every E) for two basins.

    Two basins are claimed where BIC prefers two components and the parametric-bootstrap likelihood-ratio test
    (McLachlan 1987), corrected by Holm 1979 over the arms, rejects one.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        alpha: family-wise error rate.
        label_of: label per trial instead of its arm, as `arms` or `coarse_arms` give them.

    Returns:
        One per arm, in the order of arms; an arm with fewer than `LEAST_LOSSES` finished runs says so.

    Raises:
        ResultsError: no finished trial.
    """
    outcomes = last_evaluated(results)
    label_of = arms(outcomes) if label_of is None else label_of
    losses = outcomes.groupby(outcomes["trial_id"].map(label_of), observed=True)["test.reconstruction"]
    return find_basins({str(arm): loss.to_numpy(np.float64) for arm, loss in losses}, alpha)


def find_basins(losses: Mapping[str, FloatArray], alpha: float = 0.05) -> tuple[BasinTest, ...]:
    """`basin_tests` for losses by label."""
    tests = [_basin_test(label, loss_N) for label, loss_N in losses.items()]
    p_holm, _ = holm(np.array([test.p for test in tests]), alpha)
    corrected = (test._replace(p_holm=float(p)) for test, p in zip(tests, p_holm, strict=True))
    return tuple(
        test._replace(verdict="two basins") if test.p_holm <= alpha and test.delta_bic > 0 else test
        for test in corrected
    )


def _basin_test(label: str, loss_N: FloatArray) -> BasinTest:
    n, nan = len(loss_N), float("nan")
    untested = BasinTest(label, n, (nan, nan), nan, nan, nan, nan, nan, "cannot tell")
    if n < LEAST_LOSSES:
        return untested._replace(verdict=f"cannot tell ({n} runs, {LEAST_LOSSES} needed)")
    mean, sd = loss_N.mean(), loss_N.std()
    if sd <= 1e-12 * abs(mean):
        return untested._replace(verdict="cannot tell (no spread between runs)")
    fit = _fit_two_components(((loss_N - mean) / sd)[None])
    ratio = float(fit.ratio_B[0])
    return BasinTest(
        label,
        n,
        (float(mean + sd * fit.low_B[0]), float(mean + sd * fit.high_B[0])),
        float(fit.upper_share_B[0]),
        float(sd * np.sqrt(fit.variance_B[0])),
        ratio - 2 * float(np.log(n)),  # two parameters more: a mean and a weight
        float((1 + (_null_ratios(n) >= ratio).sum()) / (1 + _RESAMPLES)),
        nan,
        "one basin suffices",
    )


@lru_cache(maxsize=64)
def _null_ratios(n: int) -> FloatArray:
    """Likelihood ratios of normal samples. The statistic ignores location and scale, so one set serves every arm."""
    z_BN = np.random.default_rng(0).normal(size=(_RESAMPLES, n))
    z_BN = (z_BN - z_BN.mean(axis=1, keepdims=True)) / z_BN.std(axis=1, keepdims=True)
    return _fit_two_components(z_BN).ratio_B


class _TwoComponents(NamedTuple):
    """Mixtures of two normal distributions of equal variance, one per sample. Arrays have shape (B,)."""

    ratio_B: FloatArray
    """2 ln (likelihood / likelihood of one normal distribution)."""
    low_B: FloatArray
    high_B: FloatArray
    upper_share_B: FloatArray
    variance_B: FloatArray


def _fit_two_components(z_BN: FloatArray) -> _TwoComponents:
    """Fit by expectation maximisation to samples of mean 0 and variance 1, all at once, the best of S starts each.

    Equal variances, because with free ones the likelihood has no bound. (scikit-learn's GaussianMixture finds the same
    fits one after another, 0.02 s each: minutes for a bootstrap.)
    """
    from scipy.special import expit

    n = z_BN.shape[1]
    z_BN = np.sort(z_BN, axis=1)
    below_S = np.clip(np.round(np.array(_SPLITS) * n), 1, n - 1)
    upper_SBN = np.broadcast_to(
        (np.arange(n) >= below_S[:, None, None]).astype(np.float64), (len(_SPLITS), *z_BN.shape)
    )
    for _ in range(_EM_STEPS):
        upper_SBN = np.clip(upper_SBN, 1e-9, 1 - 1e-9)  # a component that vanishes would have no mean
        share_SB = upper_SBN.mean(axis=2, keepdims=True)
        high_SB = (upper_SBN * z_BN).mean(axis=2, keepdims=True) / share_SB
        low_SB = ((1 - upper_SBN) * z_BN).mean(axis=2, keepdims=True) / (1 - share_SB)
        above_SBN, under_SBN = (z_BN - high_SB) ** 2, (z_BN - low_SB) ** 2
        variance_SB = (upper_SBN * above_SBN + (1 - upper_SBN) * under_SBN).mean(axis=2, keepdims=True)
        variance_SB = np.maximum(variance_SB, _LEAST_VARIANCE)
        joint = np.stack(
            [np.log(1 - share_SB) - under_SBN / (2 * variance_SB), np.log(share_SB) - above_SBN / (2 * variance_SB)]
        )
        upper_SBN = expit(joint[1] - joint[0])
    # One normal distribution of variance 1 has the log likelihood -n/2 (ln 2 pi + 1).
    ratio_SB = 2 * np.logaddexp(*joint).sum(axis=2) + n * (1 - np.log(variance_SB[..., 0]))
    best_B = ratio_SB.argmax(axis=0)
    each_B = np.arange(len(z_BN))
    return _TwoComponents(
        ratio_SB[best_B, each_B],
        *(part[best_B, each_B, 0] for part in (low_SB, high_SB, share_SB, variance_SB)),
    )
