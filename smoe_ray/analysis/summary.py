"""Summaries of trials: one row per trial, one row per arm, and one representative trial per arm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.datasets import dataset_names
from smoe_ray.analysis.outcomes import comparable_metric, last_evaluated, require


def trial_summary(results: pd.DataFrame) -> pd.DataFrame:
    """The last row of each trial, whatever its status, with the label of its arm as first column.

    Columns beyond those of `results`: ``arm`` (see `arms`) and ``gap`` = test.reconstruction -
    test.reconstruction_soft, error per image: the cost of decoding with one expert instead of the blend of all.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).

    Returns:
        One row per trial, sorted by arm and seed.

    Raises:
        ResultsError: `results` is not such a table.
    """
    return epoch_summary(results).groupby("trial_id", sort=False).tail(1).reset_index(drop=True)


def epoch_summary(results: pd.DataFrame) -> pd.DataFrame:
    """All rows of `results`, one per (trial, epoch), with the columns that `trial_summary` adds.

    Returns:
        `results` sorted by arm, seed, trial and epoch.

    Raises:
        ResultsError: as `trial_summary`.
    """
    require(results, ("trial_id", "epoch", "seed", "test.reconstruction", "test.reconstruction_soft"))
    label_of = arms(results)
    summary = results.assign(
        arm=pd.Categorical(results["trial_id"].map(label_of), categories=label_of.cat.categories, ordered=True),
        gap=results["test.reconstruction"] - results["test.reconstruction_soft"],
    )
    front = ["arm", "seed"]
    columns = front + [column for column in summary.columns if column not in front]
    order = ["arm", "seed", "trial_id", "epoch"]
    return summary[columns].sort_values(order, kind="stable", na_position="first").reset_index(drop=True)


_STATUSES = ("finished", "failed", "pruned", "running")
_MEASURES = {
    "loss": "test.reconstruction",
    "loss_soft": "test.reconstruction_soft",
    "gap": "gap",
    "psnr": "test.psnr",
    "active": "experts.active",
    "effective": "experts.effective",
    "max_violation": "experts.max_violation",
    "regret": "test.regret",
    "label_accuracy": "experts.label_accuracy",
    "nmi": "experts.nmi",
    "kl": "test.kl",
    "latents": "latent.active",
    "linear": "test.linear_accuracy",
    "linear_untrained": "test.linear_accuracy_untrained",
    "neighbours": "test.knn_accuracy",
}


def arm_summary(results: pd.DataFrame) -> pd.DataFrame:
    """Status counts of each arm, and the outcomes of its finished trials at their last evaluated epoch.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).

    Returns:
        One row per arm. Columns: arm; finished, failed, pruned, running (trials); images (training images, maximum over
        trials); configured (experts); loss, loss_soft and gap (error per image: as evaluated, with soft gating, their
        difference), psnr (dB), active and effective (experts), max_violation, regret (error per image),
        label_accuracy, nmi (of experts and classes), kl (nats per image), latents (active latent dimensions), linear,
        linear_untrained and neighbours (accuracies of read-outs, of models that reconstruct nothing), each the mean
        over finished trials (NaN if not measured) and, with ``_sd`` appended, their sample standard deviation
        (ddof = 1; NaN for one trial).

    Raises:
        ResultsError: `results` is not such a table.
    """
    trials = trial_summary(results)
    require(trials, ("status", "data.train_images", "experts.configured", "experts.active", "experts.effective"))
    by_arm = trials.groupby("arm", observed=True)
    ends = pd.crosstab(trials["arm"], trials["status"]).reindex(columns=list(_STATUSES), fill_value=0)
    said = by_arm.agg(images=("data.train_images", "max"), configured=("experts.configured", "max"))
    for column in set(_MEASURES.values()) - set(trials.columns):  # not measured by earlier versions
        trials[column] = math.nan
    finished = trials[trials["status"] == "finished"].groupby("arm", observed=True)
    measured = {}
    for name, column in _MEASURES.items():
        measured[name] = finished[column].mean()
        measured[f"{name}_sd"] = finished[column].std(ddof=1)
    summary = ends.join(said).join(pd.DataFrame(measured))
    return summary.rename_axis("arm", axis=0).rename_axis(None, axis=1).reset_index().astype({"arm": str})


def group_summary(trials: pd.DataFrame, keys: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """Trials that have the same values of `keys`, as one row each.

    Args:
        trials: one row per trial, as `trial_summary` gives them.
        keys: columns to group by, at least one; a missing value is a value of its own.
        measures: columns of numbers.

    Returns:
        One row per group, in the order of its keys. Columns: `keys`, ``n`` (trials), and of each measure the mean and,
        with ``_sd`` appended, the sample standard deviation (ddof = 1; NaN for one trial) over those that have it.
    """
    groups = trials.groupby(list(keys), observed=True, dropna=False, sort=True)
    columns: dict[str, pd.Series[Any]] = {"n": groups.size()}
    for measure in measures:
        columns |= {measure: groups[measure].mean(), f"{measure}_sd": groups[measure].std(ddof=1)}
    return pd.DataFrame(columns).reset_index()


class Representative(NamedTuple):
    """The trial that represents its arm in analyses of single trials."""

    label: str
    """Of the arm."""
    trial_id: str
    seed: int
    study: str


class Representatives(NamedTuple):
    """One trial per arm."""

    trials: tuple[Representative, ...]
    num_available: int
    """Arms with a finished trial, without the limit."""


def representatives(results: pd.DataFrame, limit: int = 4) -> Representatives:
    """The finished trial with the lowest seed of each arm; of more than `limit` arms, those of lowest mean loss, from
    each dataset in turn.

    Where the unit of the loss differs between trials, those of highest mean PSNR; where nothing is reconstructed, those
    of the best linear read-out.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        limit: maximum number of trials, in the order of arms.

    Raises:
        ResultsError: no finished trial.
    """
    require(results, ("seed", "study"))
    outcomes = last_evaluated(results, None)
    outcomes = outcomes.assign(arm=outcomes["trial_id"].map(arms(outcomes)))
    metric = comparable_metric(outcomes)
    means = outcomes.groupby("arm", observed=True)[metric].mean()
    worse = means if metric == "test.reconstruction" else -means
    dataset_of = outcomes.groupby("arm", observed=True)["trial_id"].first().map(dataset_names(outcomes))
    kept = worse.groupby(dataset_of).rank(method="first").nsmallest(limit).index
    first = outcomes[outcomes["arm"].isin(kept)].sort_values(["arm", "seed", "trial_id"], kind="stable")
    rows = first.drop_duplicates("arm")[["arm", "trial_id", "seed", "study"]].itertuples(index=False)
    return Representatives(
        tuple(Representative(str(arm), str(trial), int(seed), str(study)) for arm, trial, seed, study in rows),
        len(means),
    )
