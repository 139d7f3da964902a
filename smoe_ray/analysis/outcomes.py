"""Selecting the rows of the results table that an analysis uses, with a one-line error when there are none."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import pandas as pd

from smoe_ray.errors import ResultsError


def require(results: pd.DataFrame, columns: Iterable[str]) -> None:
    """Raise ResultsError, naming the first of `columns` that `results` lacks."""
    for column in columns:
        if column not in results.columns:
            raise ResultsError(
                f"results: column '{column}' is absent; pass the complete table that read_results returns"
            )


def last_evaluated(results: pd.DataFrame) -> pd.DataFrame:
    """The outcome of each finished trial: its last row with an evaluation on the test set.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).

    Returns:
        One row per finished trial, all columns kept.

    Raises:
        ResultsError: no trial has finished, or none was evaluated.
    """
    require(results, ("trial_id", "status", "epoch", "test.reconstruction"))
    finished = results[results["status"] == "finished"]
    if finished.empty:
        raise ResultsError(f"{_study(results)}: no finished trial ({_statuses(results)}); let the study finish first")
    evaluated = finished[finished["test.reconstruction"].notna()]
    if evaluated.empty:
        raise ResultsError(f"{_study(results)}: no finished trial has test.reconstruction; rerun the study")
    return evaluated.sort_values("epoch", kind="stable").groupby("trial_id", sort=False).tail(1)


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
    errors = _any_of([_ERRORS[likelihood] for likelihood in _ERRORS if likelihood in likelihoods])
    nats = ", nats" if set(likelihoods) == {"bernoulli"} else ""
    values = _any_of([f"{count:,}" for count in sorted(counts)] or ["its"])
    return f"{errors} per image{nats} (sum over {values} values)"


def _any_of(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _likelihoods(results: pd.DataFrame) -> set[str]:
    named = results.get("config.objective.likelihood")
    return {"gaussian"} if named is None else set(named.fillna("gaussian")) or {"gaussian"}


def _value_counts(results: pd.DataFrame) -> set[int]:
    shapes = results.get("data.image_shape")
    return set() if shapes is None else {math.prod(map(int, shape.split("x"))) for shape in shapes.dropna().unique()}


def comparable_metric(results: pd.DataFrame) -> str:
    """The measure in which these trials can be compared: `test.reconstruction`, or `test.psnr` if its units differ."""
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
