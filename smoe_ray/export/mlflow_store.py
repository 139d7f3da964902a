"""A study as an MLflow experiment: one run per trial, in a local SQLite store or on a server."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smoe_ray.errors import SmoeRayError
from smoe_ray.export.history import StudyHistory
from smoe_ray.export.tracker import End, Measured, replay

_STATUS: dict[End, str] = {"finished": "FINISHED", "failed": "FAILED", "pruned": "KILLED", "interrupted": "KILLED"}
_MOST_PARAMS, _MOST_METRICS, _LONGEST = 100, 1000, 6000
"""MLflow's limits of one batch, and of a parameter's text."""


class MLflowTracker:
    """Adds runs to the experiment of a study's name; a trial's run is found again by its tag ``trial_id``."""

    def __init__(self, client: Any, study: str, artifacts: str | None = None) -> None:
        """`artifacts`: where the experiment keeps files, if it is created; None: as the server has it."""
        found = client.get_experiment_by_name(study)
        self._client, self._study = client, study
        self._experiment = client.create_experiment(study, artifacts) if found is None else found.experiment_id
        self._is_new = found is None
        self._runs: dict[str, str] = {}

    def start(self, trial_id: str, config: Mapping[str, Any], moment_s: float) -> int:
        """See `Tracker.start`."""
        from mlflow.entities import Param

        if (run := self._earlier_run(trial_id)) is not None:
            self._runs[trial_id] = run.info.run_id
            self._client.update_run(run.info.run_id, status="RUNNING")
            history = self._client.get_metric_history(run.info.run_id, "train.loss")
            return max((metric.step for metric in history), default=0)
        tags = {"study": self._study, "trial_id": trial_id, "status": "running"}
        created = self._client.create_run(self._experiment, round(1000 * moment_s), tags, run_name=trial_id)
        self._runs[trial_id] = created.info.run_id
        params = [Param(path, str(value)[:_LONGEST]) for path, value in config.items()]
        for some in _batches(params, _MOST_PARAMS):
            self._client.log_batch(created.info.run_id, params=some)
        return 0

    def log(self, trial_id: str, epochs: Sequence[Measured]) -> None:
        """See `Tracker.log`."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, number, round(1000 * moment_s), epoch)
            for epoch, moment_s, numbers in epochs
            for name, number in numbers.items()
        ]
        for some in _batches(metrics, _MOST_METRICS):
            self._client.log_batch(self._runs[trial_id], metrics=some)

    def end(self, trial_id: str, how: End, why: str | None, moment_s: float) -> None:
        """See `Tracker.end`."""
        run = self._runs.pop(trial_id)
        self._client.set_tag(run, "status", how)
        if why:
            self._client.set_tag(run, "why", why)
        self._client.set_terminated(run, _STATUS[how], round(1000 * moment_s))

    def close(self) -> None:
        """See `Tracker.close`: the client keeps nothing back."""

    def _earlier_run(self, trial_id: str) -> Any | None:
        if self._is_new:
            return None
        found = self._client.search_runs([self._experiment], f"tags.trial_id = '{trial_id}'", max_results=1)
        return next(iter(found), None)


def write_store(study: StudyHistory, folder: Path) -> Path:
    """Add the experiment ``<study>`` to ``mlflow.db``, with artifacts in ``mlruns/``.

    Raises:
        SmoeRayError: the store has this experiment already.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries below MLflow
        client, artifacts = _client(str(folder))
        path = folder.absolute() / "mlflow.db"
        if client.get_experiment_by_name(study.name) is not None:
            raise SmoeRayError(f"{path}: has an experiment '{study.name}' already; delete it, or choose another folder")
        replay(study, MLflowTracker(client, study.name, artifacts))
        return path


def track(study: str, _metric: str, place: str) -> MLflowTracker:
    """The tracker of a study that is about to run. `place`: a folder as of an export, or the URI of a store."""
    client, artifacts = _client(place)
    return MLflowTracker(client, study, artifacts)


def _client(place: str) -> tuple[Any, str | None]:
    """Client of a folder or URI, and where it keeps artifacts, if we say."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if ":" in place:
        return MlflowClient(tracking_uri=place), None
    folder = Path(place).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}"), (folder / "mlruns").as_uri()


def _batches(items: Sequence[Any], most: int) -> list[list[Any]]:
    return [list(items[start : start + most]) for start in range(0, len(items), most)]
