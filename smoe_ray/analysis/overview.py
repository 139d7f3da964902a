"""First looks: how many trials of a study collapsed, and one trial over its epochs.

T epochs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from smoe_ray.analysis.curves import FloatArray, IntArray
from smoe_ray.analysis.experts import is_collapsed, unsupervised_outcomes
from smoe_ray.analysis.trials import require, test_gating
from smoe_ray.errors import ResultsError


def collapsed_share(results: pd.DataFrame) -> float | None:
    """Share of finished unsupervised trials that collapsed (see `is_collapsed`).

    Args:
        results: the table of `read_results`, one row per (trial, epoch).

    Returns:
        The share, 0 to 1; None where there is no such trial. `collapse_rates` gives intervals, arm by arm.
    """
    require(results, ("experts.active", "experts.configured"))
    try:
        outcomes = unsupervised_outcomes(results, "collapse rate")
    except ResultsError:
        return None
    return float(is_collapsed(outcomes).mean())


class Series(NamedTuple):
    """One measure of a trial in the epochs in which it was taken. Arrays have shape (T,)."""

    label: str
    epoch_T: IntArray
    value_T: FloatArray


class TrialCurves(NamedTuple):
    """A trial over its epochs; measures that were never taken are left out."""

    reconstruction: tuple[Series, ...]
    """Reconstruction errors, squared error per image."""
    terms: tuple[Series, ...]
    """Terms of the training loss, unweighted, each labelled with its unit."""


_TERMS = {
    "train.loss": "loss (squared error per image)",
    "train.reconstruction": "reconstruction (squared error per image)",
    "train.kl": "KL (nats per image)",
    "train.balance": "balance",
    "train.entropy": "entropy (nats)",
    "train.cross_entropy": "cross-entropy (nats)",
}


def trial_curves(results: pd.DataFrame, trial_id: str) -> TrialCurves:
    """Reconstruction errors and terms of the loss of one trial, whatever its status.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        trial_id: one of its trials.

    Raises:
        ResultsError: no such trial, or it has no epoch yet.
    """
    require(results, ("trial_id", "epoch"))
    rows = results[results["trial_id"] == trial_id]
    rows = rows[rows["epoch"].notna()].sort_values("epoch", kind="stable")
    if rows.empty:
        raise ResultsError(f"trial {trial_id}: no epoch has ended yet; wait for its first one")
    errors = {
        "test.reconstruction": f"test, {test_gating(rows)} gating",
        "test.reconstruction_soft": "test, soft gating",
        "train.reconstruction": "training",
    }
    return TrialCurves(_series(rows, errors), _series(rows, _TERMS))


def _series(rows: pd.DataFrame, label_of: dict[str, str]) -> tuple[Series, ...]:
    taken = {column: rows[rows[column].notna()] for column in label_of if column in rows.columns}
    return tuple(
        Series(label_of[column], part["epoch"].to_numpy(np.int64), part[column].to_numpy(np.float64))
        for column, part in taken.items()
        if len(part)
    )
