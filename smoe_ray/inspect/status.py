"""Progress of a study, read from its results alone: works while the study runs, after it, and on another machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from smoe_ray.columns import COLUMNS
from smoe_ray.notebook import html_table
from smoe_ray.planning import StudyPlan, identity_of, parameters_of
from smoe_ray.results import Store, TrialRecord, current_trials, list_studies, read_results, read_trials
from smoe_ray.results.study_file import read_study_text
from smoe_ray.spec import GridStudy, SearchStudy, first_objective, parse_study

if TYPE_CHECKING:
    import pandas as pd


class Best(NamedTuple):
    """The best finished trial so far."""

    metric: str
    value: float
    trial_id: str


class StudyStatus(NamedTuple):
    """Numbers of trials of a study by status. Trials of earlier versions of the study do not count."""

    study: str
    total: int
    """Trials of the grid, or the number that the search is to reach."""
    finished: int
    running: int
    """Started and not ended: training at this moment, or interrupted (the files cannot tell which)."""
    failed: int
    pruned: int
    best: Best | None
    """By the first objective of a search, by test.reconstruction in a grid; None before a trial has finished, and on
    several datasets, whose losses have no common scale."""
    updated_at: datetime | None
    """When a trial last wrote its record, UTC; None before the first."""
    problems: tuple[str, ...] = ()
    """One line per file that cannot be read, whose trial does not count."""
    notices: tuple[str, ...] = ()
    """One line per reason why older trials do not count, and per damaged file of a trial that does."""

    def _repr_html_(self) -> str:
        unended = {"running or interrupted": self.running, "failed": self.failed, "pruned": self.pruned}
        best = self.best
        rows = {
            "trials": f"{self.finished} of {self.total} finished",
            **{what: number or None for what, number in unended.items()},
            "best": best and f"{COLUMNS[best.metric].heading} {best.value:.4g} (trial {best.trial_id})",
            "updated": self.updated_at and f"{self.updated_at:%Y-%m-%d %H:%M} UTC",
            **{f"note {number}": text for number, text in enumerate([*self.problems, *self.notices], 1)},
        }
        return html_table(self.study, rows)


def study_status(out: str, study: str) -> StudyStatus | None:
    """Status of study `study` in `out`; None if it has not written anything there.

    Raises:
        StudyError: its ``study.yaml`` cannot be read.
        ResultsError: nor can the files of any trial, or OUT itself.
    """
    store = Store(out)
    text = read_study_text(store, study) if study in list_studies(out) else None
    if text is None:
        return None
    spec = parse_study(text, origin=store.path(f"{study}/study.yaml"))
    plan = StudyPlan(spec)
    results = read_results(out, study, skip_broken=True)
    whole = set(results["trial_id"])
    found = (record for record in read_trials(out, study, skip_broken=True) if record.trial_id in whole)
    records = current(plan, found)
    modified = {
        record.trial_id: store.modified(f"{study}/trials/{record.trial_id}/trial.json")
        for record in records
        if record.timings.finished_at is None
    }
    return status_of(plan, records, results, modified)._replace(
        problems=tuple(results.attrs["problems"]), notices=tuple(results.attrs["notices"])
    )


def current(plan: StudyPlan, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The `current_trials` that belong to the study as it is now."""
    trials, _ = current_trials(trials)
    if isinstance(plan.study, SearchStudy):
        return [record for record in trials if parameters_of(plan.study, record.spec) is not None]
    by_start = sorted(trials, key=lambda record: record.timings.started_at)
    newest = {identity_of(record.spec): record for record in by_start}
    return [record for identity, record in newest.items() if identity in plan.grid]


def status_of(
    plan: StudyPlan,
    records: Sequence[TrialRecord],
    results: pd.DataFrame | None,
    modified: Mapping[str, datetime | None],
) -> StudyStatus:
    """The status, from records and results that were read already.

    Args:
        plan: of the study.
        records: its `current` trials.
        results: the table of `read_results`; None if it is not read yet, which leaves `best` None.
        modified: trial_id -> when the `trial.json` of a running trial was last written.
    """
    count = Counter(record.status for record in records)
    finished = [record.trial_id for record in records if record.status == "finished"]
    return StudyStatus(
        study=plan.study.name,
        total=plan.total,
        finished=count["finished"],
        running=count["running"],
        failed=count["failed"],
        pruned=count["pruned"],
        best=None if results is None else _best(plan.study, results, finished),
        updated_at=_updated_at(records, modified),
    )


def _best(study: GridStudy | SearchStudy, results: pd.DataFrame, finished: Sequence[str]) -> Best | None:
    first = first_objective(study)
    if first is None:
        return None
    last = results.drop_duplicates("trial_id", keep="last").set_index("trial_id")
    if first.metric not in last.columns:
        return None
    values = last[first.metric].reindex(list(finished)).dropna()
    if values.empty:
        return None
    trial_id = str(values.idxmin() if first.direction == "minimize" else values.idxmax())
    return Best(first.metric, float(values[trial_id]), trial_id)


def _updated_at(records: Iterable[TrialRecord], modified: Mapping[str, datetime | None]) -> datetime | None:
    """A running trial rewrites its record after each epoch; only the modification time of its file says when."""
    moments = [
        record.timings.finished_at or modified.get(record.trial_id) or record.timings.started_at for record in records
    ]
    return max(moments, default=None)
