"""Selecting the rows of the results table that an analysis uses, with a one-line error when there are none."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

import pandas as pd

from smoe_ray.columns import COLUMNS, listed
from smoe_ray.errors import ResultsError


def require(results: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raise ResultsError, naming the first of `columns` that `results` lacks."""
    for column in columns:
        if column not in results.columns:
            raise ResultsError(
                f"results: column '{column}' is absent; pass the complete table that read_results returns"
            )


READ_OUT = "test.linear_accuracy"
"""What trials that reconstruct nothing are judged by."""


def last_evaluated(results: pd.DataFrame, metric: str | None = "test.reconstruction") -> pd.DataFrame:
    """The outcome of each finished trial: its last row with an evaluation on the test set.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        metric: the column that the caller needs a value of; None: trials of every family of models will do.

    Returns:
        One row per finished trial, all columns kept.

    Raises:
        ResultsError: no trial has finished, or none has a value of the metric.
    """
    require(results, ("trial_id", "status", "epoch", metric or "test.reconstruction"))
    finished = results[results["status"] == "finished"]
    if finished.empty:
        raise ResultsError(f"{_study(results)}: no finished trial ({_statuses(results)}); let the study finish first")
    measures = [metric] if metric else [name for name in ("test.reconstruction", READ_OUT) if name in finished]
    evaluated = finished[finished[measures].notna().any(axis=1)]
    if evaluated.empty:
        lacking = f"no finished trial has {' or '.join(measures)}"
        if metric == "test.reconstruction" and not reconstructs(results):
            raise ResultsError(f"{_study(results)}: {lacking}: the model family contrastive reconstructs nothing")
        raise ResultsError(f"{_study(results)}: {lacking}; rerun the study")
    return evaluated.sort_values("epoch", kind="stable").groupby("trial_id", sort=False).tail(1)


def families(results: pd.DataFrame) -> set[str]:
    """The families of these trials' models."""
    return set(_family_of(results))


def _family_of(results: pd.DataFrame) -> pd.Series[str]:
    named = results.get("config.model.family")  # written for all but the first family
    if named is None:
        return pd.Series("smoe_vae", results.index)
    return named.fillna("smoe_vae").astype(str)


def reconstructs(results: pd.DataFrame) -> bool:
    """Whether a trial of these has reconstructions, or will have."""
    return families(results) != {"contrastive"}


def of_families_with(outcomes: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows of trials whose family of models has a column of the results; ResultsError where there are none."""
    family = COLUMNS[column].family if column in COLUMNS else None
    if family is None or families(outcomes) == {family}:
        return outcomes
    kept = outcomes[_family_of(outcomes) == family]
    if kept.empty:
        others = listed(sorted(families(outcomes)))
        raise ResultsError(
            f"{_study(outcomes)}: models of the family {others} have no {column}; compare another column"
        )
    return kept


def not_failed(results: pd.DataFrame) -> pd.DataFrame:
    """Rows of all trials except failed ones. Raises ResultsError when there are none."""
    require(results, ("trial_id", "status", "epoch"))
    kept = results[results["status"] != "failed"]
    if kept.empty:
        raise ResultsError(f"{_study(results)}: no trial to show ({_statuses(results)}); run the study first")
    return kept


def test_gating(results: pd.DataFrame) -> str:
    """Gating of `test.reconstruction`: ``hard``, ``soft``, or ``hard or soft`` if trials differ."""
    gating = results.get("config.evaluation.gating")
    return "hard" if gating is None else " or ".join(sorted(gating.dropna().astype(str).unique())) or "hard"


_ERRORS = {"gaussian": "squared error", "bernoulli": "binary cross-entropy", "laplace": "absolute error"}
"""Error of an image by `objective.likelihood`."""


def loss_unit(results: pd.DataFrame) -> str:
    """Unit of the losses of these trials: ``squared error per image (sum over 784 values)``.

    Where trials differ it names every error and every number of values, so that it is true of each trial. Trials
    without `config.objective.likelihood` (of a plug-in that offers no choice, or published) have squared errors.
    """
    return _unit_of(_likelihoods(results), _value_counts(results))


def _unit_of(likelihoods: Collection[str], counts: Collection[int]) -> str:
    errors = listed(_error_names(likelihoods), "or")
    nats = ", nats" if set(likelihoods) == {"bernoulli"} else ""
    values = listed([f"{count:,}" for count in sorted(counts)] or ["its"], "or")
    return f"{errors} per image{nats} (sum over {values} values)"


def error_names(results: pd.DataFrame) -> list[str]:
    """Names of the errors in which these trials measure their losses, the default's first."""
    return _error_names(_likelihoods(results))


def _error_names(likelihoods: Collection[str]) -> list[str]:
    known = [_ERRORS[likelihood] for likelihood in _ERRORS if likelihood in likelihoods]
    return known + ["error"] * bool(set(likelihoods) - _ERRORS.keys())  # a plug-in may have a likelihood of its own


def _likelihoods(results: pd.DataFrame) -> set[str]:
    named = results.get("config.objective.likelihood")
    return {"gaussian"} if named is None else set(named.fillna("gaussian")) or {"gaussian"}


def _value_counts(results: pd.DataFrame) -> set[int]:
    shapes = results.get("data.image_shape")
    return set() if shapes is None else {math.prod(map(int, shape.split("x"))) for shape in shapes.dropna().unique()}


def comparable_metric(results: pd.DataFrame) -> str:
    """The measure in which these trials can be compared: `test.reconstruction`, or `test.psnr` if its units differ.

    Where none reconstructs: `READ_OUT`.
    """
    if not reconstructs(results):
        return READ_OUT
    same_unit = len(_likelihoods(results)) == 1 and len(_value_counts(results)) <= 1
    return "test.reconstruction" if same_unit else "test.psnr"


def with_soft_loss(results: pd.DataFrame) -> pd.DataFrame:
    """The table with `test.reconstruction_soft` in place of `test.reconstruction`, as if evaluated with soft gating.

    Every analysis of the test loss then describes the gate-weighted blend of all experts.

    Raises:
        ResultsError: the column is absent, or no trial has a value in it.
    """
    soft = "test.reconstruction_soft"
    require(results, (soft,))
    if results[soft].isna().all():
        raise ResultsError(f"{_study(results)}: no trial has {soft}; use the hard loss")
    soft_results = results.assign(**{"test.reconstruction": results[soft]})
    soft_results["config.evaluation.gating"] = "soft"
    return soft_results


def _study(results: pd.DataFrame) -> str:
    names = results.get("study")
    return "results" if names is None or names.nunique() != 1 else f"study '{names.iloc[0]}'"


def _statuses(results: pd.DataFrame) -> str:
    counts = results.drop_duplicates("trial_id")["status"].value_counts()
    return ", ".join(f"{count} {status}" for status, count in counts.items()) or "no trial has reported an epoch"
