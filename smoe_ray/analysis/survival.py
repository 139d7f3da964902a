"""Survival of experts over training: when each one dies, and how often runs collapse.

T evaluated epochs, E experts configured, R runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.curves import FloatArray, n_range
from smoe_ray.analysis.experts import is_collapsed, unsupervised_outcomes
from smoe_ray.analysis.outcomes import not_failed, require
from smoe_ray.errors import ResultsError


def expert_deaths(results: pd.DataFrame, label_of: pd.Series[str] | None = None) -> pd.DataFrame:
    """When each expert died, one row per expert.

    An expert is *alive* at an evaluated epoch if it is the argmax of the gate for at least one test image. Experts can
    revive, so only the final stretch counts: an expert *died* at the first evaluated epoch from which on it receives no
    image until the end of the run (for running and pruned trials: until their last epoch).

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        label_of: label per trial that replaces its arm, as returned by `arms` or `coarse_arms`.

    Returns:
        Columns arm, trial_id, seed, expert; ``last_used``: last evaluated epoch at which it was alive, NaN if
        never; ``died``: the evaluated epoch after that, NaN if it is alive at the end; ``revivals``: number of times it
        was unused and then used again; ``first_epoch``, ``last_epoch``: first and last evaluated epochs of the run;
        ``alive_first``: whether it was alive at the first of them.

    Raises:
        ResultsError: no trial, other than failed ones, has an epoch with `experts.usage`.
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
    # One frame for all trials: building one per trial takes seconds for thousands of trials.
    deaths = pd.DataFrame({name: np.concatenate([trial[name] for trial in found]) for name in found[0]})
    described = watched.drop(columns="epochs").reset_index()
    described = described.loc[described.index.repeat([len(trial["expert"]) for trial in found])].reset_index(drop=True)
    deaths = pd.concat([described, deaths], axis=1).astype({"first_epoch": np.float64, "last_epoch": np.float64})
    deaths["arm"] = pd.Categorical(deaths["trial_id"].map(label_of), label_of.cat.categories, ordered=True)
    order = ["arm", "seed", "trial_id", "expert"]  # ordered as in `label_of`: an arm of 2 experts before one of 16
    deaths = deaths[[*order, "last_used", "died", "revivals", "first_epoch", "last_epoch", "alive_first"]]
    return deaths.sort_values(order, kind="stable", ignore_index=True)


def _deaths_of(epochs: Sequence[float], usage: Sequence[npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
    epoch_T = np.asarray(epochs, np.float64)
    alive_TE = np.stack(usage) > 0
    # Number of evaluations up to the last one at which the expert was alive: 0 if never, T if alive at the end.
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
    """Survival curve of the experts of one arm."""

    label: str
    epoch_T: FloatArray
    """First and last evaluated epochs of the runs and the epochs at which an expert died, ascending; starts at 0 if all
    configured experts count."""
    share_T: FloatArray
    """Kaplan-Meier estimate of the share of experts in use at the epoch or later; runs of the arm pooled."""
    sd_T: FloatArray
    """Sample standard deviation (ddof = 1) of that share over the runs that reached the epoch; NaN where n = 1."""
    half_life: float
    """First epoch at which `share_T` is at most one half; inf if there is none."""
    half_life_R: FloatArray
    """The same for each run separately, ascending."""
    experts: int
    """Number of experts at the start, summed over runs."""

    @property
    def low(self) -> FloatArray:
        """max(share - sd, 0)."""
        return np.maximum(self.share_T - self.sd_T, 0)

    @property
    def high(self) -> FloatArray:
        """min(share + sd, 1)."""
        return np.minimum(self.share_T + self.sd_T, 1)


class ExpertSurvival(NamedTuple):
    """Share of experts alive against epoch, one curve per arm."""

    of: Literal["configured", "alive"]
    """Population: all configured experts, or those alive at the first evaluated epoch."""
    arms: tuple[Survival, ...]
    n_range: tuple[int, int]
    """Smallest and largest number of runs behind a curve."""


def expert_survival(
    results: pd.DataFrame,
    of: Literal["configured", "alive"] = "configured",
    label_of: pd.Series[str] | None = None,
) -> ExpertSurvival:
    """Survival of experts (Kaplan and Meier 1958); an expert alive at the end of its run is censored there.

    Death as in `expert_deaths`. Experts of one run compete for the same images and are not independent observations:
    the spread is over runs.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        of: *configured*: all E experts, alive at epoch 0 by definition; *alive*: those alive at the first evaluated
            epoch.
        label_of: label per trial that replaces its arm, as returned by `arms` or `coarse_arms`.

    Raises:
        ResultsError: no trial, other than failed ones, has an epoch with `experts.usage`.
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
    """Fraction of one run's experts that are alive at each epoch; NaN after the run's last."""
    died_E = experts["died"].fillna(np.inf).to_numpy(np.float64)
    share_T = (died_E[:, None] > epoch_T).mean(axis=0)
    return np.where(epoch_T <= experts["last_epoch"].iloc[0], share_T, np.nan)


def _half_life(epoch_T: FloatArray, share_T: FloatArray) -> float:
    halved = share_T <= 0.5 + 1e-9  # tolerance: a product of fractions may miss one half by rounding
    return float(epoch_T[halved.argmax()]) if halved.any() else np.inf


class CollapseRate(NamedTuple):
    """How often the trials of an arm collapse."""

    label: str
    collapsed: int
    n: int
    share: float
    low: float
    """Lower end of Wilson's 95 % interval."""
    high: float


def collapse_rates(
    results: pd.DataFrame, below: float = 0.5, label_of: pd.Series[str] | None = None
) -> tuple[CollapseRate, ...]:
    """Share of finished unsupervised trials whose active fraction (active / configured experts) is below `below`.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        below: threshold, exclusive.
        label_of: label per trial that replaces its arm, as returned by `arms` or `coarse_arms`.

    Returns:
        One per arm, in the order of arms.

    Raises:
        ResultsError: there is no finished trial, or all are supervised.
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


def collapsed_share(results: pd.DataFrame) -> float | None:
    """Share of finished unsupervised trials that collapsed (see `is_collapsed`).

    Args:
        results: the table of `read_results`, one row per (trial, epoch).

    Returns:
        The share, 0 to 1; None if there is no such trial. `collapse_rates` returns intervals per arm.
    """
    require(results, ("experts.active", "experts.configured"))
    try:
        outcomes = unsupervised_outcomes(results, "collapse rate")
    except ResultsError:
        return None
    return float(is_collapsed(outcomes).mean())
