"""A study for TensorBoard: one run per trial, with its hyperparameters in the HParams tab."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smoe_ray.export.history import StudyHistory, refuse_existing
from smoe_ray.export.tracker import End, Measured, replay, tag

_FLUSH_S = 5
"""Seconds until what was logged is in the file."""


class TensorBoardTracker:
    """Writes ``<place>/<trial_id>/``; tags are columns with a slash for the first dot, which TensorBoard groups by.

    A trial that is there already is written again from its first epoch: readers leave out what was before.
    """

    def __init__(self, place: Path, metric: str) -> None:
        """`metric`: the column that HParams shows beside the configuration."""
        self._place, self._metric = place, metric
        self._writers: dict[str, Any] = {}
        self._session_end: dict[str, Any] = {}

    def start(self, trial_id: str, config: Mapping[str, Any], _moment_s: float) -> int:
        """See `Tracker.start`."""
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        place = self._place / trial_id
        _wait_for_a_later_name(place)
        writer: Any = SummaryWriter(str(place), purge_step=1 if place.exists() else None, flush_secs=_FLUSH_S)
        self._writers[trial_id] = writer
        # Its own add_hparams would make a second run of each trial.
        plain = {
            path: value if isinstance(value, bool | int | float | str) else str(value) for path, value in config.items()
        }
        experiment, session_start, self._session_end[trial_id] = hparams(plain, {tag(self._metric): None})
        for summary in (experiment, session_start):
            writer.file_writer.add_summary(summary)
        return 0

    def log(self, trial_id: str, epochs: Sequence[Measured]) -> None:
        """See `Tracker.log`."""
        for epoch, moment_s, numbers in epochs:
            for name, number in numbers.items():
                self._writers[trial_id].add_scalar(tag(name), number, epoch, walltime=moment_s)

    def end(self, trial_id: str, how: End, _why: str | None, _moment_s: float) -> None:
        """See `Tracker.end`."""
        writer, session_end = self._writers.pop(trial_id), self._session_end.pop(trial_id)
        if how == "finished":
            writer.file_writer.add_summary(session_end)
        writer.close()

    def close(self) -> None:
        """See `Tracker.close`."""
        for writer in self._writers.values():
            writer.close()


def _wait_for_a_later_name(place: Path) -> None:
    """Wait until a new event file sorts behind those of `place`, at most one second.

    Readers take files in the order of their names, which begin with the second they were made in; within one second
    what is written last could be read first.
    """
    made_s = [int(file.name.split(".")[3]) for file in place.glob("events.out.tfevents.*")]
    time.sleep(min(max(0.0, max(made_s, default=0) + 1 - time.time()), 1.0))


def write_events(study: StudyHistory, folder: Path) -> Path:
    """Write ``<study>/<trial_id>/``.

    Raises:
        SmoeRayError: the study's folder is there already.
    """
    place = refuse_existing(folder / study.name)
    replay(study, TensorBoardTracker(place, study.objective.metric))
    return place


def track(study: str, metric: str, folder: str) -> TensorBoardTracker:
    """The tracker of a study that is about to run."""
    return TensorBoardTracker(Path(folder).expanduser() / study, metric)
