"""A study for TensorBoard: one run per trial, with its hyperparameters in the HParams tab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smoe_ray.export.history import StudyHistory, TrialHistory, refuse_existing


def write_events(study: StudyHistory, folder: Path) -> Path:
    """Write ``<study>/<trial_id>/``; tags are columns with a slash for the first dot, which TensorBoard groups by.

    Raises:
        SmoeRayError: the study's folder is there already.
    """
    place = refuse_existing(folder / study.name)
    for trial in study.trials:
        _write_run(trial, study.objective.metric, place / trial.record.trial_id)
    return place


def _write_run(trial: TrialHistory, metric: str, place: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    # Its own add_hparams would make a second run of each trial.
    config = {
        path: value if isinstance(value, bool | int | float | str) else str(value)
        for path, value in trial.config.items()
        if value is not None
    }
    writer: Any = SummaryWriter(str(place))
    for summary in hparams(config, {_tag(metric): None}):
        writer.file_writer.add_summary(summary)
    for epoch, end_s, numbers in trial.metrics():
        for name, number in numbers.items():
            writer.add_scalar(_tag(name), number, epoch, walltime=end_s)
    writer.close()


def _tag(column: str) -> str:
    return column.replace(".", "/", 1)
