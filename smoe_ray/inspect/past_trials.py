"""Trials of a search as Optuna stores them: their parameters, objective values and the values reported per epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from smoe_ray.planning import distributions, parameters_of
from smoe_ray.results import Row, TrialRecord
from smoe_ray.spec import SearchStudy

if TYPE_CHECKING:
    import optuna


def final_values(study: SearchStudy, rows: Sequence[Row]) -> list[float] | None:
    """The objectives at the last epoch of a trial; None if one of them was not measured."""
    last = rows[-1] if rows else {}
    values = [_number(last.get(objective.metric)) for objective in study.objectives]
    return None if any(math.isnan(value) for value in values) else values


def reports(study: SearchStudy, rows: Sequence[Row]) -> dict[int, float]:
    """Epoch -> first objective, for the epochs in which it was measured: the values that a pruner sees."""
    if study.pruner.name == "none":
        return {}
    metric = study.objectives[0].metric
    measured = {int(row["epoch"]): _number(row.get(metric)) for row in rows}
    return {epoch: value for epoch, value in measured.items() if not math.isnan(value)}


def past_trial(study: SearchStudy, record: TrialRecord, rows: Sequence[Row]) -> optuna.trial.FrozenTrial | None:
    """A trial of OUT as Optuna stores it; None if it is not part of this search, or has not ended.

    A trial that finished without a measured objective counts as failed: Optuna has no value to learn from.
    """
    values = parameters_of(study, record.spec)
    if values is None or record.status == "running":
        return None
    results = final_values(study, rows) if record.status == "finished" else None
    return stored_trial(record, values, distributions(study, list(values)), results, reports(study, rows))


def stored_trial(
    record: TrialRecord,
    values: Mapping[str, Any],
    space: Mapping[str, optuna.distributions.BaseDistribution],
    results: Sequence[float] | None,
    reported: Mapping[int, float],
) -> optuna.trial.FrozenTrial:
    """A trial that has ended as Optuna stores it.

    Args:
        record: of the trial.
        values: its parameters.
        space: their distributions.
        results: its objectives; None if it did not finish, or did not measure them.
        reported: epoch -> first objective.
    """
    import optuna

    state = optuna.trial.TrialState.FAIL
    if results is not None:
        state = optuna.trial.TrialState.COMPLETE
    elif record.status == "pruned":
        state = optuna.trial.TrialState.PRUNED
    trial = optuna.trial.create_trial(
        state=state,
        params=dict(values),
        distributions={path: space[path] for path in values},
        values=results,
        intermediate_values=dict(reported),
        user_attrs={"trial_id": record.trial_id, "why": record.reason or record.error or ""},
    )
    trial.datetime_start = _local(record.timings.started_at)
    trial.datetime_complete = _local(record.timings.finished_at or record.timings.started_at)
    return trial


def _local(moment: datetime) -> datetime:
    """Local time without a time zone, as Optuna stores it."""
    return moment.astimezone().replace(tzinfo=None)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
