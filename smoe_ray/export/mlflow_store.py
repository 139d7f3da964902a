"""A study as an MLflow experiment in a local SQLite store: one run per trial."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smoe_ray.errors import SmoeRayError
from smoe_ray.export.history import StudyHistory, TrialHistory

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "pruned": "KILLED", "running": "RUNNING"}
_MOST_PARAMS, _MOST_METRICS, _LONGEST = 100, 1000, 6000
"""MLflow's limits of one batch, and of a parameter's text."""


def write_store(study: StudyHistory, folder: Path) -> Path:
    """Add the experiment ``<study>`` to ``mlflow.db``, with artifacts in ``mlruns/``.

    Raises:
        SmoeRayError: the store has this experiment already.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries below MLflow
        return _write(study, folder.absolute())


def _write(study: StudyHistory, folder: Path) -> Path:
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mlflow.db"
    client = MlflowClient(tracking_uri=f"sqlite:///{path}")
    if client.get_experiment_by_name(study.name) is not None:
        raise SmoeRayError(f"{path}: has an experiment '{study.name}' already; delete it, or choose another folder")
    experiment = client.create_experiment(study.name, artifact_location=(folder / "mlruns").as_uri())
    for trial in study.trials:
        _add_run(client, experiment, trial)
    return path


def _add_run(client: Any, experiment: str, trial: TrialHistory) -> None:
    from mlflow.entities import Metric, Param

    record = trial.record
    tags = {"study": record.study, "trial_id": record.trial_id, "status": record.status}
    why = record.reason or record.error
    run = client.create_run(
        experiment, round(1000 * trial.started_s), tags | ({"why": why} if why else {}), run_name=record.trial_id
    ).info.run_id
    params = [Param(path, str(value)[:_LONGEST]) for path, value in trial.config.items() if value is not None]
    metrics = [
        Metric(name, number, round(1000 * end_s), epoch)
        for epoch, end_s, numbers in trial.metrics()
        for name, number in numbers.items()
    ]
    for some in _batches(params, _MOST_PARAMS):
        client.log_batch(run, params=some)
    for some in _batches(metrics, _MOST_METRICS):
        client.log_batch(run, metrics=some)
    if record.status != "running":
        ended = record.timings.finished_at or record.timings.started_at
        client.set_terminated(run, _STATUS[record.status], round(1000 * ended.timestamp()))


def _batches(items: Sequence[Any], most: int) -> list[list[Any]]:
    return [list(items[start : start + most]) for start in range(0, len(items), most)]
