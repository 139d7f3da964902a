"""Live metrics of a study as Ray metrics, which the driver's node exports to Prometheus as ``ray_smoe_ray_<name>``.

Meant for alerts while a study runs; its results are in the table. Tagged by study, not by trial: one time series for
each of thousands of trials would overload Prometheus.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from smoe_ray.columns import EPOCHS
from smoe_ray.planning import StudyPlan
from smoe_ray.results import Row
from smoe_ray.spec import first_objective
from smoe_ray.study.events import EpochDone, Event, StudyStarted
from smoe_ray.study.progress import Tally

_GAUGES = [column for column in EPOCHS if column.gauge]


class LiveMetrics:
    """Turns a study's events into metrics, in the process that runs the study, while it is connected to Ray."""

    def __init__(self, plan: StudyPlan, settled: int) -> None:
        self._study = plan.study.name
        self._tally = Tally(first_objective(plan.study))
        self._tally.note(StudyStarted(self._study, plan.total, settled))
        self._show_tally()  # also while a study still waits for resources

    def __call__(self, event: Event) -> None:
        """Update the metrics by one event."""
        self._tally.note(event)
        if isinstance(event, EpochDone):
            self._show_epoch(event.rows[-1])
        self._show_tally()

    def _show_tally(self) -> None:
        for status, count in {"running": self._tally.running, **self._tally.ended}.items():
            self._set("trials", "Trials of a study by status", count, status=status)
        self._set("trials_total", "Trials of a study in all", self._tally.total)
        if self._tally.collapse_rate is not None:
            what = "Share of the ended trials that lost half of their experts or more"
            self._set("collapse_rate", what, self._tally.collapse_rate)

    def _show_epoch(self, row: Row) -> None:
        for column in _GAUGES:
            value = row.get(column.name)
            if value is not None:
                self._set(column.gauge, f"{column.label}, newest epoch", value)
        _counter("epochs", "Epochs trained", ("study",)).inc(1, tags={"study": self._study})

    def _set(self, name: str, description: str, value: float, **tags: str) -> None:
        tags = {"study": self._study, **tags}
        _gauge(name, description, tuple(tags)).set(float(value), tags=tags)


@cache  # a metric may be created once per process
def _gauge(name: str, description: str, tags: tuple[str, ...]) -> Any:
    from ray.util.metrics import Gauge

    return Gauge(f"smoe_ray_{name}", description, tag_keys=tags)


@cache
def _counter(name: str, description: str, tags: tuple[str, ...]) -> Any:
    from ray.util.metrics import Counter

    return Counter(f"smoe_ray_{name}", description, tag_keys=tags)
