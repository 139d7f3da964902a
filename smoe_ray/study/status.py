"""How far a study is, told by its results alone: it works while the study runs, after it, and where nothing runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from smoe_ray.results import Store, TrialRecord, list_studies, read_results, read_trials
from smoe_ray.spec import GridStudy, SearchObjective, SearchStudy, parse_study
from smoe_ray.study.plan import identified, identity_of, parameters_of

if TYPE_CHECKING:
    import pandas as pd


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
    asked = Asked(spec)
    records = current(asked, read_trials(out, study))
    modified = {
        record.trial_id: store.modified(f"{study}/trials/{record.trial_id}/trial.json")
        for record in records
        if record.timings.finished_at is None
    }
    return status_of(asked, records, read_results(out, study), modified)


class Asked:
    """A study as it now is, with its plan, which is made once."""

    def __init__(self, study: GridStudy | SearchStudy) -> None:
        self.study = study

    @cached_property
    def identities(self) -> frozenset[str]:
        """What makes each trial of a grid that trial; none of a search."""
        return frozenset(identified(self.study) if isinstance(self.study, GridStudy) else ())

    @property
    def total(self) -> int:
        """Trials of the grid, or the number that the search is to reach."""
        return len(self.identities) if isinstance(self.study, GridStudy) else self.study.num_trials


def current(asked: Asked, trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Those of the trials that answer the study; of one that ran on two versions of its data, the newest."""
    if isinstance(asked.study, SearchStudy):
        return [record for record in trials if parameters_of(asked.study, record.spec) is not None]
    by_start = sorted(trials, key=lambda record: record.timings.started_at)
    newest = {identity_of(record.spec): record for record in by_start}
    return [record for identity, record in newest.items() if identity in asked.identities]


def status_of(
    asked: Asked,
    records: Sequence[TrialRecord],
    results: pd.DataFrame | None,
    modified: Mapping[str, datetime | None],
) -> StudyStatus:
    """The status from what was read already.

    Args:
        asked: the study.
        records: its `current` trials.
        results: the table of `read_results`; None where it is not read yet, which leaves `best` None.
        modified: when the `trial.json` of a trial that runs was last written, by trial_id.
    """
    count = Counter(record.status for record in records)
    finished = [record.trial_id for record in records if record.status == "finished"]
    return StudyStatus(
        study=asked.study.name,
        total=asked.total,
        finished=count["finished"],
        running=count["running"],
        failed=count["failed"],
        pruned=count["pruned"],
        best=None if results is None else _best(asked.study, results, finished),
        updated_at=_updated_at(records, modified),
    )


def _best(study: GridStudy | SearchStudy, results: pd.DataFrame, finished: Sequence[str]) -> Best | None:
    first = study.objectives[0] if isinstance(study, SearchStudy) else SearchObjective(metric="test.reconstruction")
    last = results.drop_duplicates("trial_id", keep="last").set_index("trial_id")
    if first.metric not in last.columns:
        return None
    values = last[first.metric].reindex(list(finished)).dropna()
    if values.empty:
        return None
    trial_id = str(values.idxmin() if first.direction == "minimize" else values.idxmax())
    return Best(first.metric, float(values[trial_id]), trial_id)


def _updated_at(records: Iterable[TrialRecord], modified: Mapping[str, datetime | None]) -> datetime | None:
    """A trial that runs writes its record after each epoch; only its file says when."""
    moments = [
        record.timings.finished_at or modified.get(record.trial_id) or record.timings.started_at for record in records
    ]
    return max(moments, default=None)
