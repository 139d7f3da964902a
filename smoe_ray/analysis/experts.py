"""Experts: test loss against their number, and how many are used, and how evenly, over training.

E experts configured, T evaluated epochs, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.curves import Curve, FloatArray, IntArray, n_range, summarise
from smoe_ray.analysis.datasets import require_common_scale
from smoe_ray.analysis.outcomes import last_evaluated, loss_unit, not_failed, require, test_gating
from smoe_ray.errors import ResultsError

NUM_EXPERTS = "model.num_experts"
"""Spec path of E: on the x axis of a figure, so never part of an arm there."""


class Baseline(NamedTuple):
    """Test loss of label-routed trials."""

    label: str
    mean: float
    sd: float
    """Sample standard deviation (ddof = 1) over `n` runs; NaN where n = 1."""
    n: int

    @property
    def low(self) -> float:
        """mean - sd."""
        return self.mean - self.sd

    @property
    def high(self) -> float:
        """mean + sd."""
        return self.mean + self.sd


class LossAgainstExperts(NamedTuple):
    """Test loss (error per image) against the number of experts, one curve per arm."""

    experts: Literal["active", "configured"]
    """Which experts are on the x axis."""
    gating: str
    unit: str
    """Of the losses: see `loss_unit`."""
    curves: tuple[Curve, ...]
    baselines: tuple[Baseline, ...]
    x_limits: tuple[float, float]
    n_range: tuple[int, int]
    """Smallest and largest number of runs behind a point of the curves."""


def is_collapsed(outcomes: pd.DataFrame, below: float = 0.5) -> pd.Series[bool]:
    """Whether the active fraction (active / configured experts) of each row is below `below`."""
    return outcomes["experts.active"] / outcomes["experts.configured"] < below


def is_supervised(results: pd.DataFrame) -> pd.Series[bool]:
    """Rows of label-routed trials: by class (``routing: supervised``) or by style (objective ``style_oracle``)."""
    told = {"config.routing": "supervised", "config.objective.name": "style_oracle"}
    found = pd.Series(data=False, index=results.index, dtype=bool)
    for column, value in told.items():
        if column in results.columns:
            found |= results[column] == value
    return found


def unsupervised_outcomes(
    results: pd.DataFrame, figure: str, metric: str | None = "test.reconstruction"
) -> pd.DataFrame:
    """`last_evaluated` without the supervised baseline. Raises ResultsError, naming `figure`, if no trial remains."""
    outcomes = last_evaluated(results, metric)
    outcomes = outcomes[~is_supervised(outcomes)]
    if outcomes.empty:
        raise ResultsError(f"{figure}: every finished trial is supervised; add trials with routing: unsupervised")
    return outcomes


def loss_against_experts(
    results: pd.DataFrame,
    experts: Literal["active", "configured"] = "active",
    label_of: pd.Series[str] | None = None,
) -> LossAgainstExperts:
    """Test loss of finished trials against active or configured experts (arXiv:2509.10025, Fig. 2).

    As in the paper, runs are grouped by the number of experts that stayed active, not by the number configured.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        experts: which experts the x axis counts.
        label_of: label per trial that replaces its arm (one curve per label); the baseline keeps its arms.

    Raises:
        ResultsError: there is no finished trial, all are supervised, or they are of several datasets or likelihoods.
    """
    x = f"experts.{experts}"
    require(results, (x,))
    require_common_scale(results, "loss against experts")
    outcomes = unsupervised_outcomes(results, "loss against experts")
    label_of = arms(outcomes, ignore=(NUM_EXPERTS,)) if label_of is None else label_of
    curves = tuple(summarise(runs, label, x, "test.reconstruction") for label, runs in _by_label(outcomes, label_of))
    finished = last_evaluated(results)
    supervised = finished[is_supervised(finished)]
    baselines = tuple(
        _baseline(arm, runs["test.reconstruction"]) for arm, runs in _by_label(supervised, arms(supervised))
    )
    low, high = float(outcomes[x].min()), float(outcomes[x].max())
    room = max(0.5, 0.03 * (high - low))
    return LossAgainstExperts(
        experts,
        test_gating(finished),
        loss_unit(finished),
        curves,
        baselines,
        (low - room, high + room),
        n_range(curve.n for curve in curves),
    )


def _by_label(outcomes: pd.DataFrame, label_of: pd.Series[str]) -> list[tuple[str, pd.DataFrame]]:
    return [(str(label), runs) for label, runs in outcomes.groupby(outcomes["trial_id"].map(label_of), observed=True)]


def _baseline(arm: str, loss: pd.Series[float]) -> Baseline:
    label = arm if arm.startswith("supervised") else f"supervised, {arm}"
    return Baseline(label, float(loss.mean()), float(loss.std(ddof=1)), len(loss))


ExpertState = Literal["alive", "dead", "never used"]


def expert_states(share_ET: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """State of each expert after the last of the evaluated epochs, an `ExpertState`. Shape (E,).

    *alive*: it takes at least one test image at the last evaluated epoch; *dead*: it took some before, and none then;
    *never used*: it took none at any of them, so that it was never alive and did not die.

    Args:
        share_ET: share of the test images of each expert at each evaluated epoch, at least one.
    """
    used_ET = np.asarray(share_ET) > 0
    return np.where(used_ET[:, -1], "alive", np.where(used_ET.any(axis=1), "dead", "never used"))


class TrialUsage(NamedTuple):
    """Share of the test images that each expert of one trial takes, over its evaluated epochs."""

    label: str
    trial_id: str
    seed: int
    epoch_T: IntArray
    share_ET: FloatArray
    """Rows in the order of `expert_E`; columns sum to 1."""
    expert_E: IntArray
    """Experts by decreasing share at the last evaluated epoch; unused ones come last."""
    state_E: npt.NDArray[np.str_]
    """See `expert_states`; order of `expert_E`."""
    active_T: IntArray
    effective_T: FloatArray
    """exp(entropy of the shares), in experts."""


class UsageOverEpochs(NamedTuple):
    """Expert usage of several trials."""

    trials: tuple[TrialUsage, ...]
    num_available: int
    """Number of trials without the limit on panels."""


def usage_over_epochs(results: pd.DataFrame, each: Literal["arm", "trial"] = "arm", limit: int = 12) -> UsageOverEpochs:
    """How evenly experts are used over training.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        each: show one trial per arm (that of the lowest seed, finished if possible), or every trial.
        limit: maximum number of trials returned, in the order of arms and seeds.

    Raises:
        ResultsError: no trial, other than failed ones, has two epochs with `experts.usage`.
    """
    require(results, ("experts.usage", "experts.active", "experts.effective", "seed"))
    rows = not_failed(results)
    rows = rows.assign(arm=rows["trial_id"].map(arms(rows)), unfinished=rows["status"] != "finished")
    rows = rows[rows["experts.usage"].notna()].sort_values("epoch", kind="stable")
    rows = rows[rows.groupby("trial_id")["epoch"].transform("count") > 1]
    if rows.empty:
        raise ResultsError("usage over epochs: no trial has two evaluated epochs; lower evaluation.every or wait")
    order = ["arm", "unfinished", "seed"] if each == "arm" else ["arm", "seed"]
    trials = rows.drop_duplicates("trial_id").sort_values(order, kind="stable")
    if each == "arm":
        trials = trials.drop_duplicates("arm")
    shown = [_trial_usage(rows[rows["trial_id"] == trial]) for trial in trials["trial_id"].iloc[:limit]]
    return UsageOverEpochs(tuple(shown), len(trials))


def _trial_usage(rows: pd.DataFrame) -> TrialUsage:
    share_ET = np.stack([np.asarray(share_E, dtype=np.float64) for share_E in rows["experts.usage"]], axis=1)
    expert_E = np.argsort(-share_ET[:, -1], kind="stable")
    first = rows.iloc[0]
    return TrialUsage(
        str(first["arm"]),
        str(first["trial_id"]),
        int(first["seed"]),
        rows["epoch"].to_numpy(np.int64),
        share_ET[expert_E],
        expert_E,
        expert_states(share_ET[expert_E]),
        rows["experts.active"].to_numpy(np.int64),
        rows["experts.effective"].to_numpy(np.float64),
    )


IN_USE_MEASURES = {"active experts / E": "experts.active", "effective experts / E": "experts.effective"}


class TrialInUse(NamedTuple):
    """Number of experts that one trial uses. Arrays have shape (T,)."""

    label: str
    trial_id: str
    seed: int
    epoch_T: IntArray
    count_T: FloatArray
    share_T: FloatArray
    """Fraction of the configured experts."""


class InUse(NamedTuple):
    """One measure of the number of experts in use, as a fraction of E, over all trials."""

    title: str
    epoch_T: IntArray
    quantile_QT: FloatArray
    """Quantiles over the trials evaluated at the epoch; rows follow `QUANTILES`."""
    n_T: IntArray
    """Number of these trials."""
    trials: tuple[TrialInUse, ...]
    """The requested trials, in the order of the request."""


QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def experts_in_use(results: pd.DataFrame, trials: Sequence[str] = ()) -> tuple[InUse, ...]:
    """Active and effective experts / E against epoch: quantiles over trials, and selected single trials.

    Running and pruned trials count up to their last epoch; failed trials are excluded.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        trials: ids of trials to return individually; unknown ids are ignored.

    Raises:
        ResultsError: no trial, other than failed ones, has an evaluated epoch, or a column is absent.
    """
    require(results, ("experts.configured", "seed", *IN_USE_MEASURES.values()))
    rows = not_failed(results)
    label_of = arms(rows)
    rows = rows[rows["experts.active"].notna()].sort_values("epoch", kind="stable")
    if rows.empty:
        raise ResultsError("experts in use: no trial has experts.active yet; wait for its first evaluation")
    chosen = {trial: rows[rows["trial_id"] == trial] for trial in trials}
    measured = []
    for title, column in IN_USE_MEASURES.items():
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
