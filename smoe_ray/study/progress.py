"""Progress of a running study on the terminal: trials done, time left, current loss and active experts."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from smoe_ray.columns import COLUMNS, count
from smoe_ray.results import Row, TrialRecord
from smoe_ray.spec import GridStudy, SearchObjective, SearchStudy, TrialSpec, first_objective, value_at
from smoe_ray.study.events import (
    DataProgress,
    EpochDone,
    Event,
    Notice,
    StudyStarted,
    TrialDeferred,
    TrialEnded,
    TrialStarted,
)
from smoe_ray.terminal_output import PlainConsole


class StudyProgress:
    """Shows the events of `run_study`: pass it as `on_event`, inside its own ``with`` block.

        with StudyProgress(study) as show:
            run_study(study, out, executor, on_event=show)

    Args:
        study: the parameters that it varies are the labels of its trials.
        console: a terminal gets live progress bars; anything else gets one line per trial.
    """

    def __init__(self, study: GridStudy | SearchStudy, console: Console | None = None) -> None:
        self._console = console or PlainConsole(stderr=True)
        self._is_live = self._console.is_terminal
        self._paths = list(study.varied if isinstance(study, GridStudy) else study.space)
        axes = study.axes if isinstance(study, GridStudy) else {}
        self._keys = {path: _telling_keys(values) for path, values in axes.items()}
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._is_live,
            redirect_stdout=False,
        )
        self._study_bar: TaskID | None = None
        self._data_bar: TaskID | None = None
        self._data_shown = ""
        self._tally = Tally(first_objective(study))
        self._trial_bars: dict[str, TaskID] = {}
        self._labels: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        self._tally.note(event)
        if isinstance(event, DataProgress):
            self._show_data(event)
        elif isinstance(event, StudyStarted):
            self._hide_data()
            self._line(f"{event.name}: {count(event.total, 'trial')}, {event.settled} of them done before")
            self._study_bar = self._bars.add_task(event.name, total=event.total, state="")
        elif isinstance(event, TrialStarted):
            self._drop(event.trial_id)  # after its process died, the trial is started again
            self._labels[event.trial_id] = self._label(event.trial_id, event.trial)
            self._trial_bars[event.trial_id] = self._bars.add_task(
                self._labels[event.trial_id], total=1.0, state="starting"
            )
        elif isinstance(event, EpochDone):
            fraction = self._tally.fraction(event.trial_id)
            self._bars.update(self._trial_bars[event.trial_id], completed=fraction, state=describe(event.rows[-1]))
        elif isinstance(event, TrialDeferred):
            self._drop(event.trial_id)
        elif isinstance(event, TrialEnded):
            self._drop(event.record.trial_id)
            self._line(self._ending(event.record), always=event.record.status == "failed")
        elif isinstance(event, Notice):
            self._line(event.text, always=True)
        if self._study_bar is not None:
            self._bars.update(self._study_bar, completed=self._tally.done, state=self._tally.summary())

    def _show_data(self, event: DataProgress) -> None:
        if event.what != self._data_shown:
            self._hide_data()
            self._line(event.what)
            self._data_shown = event.what
            self._data_bar = self._bars.add_task(event.what, state="")
        if self._data_bar is not None:
            self._bars.update(self._data_bar, completed=event.done, total=event.total or None)

    def _hide_data(self) -> None:
        if self._data_bar is not None:
            self._bars.remove_task(self._data_bar)
            self._data_bar = None

    def _drop(self, trial_id: str) -> None:
        if trial_id in self._trial_bars:
            self._bars.remove_task(self._trial_bars.pop(trial_id))

    def _line(self, text: str, always: bool = False) -> None:
        """Print a line to a log file; on a terminal, where the bars show the same, only if `always`."""
        if always or not self._is_live:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _label(self, trial_id: str, trial: TrialSpec) -> str:
        names = [path.rpartition(".")[2] for path in self._paths]
        names = [path if names.count(name) > 1 else name for path, name in zip(self._paths, names, strict=True)]
        choices = [
            f"{name}={_shown(trial, path, self._keys.get(path, ()))}"
            for name, path in zip(names, self._paths, strict=True)
        ]
        return " ".join([trial_id, *choices, f"seed={trial.seed}"])

    def _ending(self, record: TrialRecord) -> str:
        label = self._labels.get(record.trial_id, record.trial_id)
        problem = record.error or record.reason
        why = f": {problem}" if problem else ""
        return f"[{self._tally.summary()}] {label} {record.status} after {record.timings.seconds:.1f} s{why}"


COLLAPSED_BELOW = 0.5
"""A trial counts as collapsed if its share of active experts is below this."""


class Tally:
    """Running counts of a study: trials by status, the best one, the share that collapsed, and the time left."""

    def __init__(self, objective: SearchObjective | None) -> None:
        """No trial is the best one where `objective` is None."""
        self._objective = objective
        self._results: list[float] = []
        self._active_fractions: list[float] = []
        self._last: dict[str, Row] = {}
        self.total = 0
        self.ended = {"finished": 0, "failed": 0, "pruned": 0}
        self._running: dict[str, TrialSpec] = {}
        self._fractions: dict[str, float] = {}
        self._start = time.monotonic()
        self._at_start = 0.0

    def note(self, event: Event) -> None:
        """Count one event."""
        if isinstance(event, StudyStarted):
            self.total = event.total
            self.ended["finished"] = event.settled
            self._start, self._at_start = time.monotonic(), float(event.settled)
        elif isinstance(event, TrialStarted):
            self._running[event.trial_id] = event.trial
        elif isinstance(event, EpochDone):
            trial = self._running[event.trial_id]
            if event.trial_id not in self._fractions:  # epochs from before a restart do not count towards the speed
                self._at_start += fraction_done(trial, event.rows[:-1])
            self._fractions[event.trial_id] = fraction_done(trial, event.rows)
            self._last[event.trial_id] = event.rows[-1]
        elif isinstance(event, (TrialDeferred, TrialEnded)):
            trial_id = event.trial_id if isinstance(event, TrialDeferred) else event.record.trial_id
            self._running.pop(trial_id, None)
            self._fractions.pop(trial_id, None)
            last = self._last.pop(trial_id, {})
            if isinstance(event, TrialEnded):
                self.ended[event.record.status] += 1
                _append_measured(self._active_fractions, _number(last, "experts.active_fraction"))
                if event.record.status == "finished" and self._objective is not None:
                    _append_measured(self._results, _number(last, self._objective.metric))

    def fraction(self, trial_id: str) -> float:
        """Share of a running trial's budget that is used up, 0 to 1."""
        return self._fractions.get(trial_id, 0.0)

    @property
    def running(self) -> int:
        """Number of running trials."""
        return len(self._running)

    @property
    def done(self) -> float:
        """Number of trials done, counting running ones by their fraction."""
        return sum(self.ended.values()) + sum(self._fractions.values())

    def seconds_left(self) -> float | None:
        """Estimated from the speed so far; None before anything was trained."""
        gained = self.done - self._at_start
        if gained <= 0:
            return None
        return (time.monotonic() - self._start) * max(0.0, self.total - self.done) / gained

    @property
    def best(self) -> float | None:
        """First objective of the best trial that finished in this run; None before there is one."""
        if self._objective is None:
            return None
        choose = min if self._objective.direction == "minimize" else max
        return choose(self._results, default=None)

    @property
    def collapse_rate(self) -> float | None:
        """Share of the trials ended in this run that had collapsed; None before one has ended."""
        if not self._active_fractions:
            return None
        return sum(share < COLLAPSED_BELOW for share in self._active_fractions) / len(self._active_fractions)

    def summary(self) -> str:
        """One line, e.g. ``3/10 done, 2 running, best test loss 8.31, 25% of trials lost over half of their experts,
        0:01:40 left``.
        """
        parts = [f"{self.ended['finished'] + self.ended['pruned']}/{self.total} done"]
        counts = {"running": self.running, "pruned": self.ended["pruned"], "failed": self.ended["failed"]}
        parts += [f"{number} {what}" for what, number in counts.items() if number]
        if self._objective is not None and self.best is not None:
            parts.append(f"best {COLUMNS[self._objective.metric].heading} {self.best:.2f}")
        if self.collapse_rate is not None:
            parts.append(f"{self.collapse_rate:.0%} of trials lost over half of their experts")
        left = self.seconds_left()
        if left:
            parts.append(f"{timedelta(seconds=round(left))} left")
        return ", ".join(parts)


