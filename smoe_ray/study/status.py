"""How far a study is, told by its results alone: it works while the study runs, after it, and where nothing runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from smoe_ray.results import Store, TrialRecord, list_studies, read_results, read_trials
from smoe_ray.spec import GridStudy, SearchObjective, SearchStudy, parse_study
from smoe_ray.study.plan import parameters_of, plan_grid


class Best(NamedTuple):
    """The best finished trial so far."""

    metric: str
    value: float
    trial_id: str


class StudyStatus(NamedTuple):
    """Trials of a study by what became of them; those of its earlier versions do not count."""

    study: str
    total: int
    """Trials of the grid, or the number that the search is to reach."""
    finished: int
    running: int
    """Started and not ended: trained at this moment, or interrupted (the files cannot tell)."""
    failed: int
    pruned: int
    best: Best | None
    """Judged on the first objective of a search, and on test.reconstruction in a grid; None before a trial finished."""
    updated_at: datetime | None
    """When a trial last wrote its record, UTC; None before the first."""


def study_status(out: str, study: str) -> StudyStatus | None:
    """How far study `study` in `out` is; None while nothing of it is there.

    Raises:
        ResultsError, StudyError: what is there cannot be read.
    """
    store = Store(out)
    name = f"{study}/study.yaml"
    content = store.read(name) if study in list_studies(out) else None
    if content is None:
        return None
    spec = parse_study(content.decode(), origin=store.path(name))
    records = _of_this_version(spec, read_trials(out, study))
    count = Counter(record.status for record in records)
    return StudyStatus(
        study=study,
        total=len(plan_grid(spec)) if isinstance(spec, GridStudy) else spec.num_trials,
        finished=count["finished"],
        running=count["running"],
        failed=count["failed"],
        pruned=count["pruned"],
        best=_best(spec, out, [record.trial_id for record in records if record.status == "finished"]),
        updated_at=_updated_at(store, records),
    )


def _of_this_version(study: GridStudy | SearchStudy, records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The records that answer the study as it now is; of a trial that ran on two versions of its data, the newest."""
    if isinstance(study, SearchStudy):
        return [record for record in records if parameters_of(study, record.spec) is not None]
    planned = {json.dumps(trial.identity(), sort_keys=True) for trial in plan_grid(study)}
    newest = {
        json.dumps(record.spec.identity(), sort_keys=True): record
        for record in sorted(records, key=lambda record: record.timings.started_at)
    }
    return [record for identity, record in newest.items() if identity in planned]


def _best(study: GridStudy | SearchStudy, out: str, finished: Sequence[str]) -> Best | None:
    first = study.objectives[0] if isinstance(study, SearchStudy) else SearchObjective(metric="test.reconstruction")
    last = read_results(out, study.name).drop_duplicates("trial_id", keep="last").set_index("trial_id")
    values = last.loc[list(finished), first.metric].dropna()
    if values.empty:
        return None
    trial_id = str(values.idxmin() if first.direction == "minimize" else values.idxmax())
    return Best(first.metric, float(values[trial_id]), trial_id)


def _updated_at(store: Store, records: Iterable[TrialRecord]) -> datetime | None:
    """A trial that runs writes its record after each epoch; only its file says when."""
    moments = [
        record.timings.finished_at
        or store.modified(f"{record.study}/trials/{record.trial_id}/trial.json")
        or record.timings.started_at
        for record in records
    ]
    return max(moments, default=None)
