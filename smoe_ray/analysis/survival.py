"""Survival of experts over training: which are never used, when each other one dies, and how often runs collapse.

T evaluated epochs, E experts configured, R runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.curves import FloatArray, n_range
from smoe_ray.analysis.experts import expert_states, is_collapsed, unsupervised_outcomes
from smoe_ray.analysis.outcomes import not_failed, require
from smoe_ray.errors import ResultsError


def expert_deaths(results: pd.DataFrame, label_of: pd.Series[str] | None = None) -> pd.DataFrame:
    """State of each expert at the end of its run, and when it died; one row per expert.

    An expert is *used* at an evaluated epoch if it is the argmax of the gate for at least one test image. Experts can
    revive, so only the final stretch counts: an expert *died* at the first evaluated epoch from which on it receives no
    image until the end of the run (for running and pruned trials: until their last epoch). An expert that received none
    at any evaluated epoch was *never used*: it did not die.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        label_of: label per trial that replaces its arm, as returned by `arms` or `coarse_arms`.

    Returns:
        Columns arm, trial_id, seed, expert; ``state``: of `expert_states`; ``last_used``: last evaluated epoch at
        which it was used, NaN if never; ``died``: the evaluated epoch after that, NaN unless it is dead; ``revivals``:
        number of times it was unused and then used again; ``first_epoch``, ``last_epoch``: first and last evaluated
        epochs of the run.

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
    deaths = deaths[[*order, "state", "last_used", "died", "revivals", "first_epoch", "last_epoch"]]
    return deaths.sort_values(order, kind="stable", ignore_index=True)


def _deaths_of(epochs: Sequence[float], usage: Sequence[npt.ArrayLike]) -> dict[str, npt.NDArray[Any]]:
    epoch_T = np.asarray(epochs, np.float64)
    used_TE = np.stack(usage) > 0
    state_E = expert_states(used_TE.T)
    # Number of evaluations up to the last one at which the expert was used: T if it is alive at the end.
    survived_E = len(epoch_T) - used_TE[::-1].argmax(axis=0)
    return {
        "expert": np.arange(used_TE.shape[1]),
        "state": state_E,
        "last_used": np.where(state_E == "never used", np.nan, epoch_T[survived_E - 1]),
        "died": np.where(state_E == "dead", np.append(epoch_T, np.nan)[survived_E], np.nan),
        "revivals": (~used_TE[:-1] & used_TE[1:]).sum(axis=0),
    }


class Survival(NamedTuple):
    """Survival curve of the experts of one arm."""

    label: str
    epoch_T: FloatArray
    """0, first and last evaluated epochs of the runs, and the epochs at which an expert died; ascending."""
    share_T: FloatArray
    """Share of the configured experts that are used at the epoch or later, runs of the arm pooled: the share that was
    ever used, times the Kaplan-Meier estimate over these."""
    sd_T: FloatArray
    """Sample standard deviation (ddof = 1) of that share over the runs that reached the epoch; NaN where n = 1."""
    half_life: float
    """First epoch at which at most half of the experts that were ever used are alive; inf if there is none."""
    half_life_R: FloatArray
    """The same for each run separately, ascending."""
    experts: int
    """Number of configured experts, summed over runs; so are the next two."""
    never_used: int
    dead: int

    @property
    def alive(self) -> int:
        """Number of experts alive at the end of their run."""
        return self.experts - self.never_used - self.dead

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

    arms: tuple[Survival, ...]
    n_range: tuple[int, int]
    """Smallest and largest number of runs behind a curve."""


def expert_survival(results: pd.DataFrame, label_of: pd.Series[str] | None = None) -> ExpertSurvival:
    """Survival of experts (Kaplan and Meier 1958); an expert alive at the end of its run is censored there.

    Death as in `expert_deaths`. An expert that was never used is neither alive nor dead at any epoch, so a curve starts
    at the share of the configured experts that were ever used, and half of these is what a half-life counts. Experts of
    one run compete for the same images and are not independent observations: the spread is over runs.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        label_of: label per trial that replaces its arm, as returned by `arms` or `coarse_arms`.

    Raises:
        ResultsError: no trial, other than failed ones, has an epoch with `experts.usage`.
    """
    experts = expert_deaths(results, label_of)
    curves = tuple(_survival(str(arm), of_arm) for arm, of_arm in experts.groupby("arm", observed=True))
    return ExpertSurvival(curves, n_range(np.array([len(curve.half_life_R)]) for curve in curves))


def _survival(label: str, experts: pd.DataFrame) -> Survival:
    from statsmodels.duration.survfunc import SurvfuncRight

    watched = experts[["first_epoch", "last_epoch", "died"]].to_numpy()
    epoch_T = np.unique(np.append(watched[np.isfinite(watched)], 0.0))
    used = experts[experts["state"] != "never used"]
    pooled = SurvfuncRight(used["died"].fillna(used["last_epoch"]), used["died"].notna())
    deaths_before_T = np.searchsorted(pooled.surv_times, epoch_T, side="right")
    share_T = np.append(1.0, pooled.surv_prob)[deaths_before_T] * len(used) / len(experts)
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
        len(experts) - len(used),
        int((used["state"] == "dead").sum()),
    )


def _share_alive(experts: pd.DataFrame, epoch_T: FloatArray) -> FloatArray:
    """Fraction of one run's experts that are alive at each epoch; NaN after the run's last."""
    died_E = experts["died"].fillna(np.inf).where(experts["state"] != "never used", -np.inf).to_numpy(np.float64)
    share_T = (died_E[:, None] > epoch_T).mean(axis=0)
    return np.where(epoch_T <= experts["last_epoch"].iloc[0], share_T, np.nan)


def _half_life(epoch_T: FloatArray, share_T: FloatArray) -> float:
    """First epoch at which the share is at most half of the first one, which is that of the experts ever used."""
    halved = share_T <= share_T[0] / 2 + 1e-9  # tolerance: a product of fractions may miss one half by rounding
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
    outcomes = unsupervised_outcomes(results, "collapse rate", None)
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
        outcomes = unsupervised_outcomes(results, "collapse rate", None)
    except ResultsError:
        return None
    return float(is_collapsed(outcomes).mean())