def fraction_done(trial: TrialSpec, rows: Sequence[Row]) -> float:
    """Share of a trial's budget that its epochs have used up, 0 to 1."""
    if not rows:
        return 0.0
    budget = trial.training.budget
    if budget.unit == "epochs":
        return min(1.0, float(rows[-1]["epoch"]) / budget.amount)
    return min(1.0, _number(rows[-1], "cost.steps") / budget.amount)


def describe(row: Row) -> str:
    """An epoch in a few words, with the test loss or the linear read-out if one was measured."""
    parts = [f"epoch {row['epoch']}", f"loss {_number(row, 'train.loss'):.2f}"]
    if not math.isnan(_number(row, "test.reconstruction")):
        parts.append(f"test {_number(row, 'test.reconstruction'):.2f}")
    if not math.isnan(_number(row, "test.linear_accuracy")):
        parts.append(f"linear read-out {_number(row, 'test.linear_accuracy'):.3f}")
    if not math.isnan(_number(row, "experts.active")):
        parts.append(f"active {_number(row, 'experts.active'):.0f}/{_number(row, 'experts.configured'):.0f}")
    return ", ".join(parts)


def _append_measured(values: list[float], value: float) -> None:
    if not math.isnan(value):
        values.append(value)


def _number(row: Row, column: str) -> float:
    value = row.get(column)
    return math.nan if value is None else float(value)


def _shown(trial: TrialSpec, path: str, keys: Sequence[str] = ()) -> Any:
    """A value in a label; of a mapping those at `keys`; ``-`` if this trial has no such field."""
    try:
        value = value_at(trial, path)
    except KeyError:
        return "-"
    if isinstance(value, dict):
        told = {key: value[key] for key in keys if key in value}
        return next(iter(told.values())) if len(told) == 1 else json.dumps(told, separators=(",", ":"))
    if isinstance(value, list):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return repr(value) if isinstance(value, float) else value


def _telling_keys(values: Sequence[Any]) -> tuple[str, ...]:
    """Of an axis of mappings: the keys that tell them apart, just the name where that does. A word is a name alone."""
    mappings = [{"name": value} if isinstance(value, str) else value for value in values]
    mappings = [value for value in mappings if isinstance(value, dict)]
    for key in ("name", "source"):
        names = [str(mapping.get(key)) for mapping in mappings]
        if mappings and "None" not in names and len(set(names)) == len(names):
            return (key,)
    return tuple(dict.fromkeys(key for mapping in mappings for key in mapping))
