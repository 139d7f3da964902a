"""How far what is trained at this moment is: epochs, time left, and of when these facts are."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import NamedTuple

from smoe_ray.columns import count
from smoe_ray.results import TrialRecord

from . import load


class Progress(NamedTuple):
    """How far a trial is."""

    epoch: int
    """The last that has ended; 0 before the first."""
    epochs: int | None
    """Those that it is to train; None before its data are read."""
    seconds: float
    """Spent on them."""
    age_s: float
    """Seconds since its record was written."""

    @property
    def total_s(self) -> float:
        """Seconds of the whole trial if every epoch takes as long as those before; NaN before the first."""
        return self.seconds / self.epoch * self.epochs if self.epoch and self.epochs else math.nan

    @property
    def left_s(self) -> float:
        """Seconds until its end; NaN where nothing tells."""
        left_s = self.total_s - self.seconds - self.age_s
        return 0.0 if left_s < 0 else left_s


def epochs_of(record: TrialRecord) -> int | None:
    """Epochs that a trial trains; None before its data are read."""
    if record.data is None:
        return None
    training = record.spec.training
    return training.budget.epochs(math.ceil(record.data.train_images / training.batch_size))


def of_trial(record: TrialRecord) -> Progress:
    """How far a trial of OUT is."""
    rows = load.results(record.study).table
    ended = rows.loc[rows["trial_id"] == record.trial_id, "epoch"].max()
    written = load.modified(record.study, record.trial_id) or record.timings.started_at
    age_s = max(0.0, (datetime.now(UTC) - written).total_seconds())
    return Progress(0 if math.isnan(ended) else int(ended), epochs_of(record), record.timings.seconds, age_s)


def trial_line(study: str, trial_id: str | None) -> str:
    """A running trial in a line; empty where none is running."""
    record = load.results(study).records.get(trial_id or "")
    if record is None or not load.is_trained(record):
        return ""
    found = of_trial(record)
    return _line("Running", found, found.left_s, found.age_s)


def study_line(study: str) -> str:
    """What of a study is running, in a line; empty where nothing is."""
    records = load.results(study).records.values()
    running = [of_trial(record) for record in records if load.is_trained(record)]
    if not running:
        return ""
    farthest = max(running, key=lambda one: one.epoch)
    which = ", the farthest" if len(running) > 1 else ""
    what = f"{count(len(running), 'trial')} running{which}"
    return _line(what, farthest, _study_left_s(study, running), min(one.age_s for one in running))


def _study_left_s(study: str, running: list[Progress]) -> float:
    """As many at a time as now; those that wait take as long as those that have finished, or as these."""
    status = load.status(study, with_best=False)
    finished = [one.timings.seconds for one in load.trials(study).records.values() if one.status == "finished"]
    known = [one.total_s for one in running if math.isfinite(one.total_s)]
    each_s = sum(finished) / len(finished) if finished else max(known, default=math.nan)
    if math.isnan(each_s):
        return math.nan
    waiting = max(0, status.total - status.finished - status.pruned - status.failed - status.running)
    lefts = [each_s if math.isnan(one.left_s) else one.left_s for one in running]
    return max(max(lefts), (sum(lefts) + waiting * each_s) / len(running))


def _line(what: str, found: Progress, left_s: float, age_s: float) -> str:
    far = f"epoch {found.epoch} of {found.epochs}" if found.epochs else "before its first epoch"
    parts = [f"{what}: {far}", f"about {duration(left_s)} left" if math.isfinite(left_s) else ""]
    return f"{', '.join(filter(None, parts))}, as of {duration(age_s)} ago"


def duration(seconds: float) -> str:
    """``40 s``, ``3 min``, ``2.5 h``, ``4 days``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
