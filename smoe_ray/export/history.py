"""A study as every writer needs it: its trials, each with configuration and epochs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from smoe_ray.analysis import dataset_names
from smoe_ray.analysis.outcomes import comparable_metric
from smoe_ray.columns import COLUMNS
from smoe_ray.errors import SmoeRayError, StudyError
from smoe_ray.export.tracker import Measured, measured
from smoe_ray.results import Row, Store, TrialRecord, read_results, read_trials
from smoe_ray.results.study_file import read_study_text
from smoe_ray.results.table import flatten
from smoe_ray.spec import GridStudy, SearchObjective, SearchStudy, first_objective, parse_study

if TYPE_CHECKING:
    import pandas as pd


class TrialHistory(NamedTuple):
    """A trial with its epochs."""

    record: TrialRecord
    rows: list[Row]
    """One per epoch."""

    @property
    def config(self) -> dict[str, Any]:
        """The configuration by dotted path, the seed included."""
        return flatten(self.record.spec.model_dump(mode="json"))

    @property
    def started_s(self) -> float:
        """When it started, seconds since 1970."""
        return self.record.timings.started_at.timestamp()

    def metrics(self) -> Iterator[Measured]:
        """What was measured in each epoch."""
        end_s = self.started_s
        for row in self.rows:
            epoch = measured(row, end_s)
            end_s += epoch.numbers.get("cost.wall_s", 0.0)
            yield epoch._replace(moment_s=end_s)


class StudyHistory(NamedTuple):
    """A study with its trials, those of earlier data aside (`current_trials`)."""

    name: str
    text: str
    """Of its study.yaml; empty if that is absent or damaged."""
    spec: GridStudy | SearchStudy | None
    """None likewise."""
    trials: list[TrialHistory]
    results: pd.DataFrame
    """The table of `read_results`."""
    problems: tuple[str, ...]
    notices: tuple[str, ...]

    @property
    def objective(self) -> SearchObjective:
        """What its trials are judged by: on several datasets, and where units differ, the PSNR."""
        if self.spec is not None and (found := first_objective(self.spec)) is not None:
            return found
        metric = comparable_metric(self.results)
        if metric == "test.reconstruction" and dataset_names(self.results).nunique() > 1:
            metric = "test.psnr"
        return SearchObjective(metric=metric, direction=COLUMNS[metric].direction or "minimize")


def read_history(out: str | Path, study: str) -> StudyHistory:
    """Read a study. Raises ResultsError: no such study, or none of its trials can be read."""
    results = read_results(out, study, skip_broken=True)
    measured = [name for name in results.columns if not name.startswith(("config.", "data.")) and name not in _HEAD]
    known = results[results["epoch"].notna()]
    rows_of: dict[str, list[Row]] = {}
    for trial, of_trial in known.groupby("trial_id"):
        rows_of[str(trial)] = [dict(zip(measured, row, strict=True)) for row in of_trial[measured].itertuples(False)]
    ids = set(results["trial_id"])
    records = [record for record in read_trials(out, study, skip_broken=True) if record.trial_id in ids]
    text, spec = _study(Store(out), study)
    return StudyHistory(
        study,
        text,
        spec,
        [TrialHistory(record, rows_of.get(record.trial_id, [])) for record in records],
        results,
        tuple(results.attrs["problems"]),
        tuple(results.attrs["notices"]),
    )


def refuse_existing(place: Path) -> Path:
    """`place` itself. Raises SmoeRayError if it is there already: trackers add to what they find."""
    if place.exists():
        raise SmoeRayError(f"{place}: is there already; delete it, or choose another folder")
    return place


_HEAD = ("study", "trial_id", "status", "seed")


def _study(store: Store, study: str) -> tuple[str, GridStudy | SearchStudy | None]:
    name = f"{study}/study.yaml"
    try:
        text = read_study_text(store, study) or ""
        return text, parse_study(text, origin=store.path(name))
    except StudyError:  # what it adds is not worth refusing the trials
        return "", None
