"""Curves: mean and spread over seeds, training curves of arms, and the curves of one trial.

T epochs, P points of a curve.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from smoe_ray.analysis.arm_labels import arms
from smoe_ray.analysis.datasets import require_common_scale
from smoe_ray.analysis.outcomes import loss_unit, not_failed, reconstructs, require, test_gating
from smoe_ray.errors import ResultsError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Curve(NamedTuple):
    """Mean and spread over runs against x. All arrays have shape (P,), x ascends."""

    label: str
    x: npt.NDArray[Any]
    mean: FloatArray
    sd: FloatArray
    """Sample standard deviation (ddof = 1); NaN where n = 1."""
    n: IntArray
    """Runs behind each point."""

    @property
    def low(self) -> FloatArray:
        """mean - sd."""
        return self.mean - self.sd

    @property
    def high(self) -> FloatArray:
        """mean + sd."""
        return self.mean + self.sd


def summarise(runs: pd.DataFrame, label: str, x: str, y: str) -> Curve:
    """Mean, sample standard deviation and count of column `y` at each value of column `x`; rows are runs."""
    points = runs.groupby(x, sort=True)[y].agg(["mean", "std", "count"])
    points = points[points["count"] > 0]
    return Curve(
        label,
        points.index.to_numpy(),
        points["mean"].to_numpy(np.float64),
        points["std"].to_numpy(np.float64),
        points["count"].to_numpy(np.int64),
    )


def n_range(counts: Iterable[IntArray]) -> tuple[int, int]:
    """Smallest and largest number of runs behind any point."""
    every = np.concatenate(list(counts))
    return int(every.min()), int(every.max())


def log_limits(values: npt.NDArray[Any], least_ratio: float) -> tuple[float, float]:
    """Limits of a logarithmic axis that contains the positive `values`, with a margin on both sides.

    Their ratio is at least `least_ratio`, so that a single value is not stretched over a whole axis.
    """
    shown = values[values > 0]
    low, high = float(shown.min()), float(shown.max())
    factor = max((high / low) ** 0.06, (least_ratio * low / high) ** 0.5)
    return low / factor, high * factor


class Panel(NamedTuple):
    """Curves that share one pair of axes."""

    title: str
    curves: tuple[Curve, ...]


class TrainingCurves(NamedTuple):
    """Reconstruction error against epoch, one panel per measure, one curve per arm."""

    name: str
    """Of the errors: see `_Errors`."""
    unit: str
    arms: tuple[str, ...]
    """In the order of colours. A curve's label is one of them."""
    panels: tuple[Panel, ...]
    error_limits: tuple[float, float]
    n_range: tuple[int, int]


def training_curves(results: pd.DataFrame) -> TrainingCurves:
    """Test error (as evaluated, and with soft gating) and training error against epoch; mean and spread over seeds.

    Of models that reconstruct nothing, the contrastive losses.

    Running and pruned trials count up to their last epoch; failed trials are excluded, as are measures that no trial
    has.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).

    Raises:
        ResultsError: there is no trial other than failed ones, none has an error, or they are of several
            datasets or likelihoods.
    """
    rows = not_failed(results)
    require_common_scale(rows, "training curves")
    label_of = arms(rows)
    rows = rows.assign(arm=rows["trial_id"].map(label_of))
    measured_in = _errors(rows)
    column_of = {label: column for column, label in measured_in.columns.items()}
    require(rows, column_of.values())
    panels = []
    for title, column in column_of.items():
        measured = rows[rows[column].notna()]
        curves = [summarise(runs, str(arm), "epoch", column) for arm, runs in measured.groupby("arm", observed=True)]
        if curves:
            panels.append(Panel(title, tuple(curves)))
    if not panels:
        raise ResultsError(f"training curves: no trial has a {measured_in.name} yet; wait for its first epoch")
    drawn = [curve for panel in panels for curve in panel.curves]
    return TrainingCurves(
        measured_in.name,
        measured_in.unit,
        tuple(label_of.cat.categories),
        tuple(panels),
        log_limits(np.concatenate([values for curve in drawn for values in (curve.mean, curve.low, curve.high)]), 1.2),
        n_range(curve.n for curve in drawn),
    )


class Series(NamedTuple):
    """One measure of a trial at the epochs at which it was recorded. Arrays have shape (T,)."""

    label: str
    epoch_T: IntArray
    value_T: FloatArray


class TrialCurves(NamedTuple):
    """Curves of one trial; measures that were never recorded are omitted."""

    name: str
    """Of the errors: see `_Errors`."""
    unit: str
    errors: tuple[Series, ...]
    """Reconstruction errors; contrastive losses of a model that reconstructs nothing."""
    terms: tuple[Series, ...]
    """Terms of the training loss, unweighted, each labelled with its unit."""


_TERMS = {
    "train.loss": "loss ({unit})",
    "train.reconstruction": "reconstruction ({unit})",
    "train.kl": "KL (nats per image)",
    "train.balance": "balance",
    "train.entropy": "entropy (nats)",
    "train.cross_entropy": "cross-entropy (nats)",
    "train.contrastive": "contrastive loss (nats)",
}


class _Errors(NamedTuple):
    """In what trials are measured on training and test images alike."""

    name: str
    unit: str
    columns: dict[str, str]
    """Results column: label of its curve."""


def _errors(rows: pd.DataFrame) -> _Errors:
    if not reconstructs(rows):
        columns = {"test.contrastive": "test", "train.contrastive": "training"}
        return _Errors("contrastive loss", "nats per view", columns)
    columns = {"test.reconstruction": f"test, {test_gating(rows)} gating"}
    if test_gating(rows) != "soft":
        columns["test.reconstruction_soft"] = "test, soft gating"
    return _Errors("reconstruction error", loss_unit(rows), columns | {"train.reconstruction": "training"})


def trial_curves(results: pd.DataFrame, trial_id: str) -> TrialCurves:
    """Reconstruction errors and terms of the loss of one trial, whatever its status.

    Args:
        results: the table of `read_results`, one row per (trial, epoch).
        trial_id: a trial of `results`.

    Raises:
        ResultsError: there is no such trial, or it has no epoch yet.
    """
    require(results, ("trial_id", "epoch"))
    rows = results[results["trial_id"] == trial_id]
    rows = rows[rows["epoch"].notna()].sort_values("epoch", kind="stable")
    if rows.empty:
        raise ResultsError(f"trial {trial_id}: no epoch has ended yet; wait for the first")
    measured_in = _errors(rows)
    unit = measured_in.unit.partition(" (")[0]
    terms = {column: label.format(unit=unit) for column, label in _TERMS.items()}
    return TrialCurves(measured_in.name, measured_in.unit, _series(rows, measured_in.columns), _series(rows, terms))


def _series(rows: pd.DataFrame, label_of: dict[str, str]) -> tuple[Series, ...]:
    taken = {column: rows[rows[column].notna()] for column in label_of if column in rows.columns}
    return tuple(
        Series(label_of[column], part["epoch"].to_numpy(np.int64), part[column].to_numpy(np.float64))
        for column, part in taken.items()
        if len(part)
    )
