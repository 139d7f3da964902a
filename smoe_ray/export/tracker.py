"""What a tracker of experiments is told of trials: as they are trained (``run --log-to``), or later from their results.

One tracker of each tool serves both, so that names, configuration and steps are the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from smoe_ray.results.table import flatten

if TYPE_CHECKING:
    from smoe_ray.export.history import StudyHistory
    from smoe_ray.results import Row
    from smoe_ray.spec import TrialSpec

End = Literal["finished", "failed", "pruned", "interrupted"]
"""How a trial ended; interrupted: the study was stopped, and goes on with it when it is run again."""


class Measured(NamedTuple):
    """An epoch of a trial."""

    epoch: int
    moment_s: float
    """When it ended, seconds since 1970."""
    numbers: dict[str, float]
    """Finite numbers by column; those of a list by column and position."""


class Tracker(Protocol):
    """Takes the trials of one study, several at a time. Each method may raise whatever the tool raises."""

    def start(self, trial_id: str, config: Mapping[str, Any], moment_s: float) -> int:
        """A trial starts, or goes on. Returns the last epoch that the tool has of it; 0: none.

        Args:
            trial_id: its id.
            config: by dotted path (`config_of`).
            moment_s: seconds since 1970.
        """

    def log(self, trial_id: str, epochs: Sequence[Measured]) -> None:
        """Further epochs of a started trial, in their order."""

    def end(self, trial_id: str, how: End, why: str | None, moment_s: float) -> None:
        """A started trial has ended; `why`: the reason or error, in one line."""

    def close(self) -> None:
        """Nothing more comes: all that was told is on its way to where it is kept."""


def config_of(spec: TrialSpec) -> dict[str, Any]:
    """The configuration by dotted path, the seed included, without what is null."""
    config = flatten(spec.model_dump(mode="json"))
    return {path: value for path, value in config.items() if value is not None}


def measured(row: Row, moment_s: float) -> Measured:
    """A row of a trial's epochs as trackers take it."""
    return Measured(int(row["epoch"]), moment_s, dict(_numbers(row)))


def tag(column: str) -> str:
    """A column as tools name it that group by what stands before a slash: ``test/reconstruction``."""
    return column.replace(".", "/", 1)


def replay(study: StudyHistory, tracker: Tracker) -> None:
    """Tell a tracker all trials of a study; one that has not ended is left unended."""
    for trial in study.trials:
        record = trial.record
        tracker.start(record.trial_id, config_of(record.spec), trial.started_s)
        tracker.log(record.trial_id, list(trial.metrics()))
        if record.status != "running":
            ended = record.timings.finished_at or record.timings.started_at
            tracker.end(record.trial_id, record.status, record.reason or record.error, ended.timestamp())
    tracker.close()


def _numbers(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if name == "epoch":
            continue
        if hasattr(value, "__len__"):
            values = {f"{name}.{position}": item for position, item in enumerate(value)}
        else:
            values = {name: value}
        for key, number in values.items():
            if number is not None and math.isfinite(number):
                yield key, float(number)
